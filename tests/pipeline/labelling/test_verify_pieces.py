"""Verify piece by piece: what it finds does not depend on where a run is cut, or who checks it."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.labelling.check_mask import chosen
from pipeline.labelling.check_piece import Check, Checked
from pipeline.labelling.pieces import Piece, pieces_of
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES
from pipeline.labelling.verify import Verdict, verify
from pipeline.labelling.verify_in_tasks import in_cluster
from pipeline.settings.verify import VerifySettings
from pipeline.store.storage import sha256_hex
from tests.disk_runs import draw_images, label_run, start_run

_NUM_IMAGES = 11


@pytest.fixture(autouse=True)
def _small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file of the plan hold two shards of two images, and a section one of them."""
    monkeypatch.setattr("pipeline.labelling.plan._SHARDS_PER_FILE", 2)
    monkeypatch.setattr("pipeline.labelling.sections._MAX_IMAGES", 4)


def _published(folder: Path) -> Run:
    """Label eleven images and a broken file in six shards of two, and publish three sections."""
    source = draw_images(folder, _NUM_IMAGES)
    (source / "broken.jpg").write_bytes(b"<html>")
    run = start_run(folder, source, max_shard_images=2)
    label_run(run)
    publish(run, str)
    return run


def _pieces(run: Run) -> list[Piece]:
    return list(pieces_of(run, run.manifest(), run.uncommitted()))


def _spans(run: Run) -> list[tuple[int, int, int]]:
    """Return the first shard of each piece, the one after its last, and its number of files."""
    return [(one.first_shard, one.end_shard, len(one.images or ())) for one in _pieces(run)]


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _cut_otherwise(run: Run, *shards: int) -> None:
    """Publish the tables again in files that end after some shards, as versions before did."""
    manifest = json.loads(_path(run.manifest_uri).read_text())
    for table, schema in (("images", IMAGES), ("class_statistics", CLASS_STATISTICS)):
        files = [_path(f"{run.output}/{part['file']}") for part in manifest[table]]
        rows = pa.concat_tables(map(pq.read_table, files)).to_pylist()
        for file in files:
            file.unlink()
        shard_of = {row["image_id"]: row["shard"] for row in _rows(run)}
        groups = [
            [row for row in rows if first <= shard_of[row["image_id"]] < end]
            for first, end in zip((0, *shards), (*shards, 6), strict=True)
        ]
        manifest[table] = [
            _write(run, table, number, pa.Table.from_pylist(some, schema))
            for number, some in enumerate(groups)
        ]
    _path(run.manifest_uri).write_text(json.dumps(manifest))


def _rows(run: Run) -> list[dict]:
    return [row for table in run.commits() for row in table.to_pylist()]


def _write(run: Run, table: str, number: int, rows: pa.Table) -> dict[str, object]:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, row_group_size=3)
    file = f"{table}/run={run.run_id}/part-{number:05d}.parquet"
    run.storage.write(f"{run.output}/{file}", buffer.getvalue())
    return {"file": file, "num_rows": len(rows), "sha256": sha256_hex(buffer.getvalue())}


def _assert_whole(verdict: Verdict) -> None:
    assert (str(verdict.breaks), verdict.finished) == ("", True)
    assert (verdict.num_masks, verdict.num_ok) == (_NUM_IMAGES, _NUM_IMAGES)


def test_a_published_run_is_cut_where_its_tables_are(tmp_path: Path) -> None:
    """A piece has the shards whose rows are in one file of each table."""
    run = _published(tmp_path)
    assert _spans(run) == [(0, 2, 1), (2, 4, 1), (4, 6, 1)]
    assert [len(one.plan) for one in _pieces(run)] == [1, 1, 1]
    _assert_whole(verify(run, 2))


def test_tables_of_the_version_before_are_verified(tmp_path: Path) -> None:
    """Files that end amid a file of the plan, as they did before, are verified in pieces, too."""
    run = _published(tmp_path)
    _cut_otherwise(run, 3)
    assert _spans(run) == [(0, 3, 1), (3, 6, 1)]
    assert [len(one.plan) for one in _pieces(run)] == [2, 2]
    _assert_whole(verify(run, 2))


