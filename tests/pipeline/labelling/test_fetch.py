"""Fetch: a row says what is true of its image alone; what is the store's ends the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ErrorCode, Scope, StoreError
from pipeline.labelling import plan
from pipeline.labelling.doubt import refuse_a_store_that_fails
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.runs import Run, read_shard
from pipeline.labelling.schema import ShardGroup
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, start_run


def _codes(run: Run, shard: int = 0, threads: int = 2) -> list[str | None]:
    row = Fetch(run.storage, 1 << 20, threads).shard(run.missing()[shard])
    return [image["error_code"] for image in row["images"]]


class _Failing:
    """Makes reads of images fail, by the end of their names; so many are good at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[str, StoreError] = {}
        self.num_good = 0
        self._read = Storage.read_version
        monkeypatch.setattr(Storage, "read_version", self._as_method())

    def _as_method(self) -> Callable[..., bytes]:
        def answer(storage: Storage, uri: str, *given: object) -> bytes:
            self.num_good -= 1
            for ending, error in self.errors.items():
                if uri.endswith(ending) and self.num_good < 0:
                    raise error
            return self._read(storage, uri, *given)

        return answer


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> _Failing:
    return _Failing(monkeypatch)


def _error(code: str, scope: Scope = Scope.OBJECT) -> StoreError:
    return StoreError(ErrorCode(code), f"{code} it is", scope)


def test_names_that_keep_an_image_out_are_rows(tmp_path: Path) -> None:
    """A name too long for the output's masks, or no UTF-8, has a code and words of its own."""
    source = draw_images(tmp_path, 1)
    (source / ("n" * 251 + ".png")).write_bytes(b"x")
    with open(bytes(source) + b"/z\xe9.png", "wb"):
        pass
    run = start_run(tmp_path, source, mask_name="full")
    row = Fetch(run.storage, 1 << 20, 2).shard(run.missing()[0])
    found = {image["error_code"]: image["error_message"] or "" for image in row["images"]}
    assert set(found) == {None, "name_too_long", "name_not_utf8"}
    assert "a disk 255 between two slashes; rename it" in found["name_too_long"]
    assert "z\\xe9.png: its name is not valid UTF-8" in found["name_not_utf8"]


@pytest.mark.parametrize("code", ["forbidden", "timeout", "throttled", "not_found"])
@pytest.mark.parametrize("scope", [Scope.STORE, Scope.BUCKET])
def test_what_is_true_of_the_store_ends_the_run(
    scope: Scope, code: str, tmp_path: Path, failing: _Failing
) -> None:
    """An error of credentials, endpoint or bucket is raised where no other image is read either."""
    run = start_run(tmp_path, draw_images(tmp_path, 3))
    failing.errors[".png"] = _error(code, scope)
    with pytest.raises(StoreError, match=f"{code} it is"):
        _codes(run)


@pytest.mark.parametrize("scope", [Scope.STORE, Scope.BUCKET])
def test_credentials_that_end_within_a_shard_end_the_run(
    scope: Scope, tmp_path: Path, failing: _Failing
) -> None:
    """What was read before says nothing: another image is asked for anew, and fails alike."""
    run = start_run(tmp_path, draw_images(tmp_path, 3))
    failing.errors[".png"] = _error("forbidden", scope)
    failing.num_good = 2
    with pytest.raises(StoreError, match="forbidden it is"):
        _codes(run, threads=1)


@pytest.mark.parametrize("scope", [Scope.STORE, Scope.BUCKET])
def test_an_answer_that_one_image_alone_has_is_a_row(
    scope: Scope, tmp_path: Path, failing: _Failing
) -> None:
    """One object that leads elsewhere, to another bucket or server, ends no run."""
    run = start_run(tmp_path, draw_images(tmp_path, 3))
    failing.errors["_1.png"] = _error("timeout", scope)
    assert _codes(run) == [None, "timeout", None]


@pytest.mark.parametrize("code", ["forbidden", "timeout", "throttled", "not_found"])
def test_one_of_a_shard_is_a_row(code: str, tmp_path: Path, failing: _Failing) -> None:
    """Where others of the shard are read, an image's failure is its own."""
    run = start_run(tmp_path, draw_images(tmp_path, 3))
    failing.errors["_1.png"] = _error(code)
    assert _codes(run) == [None, code, None]


@pytest.mark.parametrize("code", ["forbidden", "timeout", "throttled"])
def test_a_whole_shard_is_rows_if_other_shards_are_read(
    code: str, tmp_path: Path, failing: _Failing
) -> None:
    """Where nothing of a shard is read, images of other shards tell whether the store works."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    failing.errors |= {"_0.png": _error(code), "_1.png": _error(code)}
    assert _codes(run) == [code, code]


def test_shards_of_other_plan_files_are_asked_for(
    tmp_path: Path, failing: _Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archived prefix may fill a file of the plan: images of another one tell that it is one."""
    monkeypatch.setattr(plan, "_SHARDS_PER_FILE", 2)
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    failing.errors |= {f"_{index}.png": _error("forbidden") for index in range(4)}
    assert [_codes(run, shard) for shard in (0, 2)] == [["forbidden"] * 2, [None] * 2]


