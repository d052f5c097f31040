"""CPU time that an image of no size costs, by role: from a disk, and through an S3 server.

Images of 16 x 16 pixels in shards of 256 are labelled by the smallest network, so that what is
left is the work for each image that its pixels do not cause. The server is moto, a process of its
own, whose time is not counted. Counted is from the first commit to the last.
"""

import argparse
import os
import tempfile
from pathlib import Path

from pipeline.store.storage import Storage
from tests.benchmarks.labelling import commit_times, label_command, watch_command
from tests.benchmarks.processes import ROLES, cpu_between
from tests.benchmarks.table import print_header, print_table
from tests.product import draw_photographs
from tests.servers import CREDENTIALS, moto_server

_SAMPLE_S = 0.5
_SIZE = (16, 16)
_SMALLEST = ("--width", "2", "--num-classes", "4", "--report-images", "0")


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    os.environ.update(CREDENTIALS)
    print_header()
    rows = []
    with tempfile.TemporaryDirectory() as temporary, moto_server(Path(temporary) / "log") as server:
        folder = Path(temporary)
        images = draw_photographs(folder / "disk", arguments.on_disk, _SIZE)
        for number in range(arguments.rounds):
            output = folder / f"out-{number}"
            rows.append(_measure("disk", images, output, Storage()))
        bucket = server.make_bucket()
        for path in sorted(images.iterdir())[: arguments.in_bucket]:
            server.put(bucket, f"in/{path.name}", path.read_bytes())
        storage = Storage(server.endpoint_url)
        for number in range(arguments.rounds):
            name = f"s3://{bucket}/out-{number}"
            rows.append(_measure("S3", f"s3://{bucket}/in", name, storage))
    print_table(["ms of CPU per image", "images", *ROLES, "images/s", "others"], rows)
    print("others: CPU cores that other processes kept busy meanwhile, the server among them")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on-disk", type=int, default=20_000, help="images from a disk")
    parser.add_argument("--in-bucket", type=int, default=5_000, help="images through the server")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def _measure(
    where: str, images: Path | str, output: Path | str, storage: Storage
) -> tuple[str, ...]:
    at = storage.s3_endpoint_url
    endpoint = ("--s3-endpoint-url", at) if at else ()
    flags = (*_SMALLEST, *endpoint)
    samples = watch_command(label_command(images, output, *flags), _SAMPLE_S)
    commits = commit_times(output, storage)
    start, end = commits[0][0], commits[-1][0]
    number = sum(images for _, images in commits[1:])
    rate = number / (end - start)
    cores, others = cpu_between(samples, start, end)
    each = (f"{1e3 * cores[role] / rate:.2f}" for role in ROLES)
    return where, f"{number:,}", *each, f"{rate:.0f}", f"{others:.2f}"


if __name__ == "__main__":
    main()
