"""Delta tables: a reader of the logs sees what the manifests say, whoever wrote or cleaned when."""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.transaction import AddAction
from PIL import Image

from jobs.__main__ import main
from pipeline.errors import BrokenPromise, ErrorCode, InputError, SettingError, StoreError
from pipeline.labelling import delta, session
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import TABLES, Run
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES
from pipeline.store.delta_table import Change, DeltaLog, TableFile
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, label_run, make_settings, random_pixels, start_run
from tests.fault_proxy import Fault, fault_proxy
from tests.servers import CloudServer, Server

_EARLIER = sorted((Path(__file__).parents[2] / "earlier_outputs").glob("*.tar.gz"))


def _labelled(folder: Path, name: str, *changed: int) -> Run:
    """Label what is new or changed, up to the last commit."""
    for index in changed:
        number = len(list((folder / "out/runs").iterdir()))
        pixels = random_pixels(100 * number + index, 6, 7, 3)
        Image.fromarray(pixels).save(folder / f"in/image_{index}.png")
    run = start_run(folder, folder / "in", run_id=name)
    label_run(run)
    return run


def _publish(run: Run, *, begin: bool = True) -> Run:
    publish(run, lambda _: "", partial(delta.keep_up, run, begin=begin))
    return run


def _night(folder: Path, name: str, *changed: int, begin: bool = True) -> Run:
    return _publish(_labelled(folder, name, *changed), begin=begin)


@pytest.fixture
def nights(tmp_path: Path) -> list[Run]:
    """Return three nights: all of three images, two of them changed, the third and one changed."""
    draw_images(tmp_path, 3)
    return [_night(tmp_path, *one) for one in (("a",), ("b", 0, 1), ("c", 1, 2))]


def _by_log(folder: Path, table: str) -> list[dict[str, Any]]:
    """Read a table as delta-rs does, which looks at no name of a file."""
    rows = DeltaTable(folder / "out" / table).to_pyarrow_table().to_pylist()
    for row in rows:
        assert row.pop("run") == row["run_id"]
    return sorted(rows, key=str)


def _by_manifests(folder: Path, table: str) -> list[dict[str, Any]]:
    schema = {"images": IMAGES, "class_statistics": CLASS_STATISTICS}[table]
    history = History(Storage(), f"file://{folder}/out")
    rows: list[dict[str, Any]] = []
    for manifest in filter(None, history.manifests(history.runs())):
        parts = manifest.images if table == "images" else manifest.class_statistics
        for part in parts:
            found = pq.ParquetFile(folder / "out" / part.file).read().to_pylist()
            rows += [{name: row.get(name) for name in schema.names} for row in found]
    return sorted(rows, key=str)


def _agree(folder: Path) -> bool:
    return all(_by_log(folder, table) == _by_manifests(folder, table) for table in TABLES)


def _versions(folder: Path, table: str = "images") -> int:
    return DeltaTable(folder / "out" / table).version() + 1


def test_a_reader_of_the_log_sees_every_row_once(nights: list[Run], tmp_path: Path):
    """Both tables, read by delta-rs, are the rows of the manifests; each run is one commit."""
    assert _agree(tmp_path)
    for table in TABLES:
        opened = DeltaTable(tmp_path / "out" / table)
        assert opened.version() + 1 == len(nights)
        assert opened.count() == len(_by_manifests(tmp_path, table)) > 0
        assert [opened.transaction_version(f"fcn:{run.run_id}") for run in nights] == [1, 1, 1]
        assert opened.metadata().partition_columns == ["run"]
        [row] = (
            DeltaTable(tmp_path / "out" / table)
            .to_pyarrow_table(columns=["run_id"], filters=[("run", "=", "b")])["run_id"]
            .unique()
        )
        assert row.as_py() == "b"


def test_readers_of_the_folders_see_what_they_saw(nights: list[Run], tmp_path: Path):
    """The log adds a folder to each table, and changes no file of a run."""
    there = {path.name for path in (tmp_path / "out/images").iterdir()}
    assert there == {"_delta_log", "run=a", "run=b", "run=c"}
    dataset = pq.ParquetDataset(tmp_path / "out/images").read()
    assert dataset.num_rows == len(_by_manifests(tmp_path, "images"))


