"""Plan: which images, in which shards, under which names; which run goes on."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ErrorCode, FingerprintMismatch, InputError, SettingError
from pipeline.labelling.cutting import Cutter
from pipeline.labelling.draft import Draft, draft, image_id
from pipeline.labelling.history import History
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.plan import identity, run_to_continue
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run, read_shard
from pipeline.labelling.schema import PLAN, ImageRow, ShardRow
from pipeline.labelling.session import open_job
from pipeline.labelling.verify import verify
from pipeline.labelling.write import Write
from pipeline.settings.label import LabelSettings
from pipeline.store.names import NamedPlace
from pipeline.store.storage import Storage, sha256_hex
from tests.disk_runs import draw_images, label_run, make_settings, network_record, start_run
from tests.servers import Server

_STORAGE = Storage()
_NETWORK = network_record()


def _make(folder: Path, *names: str) -> Path:
    """Write files of which the plan needs to know no more than the names."""
    for name in names:
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder / "in"


def _history(given: LabelSettings) -> History:
    return History(_STORAGE, given.output)


def _draft(folder: Path, **fields: Any) -> Draft:
    given = make_settings(folder, folder / "in", **fields)
    return draft(_history(given), given, _NETWORK)


def _images(drafted: Draft) -> pa.Table:
    return pa.concat_tables([PLAN.empty_table(), *drafted.shards()])


def _keys(drafted: Draft) -> list[str]:
    return _images(drafted)["key"].to_pylist()


# Shards

_SIZES = st.lists(st.none() | st.integers(0, 30), max_size=60)


def _shards(sizes: list[int | None], max_images: int, max_bytes: int) -> list[list[int]]:
    """Cut images of some sizes; give the indices of the images of each shard."""
    cutter = Cutter(max_images, max_bytes)
    # As they come: some at a time.
    numbers = cutter.cut(sizes[:7]) + cutter.cut(sizes[7:])
    shards: dict[int, list[int]] = {}
    for index, shard in enumerate(numbers):
        shards.setdefault(shard, []).append(index)
    assert list(shards) == list(range(cutter.num_shards))
    return list(shards.values())


@given(_SIZES, st.integers(1, 10), st.integers(1, 60))
def test_shards_hold_every_image_once_and_in_order(
    sizes: list[int | None], max_images: int, max_bytes: int
) -> None:
    """Shards are cut out of the list of images: none is lost, doubled or moved."""
    shards = _shards(sizes, max_images, max_bytes)
    assert [index for shard in shards for index in shard] == list(range(len(sizes)))


@given(_SIZES, st.integers(1, 10), st.integers(1, 60))
def test_shards_respect_both_limits_and_are_full(
    sizes: list[int | None], max_images: int, max_bytes: int
) -> None:
    """No shard is over a limit, but for one image that alone is; none could take the next image."""

    def fits(shard: list[int]) -> bool:
        num_bytes = sum(sizes[index] or 0 for index in shard)
        return len(shard) <= max_images and (num_bytes <= max_bytes or len(shard) == 1)

    shards = _shards(sizes, max_images, max_bytes)
    assert all(fits(shard) for shard in shards)
    assert not any(fits([*shard, after[0]]) for shard, after in pairwise(shards))


def test_an_oversized_image_has_its_own_shard() -> None:
    """An image over the limit of bytes is planned, alone."""
    assert _shards([3, 3, 100, 3, 3], 256, 10) == [[0, 1], [2], [3, 4]]


def test_images_of_unknown_size_count_as_images() -> None:
    """Images that could not be looked up fill shards by their number."""
    assert _shards([None] * 5, 2, 10) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("step", "threads"), [(1, 1), (-1, 9)])
def test_shards_depend_on_the_images_alone(step: int, threads: int, tmp_path: Path) -> None:
    """In whatever order a listing comes and whoever lists, the shards are the same."""
    names = [f"{number:02d}.jpg" for number in range(20)]
    source = _make(tmp_path, *names[::step])
    drafted = _draft(tmp_path, max_shard_images=6, io_threads=threads)
    assert _keys(drafted) == names
    assert _images(drafted)["shard"].to_pylist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 2
    assert drafted.num_shards == 4
    assert _images(drafted)["uri"][0].as_py() == f"file://{source}/00.jpg"


# Names


@pytest.mark.parametrize(
    ("key", "replaced", "full"),
    [
        ("a/b.jpg", "a/b.png", "a/b.jpg.png"),
        ("a.b/c", "a.b/c.png", "a.b/c.png"),
        ("a.tar.gz.JPG", "a.tar.gz.png", "a.tar.gz.JPG.png"),
        ("../../etc/x.jpg", "%2E%2E/%2E%2E/etc/x.png", "%2E%2E/%2E%2E/etc/x.jpg.png"),
        ("a/./b.jpg", "a/%2E/b.png", "a/%2E/b.jpg.png"),
        ("a//b.jpg", "a/%/b.png", "a/%/b.jpg.png"),
        ("..jpg", "..jpg.png", "..jpg.png"),
        ("...", "....png", "....png"),
        ("a\0b.jpg", "a%00b.png", "a%00b.jpg.png"),
        (".jpg", ".jpg.png", ".jpg.png"),
    ],
)
def test_masks_are_named_after_images(key: str, replaced: str, full: str) -> None:
    """A mask's name is the image's with another ending, or with one more, and safe on a disk."""
    assert (mask_key(key, "replace"), mask_key(key, "full")) == (replaced, full)


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "a", "a.jpg", "\0"]) | st.text(max_size=3), min_size=1
    ),
    st.sampled_from(["replace", "full"]),
)
def test_no_name_leads_out_of_the_folder(parts: list[str], mask_name: str) -> None:
    """Whatever an image is called, its mask lies below the folder of the masks, at its depth."""
    key = "/".join(parts)
    named = mask_key(key, mask_name).split("/")
    assert len(named) == len(key.split("/"))
    assert {".", "..", ""}.isdisjoint(named)
    assert "\0" not in "".join(named)


def test_names_that_collide_are_an_input_error(tmp_path: Path) -> None:
    """Two images that would get one mask name are refused, with both named and the way out."""
    _make(tmp_path, "a/x.jpg", "a/x.png", "b.jpg")
    with pytest.raises(InputError, match=r"'a/x\.png', for 'a/x\.jpg' and 'a/x\.png'") as caught:
        _draft(tmp_path)
    assert "1 mask names would be used twice" in str(caught.value)
    assert "mask_name=full" in str(caught.value)
    assert _images(_draft(tmp_path, mask_name="full"))["mask_key"].to_pylist() == [
        *("a/x.jpg.png", "a/x.png.png", "b.jpg.png"),
    ]


def test_names_that_collide_in_spite_of_their_endings_are_told_by_their_places(
    tmp_path: Path,
) -> None:
    """Where mask_name=full does not help, it is not what the message asks for."""
    source = _make(tmp_path, "a.jpg")
    path = tmp_path / "list.csv"
    places = f"{source}/a.jpg", f"s3:/{source}/a.jpg"
    path.write_text("\n".join(["uri,etag,num_bytes", *(f"{place},1,5" for place in places)]))
    with pytest.raises(InputError, match=r"for 'file:///.*' and 's3://.*Leave out or rename one"):
        _draft(tmp_path, input=str(path), mask_name="full", trust_manifest=True)


def test_an_image_named_twice_is_planned_once(tmp_path: Path) -> None:
    """A manifest that repeats an image costs no more than a count of the repetitions."""
    source = _make(tmp_path, "a.jpg", "b.jpg")
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"uri\n{source}/a.jpg\n{source}/b.jpg\n{source}/a.jpg\n")
    drafted = _draft(tmp_path, input=str(manifest))
    assert [key.rpartition("/")[2] for key in _keys(drafted)] == ["a.jpg", "b.jpg"]
    assert drafted.num_repeated == 1


def _refusals(drafted: Draft) -> dict[str, str | None]:
    columns = _images(drafted).select(["key", "error_code"]).to_pydict()
    return dict(zip(columns["key"], columns["error_code"], strict=True))


def test_a_name_too_long_for_a_disk_is_a_row(tmp_path: Path) -> None:
    """An image whose mask's name has over 255 bytes is planned as refused; others are not."""
    name = "ä" * 125 + ".jpg"
    _make(tmp_path, name, "a.jpg")
    assert _refusals(_draft(tmp_path)) == {name: None, "a.jpg": None}
    assert _refusals(_draft(tmp_path, mask_name="full")) == {name: "name_too_long", "a.jpg": None}


