"""Images in tars: each is labelled as the same file would be, and every tar ends in rows."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ErrorCode, InputError, Scope, SettingError, StoreError
from pipeline.export.newest import Answers
from pipeline.labelling import reads
from pipeline.labelling.draft import draft
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.history import History
from pipeline.labelling.plan import run_to_continue
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import COMMIT, IMAGES, PLAN, of_any_version
from pipeline.labelling.verify import verify
from pipeline.labelling.write import Write
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage, sha256_hex
from tests.disk_runs import (
    encode,
    label_run,
    make_settings,
    network_record,
    random_pixels,
    segmented,
    start_run,
)
from tests.servers import Server
from tests.tar_writer import tar_of


def picture(seed: int) -> bytes:
    return encode(Image.fromarray(random_pixels(seed, 5 + seed % 3, 7, 3)), "PNG")


def samples(seeds: Iterable[int]) -> list[tuple[str, bytes]]:
    """Return members as img2dataset writes them: an image, what is known of it, its caption."""
    return [
        member
        for seed in seeds
        for member in [
            *((f"{seed:09d}.png", picture(seed)), (f"{seed:09d}.json", b'{"key": 1}')),
            (f"{seed:09d}.txt", b"a caption"),
        ]
    ]


def _put(folder: Path, **tars: bytes) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    for name, data in tars.items():
        (folder / "in" / f"{name}.tar").write_bytes(data)
    return folder / "in"


def _rows(run: Run) -> list[dict[str, Any]]:
    return [row for table in run.commits() for row in table.to_pylist()]


def _labelled(folder: Path, source: object, **fields: Any) -> Run:
    run = start_run(folder, source, **fields)
    label_run(run)
    publish(run, str)
    return run


def _hashes(run: Run, prefix: str = "") -> dict[str, str]:
    return {row["key"].removeprefix(prefix): row["mask_sha256"] for row in _rows(run)}


def _draft(folder: Path, source: object, **fields: Any) -> Any:
    settings = make_settings(folder, source, **fields)
    return draft(History(Storage(), settings.output), settings, network_record())


@pytest.mark.parametrize("masks", ["files", "tar"])
def test_masks_are_those_of_the_same_files(masks: str, tmp_path: Path) -> None:
    """Out of tars come the masks that files give; the run is whole, a rerun has nothing to do."""
    for seed in range(7):
        Storage().write(f"file://{tmp_path}/files/{seed:09d}.png", picture(seed))
    source = _put(tmp_path, a=tar_of(samples(range(4))), b=tar_of(samples(range(4, 7))))
    files = _labelled(tmp_path, tmp_path / "files")
    run = _labelled(tmp_path, source, input_form="tar", max_shard_images=3, masks=masks)
    assert {key[6:]: found for key, found in _hashes(run).items()} == _hashes(files)
    verdict = verify(run, 2)
    assert (verdict.num_masks, verdict.finished, str(verdict.breaks)) == (7, True, "")
    again = _draft(tmp_path, source, input_form="tar")
    assert (again.num_images, again.num_skipped, again.num_ignored) == (0, 7, 14)


def test_a_row_says_where_its_image_lies(tmp_path: Path) -> None:
    """URI, key, version, place and size of a member are in the table, and enough to read it."""
    source = _put(tmp_path, a=tar_of([("./x/1.png", picture(1)), ("2!/3.png", picture(2))]))
    run = _labelled(tmp_path, f"{source}/a.tar")
    uri = f"file://{source}/a.tar"
    first, second = _rows(run)
    assert (second["uri"], second["key"]) == (f"{uri}!/x/1.png", "a.tar/x/1.png")
    assert (first["uri"], first["key"]) == (f"{uri}!/2%21/3.png", "a.tar/2%21/3.png")
    assert second["mask_uri"] == f"{run.masks_folder}/a.tar/x/1.png"
    for row, data in ((second, picture(1)), (first, picture(2))):
        assert (row["etag"], row["num_bytes"]) == (Storage().stat(uri).version, len(data))
        assert Storage().read_version_of(Extent.of_image(row), row["etag"], 1 << 20) == data


@pytest.mark.parametrize("named", ["a.tar", "*.tar", "b*/[b].TAR", ""])
def test_what_names_tars_opens_them(named: str, tmp_path: Path) -> None:
    """A tar, a pattern, or a folder with input_form=tar; its images beside the tars count, too."""
    source = _put(tmp_path, a=tar_of(samples([1])))
    (source / "b").mkdir()
    (source / "b" / "b.TAR").write_bytes(tar_of(samples([2])))
    (source / "c.png").write_bytes(picture(3))
    keys = {"a.tar": ["a.tar/000000001.png"], "*.tar": ["a.tar/000000001.png"]}
    keys["b*/[b].TAR"] = ["b/b.TAR/000000002.png"]
    keys[""] = ["a.tar/000000001.png", "b/b.TAR/000000002.png", "c.png"]
    form = {} if named else {"input_form": "tar"}
    run = start_run(tmp_path, f"{source}/{named}", **form)
    assert [key for table in run.plan() for key in table["key"].to_pylist()] == keys[named]


def test_a_folder_of_tars_says_which_setting_opens_them(tmp_path: Path) -> None:
    """Without the setting they are other files; how many there are is said, and what to do."""
    source = _put(tmp_path, a=tar_of(samples([1])), b=b"")
    with pytest.raises(InputError, match=r"2 other files, 2 of them tars\); input_form=tar"):
        _draft(tmp_path, source)
    assert _draft(tmp_path, source, input_form="tar").num_images == 2


def test_compressed_tars_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that is named ends the command, and a folder of them; beside others a line says so."""
    source = _put(tmp_path)
    (source / "a.tar.gz").write_bytes(b"\x1f\x8b")
    for named in ("", "/a.tar.gz"):
        with pytest.raises(InputError, match=r"plain \.tar first, for example with `gunzip`"):
            _draft(tmp_path, f"{source}{named}", input_form="tar")
    _put(tmp_path, b=tar_of(samples([1])))
    with caplog.at_level(logging.WARNING):
        assert _draft(tmp_path, source, input_form="tar").num_images == 1
    assert "1 compressed tars are left out" in caplog.text


