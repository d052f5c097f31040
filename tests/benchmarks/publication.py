"""Publishing many images: what a worker needs for a section, and the driver for the rest.

A run with commit records of made-up rows (256 images of 6 classes each by default) is written to a
disk; of masks there is none. Each step runs in a process of its own: a worker that publishes one
section, the rest of them, then the driver at the end of a run: with every section published, as
after a run on a cluster, with one left, and with all of them left, as where there is no cluster.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run, find_run
from pipeline.labelling.section_tables import publish_section
from pipeline.labelling.sections import sections_of
from pipeline.store.storage import Storage
from tests.benchmarks.made_up import IMAGES_PER_SHARD, made_up_run
from tests.benchmarks.made_up_rows import write_commits
from tests.benchmarks.processes import peak_mib
from tests.benchmarks.table import print_header, print_table

_SIZE = (1024, 2048)
_Row = tuple[str, str, str, str]


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        run = made_up_run(arguments.shards, f"file://{temporary}/out", arguments.classes)
        write_commits(run, _SIZE, arguments.classes)
        sections = list(sections_of(run.record.plan))
        rows = [_in_process("a worker: one section", run, _publish_sections, (1,))]
        rows.append(_in_process("a worker: the other sections", run, _publish_sections, (None,)))
        rows.append(_in_process("the driver, all published", run, _publish, ()))
        _undo(run, [sections[-1].number])
        rows.append(_in_process("the driver, one section left", run, _publish, ()))
        _undo(run, [section.number for section in sections])
        rows.append(_in_process("the driver, all left", run, _publish, ()))
    images = arguments.shards * IMAGES_PER_SHARD
    print(f"{images:,} images of {arguments.classes} classes, {len(sections)} sections\n")
    print_table(["", "seconds", "CPU seconds", "peak RSS, MiB"], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=3_907)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--folder", help="where the output is made")
    return parser.parse_args()


def _in_process(what: str, run: Run, work: Callable[..., None], given: tuple[object, ...]) -> _Row:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (what, run.output, run.run_id, work, given))


def _measured(
    what: str, output: str, run_id: str, work: Callable[..., None], given: tuple[object, ...]
) -> _Row:
    run = find_run(Storage(), output, run_id)
    assert run is not None, "it was made up"
    started, cpu = time.perf_counter(), time.process_time()
    work(run, *given)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    return (what, f"{seconds:.1f}", f"{used:.1f}", f"{peak_mib():.0f}")


def _publish_sections(run: Run, number: int | None) -> None:
    for section in list(sections_of(run.record.plan))[:number]:
        publish_section(run, section)


def _publish(run: Run) -> None:
    manifest = publish(run, str)
    assert manifest.num_images == run.record.num_images, "all are committed"


def _undo(run: Run, numbers: list[int]) -> None:
    """Take away the end of the publication, and some sections."""
    folder = Path(run.output.removeprefix("file://"))
    for name in ("manifest.json", "_SUCCESS"):
        (folder / "runs" / run.run_id / name).unlink()
    for number in numbers:
        (folder / "runs" / run.run_id / f"sections/{number:05d}.json").unlink()
        for table in ("images", "class_statistics"):
            (folder / table / f"run={run.run_id}" / f"part-{number:05d}.parquet").unlink()


if __name__ == "__main__":
    main()