@pytest.mark.parametrize("run_id", [None, "nightly"])
def test_a_key_too_long_for_a_bucket_is_a_row(
    run_id: str | None, tmp_path: Path, s3: Server
) -> None:
    """The mask of an image may have 1,024 bytes in its key, the run's name included."""
    bucket = s3.make_bucket()
    before = f"out/masks/run={run_id or 'YYYYMMDDThhmmssZ-abcdef'}/{bucket}/{'d/' * 100}"
    stems = ["k" * (1024 - len(before) - len(".png") + more) for more in range(2)]
    uris = [f"s3://{bucket}/{'d/' * 100}{stem}.jpg" for stem in stems]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(json.dumps({"uri": uri}) for uri in uris))
    place = {"output": f"s3://{bucket}/out", "s3_endpoint_url": s3.endpoint_url}
    given = make_settings(tmp_path, manifest, run_id=run_id, **place)
    drafted = draft(History(given.storage(), given.output), given, _NETWORK)
    found = {f"s3://{key}": code for key, code in _refusals(drafted).items()}
    assert found == {uris[0]: None, uris[1]: "name_too_long"}


@pytest.mark.parametrize(
    ("output", "longest"), [("s3://bucket/out", 1020), ("s3://bucket", 1024), ("file:///out", 255)]
)
def test_a_place_holds_names_up_to_its_limit(output: str, longest: int) -> None:
    """A bucket's key has up to 1,024 bytes, a part of a path up to 255, in UTF-8."""
    place = NamedPlace(output)
    assert place.holds("a" * longest)
    assert not place.holds("a" * (longest + 1))
    assert not place.holds("a" * (longest - 1) + "ä")