def test_a_damaged_tar_is_a_row_beside_the_images_before(tmp_path: Path) -> None:
    """What lies before the damage is labelled, and one row says where it is; so of no tar."""
    whole = tar_of(samples(range(3)))
    source = _put(tmp_path, a=whole[:6800], b=b"no tar" * 200, c=tar_of(samples([9])))
    run = _labelled(tmp_path, source, input_form="tar")
    found = {row["key"]: (row["error_code"], row["error_message"]) for row in _rows(run)}
    assert [key for key, (code, _) in found.items() if code is None] == [
        *("a.tar/000000000.png", "a.tar/000000001.png", "c.tar/000000009.png"),
    ]
    assert found["a.tar"][0] == found["b.tar"][0] == "corrupt"
    assert "in/a.tar is damaged at byte 6,144 of 6,800: " in found["a.tar"][1]
    assert "in/b.tar is damaged at byte 0 of 1,200: " in found["b.tar"][1]
    assert not verify(run, 2).breaks
    assert _draft(tmp_path, source, input_form="tar").num_images == 0
    _put(tmp_path, a=whole)
    again = _draft(tmp_path, source, input_form="tar")
    assert (again.num_images, again.num_skipped) == (3, 2)


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    """As tar extracts it; the other one is counted as repeated."""
    members = [("x.png", b"old"), ("x.png", picture(5)), ("./x.png", picture(6))]
    source = _put(tmp_path, a=tar_of(members))
    drafted = _draft(tmp_path, f"{source}/a.tar")
    assert (drafted.num_images, drafted.num_repeated) == (1, 2)
    run = start_run(tmp_path, f"{source}/a.tar")
    [row] = Fetch(Storage(), 1 << 20, 2).shard(run.missing()[0])["images"]
    assert row["data"] == picture(6)


