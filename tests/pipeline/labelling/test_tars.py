"""Masks in tars: the same masks as files, through second attempts, damage, repair and verify."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from jobs.__main__ import main
from pipeline.errors import InputError
from pipeline.images.masks import decode_mask, encode_mask, make_palette
from pipeline.labelling.history import History
from pipeline.labelling.mask_tar import TornTarError, pack, spans_of
from pipeline.labelling.publish import publish
from pipeline.labelling.put_masks import Put, put_tar
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import COMMIT, IMAGES
from pipeline.labelling.verify import verify
from pipeline.labelling.write import Write
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage, sha256_hex
from tests.disk_runs import draw_images, label_run, random_pixels, segmented, start_run
from tests.product import in_tar, mask_hashes, snapshot, tables

_NAMES = ("frame.0001.png", "frame.0002.png", "v1.0/a%2Eb.png", "v1.0/ü" + "x" * 120 + ".jpg.png")


def _start(folder: Path, number: int = 6, **fields: Any) -> Run:
    fields = {"max_shard_images": 3, "masks": "tar", **fields}
    return start_run(folder, draw_images(folder, number), **fields)


def _published(folder: Path, number: int = 6, **fields: Any) -> Run:
    run = _start(folder, number, **fields)
    label_run(run)
    publish(run, str)
    return run


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _tar(run: Run, shard: int = 1, further: str = "") -> Path:
    return _path(f"{run.masks_folder}/shard-{shard:06d}{further}.tar")


def _rows(run: Run) -> list[dict[str, Any]]:
    return [row for table in run.commits() for row in table.to_pylist()]


def _mask(value: int) -> bytes:
    return encode_mask(np.full((5, 7), value, np.uint8), make_palette([(0, 0, 0)]), 1)


def test_the_masks_are_those_of_files(tmp_path: Path) -> None:
    """Names and bytes are the same; a row names the tar and the bytes in it."""
    for kind in ("files", "tar"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "in").mkdir()
        for index, name in enumerate(_NAMES):
            path = tmp_path / kind / "in" / name
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(random_pixels(index, 5, 7, 3)).save(path)
    runs = [_published(tmp_path / kind, 2, masks=kind, run_id="r") for kind in ("files", "tar")]
    files, tars = map(mask_hashes, runs)
    assert files == tars
    assert len(files) == len(_NAMES) + 2
    assert sorted(os.listdir(_path(runs[1].masks_folder))) == [
        "shard-000000.tar",
        "shard-000001.tar",
    ]
    for row in _rows(runs[1]):
        png = Storage().read_extent(Extent.of_mask(row))
        assert sha256_hex(png) == row["mask_sha256"]
        assert row["mask_uri"] == f"{runs[1].masks_folder}/shard-{row['shard']:06d}.tar"
    assert {row["mask_offset"] for row in _rows(runs[0])} == {None}
    assert not verify(runs[1], 2).breaks


# The library leaves the closing of its files to Python.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_a_tar_as_it_is(tmp_path: Path) -> None:
    """Each mask is a sample of its own, also where names have dots; its key can be decoded."""
    (tmp_path / "shard-000000.tar").write_bytes(
        pack({name: _mask(index) for index, name in enumerate(_NAMES)})
    )
    url = str(tmp_path / "shard-{000000..000000}.tar")
    raw = list(webdataset.WebDataset(url, shardshuffle=False))
    assert [int(decode_mask(one["png"])[0, 0]) for one in raw] == [0, 1, 2, 3]
    assert [one["__key__"] for one in raw[:3]] == ["frame%2E0001", "frame%2E0002", "v1.0/a%252Eb"]
    decoded = webdataset.WebDataset(url, shardshuffle=False).decode("pil")
    assert [one["png"].size for one in decoded] == [(7, 5)] * 4


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_grey_masks_are_read_as_indices(tmp_path: Path) -> None:
    """What `decode("l8")` gives of a tar with --mask-colors none is the class indices."""
    run = _published(tmp_path, 3, mask_colors="none")
    url = str(_tar(run, 0))
    found = list(webdataset.WebDataset(url, shardshuffle=False).decode("l8"))
    for sample, row in zip(found, _rows(run), strict=True):
        np.testing.assert_array_equal(
            sample["png"], decode_mask(Storage().read_extent(Extent.of_mask(row)))
        )


def test_a_second_attempt_changes_nothing(tmp_path: Path) -> None:
    """The same masks are the same bytes, so that the tar and its commit stay as they are."""
    run = _start(tmp_path)
    shard = segmented(run, run.missing()[0])
    receipt = Write(run, 2)(shard)
    before = snapshot(tmp_path / "out")
    assert Write(run, 1)(shard) == receipt
    assert snapshot(tmp_path / "out") == before
    _path(run.commit_uri(0)).unlink()
    assert Write(run, 1)(shard)["num_images"] == 3
    assert snapshot(tmp_path / "out").items() > {
        (name, seen) for name, seen in before.items() if name.startswith("masks/")
    }


def test_the_tar_that_stands_counts(tmp_path: Path) -> None:
    """Rows tell of another attempt's masks; those that it lacks are in a further tar."""
    run = _start(tmp_path, 3)
    Storage().write(f"file://{_tar(run, 0)}", pack({"image_1.png": _mask(3), "x.png": _mask(1)}))
    stood = snapshot(tmp_path / "out")
    shard = segmented(run, run.missing()[0])
    shard["images"][1]["height"] = 5
    Write(run, 2)(shard)
    rows = _rows(run)
    assert [_path(row["mask_uri"]) for row in rows] == [
        *(_tar(run, 0, "-1"), _tar(run, 0), _tar(run, 0, "-1")),
    ]
    assert [one["pixel_count"] for one in rows[1]["classes"]] == [35]
    assert rows[1]["mask_sha256"] == sha256_hex(_mask(3))
    assert [name for name, _ in in_tar(_tar(run, 0, "-1").read_bytes())] == [
        "image_0.png",
        "image_2.png",
    ]
    publish(run, str)
    assert not verify(run, 2).breaks
    assert snapshot(tmp_path / "out").items() > stood.items()