def test_a_path_has_a_limit_too() -> None:
    """A path on a disk has up to 4,095 bytes, however short its parts are."""
    assert NamedPlace("file:///out").holds("abc/" * 1022 + "a")
    assert not NamedPlace("file:///out").holds("abc/" * 1023 + "a")


def test_no_images_are_an_input_error(tmp_path: Path) -> None:
    """An input without images is refused, and says how many other files there are."""
    _make(tmp_path, "notes.txt", "more.md")
    with pytest.raises(InputError, match=r"holds no images \(2 other files\)"):
        _draft(tmp_path)


def test_an_image_is_its_place_and_version() -> None:
    """Another URI or version is another image; none and an empty version are the same."""
    ids = [
        image_id("s3://b/a", "1"),
        image_id("s3://b/a", "2"),
        image_id("s3://b/a2", "1"),
        image_id("s3://b/a", None),
        image_id("s3://b/a1", None),
    ]
    assert len(set(ids)) == 5
    assert image_id("s3://b/a", "1") == ids[0]
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in ids)


def test_the_plan_says_all_that_is_known_of_an_image(tmp_path: Path) -> None:
    """A planned row has the columns of the schema, with URI, version and size from the store."""
    source = _make(tmp_path, "x/a.jpg")
    found = _STORAGE.stat(f"file://{source}/x/a.jpg")
    drafted = _draft(tmp_path)
    assert _images(drafted).cast(PLAN).to_pylist() == [
        {
            "shard": 0,
            "image_id": image_id(found.uri, found.version),
            "key": "x/a.jpg",
            "uri": found.uri,
            "etag": found.version,
            "num_bytes": 7,
            "mask_key": "x/a.png",
            "attempts": 1,
            "error_code": None,
            "error_message": None,
            "image_offset": None,
        }
    ]


# What earlier runs have done


def _commit(run: Run, errors: dict[str, tuple[str, dict[str, int]]]) -> None:
    """Finish a run; `errors` gives images a code and fields, the others have a mask."""

    def answer(image: ImageRow) -> ImageRow:
        code, fields = errors.get(image["key"], (None, {}))
        answered = {**image, "error_code": code, "error_message": code, "classes": [], **fields}
        return {**answered, "png": b"a mask"} if code is None else answered

    for task in run.missing():
        images = [answer(image) for image in read_shard(run.storage, task)]
        Write(run, 2)(ShardRow(shard=task["shard"], images=images))
    publish(run, str)


