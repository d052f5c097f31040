"""Staging: tables that are larger than memory, and what is said where there is no room."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError, SettingError
from pipeline.labelling import staging
from pipeline.labelling.name_clashes import check_names
from pipeline.labelling.staging import Staging

_SCHEMA = pa.schema([("key", pa.string())])


def _tables(number: int) -> Iterator[pa.Table]:
    """Make tables of 50,000 keys of 64 digits, which nothing compresses."""
    random = np.random.default_rng(0)
    for _ in range(number):
        digits = random.bytes(50_000 * 32).hex()
        yield pa.table({"key": [digits[i : i + 64] for i in range(0, len(digits), 64)]}, _SCHEMA)


def test_what_is_larger_than_memory_is_sorted_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a million rows come in order within a limit that they are beyond, and none is lost."""
    monkeypatch.setattr(staging, "_MEMORY", "48MB")
    staged = Staging()
    staged.fill("keys", _SCHEMA, _tables(10))
    found = pa.concat_tables(staged.stream("keys", _SCHEMA, "key"))["key"]
    assert len(found) == 500_000
    assert found.equals(pa.concat_tables(_tables(10)).sort_by("key")["key"])
    staged.close()


def test_a_folder_for_each_image_takes_no_more_memory() -> None:
    """Which files are called as folders is found on a disk, too, however many folders there are."""
    staged = Staging("64MB")
    # Three folders of 192 digits each.
    folders = [f"repeat(md5((10 * range + {level})::VARCHAR), 6)" for level in range(3)]
    staged.run(f"""
        CREATE TABLE listed AS
        SELECT concat_ws('/', {", ".join(folders)}, 'image.png') AS mask_key,
            mask_key AS key, mask_key AS uri, NULL::VARCHAR AS error_code
        FROM range(50_000)
    """)
    check_names(staged, "replace", local=True)
    staged.run("INSERT INTO listed SELECT left(max(mask_key), 385), 'key', 'uri', NULL FROM listed")
    with pytest.raises(InputError, match="collide on a disk, as a file and a folder"):
        check_names(staged, "replace", local=True)
    staged.close()


def test_a_closed_one_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder goes with the tables, be they closed or forgotten."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    staged, forgotten = Staging(), Staging()
    assert len(list(tmp_path.iterdir())) == 2
    staged.close()
    del forgotten
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_left_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose process was killed is removed; one in use stays, and so does a new one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = (
        "import os; from pipeline.labelling.staging import Staging; kept = Staging(); "
        "os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", killed], env=environment, check=False)
    (left,) = tmp_path.iterdir()
    in_use = Staging()
    (other,) = set(tmp_path.iterdir()) - {left}
    for folder in (left, other):
        os.utime(folder, (0, 0))
    new = tmp_path / "fcn-plan-new"
    new.mkdir()
    Staging().close()
    assert set(tmp_path.iterdir()) == {other, new}
    in_use.close()


def test_no_folder_is_a_setting_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the temporary folder is missing, the message names the variable that sets it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(SettingError, match="set the environment variable TMPDIR"):
        Staging()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 4 MB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_is_a_setting_error(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rows do not fit on the disk, the command ends with what to do."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    staged = Staging()
    with pytest.raises(SettingError, match="set the environment variable TMPDIR"):
        staged.fill("keys", _SCHEMA, _tables(10))
    staged.close()


def test_memory_that_is_full_while_the_disk_is_not_is_named() -> None:
    """No folder on a larger disk would help, and none of DuckDB's settings can be reached."""
    staged = Staging(memory="10MB")
    with pytest.raises(SettingError, match="more memory is needed") as raised:
        staged.run("SELECT list(number) FROM range(10000000) AS numbers(number)")
    staged.close()
    assert "TMPDIR" not in str(raised.value)
    assert "SET " not in str(raised.value)


def test_memory_that_is_full_because_the_disk_is_names_the_folder(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB calls both the same; what is to be sorted found no room on the disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    staged = Staging(memory="50MB")
    with pytest.raises(SettingError, match="set the environment variable TMPDIR"):
        staged.run(
            "SELECT count(*) FROM (SELECT hash(i) AS one, max(i::VARCHAR) FROM range(5000000) t(i) "
            "GROUP BY one)"
        )
    staged.close()
