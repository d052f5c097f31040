"""What a resumed run costs before anything is done: run.json, the listing of commits, what is left.

A run of 400,000 shards, of which every second one is committed, is made up on a disk or, with
`--s3`, in a bucket whose listing a process of its own serves. A process of its own does what
`label` does until the groups of shards are handed to Ray.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

from pipeline.labelling.history import History
from pipeline.store.storage import Storage
from tests.benchmarks.made_up import in_bucket, on_disk
from tests.benchmarks.table import print_header, print_table


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    # Whoever serves the bucket asks nobody who they are.
    os.environ.update({"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        if arguments.s3:
            with in_bucket(arguments.shards) as (output, endpoint):
                rows = pool.apply(_resume, (output, endpoint))
        else:
            with tempfile.TemporaryDirectory() as temporary:
                output = on_disk(arguments.shards, Path(temporary) / "out")
                rows = pool.apply(_resume, (output, None))
    print(f"{arguments.shards:,} shards, half of them committed\n")
    print_table(["until then", "seconds", "CPU seconds", "peak RSS, MiB"], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=400_000)
    parser.add_argument("--s3", action="store_true", help="a bucket instead of a disk")
    return parser.parse_args()


def _resume(output: str, endpoint: str | None) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    started, cpu = time.perf_counter(), time.process_time()

    def note(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds, used = time.perf_counter() - started, time.process_time() - cpu
        rows.append((what, f"{seconds:.2f}", f"{used:.2f}", f"{peak:.0f}"))

    note("imported")
    [run] = History(Storage(endpoint), output).runs()
    assert not run.finished(), "nothing is published"
    note("run.json is read")
    todo = run.missing()
    assert len(todo) == run.record.num_shards // 2, "every second shard is committed"
    note("what is left is known")
    assert todo.num_images == run.record.num_images // 2, "shards are alike"
    note("its images are counted")
    assert sum(len(group["row_groups"]) for group in todo.groups()) == len(todo), "all of them"
    note("it is cut into groups")
    return rows


if __name__ == "__main__":
    main()