@pytest.mark.parametrize("files", [1, 3])
def test_few_that_can_be_read_are_found_among_many(
    files: int, tmp_path: Path, failing: _Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a store refuses most of a run, one image in one of its shards tells that it works."""
    monkeypatch.setattr(plan, "_SHARDS_PER_FILE", -(-10 // files))
    run = start_run(tmp_path, draw_images(tmp_path, 40), max_shard_images=4)
    failing.errors |= {f"_{index}.png": _error("forbidden") for index in range(40) if index != 21}
    assert _codes(run) == ["forbidden"] * 4
    failing.errors["_21.png"] = _error("forbidden")
    with pytest.raises(StoreError, match=r"nor any of \d+ others of the run: forbidden it is"):
        _codes(run)


def test_archived_objects_are_rows_though_all_are(tmp_path: Path, failing: _Failing) -> None:
    """A store that says where an object lies has answered: nothing is in doubt."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    failing.errors[".png"] = _error("archived")
    assert [_codes(run, shard) for shard in range(3)] == [["archived"] * 2] * 3


def test_an_input_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    """A share that is not mounted any more takes no image along: it is back tomorrow."""
    source = draw_images(tmp_path, 4)
    run = start_run(tmp_path, source, max_shard_images=2)
    source.rename(tmp_path / "elsewhere")
    fetch = Fetch(run.storage, 1 << 20, 2, run.record.input)
    with pytest.raises(StoreError, match=r"is not now; is its disk mounted\?"):
        fetch.shard(run.missing()[0])


@pytest.mark.parametrize("code", ["forbidden", "timeout", "throttled", "not_found"])
def test_a_whole_shard_is_no_rows_if_no_other_is_read(
    code: str, tmp_path: Path, failing: _Failing
) -> None:
    """Where other shards fail alike the run ends, and says what to look at."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    failing.errors[".png"] = _error(code)
    with pytest.raises(StoreError, match=r"none of the 2 images of shard 0 .* check credentials"):
        _codes(run)


@pytest.mark.parametrize("code", ["forbidden", "timeout"])
def test_an_image_alone_is_a_row_if_the_place_can_be_listed(
    code: str, tmp_path: Path, failing: _Failing
) -> None:
    """A run of one shard never hangs on an object that nobody may read: the listing answers."""
    run = start_run(tmp_path, draw_images(tmp_path, 1))
    failing.errors[".png"] = _error(code)
    assert _codes(run) == [code]


def test_a_folder_that_was_emptied_is_rows(tmp_path: Path) -> None:
    """Images that are gone from the listing too were removed: all of a run may be `not_found`."""
    source = draw_images(tmp_path, 4)
    run = start_run(tmp_path, source, max_shard_images=2)
    for path in source.iterdir():
        path.unlink()
    assert [_codes(run, shard) for shard in range(2)] == [["not_found"] * 2] * 2


def test_images_that_failed_before_end_no_later_run(tmp_path: Path, failing: _Failing) -> None:
    """A night whose only images are those that nobody may read ends, every night."""
    run = start_run(tmp_path, draw_images(tmp_path, 4), max_shard_images=2)
    failing.errors[".png"] = _error("forbidden")
    task = run.missing()[0]
    images = read_shard(run.storage, task)
    fetched = Fetch(run.storage, 1 << 20, 2).images([{**one, "attempts": 2} for one in images])
    refuse_a_store_that_fails(run.storage, task, fetched, 1 << 20)
    fetched[0]["attempts"] = 1
    with pytest.raises(StoreError, match="none of the 2 images"):
        refuse_a_store_that_fails(run.storage, task, fetched, 1 << 20)


def test_a_name_that_keeps_an_image_out_vouches_for_no_store(
    tmp_path: Path, failing: _Failing
) -> None:
    """Where the store was not asked for an image, the shard's others are all that were."""
    source = draw_images(tmp_path, 4)
    (source / ("a" * 251 + ".png")).write_bytes(b"x")
    run = start_run(tmp_path, source, mask_name="full", max_shard_images=3)
    failing.errors["_0.png"] = failing.errors["_1.png"] = _error("forbidden")
    failing.errors["_2.png"] = failing.errors["_3.png"] = _error("forbidden")
    with pytest.raises(StoreError, match="none of the 2 images"):
        _codes(run)


def test_shards_of_a_group_come_one_at_a_time_from_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan's file is read once, and an image of the next shard only when that is asked for."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    [task, *_] = run.missing()
    read: list[str] = []
    monkeypatch.setattr(Storage, "read", _noting(Storage.read, read))
    monkeypatch.setattr(Storage, "read_version", _noting(Storage.read_version, read))
    group = ShardGroup(plan_uri=task["plan_uri"], first_shard=0, row_groups=[0, 2])

    shards = Fetch(run.storage, 1 << 20, 2)(group)

    for shard, names in ((0, ("0", "1")), (2, ("4", "5"))):
        row = next(shards)
        assert row["shard"] == shard
        assert [image["key"] for image in row["images"]] == [f"image_{name}.png" for name in names]
        assert row["work"]["read_bytes"] > 0
        assert len(read) == 3 + shard
    assert next(shards, None) is None
    assert [uri for uri in read if uri.endswith(".parquet")] == [task["plan_uri"]]


def _noting(ask: Callable[..., bytes], read: list[str]) -> Callable[..., bytes]:
    def answer(storage: Storage, uri: str, *given: object) -> bytes:
        read.append(uri)
        return ask(storage, uri, *given)

    return answer


def test_whatever_is_raised_over_one_image_is_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that a library makes nothing of costs one image its mask, and no run."""
    run = start_run(tmp_path, draw_images(tmp_path, 3))
    failing = _Failing(monkeypatch)
    failing.errors["1.png"] = ValueError("Invalid timestamp")  # type: ignore[assignment]
    row = Fetch(run.storage, 1 << 20, 2).shard(run.missing()[0])
    said = [image["error_message"] for image in row["images"] if image["error_code"] == "failed"]
    assert said == ["ValueError: Invalid timestamp"]
    assert len(row["images"]) == 3