def test_tables_that_end_anywhere_are_verified_as_one(tmp_path: Path) -> None:
    """Where files do not end between shards, the run is one piece, with the same breaks."""
    run = _published(tmp_path)
    fields = json.loads(_path(run.manifest_uri).read_text())
    fields["images"][0]["num_rows"] = 3
    _path(run.manifest_uri).write_text(json.dumps(fields))
    assert _spans(run) == [(0, 6, 3)]
    assert verify(run, 2).breaks.numbers == {"manifest differs from the commits": 1}


def test_an_unpublished_run_is_cut_where_its_plan_is(tmp_path: Path) -> None:
    """Without a manifest a piece has the shards of one file of the plan, committed or not."""
    run = _published(tmp_path)
    for uri in (run.success_uri, run.manifest_uri, run.commit_uri(3)):
        _path(uri).unlink()
    assert [(one.first_shard, one.end_shard, one.missing) for one in _pieces(run)] == [
        (0, 2, []),
        (2, 4, [3]),
        (4, 6, []),
    ]
    verdict = verify(run, 2)
    assert (verdict.num_missing, verdict.num_masks, bool(verdict.breaks)) == (1, 9, False)


def _damage(run: Run) -> dict[str, int]:
    """Break something in each piece; return how often each kind is to be found."""
    _path(f"{run.masks_folder}/image_0.png").unlink()
    _path(f"{run.masks_folder}/image_9.png").unlink()
    _path(f"{run.output}/images/run={run.run_id}/part-00001.parquet").write_bytes(b"garbage")
    return {
        "mask is missing": 2,
        "file is unreadable": 1,
        "images table differs from the commits": 4,
    }


def test_damage_in_any_piece_is_found(tmp_path: Path) -> None:
    """Breaks of all pieces are counted together, and a damaged file costs its own piece only."""
    run = _published(tmp_path)
    expected = _damage(run)
    breaks = verify(run, 2).breaks
    assert breaks.numbers == expected
    assert [what.rpartition("/")[2] for what in breaks.first["mask is missing"]] == [
        "image_0.png",
        "image_9.png",
    ]


def test_what_pieces_say_travels(tmp_path: Path) -> None:
    """Pieces and what is found in them are the same after a way as JSON."""
    run = _published(tmp_path)
    _damage(run)

    def far_away(check: Check, pieces: Sequence[Piece]) -> Iterator[Checked]:
        for piece in pieces:
            found = check(Piece.model_validate_json(piece.model_dump_json()))
            yield Checked.model_validate_json(found.model_dump_json())

    assert verify(run, 2, check_pieces=far_away) == verify(run, 2)


def test_a_cluster_finds_the_same(ray_session: str, tmp_path: Path) -> None:
    """Pieces that are checked in Ray tasks give the verdict that one process gives."""
    run = _published(tmp_path)
    _damage(run)
    settings = VerifySettings(output=run.output, ray_address=ray_session)
    assert verify(run, 2, check_pieces=in_cluster(settings)) == verify(run, 2)


def test_a_sample_reads_some_masks_and_compares_all_else(tmp_path: Path) -> None:
    """A share of the masks is read, the same ones each time; rows are compared all the same."""
    run = _published(tmp_path)
    names = {row["key"]: chosen(run, row["image_id"], 0.5) for row in _rows(run)}
    del names["broken.jpg"]
    assert 0 < sum(names.values()) < _NUM_IMAGES
    for name, read in names.items():
        if not read:
            _path(f"{run.masks_folder}/{name}").unlink()
    verdict = verify(run, 2, share=0.5)
    assert (str(verdict.breaks), verdict.num_ok) == ("", _NUM_IMAGES)
    assert verdict.num_masks == sum(names.values())
    _path(f"{run.output}/images/run={run.run_id}/part-00001.parquet").unlink()
    assert verify(run, 2, share=0.5).breaks.numbers["file is missing"] == 1


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_a_sample_has_its_share(share: float, tmp_path: Path) -> None:
    """Of many images about the share is chosen, and all of them if it is 1."""
    run = start_run(tmp_path, draw_images(tmp_path, 1))
    found = sum(chosen(run, f"image {number}", share) for number in range(10_000))
    assert abs(found - 10_000 * share) <= (0 if share == 1 else 150)