def test_answered_images_are_skipped(tmp_path: Path) -> None:
    """Images of which an earlier run has a row are left out and counted, be it an error."""
    run = start_run(tmp_path, _make(tmp_path, "a.jpg", "b.jpg", "c.jpg"))
    _commit(run, {"b.jpg": ("corrupt", {})})
    _make(tmp_path, "d.jpg")
    drafted = _draft(tmp_path)
    assert _keys(drafted) == ["d.jpg"]
    assert (drafted.num_skipped, drafted.num_skipped_failed) == (3, 1)


@pytest.mark.parametrize("num_committed", [2, 3])
def test_what_is_not_published_is_planned_again(num_committed: int, tmp_path: Path) -> None:
    """An unfinished run's commits stand in no table, so another run does its images too."""
    source = _make(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    run = start_run(tmp_path, source, max_shard_images=1)
    for task in run.missing()[:num_committed]:
        Write(run, 2)(ShardRow(shard=task["shard"], images=read_shard(_STORAGE, task)))
    assert _keys(_draft(tmp_path)) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_changed_image_is_planned_again(tmp_path: Path) -> None:
    """An image with another version is another picture, though its name is the same."""
    source = _make(tmp_path, "a.jpg", "b.jpg")
    _commit(start_run(tmp_path, source), {})
    (source / "b.jpg").write_bytes(b"another picture")
    drafted = _draft(tmp_path)
    assert (_keys(drafted), drafted.num_skipped) == (["b.jpg"], 1)


def test_another_network_starts_from_nothing(tmp_path: Path) -> None:
    """What a run of another fingerprint has done is not skipped."""
    _commit(start_run(tmp_path, _make(tmp_path, "a.jpg")), {})
    other = make_settings(tmp_path, tmp_path / "in", weights="random:1")
    drafted = draft(_history(other), other, network_record("random:1"))
    assert (_keys(drafted), drafted.num_skipped) == (["a.jpg"], 0)


def test_rows_are_read_from_the_tables(tmp_path: Path) -> None:
    """What earlier runs have answered for is read from their published tables, of all of them."""
    source = draw_images(tmp_path, 2)
    first = start_run(tmp_path, source)
    label_run(first)
    publish(first, str)
    draw_images(tmp_path, 4)
    _commit(start_run(tmp_path, source), {})
    for record in (tmp_path / "out/runs").glob("*/commits/*"):
        record.unlink()
    draw_images(tmp_path, 5)
    drafted = _draft(tmp_path)
    assert (_keys(drafted), drafted.num_skipped) == (["image_4.png"], 4)


def test_masks_of_another_output_are_no_photographs(tmp_path: Path) -> None:
    """Below the input, the masks of any output are left out, also behind a link."""
    source = _make(tmp_path, "a.jpg", "old/masks/run=x/b.png", "new/masks/run=y/c.png")
    (tmp_path / "link").symlink_to(source)
    settings = make_settings(tmp_path, tmp_path / "link", output=str(source / "new"))
    assert _keys(draft(_history(settings), settings, network_record())) == ["a.jpg"]


def test_a_run_id_taken_by_another_network_meanwhile_is_refused(tmp_path: Path) -> None:
    """Of two drivers that start one run id with different networks the later gets nothing."""
    source = _make(tmp_path, "a.jpg")
    start_run(tmp_path, source, run_id="nightly")
    with pytest.raises(FingerprintMismatch):
        start_run(tmp_path, source, run_id="nightly", weights="random:1")


def test_a_file_and_a_folder_of_one_name_collide_on_a_disk(tmp_path: Path) -> None:
    """Masks that a disk would need as file and as folder are refused at planning, with both."""
    _make(tmp_path, "a.jpg", "a.png/b.jpg")
    with pytest.raises(InputError, match=r"'a\.png' and 'a\.png/b\.png' collide"):
        _draft(tmp_path)


def test_a_draft_of_nothing_new_is_empty(tmp_path: Path) -> None:
    """Where all is done, the draft has no images and no shards."""
    _commit(start_run(tmp_path, _make(tmp_path, "a.jpg")), {})
    drafted = _draft(tmp_path)
    assert (drafted.num_images, drafted.num_shards, drafted.num_skipped) == (0, 0, 1)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_new_run_takes_up_what_is_transient(code: ErrorCode, tmp_path: Path) -> None:
    """By default exactly the images are planned again whose error lay outside of their bytes."""
    huge = {"num_bytes": 1 << 40, "height": 1 << 20, "width": 1 << 20}
    _commit(start_run(tmp_path, _make(tmp_path, "a.jpg", "b.jpg")), {"b.jpg": (code, huge)})
    assert _keys(_draft(tmp_path, retry_failed="none")) == []
    assert _keys(_draft(tmp_path, retry_failed="all")) == ["b.jpg"]
    again = _draft(tmp_path)
    assert _keys(again) == (["b.jpg"] if code.transient else [])
    assert again.num_skipped_failed == (0 if code.transient else 1)
    assert again.num_retried == (1 if code.transient else 0)


def test_a_transient_failure_is_retried_a_number_of_times(tmp_path: Path) -> None:
    """An image is tried by `max_image_attempts` runs, which its rows count, and by `all` beyond."""
    source = _make(tmp_path, "a.jpg", "b.jpg")
    for attempt in (1, 2, 3):
        assert _keys(_draft(tmp_path)) == (["a.jpg", "b.jpg"] if attempt == 1 else ["b.jpg"])
        run = start_run(tmp_path, source)
        _commit(run, {"b.jpg": ("timeout", {})})
        rows = next(run.published(run.manifest(), ["key", "attempts"])).to_pylist()
        assert rows[-1] == {"key": "b.jpg", "attempts": attempt}
    assert _keys(_draft(tmp_path)) == []
    assert _keys(_draft(tmp_path, max_image_attempts=4)) == ["b.jpg"]
    beyond = _draft(tmp_path, retry_failed="all")
    assert _images(beyond).select(["key", "attempts"]).to_pylist() == [
        {"key": "b.jpg", "attempts": 4}
    ]


def test_rows_of_the_version_before_count_as_one_attempt_each(tmp_path: Path) -> None:
    """Tables without the column `attempts` are read, verified, and count by their rows."""
    source = _make(tmp_path, "a.jpg")
    for _ in range(2):
        run = start_run(tmp_path, source)
        _commit(run, {"a.jpg": ("timeout", {})})
        _as_before(tmp_path / "out", run)
        assert verify(run, 2).breaks.numbers == {"table file has another sha256": 1}
    assert _images(_draft(tmp_path))["attempts"].to_pylist() == [3]
    assert _keys(_draft(tmp_path, max_image_attempts=2)) == []


def _as_before(output: Path, run: Run) -> None:
    """Take the column out of a run's files, and what the manifest says of it."""
    for path in output.glob(f"*/*{run.run_id}/**/*.parquet"):
        table = pq.read_table(path)
        if "attempts" in table.column_names:
            pq.write_table(table.drop_columns("attempts"), path)
    manifest = output / f"runs/{run.run_id}/manifest.json"
    fields = json.loads(manifest.read_text())
    del fields["num_retried"], fields["num_retried_failed"]
    manifest.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("limit", "keys"),
    [(999, []), (1000, ["bytes.jpg", "pixels.jpg"]), (1001, ["bytes.jpg", "pixels.jpg"])],
)
def test_a_retry_takes_up_what_a_raised_limit_admits(
    limit: int, keys: list[str], tmp_path: Path
) -> None:
    """An image that was too large is planned again once the limit reaches it."""
    errors = {
        "bytes.jpg": ("too_many_bytes", {"num_bytes": 1000}),
        "pixels.jpg": ("too_many_pixels", {"height": 10, "width": 100, "num_bytes": 10**6}),
        "unknown.jpg": ("too_many_pixels", {}),
    }
    run = start_run(tmp_path, _make(tmp_path, "ok.jpg", *errors))
    _commit(run, errors)
    raised = {"max_image_bytes": limit, "max_image_pixels": limit}
    assert _keys(_draft(tmp_path, **raised)) == keys


