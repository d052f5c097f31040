"""Publishing beside the chain: sections are published as their last shard is committed."""

from pathlib import Path

import pytest

from pipeline.labelling.publish import publish
from pipeline.labelling.publish_beside import PublishBeside
from pipeline.labelling.runs import Run
from pipeline.labelling.verify import verify
from tests.disk_runs import draw_images, label_run, start_run


@pytest.fixture(autouse=True)
def _small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.labelling.plan._SHARDS_PER_FILE", 1)
    monkeypatch.setattr("pipeline.labelling.sections._MAX_IMAGES", 4)


def _files(run: Run) -> dict[str, int]:
    """Return when each file of the tables was written last."""
    folder = Path(f"{run.output}/images/run={run.run_id}".removeprefix("file://"))
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*")}


def test_sections_are_published_as_they_are_committed(ray_session: str, tmp_path: Path) -> None:
    """Workers publish every section whose shards are all committed; the driver makes the rest."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    beside = PublishBeside(run, run.missing())
    first, second, third = label_run(run)
    for receipt in (third, second, second):
        beside.saw(receipt)
    beside.finish()
    assert list(_files(run)) == ["part-00001.parquet"]
    beside.saw(first)
    beside.finish()
    before = _files(run)
    assert sorted(before) == ["part-00000.parquet", "part-00001.parquet"]
    manifest = publish(run, str)
    assert _files(run) == before
    assert [part.num_rows for part in manifest.images] == [4, 2]
    assert not verify(run, 2).breaks


def test_what_was_committed_before_is_published_too(ray_session: str, tmp_path: Path) -> None:
    """A resumed run publishes sections that were committed before and that nobody has published."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=2)
    label_run(run)
    Path(run.commit_uri(2).removeprefix("file://")).unlink()
    beside = PublishBeside(run, run.missing())
    beside.finish()
    assert list(_files(run)) == ["part-00000.parquet"]