def test_two_attempts_with_other_masks_take_the_same(tmp_path: Path) -> None:
    """Whoever comes later finds what was there first, mask by mask, and adds what is lacking."""
    storage, folder = Storage(), f"file://{tmp_path}"
    first = put_tar(storage, folder, 7, {"a.png": _mask(1), "b.png": _mask(2)})
    second = put_tar(storage, folder, 7, {"b.png": _mask(0), "c.png": _mask(3)})
    third = put_tar(storage, folder, 7, {name: _mask(0) for name in ("a.png", "b.png", "c.png")})
    assert third == first | second
    assert third["b.png"].png == _mask(2)
    assert sorted(os.listdir(tmp_path)) == ["shard-000007-1.tar", "shard-000007.tar"]
    for put in third.values():
        assert storage.read_extent(put.place) == put.png


def test_attempts_at_the_same_time_agree(tmp_path: Path) -> None:
    """Of eight at once with unlike masks all commit the same bytes for a name, and those stand."""
    folder, names = f"file://{tmp_path}", [f"{index}.png" for index in range(4)]

    def put(attempt: int) -> dict[str, Put]:
        own = [name for index, name in enumerate(names) if index != attempt % 4]
        return put_tar(Storage(), folder, 0, {name: _mask(attempt) for name in own})

    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(put, range(8)))
    for name in names:
        [stands] = {attempt[name] for attempt in attempts if name in attempt}
        assert Storage().read_extent(stands.place) == stands.png
    held = [name for tar in tmp_path.iterdir() for name, _ in in_tar(tar.read_bytes())]
    assert sorted(held) == names