@pytest.mark.parametrize(("limit_s", "keys"), [(60, []), (61, ["slow.jpg"])])
def test_a_higher_time_limit_takes_up_what_was_too_slow(
    limit_s: float, keys: list[str], tmp_path: Path
) -> None:
    """An image that took too long is planned again, once, under a limit that is higher."""
    source = _make(tmp_path, "ok.jpg", "slow.jpg")
    _commit(start_run(tmp_path, source, max_image_s=60), {"slow.jpg": ("too_slow", {})})
    assert _keys(_draft(tmp_path, max_image_s=limit_s)) == keys
    if keys:
        _commit(start_run(tmp_path, source, max_image_s=limit_s), {"slow.jpg": ("too_slow", {})})
        assert _keys(_draft(tmp_path, max_image_s=limit_s)) == []


def test_large_sizes_do_not_overflow(tmp_path: Path) -> None:
    """Height times width is computed beyond 32 bits."""
    size = {"height": 70_000, "width": 70_000}
    run = start_run(tmp_path, _make(tmp_path, "a.jpg"))
    _commit(run, {"a.jpg": ("too_many_pixels", size)})
    assert _keys(_draft(tmp_path, max_image_pixels=70_000**2 - 1)) == []
    assert _keys(_draft(tmp_path, max_image_pixels=70_000**2)) == ["a.jpg"]


