"""Use the product as its users do, and read what it has written."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.__main__ import main
from jobs.demo.scenes import draw_scene
from pipeline.labelling.history import History
from pipeline.labelling.runs import Run
from pipeline.store.storage import Storage

# A network so small that the flow around it is what a test waits for.
NETWORK = ("--weights", "random:0", "--width", "4", "--num-classes", "5")

REPOSITORY = Path(__file__).parent.parent


def label(source: object, output: object, *flags: object) -> int:
    """Run `label` in this process; give its exit code."""
    return main(label_flags(source, output, *flags))


def label_flags(source: object, output: object, *flags: object) -> list[str]:
    return ["label", "--input", str(source), "--output", str(output), *NETWORK, *map(str, flags)]


def start(arguments: list[str], log: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Start the command as a process of its own, with its own Ray."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, **environ},
        )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something holds while a process runs, up to four minutes."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def the_run(output: str, storage: Storage | None = None) -> Run:
    """Return the newest run of an output."""
    return History(storage or Storage(), output).runs()[-1]


def tables(run: Run) -> tuple[list[dict], list[dict]]:
    """Read both published tables without what differs between equal runs."""
    manifest = run.manifest()
    assert manifest is not None, "the run is not published"
    found = []
    for parts in (manifest.images, manifest.class_statistics):
        rows = pa.concat_tables(
            pq.read_table(pa.BufferReader(run.storage.read(f"{run.output}/{part.file}")))
            for part in parts
        ).to_pylist()
        for row in rows:
            row.pop("labelled_at", None)
            row.pop("run_id")
            if row.get("mask_uri"):
                place = row["mask_uri"].removeprefix(f"{run.output}/")
                row["mask_uri"] = place.replace(run.run_id, "RUN")
        found.append(rows)
    return found[0], found[1]


def mask_hashes(run: Run) -> dict[str, str]:
    """Hash every file below the run's folder of masks, those in tars by their names as files."""
    prefix = run.masks_folder + "/"
    found: dict[str, str] = {}
    for entry in run.storage.walk(run.masks_folder):
        data, name = run.storage.read(entry.uri), entry.uri.removeprefix(prefix)
        for key, png in in_tar(data) if name.endswith(".tar") else [(name, data)]:
            assert key not in found, f"{key} is there twice"
            found[key] = hashlib.sha256(png).hexdigest()
    return found


def in_tar(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Read the members of a tar of masks, with the names that their masks have as files."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            yield unquote(member.name), tar.extractfile(member).read()


def draw_photographs(folder: Path, number: int, size: tuple[int, int] = (40, 60)) -> Path:
    """Write small JPEGs, each another picture."""
    from PIL import Image  # noqa: PLC0415 - most tests of runs draw nothing

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        Image.fromarray(draw_scene(index, *size)[0]).save(folder / f"photo_{index:03d}.jpg")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path -> (mtime in ns, inode) of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