def test_no_log_is_begun_unless_asked_for_and_then_it_is_kept(tmp_path: Path):
    """Readers of Parquet that refuse Delta's folders lose nothing; earlier runs are added."""
    draw_images(tmp_path, 2)
    _night(tmp_path, "a", begin=False)
    _night(tmp_path, "b", 0, begin=False)
    assert not (tmp_path / "out/images/_delta_log").exists()

    _night(tmp_path, "c", 1)
    assert _agree(tmp_path)
    assert _versions(tmp_path) == 1

    _night(tmp_path, "d", 0, begin=False)
    assert _agree(tmp_path)
    assert _versions(tmp_path) == 2


def test_a_run_of_no_images_is_none_of_the_log(nights: list[Run], tmp_path: Path):
    """A run that a scheduler has named and that has nothing to do commits nothing."""
    run = _night(tmp_path, "d")
    assert run.record.num_images == 0
    assert _agree(tmp_path)


def test_what_a_driver_could_not_write_the_next_one_adds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """A log that fails costs the run a warning; verify says it, and the next run mends it."""
    draw_images(tmp_path, 2)
    _night(tmp_path, "a")
    real = Storage.create

    def refuses(self: Storage, uri: str, data: bytes) -> bool:
        if "_delta_log" in uri:
            raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: not allowed")
        return real(self, uri, data)

    monkeypatch.setattr(Storage, "create", refuses)
    run = _night(tmp_path, "b", 0)
    monkeypatch.undo()
    assert run.finished()
    assert "lacks run(s) in table images" in caplog.text
    assert "not allowed" in caplog.text
    assert main(["verify", str(tmp_path / "out")]) == BrokenPromise.exit_code

    _night(tmp_path, "c", 1)
    assert _agree(tmp_path)
    assert main(["verify", str(tmp_path / "out"), "--all"]) == 0


def test_drivers_that_publish_at_once_are_all_in_it(tmp_path: Path):
    """Eight runs that are published together lose none of them, and none is there twice."""
    runs = []
    for number in range(8):
        (tmp_path / f"in{number}").mkdir()
        pixels = random_pixels(number, 5, 6, 3)
        Image.fromarray(pixels).save(tmp_path / f"in{number}/image.png")
        run = start_run(tmp_path, tmp_path / f"in{number}", run_id=f"run-{number}")
        label_run(run)
        runs.append(run)
    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(_publish, runs))
    assert _agree(tmp_path)
    assert len(_by_log(tmp_path, "images")) == len(runs)


def test_a_publication_that_was_cut_off_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Cut off after any of its steps, the same command publishes again, and commits once."""
    draw_images(tmp_path, 2)
    _night(tmp_path, "a")
    run = _labelled(tmp_path, "b", 0)
    for name in ("create", "write"):
        real = getattr(Storage, name)

        def cut(self: Storage, uri: str, data: bytes, real: Any = real) -> Any:
            if "_delta_log" in uri or uri.endswith("report.html"):
                real(self, uri, data)
                raise KeyboardInterrupt
            return real(self, uri, data)

        monkeypatch.setattr(Storage, name, cut)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            _publish(run)
    monkeypatch.undo()
    _publish(run)
    assert _agree(tmp_path)
    assert _versions(tmp_path) == _versions(tmp_path, "class_statistics") == 2


def test_a_run_that_is_cleaned_leaves_the_log_first(
    nights: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At no moment does the log name a file that is gone; a name may be used again."""
    real, seen = Storage.remove_folder, []

    def looks(self: Storage, uri: str) -> None:
        seen.append(uri)
        for table in TABLES:
            assert DeltaTable(tmp_path / "out" / table).to_pyarrow_table().num_rows
        real(self, uri)

    monkeypatch.setattr(Storage, "remove_folder", looks)
    assert main(["clean", str(tmp_path / "out"), "--keep-newest", "--no-dry-run"]) == 0
    monkeypatch.undo()
    assert any("/images/run=a" in uri for uri in seen)
    assert not (tmp_path / "out/images/run=a").exists()
    assert _agree(tmp_path)

    _night(tmp_path, "a", 0, 1, 2)
    assert _agree(tmp_path)
    assert main(["verify", str(tmp_path / "out"), "--all"]) == 0


def _driver(folder: Path) -> Callable[[Storage], None]:
    """Return a driver of another run, which has read the manifests and has still to commit."""
    known = delta._published(Storage(), f"file://{folder}/out")

    def commit(storage: Storage) -> None:
        for table in delta._tables(storage, f"file://{folder}/out"):
            table.name_files_of(known, frozenset())

    return commit


