"""Labelling jobs as a benchmark runs them: the command itself, or the flow with another network."""

import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc

from pipeline.cluster.connect import start_ray
from pipeline.labelling.chain import label_shards
from pipeline.labelling.history import History
from pipeline.labelling.precision import decided
from pipeline.labelling.segment import LoadPredictor
from pipeline.labelling.session import open_job
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage
from tests.benchmarks.processes import Sample, Watch


def label_command(photos: Path | str, output: Path | str, *flags: str) -> list[str]:
    """Return the command that labels a folder with random weights.

    Args:
        photos: The input, a path or URI.
        output: The output, the same.
        flags: More of them.
    """
    command = [sys.executable, "-m", "jobs", "label", "--weights", "random:0"]
    return [*command, "--input", str(photos), "--output", str(output), *flags]


def watch_command(command: list[str], interval_s: float, *, memory: bool = False) -> list[Sample]:
    """Run a labelling command and sample its processes until it ends.

    Args:
        command: From `label_command`.
        interval_s: Between two samples.
        memory: Whether to sample memory.

    Raises:
        SystemExit: The command fails; the message is what it wrote.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        with Watch(process.pid, interval_s, memory=memory) as watch:
            text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{text}")
    return watch.samples


def label_with(load: LoadPredictor, photos: Path, output: Path, max_shard_images: int) -> int:
    """Label a folder in this process with a network of the caller's.

    Args:
        load: Gives a replica its network.
        photos: The input.
        output: The output; its commits are made and not published.
        max_shard_images: Images per shard.

    Returns:
        The number of images.
    """
    settings = LabelSettings(
        input=str(photos),
        output=str(output),
        weights="random:0",
        max_shard_images=max_shard_images,
    )
    start_ray(settings.ray_address)
    job = decided(open_job(settings)).checked()
    with job.lock() as lock:
        run = job.open_run(job.look(), lock.number)
        receipts = list(label_shards(run, run.missing(), settings, load))
    assert sum(receipt["num_failed"] for receipt in receipts) == 0, "photographs are not broken"
    return sum(receipt["num_images"] for receipt in receipts)


def commit_times(output: Path | str, storage: Storage | None = None) -> list[tuple[float, int]]:
    """Read when each shard was done, from `labelled_at` in its commit record.

    Args:
        output: A path, or a URI.
        storage: Reads it; None for a disk.

    Returns:
        Seconds since the epoch and number of images of every shard, in order of time.
    """
    uri = f"file://{output}" if isinstance(output, Path) else output
    (run,) = History(storage or Storage(), uri).runs()
    tables = run.commits(["labelled_at"])
    return sorted(
        (pc.max(table["labelled_at"]).as_py().timestamp(), table.num_rows) for table in tables
    )
