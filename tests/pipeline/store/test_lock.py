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