def test_a_later_success_settles_an_image(tmp_path: Path) -> None:
    """An image that failed in one run and has a mask by another is neither retried nor failed."""
    source = _make(tmp_path, "a.jpg", "b.jpg")
    _commit(start_run(tmp_path, source), {"a.jpg": ("timeout", {}), "b.jpg": ("timeout", {})})
    _commit(start_run(tmp_path, source), {"b.jpg": ("corrupt", {})})
    drafted = _draft(tmp_path)
    assert (drafted.num_skipped, drafted.num_skipped_failed) == (2, 1)
    assert _keys(drafted) == []


@pytest.mark.parametrize(("first", "second"), [("timeout", "corrupt"), ("corrupt", "timeout")])
def test_an_error_in_the_bytes_settles_an_image(first: str, second: str, tmp_path: Path) -> None:
    """An image that one run has found damaged is not retried for what another run met."""
    source = _make(tmp_path, "a.jpg", "b.jpg")
    runs = [start_run(tmp_path, source) for _ in range(2)]
    for run, code in zip(runs, (first, second), strict=True):
        _commit(run, {"a.jpg": (code, {}), "b.jpg": ("timeout", {})})
    assert _keys(_draft(tmp_path)) == ["b.jpg"]


# Which run goes on


def _change(name: str, value: object) -> Callable[[LabelSettings], LabelSettings]:
    return lambda given: LabelSettings(**{**given.model_dump(exclude_unset=True), name: value})


def test_the_same_work_has_one_identity(tmp_path: Path) -> None:
    """Input, naming of masks and fingerprint make the identity; places and speeds do not."""
    given = make_settings(tmp_path, tmp_path / "in")
    same = [
        _change("input", f"file://{tmp_path}/in/"),
        _change("output", "/elsewhere"),
        _change("batch_size", 99),
        _change("run_id", "name"),
    ]
    others = [_change("input", "/elsewhere"), _change("mask_name", "full")]
    own = identity(given, "fingerprint")
    assert [identity(change(given), "fingerprint") for change in same] == [own] * 4
    different = [identity(change(given), "fingerprint") for change in others]
    assert len({own, *different, identity(given, "another")}) == 4


def _continued(folder: Path, **fields: Any) -> str | None:
    given = make_settings(folder, folder / "in", **fields)
    run = run_to_continue(_history(given), given, _NETWORK)
    return None if run is None else run.run_id


def test_without_a_name_the_newest_unfinished_run_goes_on(tmp_path: Path) -> None:
    """Of the same input and network the newest unfinished run goes on; finished ones never do."""
    source = _make(tmp_path, "a.jpg")
    assert _continued(tmp_path) is None
    older, newer, newest = (start_run(tmp_path, source, run_id=name) for name in ("z", "b", "a"))
    assert _continued(tmp_path) == "a"
    for run, then in ((newest, "b"), (newer, "z"), (older, None)):
        _commit(run, {"a.jpg": ("corrupt", {})})
        publish(run, str)
        assert _continued(tmp_path) == then


