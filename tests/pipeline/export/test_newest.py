"""The newest answer for every image: what is true of it, however many runs there are."""

import io
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, StoreError
from pipeline.export import by_place
from pipeline.export.newest import Answers
from pipeline.labelling.history import History
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES, SELECTION
from pipeline.labelling.staging import Staging
from pipeline.store.extent import place_of
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, label_run, network_record, start_run

_WRITTEN_TO = "s3://where/it/was"
_MOMENTS = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
# Names that begin alike, two schemes of one place, and parts of objects beside objects.
_URIS = [
    (uri, offset)
    for at in range(40)
    for uri, offset in (
        (f"s3://b/{at % 7}/{at:03} x.jpg", None),
        (f"gs://b/{at % 7}/{at:03} x.jpg", None),
        (f"s3://b/{at % 7}/{at:03}", None),
        (f"s3://b/a.tar!/{at:03}.jpg", 512 * at),
        (f"s3://b/a.tar/{at:03}.jpg", None),
        (f"s3://b/p.parquet!/image/{at:09}", None),
        (f"s3://b/ü{chr(0x10000 + at)}\0{chr(0xFFFF - at)}.png", None),
    )
]

Finished = tuple[Run, Manifest]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a real run of two images, beside which others are made up."""
    folder = tmp_path_factory.mktemp("real")
    run = start_run(folder, draw_images(folder, 2), run_id="real")
    label_run(run)
    return run, publish(run, str)


def _write(run: Run, table: str, rows: list[dict[str, Any]], num_files: int) -> list[TablePart]:
    schema = {"images": IMAGES, "class_statistics": CLASS_STATISTICS}[table]
    parts = []
    for at in range(num_files):
        some = rows[len(rows) * at // num_files : len(rows) * (at + 1) // num_files]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(some, schema), buffer)
        file = f"{table}/run={run.run_id}/part-{at:05d}.parquet"
        run.storage.write(f"{run.output}/{file}", buffer.getvalue())
        parts.append(TablePart(file=file, num_rows=len(some), sha256="0" * 64))
    return parts


def _finish(real: Finished, output: Path, name: str, images: list, statistics: list) -> Finished:
    """Make a finished run of rows, in two files of images and three of statistics."""
    record = real[0].record.model_copy(update={"run_id": name, "output": _WRITTEN_TO})
    run = Run(Storage(), f"file://{output}", record)
    parts = {"images": _write(run, "images", images, 2)}
    parts["class_statistics"] = _write(run, "class_statistics", statistics, 3)
    return run, real[1].model_copy(update={"run_id": name, **parts})


def _row(lots: random.Random, name: str, uri: str, offset: int | None) -> dict[str, Any]:
    """Make up an answer: a failure, a mask as a file, or one in a tar."""
    place = place_of({"uri": uri, "image_offset": offset})
    row = {"uri": uri, "image_offset": offset, "key": place.removeprefix("b/"), "run_id": name}
    row |= {"image_id": f"{lots.getrandbits(64):032x}", "labelled_at": lots.choice(_MOMENTS)}
    kind = lots.choice(["error", "file", "tar"])
    if kind == "error":
        return {**row, "status": "error", "error_code": "corrupt"}
    lies_in = f"{lots.randrange(9)}.tar" if kind == "tar" else f"{row['key']}.mask.png"
    mask_uri = f"{_WRITTEN_TO}/masks/run={name}/{lies_in}"
    row |= {"status": "ok", "mask_uri": mask_uri, "mean_confidence": lots.random()}
    return {**row, "mask_offset": 512 if kind == "tar" else None}


def _made_up(real: Finished, output: Path, num_runs: int) -> tuple[Answers, list[dict[str, Any]]]:
    """Make runs, and gather all their rows as they should be read, the oldest run's first."""
    lots, runs, expected = random.Random(num_runs), [], []
    for at in range(num_runs):
        name = f"night-{at:03}"
        chosen = lots.sample(_URIS, lots.randrange(len(_URIS)))
        images = [_row(lots, name, *one) for one in chosen]
        images.sort(key=place_of)
        shares = [
            {index: lots.random() for index in range(4) if lots.random() < 0.5} for _ in images
        ]
        statistics = [
            {"image_id": row["image_id"], "class_id": index, "pixel_fraction": share}
            for row, of_row in zip(images, shares, strict=True)
            for index, share in of_row.items()
        ]
        runs.append(_finish(real, output, name, images, statistics))
        expected += [{**row, "shares": of_row} for row, of_row in zip(images, shares, strict=True)]
    return Answers(tuple(runs)), expected


