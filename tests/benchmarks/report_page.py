"""What the page of a report costs: requests to a bucket, seconds, and bytes of the page.

Photographs in a bucket behind a proxy that counts requests are labelled without pictures in the
report; then `report --html` writes its page, without and with the pictures that are its default.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from jobs.__main__ import main as fcn
from pipeline.settings.label import REPORT_IMAGES
from pipeline.store.storage import Storage
from tests.benchmarks.photos import add_images_flag, lay_out
from tests.benchmarks.table import print_header, print_table
from tests.fault_proxy import Proxy, fault_proxy
from tests.product import NETWORK, the_run
from tests.servers import CREDENTIALS, Server, moto_server


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    os.environ.update(CREDENTIALS)
    print_header()
    with (
        tempfile.TemporaryDirectory() as temporary,
        moto_server(Path(temporary) / "moto.log") as server,
        fault_proxy(server.endpoint_url) as proxy,
    ):
        bucket = _upload(arguments, server, Path(temporary))
        endpoint = ("--s3-endpoint-url", proxy.endpoint_url)
        places = ("--input", f"s3://{bucket}/in", "--output", f"s3://{bucket}/out")
        weights = NETWORK if arguments.weights is None else ("--weights", arguments.weights)
        assert fcn(["label", *places, *weights, "--report-images", "0", *endpoint]) == 0
        pictures = [("--report-images", str(number)) for number in (0, REPORT_IMAGES)]
        rows = [_page(bucket, proxy, (*endpoint, *some)) for some in pictures]
    print_table(["images, at most", "reads", "seconds", "CPU seconds", "page, kB"], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--number", type=int, default=101, help="photographs")
    parser.add_argument("--weights", help="a checkpoint; default: an untrained network")
    return parser.parse_args()


def _upload(arguments: argparse.Namespace, server: Server, temporary: Path) -> str:
    bucket = server.make_bucket()
    folder = lay_out(arguments.images, temporary / "photographs", arguments.number)
    for path in folder.rglob("*.jpg"):
        server.put(bucket, f"in/{path.relative_to(folder)}", path.read_bytes())
    return bucket


def _page(bucket: str, proxy: Proxy, flags: tuple[str, ...]) -> tuple[object, ...]:
    proxy.requests.clear()
    start, cpu = time.perf_counter(), time.process_time()
    assert fcn(["report", f"s3://{bucket}/out", "--html", *flags]) == 0
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    reads = sum(method in ("GET", "HEAD") for method, _ in proxy.requests)
    run = the_run(f"s3://{bucket}/out", Storage(proxy.endpoint_url))
    page = run.storage.stat(f"{run.folder}/report.html").num_bytes
    return flags[-1], reads, f"{seconds:.1f}", f"{cpu_s:.1f}", f"{page / 1e3:.0f}"


if __name__ == "__main__":
    main()
