"""Requests to a bucket with masks as files and in tars: counted on their way, and their price.

`label` and `verify` run on small photographs in a bucket behind a proxy that counts requests. The
lock is left out, whose number goes by the clock, and the report's pictures, a fixed number.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

from jobs.__main__ import main as fcn
from pipeline.labelling.request_costs import Requests, labelling, verifying
from tests.benchmarks.table import print_header, print_table
from tests.fault_proxy import fault_proxy
from tests.product import draw_photographs, label
from tests.servers import CREDENTIALS, Server, moto_server

_MILLION = 1_000_000
_SHARD = 256


def main() -> None:
    """Count and print."""
    arguments = _parse()
    os.environ.update(CREDENTIALS)
    print_header()
    rows = []
    with tempfile.TemporaryDirectory() as folder, moto_server(Path(folder) / "log") as server:
        photographs = draw_photographs(Path(folder) / "photographs", arguments.images, (8, 8))
        for kind in ("files", "tar"):
            rows += _counted(server, photographs, kind, arguments)
    heads = ["", "writes and lists", "reads", "dollars"]
    print_table(heads, rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1024, help="that are labelled")
    parser.add_argument("--shard", type=int, default=256, help="images of a shard")
    return parser.parse_args()


def _counted(
    server: Server, photographs: Path, kind: str, arguments: argparse.Namespace
) -> list[tuple[object, ...]]:
    bucket = server.make_bucket()
    for path in photographs.iterdir():
        server.put(bucket, f"in/{path.name}", path.read_bytes())
    output, number = f"s3://{bucket}/out", arguments.images
    flags = ("--masks", kind, "--report-images", 0, "--max-shard-images", arguments.shard)
    with fault_proxy(server.endpoint_url) as proxy:
        endpoint = ("--s3-endpoint-url", proxy.endpoint_url)
        assert label(f"s3://{bucket}/in", output, *flags, *endpoint) == 0
        labelled = _requests(proxy.requests)
        proxy.requests.clear()
        assert fcn(["verify", output, *endpoint]) == 0
        verified = _requests(proxy.requests)
    size = number, -(-number // arguments.shard)
    return [
        row
        for name, counted, reckon in (
            ("label", labelled, labelling),
            ("verify", verified, verifying),
        )
        for row in _rows(f"{kind}: {name}", counted, partial(reckon, in_tars=kind == "tar"), size)
    ]


def _rows(
    name: str, counted: Requests, reckon: Callable[[int, int], Requests], size: tuple[int, int]
) -> list[tuple[object, ...]]:
    of_a_million = reckon(_MILLION, -(-_MILLION // _SHARD))
    return [
        (f"{name}, {size[0]:,} images, counted", *astuple(counted), f"{counted.dollars:.4f}"),
        (f"{name}, {size[0]:,} images, as plan reckons", *astuple(reckon(*size)), ""),
        (
            f"{name}, a million, as plan reckons",
            *astuple(of_a_million),
            f"{of_a_million.dollars:.2f}",
        ),
    ]


def _requests(made: list[tuple[str, str]]) -> Requests:
    kinds = Counter(
        "write" if method == "PUT" or "list-type" in path else "read"
        for method, path in made
        if "/locks/" not in path and "locks%2F" not in path
    )
    return Requests(kinds["write"], kinds["read"])


if __name__ == "__main__":
    main()