def _as_read(row: dict[str, Any], output: Path, asked: tuple[int, ...]) -> dict[str, Any]:
    """Say what is to be read of a row that was written."""
    read = {name: row.get(name) for name in SELECTION.names if name != "reason"}
    read["shares"] = {index: row["shares"][index] for index in asked if index in row["shares"]}
    if row["status"] == "ok":
        lies_in = row["mask_uri"].removeprefix(f"{_WRITTEN_TO}/masks/run={row['run_id']}/")
        read["mask_uri"] = f"file://{output}/masks/run={row['run_id']}/{lies_in}"
        in_tar = row["mask_offset"] is not None
        read["mask_key"] = mask_key(row["key"], "replace") if in_tar else lies_in
    return read


def _newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the newest row of every URI by looking at all, in order of the places."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=place_of):
        if row["uri"] not in found or row["labelled_at"] >= found[row["uri"]]["labelled_at"]:
            found[row["uri"]] = row
    return list(found.values())


@pytest.mark.parametrize("num_runs", [1, 3, 40])
@pytest.mark.parametrize("asked", [(), (1,), (0, 3)])
@pytest.mark.parametrize("rows_per_sort", [200, 1_000_000])
def test_the_newest_rows_are_those_of_looking_at_all(
    real: Finished,
    tmp_path: Path,
    num_runs: int,
    asked: tuple[int, ...],
    rows_per_sort: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of any number of runs they are the same rows in the same order, with the shares asked for.

    So they are where what is sorted at once is a part of them.
    """
    monkeypatch.setattr("pipeline.export.by_place._ROWS_PER_SORT", rows_per_sort)
    answers, rows = _made_up(real, tmp_path, num_runs)
    found = list(answers.rows(shares_of=asked))
    assert found == [_as_read(row, tmp_path, asked) for row in _newest(rows)]
    assert len(found) > 50
    assert list(answers.rows(shares_of=asked)) == found


def _most_held(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the most bytes of tables that are held when one more is read."""
    held, first, read = [], pa.total_allocated_bytes(), Storage.read

    def reading(storage: Storage, uri: str) -> bytes:
        held.append(pa.total_allocated_bytes() - first)
        return read(storage, uri)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "read", reading)
        assert list(answers.rows())
    assert len(held) == sum(len(manifest.images) for _, manifest in answers.runs)
    return max(held)


