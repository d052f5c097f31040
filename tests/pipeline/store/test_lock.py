"""The lock on a disk; tests/jobs kill its holders, and two of them meet there."""

from pathlib import Path

from pipeline.store.lock import Lock
from pipeline.store.storage import Storage


def test_what_cut_off_heartbeats_left_is_removed(tmp_path: Path) -> None:
    """A holder that ends leaves its lock, released, and no file of one that was killed before."""
    folder = tmp_path / "locks"
    with Lock(Storage(), f"file://{folder}", 30) as lock:
        (folder / ".fcn-tmp-0123456789ab").write_bytes(b"{")
        assert lock.number == 1

    assert [path.name for path in folder.iterdir()] == ["000001.json"]
    with Lock(Storage(), f"file://{folder}", 30) as lock:
        assert lock.number == 2


def test_a_heartbeat_that_fails_costs_the_work_no_patience(tmp_path: Path) -> None:
    """What the lock could not wait for says nothing of how long its holder's requests may."""
    storage = Storage()
    with Lock(storage, f"file://{tmp_path}/locks", 30) as lock:
        lock._hasty.pace.spent = True
        assert not storage.pace.spent