@pytest.mark.parametrize(
    ("call", "ending"),
    [("remove", "/runs/a/run.json"), ("remove_folder", "/masks/run=a"),
     ("remove_folder", "/class_statistics/run=a")],
)  # fmt: skip
def test_a_run_that_a_driver_adds_while_it_is_cleaned_leaves_again(
    nights: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, ending: str
):
    """The driver had read the manifests before; whenever it commits, no gone file is named."""
    real, commit = getattr(Storage, call), _driver(tmp_path)

    def commits(self: Storage, uri: str) -> None:
        if uri.endswith(ending):
            commit(self)
        real(self, uri)

    monkeypatch.setattr(Storage, call, commits)
    assert main(["clean", str(tmp_path / "out"), "--keep-newest", "--no-dry-run"]) == 0
    assert not (tmp_path / "out/images/run=a").exists()
    assert _agree(tmp_path)


def test_a_run_that_a_driver_adds_while_it_is_repaired_leaves_again(
    nights: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So it is with a repair, whose removal begins with what says that the run is done."""
    [part] = (tmp_path / "out/images/run=c").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    real, commit = Storage.remove, _driver(tmp_path)

    def commits(self: Storage, uri: str) -> None:
        if uri.endswith("/_SUCCESS"):
            commit(self)
        real(self, uri)

    monkeypatch.setattr(Storage, "remove", commits)
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert _agree(tmp_path)


def test_what_is_left_of_a_run_leaves_the_log(nights: list[Run], tmp_path: Path):
    """Of a removal by an earlier version, or by hand, that was cut off behind the record."""
    (tmp_path / "out/runs/a/run.json").unlink()
    assert main(["clean", str(tmp_path / "out"), "--no-dry-run"]) == 0
    assert _agree(tmp_path)
    (tmp_path / "out/runs/b/run.json").unlink()
    shutil.rmtree(tmp_path / "out/images/run=b")
    _night(tmp_path, "d", 0)
    assert _agree(tmp_path)


def test_logs_are_begun_and_mended_where_nothing_is_left_to_do(tmp_path: Path):
    """`--delta-log` over an input that is finished, which no publication would come to."""
    draw_images(tmp_path, 2)
    run = _night(tmp_path, "a", begin=False)
    delta.catch_up(run.storage, run.output)
    assert _agree(tmp_path)
    delta.catch_up(run.storage, run.output)
    assert _versions(tmp_path) == 1


@pytest.mark.parametrize(
    "error", [SettingError("may not be written"), StoreError(ErrorCode.TIMEOUT, "is away")]
)
def test_an_output_that_takes_no_log_costs_a_finished_input_a_warning(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """A start that has nothing to do ends well, though it can't bring the logs up."""
    draw_images(tmp_path, 2)
    run = _night(tmp_path, "a", begin=False)
    monkeypatch.setattr(session, "writable_storage", Mock(side_effect=error))
    settings = make_settings(tmp_path, tmp_path / "in", delta_log=True)
    job = session.Job(
        settings,
        run.storage,
        run.output,
        Mock(),
        run.record.network,
        History(run.storage, run.output),
    )
    job.catch_up()
    assert f"could not be brought up to the finished runs: {error}" in caplog.text
    assert not (tmp_path / "out/images/_delta_log").exists()


def test_nothing_that_befalls_a_log_costs_a_run_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A temporary folder that is gone is a warning, too, and the next run makes up for it."""
    draw_images(tmp_path, 2)
    run = _labelled(tmp_path, "a")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    _publish(run)
    assert run.finished()
    assert "set the environment variable TMPDIR" in caplog.text
    monkeypatch.undo()
    _night(tmp_path, "b", 0)
    assert _agree(tmp_path)


def test_one_table_is_kept_whatever_befalls_the_other(
    nights: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A torn log of one says how to begin anew, and the other has all runs."""
    newest = max((tmp_path / "out/images/_delta_log").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:-30])
    _night(tmp_path, "d", 0)
    rows = _by_manifests(tmp_path, "class_statistics")
    assert _by_log(tmp_path, "class_statistics") == rows
    for table in TABLES:
        shutil.rmtree(tmp_path / "out" / table / "_delta_log")
    delta.catch_up(nights[0].storage, nights[0].output)
    assert _agree(tmp_path)


def test_columns_that_a_later_version_has_are_seen(nights: list[Run], tmp_path: Path):
    """A log of a version whose tables had a column less gets it with the next run."""
    for table in TABLES:
        shutil.rmtree(tmp_path / "out" / table / "_delta_log")
    folder, fewer = f"file://{tmp_path}/out/images", IMAGES.remove(len(IMAGES) - 1)
    DeltaLog(Storage(), folder, fewer, "run").change(lambda _: Change([_file(1)]))
    _night(tmp_path, "d", 0)
    assert _agree(tmp_path)


