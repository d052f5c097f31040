"""Outputs that earlier commits have written stay readable: each file here is one, as it lay there.

The names are those of the commits. Made with `label --weights random:0 --width 4 --num-classes 4
--max-shard-images 2 --run-id night-1` of five drawn images and a broken one; later ones also with
`--masks tar`. Locks and pages are left out.
"""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.errors import BrokenPromise
from pipeline.labelling.history import History
from pipeline.store.storage import Storage

_OUTPUTS = sorted((Path(__file__).parents[1] / "earlier_outputs").glob("*.tar.gz"))


@pytest.fixture(params=_OUTPUTS, ids=lambda path: path.name.partition(".")[0])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return an output of an earlier commit, in another place than it was written to."""
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    return tmp_path / "out"


def test_it_is_whole(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`verify` proves what that commit has promised, and says where it was written to."""
    assert main(["verify", str(output)]) == 0
    said = capfd.readouterr().out
    assert "run night-1: whole: 5 masks, tables and totals agree" in said
    assert "It was written to file:///tmp/fcn-pipeline/" in said


def test_damage_is_found(output: Path) -> None:
    """A mask, or a tar of them, that is another one is a broken promise."""
    [*_, last] = sorted(path for path in (output / "masks").rglob("*") if path.is_file())
    data = last.read_bytes()
    last.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    assert main(["verify", str(output)]) == BrokenPromise.exit_code


def test_it_is_reported(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`runs` and `report` say what that commit's tables hold."""
    assert main(["runs", str(output), "--json"]) == 0
    [run] = json.loads(capfd.readouterr().out)
    assert (run["state"], run["num_images"], run["num_failed"]) == ("finished", 6, 1)
    assert main(["report", str(output)]) == 0
    assert "5 of 6 images have a mask, 1 failed" in capfd.readouterr().out


def test_its_images_are_selected(output: Path, tmp_path: Path) -> None:
    """`select` finds its least confident images, and their masks where they are now."""
    chosen = tmp_path / "chosen.parquet"
    assert main(["select", str(output), "--least-confident", "3", "--to", str(chosen)]) == 0
    rows = pq.read_table(chosen).to_pylist()
    assert len(rows) == 3
    places = [row["mask_uri"].removeprefix("file://").partition("!/")[0] for row in rows]
    assert all(Path(place).is_relative_to(output) and Path(place).exists() for place in places)


def test_an_archive_can_be_made_of_it(output: Path) -> None:
    """Records and manifests of earlier versions go through the archive and back."""
    uri = f"file://{output}"
    History(Storage(), uri).keep_archive(1)
    plain, archived = History(Storage(), uri), History.with_archive(Storage(), uri)
    assert archived.archive is not None
    assert archived.manifests(archived.runs()) == plain.manifests(plain.runs())
