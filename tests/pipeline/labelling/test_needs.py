"""What the driver needs is estimated from the size of the run, and compared with what there is."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.labelling import needs
from pipeline.labelling.finding import Level
from pipeline.labelling.needs import Needs
from pipeline.memory import available_memory

_GIB = 1 << 30


def test_needs_grow_to_a_bound_in_memory_and_go_on_on_disk():
    """A hundred million images take no more memory than a million; files grow with the images."""
    small, large, vast = (Needs.of(number, number // 256) for number in (1_000, 10**6, 10**8))

    assert small.memory_bytes < large.memory_bytes == vast.memory_bytes < _GIB
    assert vast.temporary_bytes == 100 * large.temporary_bytes == 26 * 10**9
    assert str(vast).startswith("about 0.9 GB of memory, and 26.0 GB of temporary files")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch):
    """Too little memory is named; enough of it, or a machine that does not say, is not."""
    asked = Needs.of(10**6, 4_000)
    for free, level in ((10**8, Level.NOTE), (10**9, Level.OK), (None, Level.OK)):
        monkeypatch.setattr(needs, "available_memory", lambda found=free: found)
        found = asked.finding()
        assert found.level is level
        assert ("0.1 GB of memory are free here" in found.found) == (level is Level.NOTE)


def test_a_small_temporary_folder_is_said(monkeypatch: pytest.MonkeyPatch):
    """What planning would fill is named before it is full."""
    asked = Needs.of(10**6, 4_000)
    for free, level in ((10**8, Level.NOTE), (10**9, Level.OK)):
        room = SimpleNamespace(free=free)
        monkeypatch.setattr(needs.shutil, "disk_usage", lambda _, found=room: found)
        found = asked.finding()
        assert found.level is level
        assert ("0.1 GB are free in /" in found.found) == (level is Level.NOTE)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 8 * _GIB), (str(3 * _GIB), 2 * _GIB), (str(_GIB // 2), 0), (None, 8 * _GIB)],
    ids=str,
)
def test_a_container_has_what_its_limit_leaves(limit: str | None, expected: int, tmp_path: Path):
    """The machine's free memory, or what a group's limit leaves, whichever is less.

    Pages of files count as free: the kernel lets go of them.
    """
    (tmp_path / "proc").mkdir()
    assert available_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: 1 kB\nMemAvailable:   {8 * _GIB // 1024} kB\n"
    )
    group = tmp_path / "sys/fs/cgroup"
    if limit is not None:
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{2 * _GIB}\n")
        (group / "memory.stat").write_text(f"anon 5\ninactive_file {_GIB}\nactive_file 7\n")

    assert available_memory(tmp_path) == expected
