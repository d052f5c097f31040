"""Marks: what a replica learns from those that died over its shard."""

import time
from pathlib import Path

import pytest

from pipeline.errors import ReplicasLost
from pipeline.labelling.marks import Mark, Marks
from pipeline.store.storage import Storage

_LIMIT_S = 60.0


def _marks(folder: Path, attempt: int = 1) -> Marks:
    return Marks(Storage(), f"file://{folder}/marks", attempt)


def _successor(folder: Path, after_s: float = 0.0) -> Mark:
    """Return the mark of a replica that is started some time after now."""
    return _marks(folder).leave(7, time.time() + after_s)


def test_the_first_replica_finds_nothing(tmp_path: Path) -> None:
    """A shard that no replica has touched has no past, whatever other shards have."""
    _marks(tmp_path).leave(6, 0)
    mark = _marks(tmp_path).leave(7, 0)
    assert (mark.before, mark.lost, mark.culprits) == ([], [], {})
    assert len(list((tmp_path / "marks").iterdir())) == 2


@pytest.mark.parametrize(("after_s", "code"), [(1, "crashed"), (_LIMIT_S + 1, "too_slow")])
def test_the_image_alone_at_a_death_is_the_culprit(
    tmp_path: Path, after_s: float, code: str
) -> None:
    """After the second death a successor knows it, and its own successors do."""
    first = _marks(tmp_path).leave(7, 0)
    first.note("an image", _LIMIT_S)
    second = _successor(tmp_path, after_s)
    second.note("an image", _LIMIT_S)
    third = _successor(tmp_path, after_s)
    fourth = _successor(tmp_path, 1000)
    assert second.culprits == {}
    assert third.culprits["an image"][0] == code
    assert fourth.culprits == third.culprits
    assert len(fourth.lost) == 3


def test_an_image_is_not_accused_by_one_death(tmp_path: Path) -> None:
    """Two replicas that died over two images, as with their nodes, convict neither."""
    for name in ("an image", "another"):
        _successor(tmp_path).note(name, _LIMIT_S)
    assert _successor(tmp_path).culprits == {}


def test_a_note_that_was_taken_back_accuses_nobody(tmp_path: Path) -> None:
    """An image that the network has survived is none."""
    first = _marks(tmp_path).leave(7, 0)
    first.note("an image", _LIMIT_S)
    first.clear()
    assert _successor(tmp_path).culprits == {}


def test_a_mark_that_was_cut_off_is_a_death(tmp_path: Path) -> None:
    """A crash of the machine may leave half of it."""
    _marks(tmp_path).leave(7, 0)
    [path] = (tmp_path / "marks").iterdir()
    path.write_bytes(b'{"repl')
    assert len(_marks(tmp_path).leave(7, 0).before) == 1


def test_too_many_deaths_in_one_command_end_it(tmp_path: Path) -> None:
    """What kills replicas for ever is no image; another command has another try."""
    for _ in range(20):
        _marks(tmp_path).leave(7, 0)
    with pytest.raises(ReplicasLost, match="20 replicas have died over shard 7"):
        _marks(tmp_path).leave(7, 0)
    mark = _marks(tmp_path, attempt=2).leave(7, 0)
    assert (len(mark.before), mark.lost) == (21, [])