def test_a_run_whose_folders_were_removed_by_hand_leaves_with_the_next(
    nights: list[Run], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """As `verify` advises for a run that is to be labelled again; until then it says so."""
    for place in ("runs/b", "masks/run=b", "images/run=b", "class_statistics/run=b"):
        shutil.rmtree(tmp_path / "out" / place)
    assert main(["verify", str(tmp_path / "out")]) == BrokenPromise.exit_code
    assert "Delta log: images names files of run b" in capfd.readouterr().out
    _night(tmp_path, "d", 0)
    assert _agree(tmp_path)


def test_what_a_repair_takes_back_is_named_again_as_it_is_then(nights: list[Run], tmp_path: Path):
    """A table that is torn leaves the log with its manifest, and comes back with its new size."""
    [part] = (tmp_path / "out/images/run=c").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    command = ["verify", str(tmp_path / "out"), "--repair"]
    assert main([*command, "--no-dry-run"]) == 0
    assert _agree(tmp_path)

    _publish(nights[2])
    assert _agree(tmp_path)
    assert main(["verify", str(tmp_path / "out"), "--all"]) == 0


def test_a_table_that_is_published_anew_has_its_new_size(nights: list[Run], tmp_path: Path):
    """Of the run that is published the log's sizes are those of the files, whatever they were."""
    log = DeltaLog(Storage(), f"file://{tmp_path}/out/images", IMAGES, "run")
    [file] = [one for one in log.files() if one.partition == "c"]
    log.change(lambda _: Change(added=[replace(file, num_bytes=7)]))
    _publish(nights[2])
    assert file in log.files()


@pytest.mark.parametrize("damage", ["lacks", "names", "size", "torn"])
def test_verify_compares_the_log_with_the_manifest(
    nights: list[Run], tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
):
    """A file too few, too many, or of another size, and a log that is torn, are breaks."""
    log = DeltaLog(Storage(), f"file://{tmp_path}/out/images", IMAGES, "run")
    [file] = [one for one in log.files() if one.partition == "c"]
    if damage == "torn":
        newest = max((tmp_path / "out/images/_delta_log").glob("*.json"))
        newest.write_bytes(newest.read_bytes()[:-30])
    else:
        changes = {
            "lacks": Change(removed=[file]),
            "names": Change(added=[replace(file, path="run=c/part-00009.parquet")]),
            "size": Change(added=[replace(file, num_bytes=file.num_bytes - 1)]),
        }
        log.change(lambda _: changes[damage])
    assert main(["verify", str(tmp_path / "out")]) == BrokenPromise.exit_code
    assert "Delta log" in capfd.readouterr().out


def test_a_manifest_that_is_torn_is_the_runs_break(
    nights: list[Run], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """What the logs are compared with being damaged, verify ends with its verdict all the same."""
    path = tmp_path / "out/runs/c/manifest.json"
    path.write_text(path.read_text()[:-50])
    assert main(["verify", str(tmp_path / "out")]) == BrokenPromise.exit_code
    assert "manifest is unreadable" in capfd.readouterr().out


def test_a_store_without_put_if_absent_gets_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Two writers could lose each other's commit there; that is said, and the run is finished."""
    draw_images(tmp_path, 1)
    run = _labelled(tmp_path, "a")
    run = replace(run, storage=replace(run.storage, conditional_put=False))
    _publish(run)
    assert run.finished()
    assert not (tmp_path / "out/images/_delta_log").exists()
    assert "the store has no put-if-absent" in caplog.text


@pytest.mark.parametrize("earlier", _EARLIER, ids=lambda path: path.name.partition(".")[0])
def test_tables_of_earlier_versions_are_part_of_it(tmp_path: Path, earlier: Path):
    """Columns that they lack are null."""
    with tarfile.open(earlier) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    draw_images(tmp_path, 1)
    _night(tmp_path, "night-2")
    assert _agree(tmp_path)
    assert {row["run_id"] for row in _by_log(tmp_path, "images")} == {"night-1", "night-2"}


@dataclass(frozen=True)
class Place:
    """A bucket behind a proxy."""

    storage: Storage
    folder: str
    faults: list[Fault]
    requests: list[tuple[str, str]]


@pytest.fixture(params=["s3", "gs", "az"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    server: Server | CloudServer = request.getfixturevalue(request.param)
    endpoint, slash, rest = server.endpoint_url.partition("//")
    host, _, path = rest.partition("/")
    with fault_proxy(f"{endpoint}{slash}{host}") as proxy:
        where: dict[str, Any] = {
            f"{request.param}_endpoint_url": f"{proxy.endpoint_url}/{path}".rstrip("/")
        }
        bucket = server.make_bucket()
        bucket = bucket if "://" in bucket else f"s3://{bucket}"
        storage = Storage(timeout_s=5.0, patience_s=60.0, **where)
        yield Place(storage, f"{bucket}/out 1%20é/images", proxy.faults, proxy.requests)


_SCHEMA = pa.schema([("image_id", pa.string())])


def _file(number: int) -> TableFile:
    return TableFile(f"run={number:04d}/part-00000.parquet", f"{number:04d}", 100 + number, number)


def _add(number: int) -> Callable[[list[TableFile]], Change]:
    return lambda there: Change([one for one in [_file(number)] if one not in there])


def test_each_store_takes_a_commit_once(place: Place):
    """Under names that are odd, with answers that are lost and with writers beside each other."""
    log = DeltaLog(place.storage, place.folder, _SCHEMA, "run")
    assert not log.exists()
    assert log.files() == []
    place.faults.append(Fault("PUT", "_delta_log", "after", lambda: 500))
    log.change(_add(0))
    log.change(_add(0))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log.change, map(_add, range(1, 5))))
    assert sorted(log.files(), key=lambda file: file.path) == list(map(_file, range(5)))
    names = place.storage.children(f"{place.folder}/_delta_log")
    assert names == [f"{version:020d}.json" for version in range(5)]


def _commit_98(table: DeltaTable) -> None:
    """Commit as delta-rs does by itself, without checkpoints."""
    columns = _SCHEMA.append(pa.field("run", pa.string()))
    hooks = PostCommitHookProperties(create_checkpoint=False)
    for number in range(1, 99):
        file = _file(number)
        statistics = json.dumps({"numRecords": file.num_rows})
        where = {"run": file.partition}
        action = AddAction(file.path, file.num_bytes, where, 0, data_change=True, stats=statistics)
        table.create_write_transaction(
            [action], "append", columns, ["run"], post_commithook_properties=hooks
        )
        table.update_incremental()


def test_a_thousand_nights_are_read_from_the_last_checkpoint(tmp_path: Path):
    """A log costs what came since its last hundredth commit, as objects read."""
    storage = Storage()
    log = DeltaLog(storage, f"file://{tmp_path}/images", _SCHEMA, "run")
    log.change(_add(0))
    _commit_98(DeltaTable(tmp_path / "images"))
    for number in range(99, 105):
        log.change(_add(number))
    assert (tmp_path / "images/_delta_log/_last_checkpoint").exists()
    assert len(log.files()) == 105
    hint = tmp_path / "images/_delta_log/_last_checkpoint"
    reader = replace(log, storage=storage.counting())
    assert len(reader.files()) == 105
    assert reader.storage.requests.total() <= 10
    assert DeltaTable(tmp_path / "images").version() == 104
    # It is a hint, and may be damaged.
    for content in (b"", b"[]", b'{"version": 1e999}', b"[" * 200_000, b'{"version": 777}'):
        hint.write_bytes(content)
        assert len(log.files()) == 105


def test_a_log_that_others_write_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After ten attempts that is said, in place of waiting for ever."""
    log = DeltaLog(Storage(), f"file://{tmp_path}/images", _SCHEMA, "run")
    monkeypatch.setattr(Storage, "create", lambda *_: False)
    with pytest.raises(StoreError, match="others have committed 10 times meanwhile"):
        log.change(_add(1))


def test_a_log_of_a_kind_that_is_not_known_is_said(tmp_path: Path, nights: list[Run]):
    """A protocol of the future ends clean before anything is removed."""
    newest = max((tmp_path / "out/images/_delta_log").glob("*.json"))
    protocol = {"protocol": {"minReaderVersion": 99, "minWriterVersion": 99}}
    (newest.parent / "00000000000000000003.json").write_text(json.dumps(protocol))
    with pytest.raises(InputError, match="_delta_log can't be used"):
        delta.forget(Storage(), f"file://{tmp_path}/out", "a")
    assert main(["clean", str(tmp_path / "out"), "--keep-newest", "--no-dry-run"]) == 3
    assert nights[0].finished()