def test_other_work_does_not_go_on_unnamed(tmp_path: Path) -> None:
    """A run of another input, naming or network is not continued without its name."""
    source = _make(tmp_path, "a.jpg", "b/c.jpg")
    start_run(tmp_path, source)
    assert _continued(tmp_path, input=str(source / "b")) is None
    assert _continued(tmp_path, mask_name="full") is None
    given = make_settings(tmp_path, source)
    assert run_to_continue(_history(given), given, network_record("random:1")) is None


def test_a_named_run_goes_on(tmp_path: Path) -> None:
    """A run with a name is found by it, finished or not; a new name starts a new run."""
    run = start_run(tmp_path, _make(tmp_path, "a.jpg"), run_id="nightly")
    assert _continued(tmp_path, run_id="nightly") == "nightly"
    assert _continued(tmp_path, run_id="other") is None
    _commit(run, {"a.jpg": ("corrupt", {})})
    publish(run, str)
    assert _continued(tmp_path, run_id="nightly") == "nightly"


def test_another_network_under_the_name_is_refused(tmp_path: Path) -> None:
    """A named run of another fingerprint is refused, with all that differs, then and now."""
    start_run(tmp_path, _make(tmp_path, "a.jpg"), run_id="nightly")
    given = make_settings(tmp_path, tmp_path / "in", run_id="nightly")
    other = network_record("random:1")
    other = other.model_copy(update={"deciding": {**other.deciding, "precision": "bf16"}})
    with pytest.raises(FingerprintMismatch, match="run_id='nightly'") as caught:
        run_to_continue(_history(given), given, other)
    assert "weights_sha256: 'random:0' then, 'random:1' now" in str(caught.value)
    assert "precision: 'fp32' then, 'bf16' now" in str(caught.value)
    assert "width" not in str(caught.value)
    assert caught.value.exit_code == 6


def test_another_input_under_the_name_is_refused(tmp_path: Path) -> None:
    """A named run of another input or naming is refused, with what it was started with."""
    source = _make(tmp_path, "a.jpg", "b/c.jpg")
    start_run(tmp_path, source, run_id="nightly")
    for other in ({"input": str(source / "b")}, {"mask_name": "full"}):
        with pytest.raises(SettingError, match="give another run_id") as caught:
            _continued(tmp_path, run_id="nightly", **other)
        assert f"input='file://{source}' and mask_name='replace'" in str(caught.value)


def test_a_finished_run_is_not_retried(tmp_path: Path) -> None:
    """`retry_failed=all` goes on with an unfinished named run and is refused for a finished one."""
    run = start_run(tmp_path, _make(tmp_path, "a.jpg"), run_id="nightly")
    assert _continued(tmp_path, run_id="nightly", retry_failed="all") == "nightly"
    _commit(run, {"a.jpg": ("timeout", {})})
    publish(run, str)
    with pytest.raises(SettingError, match="is finished and a finished run never changes"):
        _continued(tmp_path, run_id="nightly", retry_failed="all")
    assert _continued(tmp_path, run_id="nightly") == "nightly"
    assert _continued(tmp_path, retry_failed="all") is None


# What is written


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("output", ["a file", "a file/below"])
def test_an_output_that_is_a_file_is_refused(output: str, tmp_path: Path) -> None:
    """`plan` says so as `label` does, which finds it out by writing."""
    _make(tmp_path, "1.jpg")
    (tmp_path / "a file").write_text("")
    with pytest.raises(SettingError, match=r"output='file://.*/a file is a file, and a folder"):
        open_job(make_settings(tmp_path, tmp_path / "in", output=str(tmp_path / output)))