def test_a_tar_that_changed_is_rows_of_its_own_images(tmp_path: Path) -> None:
    """Its planned images are `changed`, another tar's are read; the next run does the new ones."""
    source = _put(tmp_path, a=tar_of(samples(range(3))), b=tar_of(samples([7])))
    run = start_run(tmp_path, source, input_form="tar")
    _put(tmp_path, a=tar_of(samples(range(1, 4))))
    label_run(run)
    publish(run, str)
    codes = {row["key"]: row["error_code"] for row in _rows(run)}
    assert codes == {
        **{f"a.tar/{seed:09d}.png": "changed" for seed in range(3)},
        "b.tar/000000007.png": None,
    }
    assert _draft(tmp_path, source, input_form="tar").num_images == 3


def test_forms_are_different_work(tmp_path: Path) -> None:
    """A run is continued by a command of the same form alone; a tar's own name says its form."""
    source = _put(tmp_path, a=tar_of(samples([1])))
    (source / "x.png").write_bytes(picture(1))
    run = start_run(tmp_path, source, run_id="r")
    tars = make_settings(tmp_path, source, run_id="r", input_form="tar")
    with pytest.raises(SettingError, match=r"input_form='files'.*give another run_id"):
        run_to_continue(History(Storage(), tars.output), tars, network_record())
    named = start_run(tmp_path, f"{source}/a.tar", run_id="s")
    same = make_settings(tmp_path, f"{source}/a.tar", run_id="s", input_form="tar")
    found = run_to_continue(History(Storage(), same.output), same, network_record())
    assert found is not None
    assert (found.run_id, run.record.identity == named.record.identity) == ("s", False)


def _planned(*places: tuple[int, int], tar: str = "a", etag: str = "1") -> list[Any]:
    return [
        {
            "image_id": f"{tar}{etag}{offset}", "uri": f"s3://b/{tar}.tar!/{offset}.jpg",
            "etag": etag, "image_offset": offset, "num_bytes": size,
        }
        for offset, size in places
    ]  # fmt: skip


def test_neighbours_come_together() -> None:
    """Reads end at another tar or version, at a gap, and at their size; no image is in two."""
    gap, most = reads._MAX_GAP, reads.MAX_READ
    planned = [
        *_planned((10 + gap + 20, 5), (0, 10), (10 + gap, 20), (40 + 2 * gap, 1)),
        *_planned((0, most - 1), (most - 1, 1), (most, 1), tar="b"),
        *_planned((0, 1), tar="b", etag="2"),
        *_planned((0, most + 1), tar="c"),
        {"image_id": "plain", "uri": "s3://b/x.jpg", "etag": "1", "num_bytes": 3},
    ]
    found = list(reads.reads_of(planned, most))
    places = [(str(read.place), len(read.images)) for read in found]
    assert places == [
        (f"s3://b/c.tar (bytes 0 to {most})", 1), ("s3://b/x.jpg", 1),
        (f"s3://b/a.tar (bytes 0 to {34 + gap})", 3),
        (f"s3://b/a.tar (bytes {40 + 2 * gap} to {40 + 2 * gap})", 1),
        (f"s3://b/b.tar (bytes 0 to {most - 1})", 2),
        (f"s3://b/b.tar (bytes {most} to {most})", 1),
        ("s3://b/b.tar (bytes 0 to 0)", 1),
    ]  # fmt: skip
    assert sum(len(read.images) for read in found) == len(planned)