def test_one_table_is_held_at_a_time(
    real: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a table is read, no more of others is held after 40 runs than after three."""
    peaks = []
    for num_runs in (3, 40):
        runs = []
        for at in range(num_runs):
            lots, name = random.Random(at), f"night-{at:03}"
            images = [_row(lots, name, f"s3://b/{one:06}.jpg", None) for one in range(2_000)]
            runs.append(_finish(real, tmp_path, name, images, []))
        peaks.append(_most_held(Answers(tuple(runs)), monkeypatch))
    assert peaks[1] < 1.5 * peaks[0]


def test_places_are_cut_into_ranges_of_like_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is in one range, and none holds half as many again as it should."""
    monkeypatch.setattr("pipeline.export.by_place._ROWS_PER_SORT", 2_000)
    staged = Staging()
    schema = pa.schema([("place", pa.string()), ("number", pa.int64())])
    # Nights whose names lie between each other's, each with an apostrophe.
    places = [f"b/it's {at:05}.jpg" for night in range(10) for at in range(night, 10_000, 10)]
    staged.fill("answers", schema, [pa.table([places, range(10_000)], schema=schema)])
    sizes = [
        staged.run(f"SELECT count(*) FROM answers WHERE {where}")[0][0]
        for where in by_place._ranges(staged)
    ]
    staged.close()
    assert sum(sizes) == 10_000
    assert max(sizes) < 3_000
    assert len(sizes) < 7


def test_what_is_read_in_part_leaves_nothing(
    real: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops after the first row leaves no file in the temporary folder."""
    answers, _ = _made_up(real, tmp_path / "out", 3)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    rows = answers.rows()
    next(rows)
    rows.close()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("table", ["images", "class_statistics"])
@pytest.mark.parametrize("num_runs", [1, 3])
def test_a_damaged_table_is_named(
    real: Finished, tmp_path: Path, table: str, num_runs: int
) -> None:
    """One that is cut off is an InputError that names the file and what to do."""
    answers, _ = _made_up(real, tmp_path, num_runs)
    path = tmp_path / getattr(answers.runs[-1][1], table)[0].file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"{path} is damaged: .*verify OUTPUT --repair"):
        list(answers.rows(shares_of=[0]))


@pytest.mark.parametrize("num_runs", [1, 3])
def test_a_table_that_is_gone_is_named(real: Finished, tmp_path: Path, num_runs: int) -> None:
    """Of images it counts as damage, of class statistics the store says it; both name the file."""
    answers, _ = _made_up(real, tmp_path, num_runs)
    manifest = answers.runs[-1][1]
    (tmp_path / manifest.class_statistics[0].file).unlink()
    with pytest.raises(StoreError, match=manifest.class_statistics[0].file):
        list(answers.rows(shares_of=[0]))
    assert list(answers.rows())
    (tmp_path / manifest.images[0].file).unlink()
    with pytest.raises(InputError, match=f"{manifest.images[0].file} is damaged"):
        list(answers.rows())


def test_a_table_in_another_order_is_refused(real: Finished, tmp_path: Path) -> None:
    """It is not as `label` writes it: the first image that is out of its place is named."""
    lots = random.Random(0)
    images = [_row(lots, "night-0", f"s3://b/{one}.jpg", None) for one in "acb"]
    run, manifest = _finish(real, tmp_path, "night-0", images, [])
    with pytest.raises(InputError, match=r"images/run=night-0/part-00000.parquet is damaged: "):
        list(Answers(((run, manifest),)).rows())
    other = _finish(real, tmp_path, "night-1", images[:2], [])
    with pytest.raises(InputError, match=r"s3://b/b.jpg is not in order"):
        list(Answers((other, (run, manifest))).rows())


def test_another_network_s_run_says_what_is_read(tmp_path: Path, caplog) -> None:
    """A trial of a new network in the output of the old one is told by its run and its input."""
    caplog.set_level("INFO")
    (tmp_path / "trial").mkdir()
    for place, weights in ((tmp_path, "random:0"), (tmp_path / "trial", "random:1")):
        source = draw_images(place, 2)
        run = start_run(tmp_path, source, network_record(weights), run_id=weights.replace(":", "-"))
        label_run(run)
        publish(run, lambda _: "")
    history = History(Storage(), f"file://{tmp_path}/out")
    assert len(list(Answers.of(history, None).rows())) == 2
    assert f"network says is read: run random-1 of input file://{tmp_path}/trial" in caplog.text
    assert "1 run is of other networks and left out" in caplog.text
    caplog.clear()
    assert len(list(Answers.of(history, "random-0").rows())) == 2
    assert not caplog.messages


def test_runs_without_images_give_no_rows(real: Finished, tmp_path: Path) -> None:
    """A night on which nothing was new has a manifest that names no file."""
    run, manifest = _finish(real, tmp_path, "night-0", [], [])
    empty = manifest.model_copy(update={"images": [], "class_statistics": []})
    assert list(Answers(((run, empty), (run, manifest))).rows(shares_of=[1])) == []