def test_a_draft_writes_nothing(tmp_path: Path) -> None:
    """Drafting a run leaves the output as it was: not even there."""
    _make(tmp_path, "a.jpg")
    _draft(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_plan_is_read_back_as_it_was_drafted(tmp_path: Path) -> None:
    """Over many files of many shards, every shard is found with its images, in order."""
    names = [f"{number:04d}.jpg" for number in range(400)]
    run = start_run(tmp_path, _make(tmp_path, *names), max_shard_images=3)
    drafted = _draft(tmp_path, max_shard_images=3)
    tasks = run.missing()
    assert [task["shard"] for task in tasks] == list(range(134))
    assert [[row["key"] for row in read_shard(_STORAGE, task)] for task in tasks] == [
        names[start : start + 3] for start in range(0, 400, 3)
    ]
    assert pa.concat_tables(run.plan()).to_pylist() == _images(drafted).cast(PLAN).to_pylist()
    assert [part.first_shard for part in run.record.plan] == [0, 64, 128]
    assert [len(part.num_images) for part in run.record.plan] == [64, 64, 6]
    assert tasks.num_images == 400
    assert tasks[-1:].num_images == 1


def test_the_run_names_parts_by_their_content(tmp_path: Path) -> None:
    """run.json lists the plan's files; each has the hash of its content in its name."""
    run = start_run(tmp_path, _make(tmp_path, "a.jpg"))
    record = json.loads((tmp_path / "out/runs" / run.run_id / "run.json").read_bytes())
    files = _files(tmp_path / "out/runs" / run.run_id / "plan")
    assert [part["file"] for part in record["plan"]] == list(files)
    for name, data in files.items():
        assert re.fullmatch(r"part-00000-[0-9a-f]{12}\.parquet", name)
        assert name[11:23] == sha256_hex(data)[:12]
        assert pq.read_schema(pa.BufferReader(data)).equals(PLAN)


def test_the_record_says_what_the_run_is(tmp_path: Path) -> None:
    """run.json holds input, numbers, fingerprint, classes, settings and versions."""
    run = start_run(
        tmp_path,
        _make(tmp_path, "a.jpg", "bb.jpg"),
        run_id="nightly",
    )
    record = run.record
    assert (record.run_id, record.input) == ("nightly", f"file://{tmp_path}/in")
    assert (record.num_images, record.num_bytes, record.num_shards, record.num_skipped) == (
        2,
        11,
        1,
        0,
    )
    assert record.network == _NETWORK
    assert record.settings["max_shard_images"] == 256
    assert set(record.versions) >= {"python", "torch", "ray", "pillow"}


def test_a_run_is_planned_once(tmp_path: Path) -> None:
    """Who starts a run that another has started gets the other's plan, which stays as it is."""
    source = _make(tmp_path, "a.jpg")
    first = start_run(tmp_path, source, run_id="nightly")
    before = _files(tmp_path / "out")
    _make(tmp_path, "b.jpg")
    second = start_run(tmp_path, source, run_id="nightly")
    after = _files(tmp_path / "out")
    assert second.record == first.record
    assert {name: after[name] for name in before} == before
    assert [row["key"] for row in read_shard(_STORAGE, second.missing()[0])] == ["a.jpg"]


def test_a_plan_without_its_record_is_no_run(tmp_path: Path) -> None:
    """A start that was killed before run.json leaves no run, and can be done again."""
    source = _make(tmp_path, "a.jpg")
    run = start_run(tmp_path, source, run_id="nightly")
    (tmp_path / "out/runs/nightly/run.json").unlink()
    assert _continued(tmp_path, run_id="nightly") is None
    again = start_run(tmp_path, source, run_id="nightly")
    assert again.record.plan == run.record.plan


def test_runs_started_together_have_different_names(tmp_path: Path) -> None:
    """Two runs without a name never share one, though they start in the same second."""
    source = _make(tmp_path, "a.jpg")
    ids = {start_run(tmp_path, source).run_id for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run_id) for run_id in ids)


def test_a_run_does_not_need_the_option_to_be_found(tmp_path: Path) -> None:
    """A run is found by its record, whichever way its store creates objects."""
    start_run(tmp_path, _make(tmp_path, "a.jpg"), run_id="nightly")
    given = make_settings(tmp_path, tmp_path / "in", run_id="nightly")
    naive = History(replace(_STORAGE, conditional_put=False), given.output)
    found = run_to_continue(naive, given, _NETWORK)
    assert found is not None
    assert found.run_id == "nightly"