class _Failing:
    """Makes reads of parts of objects fail that hold a byte."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[int, Exception] = {}
        self._read = Storage.read_version_of
        monkeypatch.setattr(Storage, "read_version_of", self._method())

    def _method(self) -> Any:
        def answer(storage: Storage, extent: Extent, *given: Any) -> bytes:
            for byte, error in self.errors.items():
                if extent.span is not None and byte in extent.span:
                    raise error
            return self._read(storage, extent, *given)

        return answer


def _codes(run: Run) -> list[str | None]:
    fetched = Fetch(run.storage, 1 << 20, 2).shard(run.missing()[0])
    return [image["error_code"] for image in fetched["images"]]


def test_a_read_that_fails_costs_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is true of an object is a row for each image of the read; others of the tar are read."""
    far = ("far.png", bytes(reads._MAX_GAP + (1 << 16)))
    named = [("1.png", picture(1)), ("2.png", picture(2)), ("x", far[1]), ("3.png", picture(3))]
    run = start_run(tmp_path, f"{_put(tmp_path, a=tar_of(named))}/a.tar")
    failing = _Failing(monkeypatch)
    failing.errors[512] = StoreError(ErrorCode.TIMEOUT, "no answer")
    assert _codes(run) == ["timeout", "timeout", None]
    failing.errors[512] = ValueError("an answer that nobody has thought of")
    assert _codes(run) == ["failed", "failed", None]
    for scope in (Scope.STORE, Scope.BUCKET):
        failing.errors[512] = StoreError(ErrorCode.FORBIDDEN, f"the {scope} it is", scope)
        with pytest.raises(StoreError, match=f"the {scope} it is"):
            _codes(run)


def test_a_store_that_fails_is_no_matter_of_a_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no image of a shard comes, nor of others, the run ends, whatever else the plan says.

    A damaged tar and a member that is too large were not asked for.
    """
    source = _put(
        tmp_path,
        a=tar_of([*samples(range(2)), ("large.png", bytes(2 << 20))]),
        b=b"no tar",
        c=tar_of(samples([5])),
    )
    run = start_run(tmp_path, source, input_form="tar", max_shard_images=4)
    failing = _Failing(monkeypatch)
    failing.errors[512] = StoreError(ErrorCode.FORBIDDEN, "not for you")
    with pytest.raises(StoreError, match="none of the 2 images of shard 0 could be read"):
        _codes(run)


def test_a_tar_that_is_removed_is_rows(tmp_path: Path) -> None:
    """The listing has the tar no more: its images are `not_found`, and the run goes on."""
    source = _put(tmp_path, a=tar_of(samples(range(3))), b=tar_of(samples([7])))
    run = start_run(tmp_path, source, input_form="tar", max_shard_images=3)
    (source / "a.tar").unlink()
    assert _codes(run) == ["not_found"] * 3


def test_a_large_member_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of more than max_image_bytes is `too_many_bytes`, with both numbers; nothing is asked."""
    data = tar_of([("1.png", bytes((1 << 20) + 1)), ("2.png", picture(2))])
    run = start_run(tmp_path, f"{_put(tmp_path, a=data)}/a.tar")
    storage = Storage().counting()
    first, second = Fetch(storage, 1 << 20, 2).images(
        [row for table in run.plan() for row in table.to_pylist()]
    )
    assert (first["error_code"], second["error_code"]) == ("too_many_bytes", None)
    assert "has 1048577 bytes, the limit is 1048576 (max_image_bytes)" in str(
        first["error_message"]
    )
    assert storage.requests["read"] == 1


def test_earlier_tables_stay_readable() -> None:
    """A table without `image_offset` is one whose images are objects of their own."""
    for schema in (IMAGES, COMMIT):
        before = schema.empty_table().drop_columns("image_offset")
        assert of_any_version(before, schema).schema.equals(schema)
    assert PLAN.names[-2:] == ["error_message", "image_offset"]
    assert Extent.of_image({"uri": "s3://b/x.tar!/1.jpg"}) == Extent("s3://b/x.tar!/1.jpg")


