"""Publishing by sections: what stands is not done again, whoever did it and whatever cut it off."""

import dataclasses
import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run
from pipeline.labelling.section_tables import publish_section
from pipeline.labelling.sections import sections_of
from pipeline.labelling.verify import verify
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, label_run, start_run

_NUM_SECTIONS = 3


class _Killed(BaseException):
    pass


@dataclasses.dataclass(frozen=True)
class _Watched(Storage):
    """Notes what is read and written, and is killed before it writes what is named so."""

    dies_at: str = "$^"
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list, compare=False)

    def read(self, uri: str) -> bytes:
        self.asked.append(("read", uri))
        return super().read(uri)

    def read_version(self, uri: str, *given: Any) -> bytes:
        self.asked.append(("read", uri))
        return super().read_version(uri, *given)

    def write(self, uri: str, data: bytes) -> None:
        self._note(uri)
        super().write(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        self._note(uri)
        return super().create(uri, data)

    def _note(self, uri: str) -> None:
        if re.search(self.dies_at, uri):
            raise _Killed(uri)
        self.asked.append(("write", uri))

    def names(self, kind: str, pattern: str) -> list[str]:
        """Return the names of what was asked for."""
        found = (uri.rpartition("/")[2] for one, uri in self.asked if one == kind)
        return [name for name in found if re.search(pattern, name)]


@pytest.fixture(autouse=True)
def _small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file of the plan hold one shard of two images, and a section two of them."""
    monkeypatch.setattr("pipeline.labelling.plan._SHARDS_PER_FILE", 1)
    monkeypatch.setattr("pipeline.labelling.sections._MAX_IMAGES", 4)
    monkeypatch.setattr("pipeline.labelling.section_tables._IMAGES_AT_A_TIME", 1)


def _labelled(folder: Path) -> Run:
    """Label nine images and one broken file in shards of two; not published."""
    folder.mkdir(exist_ok=True)
    source = draw_images(folder, 9)
    (source / "broken.jpg").write_bytes(b"<html>")
    run = start_run(folder, source, max_shard_images=2)
    label_run(run)
    return run


def _through(run: Run, dies_at: str = "$^") -> tuple[Run, _Watched]:
    storage = _Watched(dies_at=dies_at)
    return dataclasses.replace(run, storage=storage), storage


def _part(run: Run, number: int, table: str = "images") -> Path:
    place = f"{run.output}/{table}/run={run.run_id}/part-{number:05d}.parquet"
    return Path(place.removeprefix("file://"))


def _compressed_otherwise(path: Path, first: int = 0) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(path).slice(first), buffer, compression="snappy")
    return buffer.getvalue()


def _whole(run: Run, manifest: Manifest) -> None:
    verdict = verify(run, 2)
    assert (str(verdict.breaks), verdict.finished, verdict.num_masks) == ("", True, 9)
    assert run.manifest() == manifest


def test_tables_are_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of many shards is several files, cut between files of the plan, in the plan's order.

    What the manifest says is the same as of one file.
    """
    run = _labelled(tmp_path)
    manifest = publish(run, str)
    assert [part.num_rows for part in manifest.images] == [4, 4, 2]
    rows = pa.concat_tables(pq.read_table(_part(run, number)) for number in range(_NUM_SECTIONS))
    assert rows["key"].to_pylist() == ["broken.jpg", *(f"image_{n}.png" for n in range(9))]

    monkeypatch.setattr("pipeline.labelling.sections._MAX_IMAGES", 1000)
    Path(run.manifest_uri.removeprefix("file://")).unlink()
    assert _without_parts(publish(run, str)) == _without_parts(manifest)


def _without_parts(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(exclude={"images", "class_statistics"})


def test_row_groups_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However rows come in, each row group but the last has the number of rows that is wanted."""
    monkeypatch.setattr("pipeline.labelling.section_tables._ROWS_PER_GROUP", 3)
    run = _labelled(tmp_path)
    publish(run, str)
    for table, numbers in (("images", [3, 1]), ("class_statistics", [3, 3, 3, 3])):
        read = pq.read_metadata(_part(run, 0, table))
        found = [read.row_group(group).num_rows for group in range(read.num_row_groups)]
        assert found[: len(numbers)] == numbers


@pytest.mark.parametrize(
    ("dies_at", "left"),
    [
        pytest.param(r"/images/.*part-00001", [1, 2], id="between sections"),
        pytest.param(r"/class_statistics/.*part-00001", [1, 2], id="between the tables of one"),
        pytest.param(r"/sections/00001", [1, 2], id="between tables and their record"),
        pytest.param(r"/manifest\.json", [], id="between the last record and the manifest"),
    ],
)
def test_a_publication_that_was_killed_goes_on_where_it_was(
    dies_at: str, left: list[int], tmp_path: Path
) -> None:
    """The next publication reads the commit records and writes the tables of what is left only."""
    run = _labelled(tmp_path)
    killed, _ = _through(run, dies_at)
    with pytest.raises(_Killed):
        publish(killed, str)
    again, storage = _through(run)
    manifest = publish(again, str)
    records = [f"{number:05d}.json" for number in left]
    tables = [f"part-{number:05d}.parquet" for number in left for _ in range(2)]
    assert storage.names("write", "part-") == tables
    assert storage.names("write", r"^\d+\.json") == records
    shards = [shard for number in left for shard in (2 * number, 2 * number + 1)]
    expected = [f"shard-{shard:06d}.parquet" for shard in shards if shard < run.record.num_shards]
    assert sorted(storage.names("read", "shard-")) == expected
    _whole(run, manifest)


def test_two_that_publish_a_section_at_once_write_the_same(tmp_path: Path) -> None:
    """Two workers, or a worker and a driver, that publish the same sections agree on them."""
    run = _labelled(tmp_path)
    twice = [section for section in sections_of(run.record.plan) for _ in range(2)]
    with ThreadPoolExecutor(len(twice)) as pool:
        found = list(pool.map(lambda section: publish_section(run, section), twice))
    assert found[::2] == found[1::2]
    again, storage = _through(run)
    manifest = publish(again, str)
    assert storage.names("write", "part-") == []
    _whole(run, manifest)


def test_a_file_of_the_same_rows_is_kept(tmp_path: Path) -> None:
    """A file of a table that another version has written, of the same rows, is the manifest's."""
    run = _labelled(tmp_path)
    section = next(sections_of(run.record.plan))
    publish_section(run, section)
    others = _compressed_otherwise(_part(run, 0))
    _part(run, 0).write_bytes(others)
    manifest = publish(run, str)
    assert _part(run, 0).read_bytes() == others
    _whole(run, manifest)


@pytest.mark.parametrize("what", ["cut off", "other rows", "gone"])
def test_a_file_that_is_not_what_was_published_is_made_again(what: str, tmp_path: Path) -> None:
    """A file that a crash has cut off, that has other rows, or is gone, is written again."""
    run = _labelled(tmp_path)
    for section in sections_of(run.record.plan):
        publish_section(run, section)
    path = _part(run, 1)
    before = path.read_bytes()
    if what == "gone":
        path.unlink()
    else:
        other = before[:-9] if what == "cut off" else _compressed_otherwise(path, 1)
        path.write_bytes(other)
    again, storage = _through(run)
    manifest = publish(again, str)
    assert path.read_bytes() == before
    assert set(storage.names("write", r"^\d+\.json")) == {"00001.json"}
    _whole(run, manifest)


def test_a_record_that_is_cut_off_is_made_again(tmp_path: Path) -> None:
    """Where the record of a section can't be read, its tables are looked at again."""
    run = _labelled(tmp_path)
    publish_section(run, next(sections_of(run.record.plan)))
    record = Path(f"{run.sections_folder}/00000.json".removeprefix("file://"))
    record.write_bytes(record.read_bytes()[:50])
    _whole(run, publish(run, str))


def test_a_section_of_other_commit_records_is_made_again(tmp_path: Path) -> None:
    """Where a shard was done again since its section was published, the tables say what it says.

    As after `verify --repair`, which takes away the commit record of a torn mask.
    """
    run = _labelled(tmp_path)
    section = next(sections_of(run.record.plan))
    before = publish_section(run, section)
    Path(run.commit_uri(1).removeprefix("file://")).unlink()
    label_run(run)
    manifest = publish(run, str)
    assert manifest.images[0].sha256 != before.images.sha256
    _whole(run, manifest)


def test_sections_follow_from_the_plan_alone(tmp_path: Path) -> None:
    """Sections hold all shards of the plan once, in order, and know their numbers."""
    run = _labelled(tmp_path)
    sections = list(sections_of(run.record.plan))
    assert [section.number for section in sections] == list(range(_NUM_SECTIONS))
    assert [shard for section in sections for shard in section.shards] == list(run.shards)
    assert sections[1].of(run).shards == range(2, 4)
    assert [len(table) for table in sections[1].of(run).commits()] == [2, 2]