def test_without_masks_there_is_no_tar(tmp_path: Path) -> None:
    """A shard of failed images alone is committed and leaves no tar."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.jpg").write_bytes(b"<html>")
    run = _published(tmp_path, 0)
    assert [row["mask_uri"] for row in _rows(run)] == [None]
    assert not (tmp_path / "out/masks").exists()
    assert not verify(run, 2).breaks


@pytest.mark.parametrize("number", [0, 1, 511, 700, 2000, -10_000, -1100])
def test_a_tar_that_is_cut_off_is_torn(number: int) -> None:
    """Whatever is left of it; so is one with a header or an end of other bytes."""
    tar = pack({f"{index}.png": _mask(index) for index in range(12)})
    with pytest.raises(TornTarError):
        spans_of(tar[:number])
    for place in (3, 1600, 2100, len(tar) - 1):
        damaged = bytearray(tar)
        damaged[place] ^= 1
        if place == 2100:  # in a mask, which its own checksum tells
            assert spans_of(bytes(damaged)) == spans_of(tar)
            continue
        with pytest.raises(TornTarError):
            spans_of(bytes(damaged))


def _rewrite(run: Run, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    _tar(run).write_bytes(pack(change(dict(in_tar(_tar(run).read_bytes())))))


def _swap_names(run: Run) -> None:
    """Name each of two masks after the other; in this shard all names are of one length."""
    _rewrite(run, lambda masks: dict(zip(reversed(masks), masks.values(), strict=True)))


def _flip(run: Run, place: int) -> None:
    data = bytearray(_tar(run).read_bytes())
    data[place] ^= 1
    _tar(run).write_bytes(data)


def _rewrite_commit(run: Run, **values: object) -> None:
    path = _path(run.commit_uri(1))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0] |= values
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


_ELSEWHERE = "mask has another place in its tar"
_TABLE = "images table differs from the commits"
_DAMAGES: dict[str, tuple[Callable[[Run], object], dict[str, int]]] = {
    "a tar is deleted": (lambda run: _tar(run).unlink(), {"mask is missing": 3}),
    "a tar is cut off in its last mask": (
        lambda run: os.truncate(_tar(run), 4000),
        {"tar is unreadable": 1, "mask is unreadable": 1},
    ),
    "a tar is empty": (
        lambda run: os.truncate(_tar(run), 0),
        {"tar is unreadable": 1, "mask is unreadable": 3},
    ),
    "a tar lacks its end": (lambda run: os.truncate(_tar(run), 5000), {"tar is unreadable": 1}),
    "a byte of a mask is another": (lambda run: _flip(run, 2100), {"mask is unreadable": 1}),
    "a byte of a header is another": (lambda run: _flip(run, 1600), {"tar is unreadable": 1}),
    "two names are swapped": (_swap_names, {_ELSEWHERE: 2}),
    "two members are swapped": (
        lambda run: _rewrite(run, lambda masks: dict(reversed(masks.items()))),
        {
            "mask has another sha256": 2,
            "class counts differ from the mask": 2,
            "mask has another size than its image": 2,
            _ELSEWHERE: 2,
        },
    ),
    "a mask is another one": (
        lambda run: _rewrite(run, lambda masks: masks | {"image_4.png": _mask(1)}),
        {
            "mask has another sha256": 1,
            "class counts differ from the mask": 1,
            "mask has another size than its image": 1,
            _ELSEWHERE: 1,
        },
    ),
    "a member is renamed": (
        lambda run: _rewrite(
            run, lambda masks: {name.replace("_4", "_8"): png for name, png in masks.items()}
        ),
        {_ELSEWHERE: 1},
    ),
    "a row names another tar": (
        lambda run: _rewrite_commit(run, mask_uri=f"file://{_tar(run, 0)}"),
        {
            "row differs from the plan": 1,
            "mask has another sha256": 1,
            "class counts differ from the mask": 1,
            _ELSEWHERE: 1,
            _TABLE: 1,
        },
    ),
    "a row names other bytes": (
        lambda run: _rewrite_commit(run, mask_offset=1024),
        {"mask is unreadable": 1, _ELSEWHERE: 1, _TABLE: 1},
    ),
    "a row names the whole tar": (
        lambda run: _rewrite_commit(run, mask_offset=None),
        {"mask is unreadable": 1, _ELSEWHERE: 1, _TABLE: 1},
    ),
}


@pytest.mark.parametrize("name", _DAMAGES)
def test_every_damage_is_found(name: str, tmp_path: Path) -> None:
    """Each damage of a tar is reported as what it is, as often as it is."""
    run = _published(tmp_path)
    damage, kinds = _DAMAGES[name]
    damage(run)
    assert dict(verify(run, 2).breaks.numbers) == kinds


def test_tars_that_no_row_names_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reads all tars of the folder is told of those that do not count; no promise is broken."""
    run = _start(tmp_path)
    put_tar(run.storage, run.masks_folder, 0, {"image_0.png": _mask(1)})
    label_run(run)
    publish(run, str)
    further = _tar(run, 0, "-1")
    assert (further.exists(), verify(run, 2).num_strays) == (True, 0)
    shutil.copy(further, further.with_name("shard-000000-2.tar"))
    (further.parent / "notes.txt").write_text("theirs")
    assert (verify(run, 2).num_strays, verify(run, 2, share=0.5).num_strays) == (1, 0)
    assert main(["verify", run.output]) == 0
    assert f"1 more tar(s) of masks lie in {run.masks_folder}" in capsys.readouterr().out


def test_verify_asks_once_for_each_tar(tmp_path: Path) -> None:
    """Beside what it reads of a run anyway; so it does of a sample, between its first and last."""
    run = _published(tmp_path, 12)
    requests: dict[float, int] = {}
    for share in (1.0, 0.5, 1e-9):
        storage = run.storage.counting()
        verdict = verify(Run(storage, run.output, run.record), 2, share)
        assert not verdict.breaks
        requests[share] = storage.requests["read"]
    assert requests[1.0] - requests[1e-9] == 4
    assert 0 < requests[0.5] - requests[1e-9] <= 4