def test_tars_in_a_bucket_are_read_by_ranges(s3: Server, tmp_path: Path) -> None:
    """Two requests find and two read the images of two small tars, by their ETags."""
    bucket = s3.make_bucket()
    for name, seeds in (("a", range(4)), ("b", range(4, 6))):
        s3.put(bucket, f"in/{name}.tar", tar_of(samples(seeds)))
    fields = {"s3_endpoint_url": s3.endpoint_url, "input_form": "tar"}
    settings = make_settings(tmp_path, f"s3://{bucket}/in", **fields)
    storage = settings.storage()
    drafted = draft(History(storage, settings.output), settings, network_record())
    assert drafted.num_header_reads == 2
    planned = drafted.sample(100)
    counting = storage.counting()
    fetched = Fetch(counting, 1 << 20, 2).images(planned)
    assert [image["data"] for image in fetched] == [picture(seed) for seed in range(6)]
    assert counting.requests == {"read": 2}
    s3.put(bucket, "in/a.tar", tar_of(samples(range(1, 5))))
    codes = [image["error_code"] for image in Fetch(storage, 1 << 20, 2).images(planned)]
    assert codes == ["changed"] * 4 + [None] * 2


def test_a_tar_that_nobody_may_read_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is `forbidden`, in the store's words; where that is true of every tar, nothing begins."""
    source = _put(tmp_path, a=tar_of(samples([1])), b=tar_of(samples([2])))

    def refuse(storage: Storage, extent: Extent, *given: Any) -> bytes:
        if any(extent.uri.endswith(name) for name in refused):
            raise StoreError(ErrorCode.FORBIDDEN, f"{extent.uri}: not for you")
        return read(storage, extent, *given)

    refused, read = ["a.tar"], Storage.read_version_of
    monkeypatch.setattr(Storage, "read_version_of", refuse)
    run = _labelled(tmp_path, source, input_form="tar")
    rows = {row["key"]: (row["error_code"], row["error_message"]) for row in _rows(run)}
    assert rows == {
        "a.tar": ("forbidden", f"file://{source}/a.tar: not for you"),
        "b.tar/000000002.png": (None, None),
    }
    refused.append("b.tar")
    with pytest.raises(InputError, match=r"input='file://.*tar: not for you"):
        _draft(tmp_path, source, input_form="tar")


def _drop(path: Path, *columns: str) -> tuple[str, str]:
    """Write a file as the version before did; return its hash then and now."""
    before, table = path.read_bytes(), pq.read_table(path)
    pq.write_table(
        table.drop_columns([name for name in columns if name in table.schema.names]), path
    )
    return sha256_hex(before), sha256_hex(path.read_bytes())


def test_runs_of_the_version_before_go_on(tmp_path: Path) -> None:
    """A plan without the new columns is labelled, and tables without them verify and are read."""
    source = _put(tmp_path)
    (source / "a.png").write_bytes(picture(1))
    with open(bytes(source) + b"/z\xe9.png", "wb"):
        pass
    run = start_run(tmp_path, source)
    for part in (tmp_path / "out").glob("runs/*/plan/*.parquet"):
        _drop(part, "error_message", "image_offset")
    label_run(run)
    publish(run, str)
    assert [row["error_code"] for row in _rows(run)] == [None, "name_not_utf8"]
    manifest = Path(run.manifest_uri.removeprefix("file://"))
    text = manifest.read_text()
    for table in (tmp_path / "out").rglob("*.parquet"):
        text = text.replace(*_drop(table, "image_offset"))
    manifest.write_text(text)
    assert not verify(run, 2).breaks
    [row, _] = Answers(((run, Manifest.model_validate_json(text)),)).rows()
    assert (row["image_offset"], Extent.of_image(row)) == (None, Extent(row["uri"]))


def test_a_run_over_tars_is_gone_on_with(tmp_path: Path) -> None:
    """A command that was killed after one of three shards leaves two, which the plan finds."""
    source = _put(tmp_path, a=tar_of(samples(range(3))), b=tar_of(samples(range(3, 6))))
    fields = {"input_form": "tar", "max_shard_images": 2}
    run = start_run(tmp_path, source, **fields)
    Write(run, 2)(segmented(run, run.missing()[0]))
    settings = make_settings(tmp_path, source, **fields)
    again = run_to_continue(History(Storage(), settings.output), settings, network_record())
    assert again is not None
    assert (again.run_id, len(again.missing())) == (run.run_id, 2)
    label_run(again)
    publish(again, str)
    assert (verify(again, 2).num_masks, verify(again, 2).finished) == (6, True)