def test_a_sample_finds_what_is_damaged_in_it(tmp_path: Path) -> None:
    """A mask of the sample whose bytes are others is found; nothing else is read."""
    run = _published(tmp_path, 12)
    for shard in range(4):
        data = bytearray(_tar(run, shard).read_bytes())
        for row in _rows(run)[3 * shard : 3 * shard + 3]:
            data[row["mask_offset"] + 200] ^= 1
        _tar(run, shard).write_bytes(data)
    verdict = verify(run, 2, 0.5)
    assert 0 < verdict.num_masks < 12
    assert dict(verdict.breaks.numbers) == {"mask is unreadable": verdict.num_masks}


@pytest.mark.parametrize("left", [0, 100, 2500, 5000])
@pytest.mark.parametrize("committed", [True, False])
def test_what_is_torn_goes_and_is_done_again(tmp_path: Path, left: int, committed: bool) -> None:  # noqa: FBT001 - pytest gives it by name
    """A torn tar ends the run with its name where it is met; repair removes it and its commit."""
    run = _published(tmp_path)
    before = tables(run), mask_hashes(run)
    os.truncate(_tar(run), left)
    if not committed:
        for uri in (run.commit_uri(1), run.manifest_uri, run.success_uri):
            _path(uri).unlink()
        with pytest.raises(InputError, match=r"shard-000001\.tar is damaged: .*--repair"):
            label_run(run)
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert not _tar(run).exists()
    assert [task["shard"] for task in run.missing()] == [1]
    label_run(run)
    publish(run, str)
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert (tables(run), mask_hashes(run)) == before


def test_all_tars_of_a_shard_go_with_a_torn_one(tmp_path: Path) -> None:
    """So that no mask is in two of them afterwards."""
    run = _start(tmp_path, 3)
    Storage().write(f"file://{_tar(run, 0)}", pack({"image_1.png": _mask(3)}))
    label_run(run)
    publish(run, str)
    os.truncate(_tar(run, 0, "-1"), 600)
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert os.listdir(_path(run.masks_folder)) == []
    label_run(run)
    publish(run, str)
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert mask_hashes(run).keys() == {f"image_{number}.png" for number in range(3)}


def test_a_whole_output_is_left_alone(tmp_path: Path) -> None:
    """Repair finds nothing torn in whole tars."""
    _published(tmp_path)
    files = snapshot(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert snapshot(tmp_path / "out") == files


def test_a_copy_is_verified_where_it_is(tmp_path: Path) -> None:
    """The tars of a copied output are read from the copy: without them it is broken."""
    run = _published(tmp_path)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    copy = History(Storage(), f"file://{tmp_path}/copy").runs()[0]
    assert not verify(copy, 2).breaks
    shutil.rmtree(tmp_path / "copy/masks")
    assert dict(verify(copy, 2).breaks.numbers) == {"mask is missing": 6}
    assert not verify(run, 2).breaks


def test_a_run_keeps_the_kind_that_it_was_begun_with(tmp_path: Path) -> None:
    """A second command with the other kind goes on with the same run, and the run's kind."""
    run = _start(tmp_path, run_id="r")
    again = start_run(tmp_path, tmp_path / "in", run_id="r", masks="files", max_shard_images=3)
    assert again.record == run.record
    label_run(again)
    assert {row["mask_uri"][-4:] for row in _rows(run)} == {".tar"}


def test_an_output_of_the_version_before_is_whole(tmp_path: Path) -> None:
    """Tables and commit records without the two columns verify, and read as files."""
    run = _published(tmp_path, masks="files")
    manifest = _path(run.manifest_uri)
    text = manifest.read_text()
    for table in (tmp_path / "out").rglob("*.parquet"):
        before = pq.read_table(table)
        if not {"mask_offset", "mask_bytes"} <= set(before.column_names):
            continue
        old = sha256_hex(table.read_bytes())
        pq.write_table(before.drop_columns(["mask_offset", "mask_bytes"]), table)
        text = text.replace(old, sha256_hex(table.read_bytes()))
    manifest.write_text(text)
    assert not verify(run, 2).breaks
    [table] = run.published(run.manifest(), IMAGES.names)
    assert table.schema.names == IMAGES.names
    assert {row["mask_offset"] for row in _rows(run)} == {None}
    assert COMMIT.names[:-1] == IMAGES.names


def test_a_tar_holds_no_times_and_no_owner(tmp_path: Path) -> None:
    """Members are files that anybody may read, of no time and nobody."""
    run = _published(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(_tar(run).read_bytes())) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert (member.uname, member.gname, member.mode) == ("", "", 0o644)
