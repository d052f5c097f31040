"""CPU time of one request to S3, by kind and by the library that makes it, and of a listed key.

The server is moto; for listings, one of made-up pages of a thousand keys. `s3fs` is the path of
the first request and of what is odd, `obstore` that of all others; a listing is s3fs's, with pages
parsed by botocore or by expat. The rounds go in turns, and the fastest of each counts.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pipeline.store.s3_client
from pipeline.store.access import Access
from pipeline.store.attempts import Asking, Pace, Patience, Tally
from pipeline.store.bucket import Bucket
from pipeline.store.s3 import S3
from pipeline.store.s3_client import S3Client
from tests.benchmarks.made_up import in_bucket
from tests.benchmarks.table import print_header, print_table
from tests.servers import CREDENTIALS, moto_server

_ROUNDS = 3
_MASK_BYTES = 20_000
_PHOTOGRAPH_BYTES = 500_000


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    os.environ.update(CREDENTIALS)
    print_header()
    with tempfile.TemporaryDirectory() as folder, moto_server(Path(folder) / "log") as server:
        bucket = f"s3://{server.make_bucket()}"
        buckets = _opened(server.endpoint_url)
        for one in buckets.values():
            for _ in range(2):  # the second request is obstore's first
                one.write(f"{bucket}/photograph", bytes(_PHOTOGRAPH_BYTES))
        # In a thread, as the product's are: the main one lets another wait, for signals.
        with ThreadPoolExecutor(1) as pool:
            rows = pool.submit(_requests, buckets, bucket, arguments.number).result()
        print_table(["request", *buckets], rows)
    with in_bucket(2 * arguments.keys) as (output, endpoint_url):
        listed = _opened(endpoint_url)["s3fs"]
        print_table(["keys listed", "botocore", "expat"], [_keys(listed, output, arguments.keys)])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=300, help="of requests in a round")
    parser.add_argument("--keys", type=int, default=50_000, help="that are listed")
    return parser.parse_args()


def _opened(endpoint_url: str) -> dict[str, Bucket]:
    asking = Asking(Patience(3, 30.0), Pace(), Tally(), Tally())
    clients = {
        "s3fs": S3Client(endpoint_url, 60.0, Access()),
        "obstore": S3(S3Client(endpoint_url, 60.0, Access()), 60.0, Access()),
    }
    return {name: Bucket(client, asking) for name, client in clients.items()}


def _requests(buckets: dict[str, Bucket], place: str, number: int) -> list[tuple[str, ...]]:
    mask = os.urandom(_MASK_BYTES)
    kinds: dict[str, Callable[[Bucket, str], object]] = {
        "GET 500 kB, ms": lambda one, _: one.read(f"{place}/photograph", None, None),
        "PUT 20 kB if absent, ms": lambda one, name: one.create(f"{place}/{name}", mask),
        "HEAD, ms": lambda one, _: one.stat(f"{place}/photograph"),
    }
    rows = []
    for kind, ask in kinds.items():
        times: dict[str, float] = {}
        for turn in range(_ROUNDS):
            for name, one in buckets.items():
                start = time.process_time()
                for each in range(number):
                    ask(one, f"{kind[:3]}/{name}/{turn}/{each}")
                passed = (time.process_time() - start) / number
                times[name] = min(passed, times.get(name, passed))
        rows.append((kind, *(f"{1e3 * times[name]:.2f}" for name in buckets)))
    return rows


def _keys(bucket: Bucket, output: str, number: int) -> tuple[str, ...]:
    (run,) = bucket.children(f"{output}/runs/")
    folder = f"{output}/runs/{run}/commits/"
    # Whoever has let a client parse fast keeps it so.
    fast, pipeline.store.s3_client.parse_pages_fast = (
        pipeline.store.s3_client.parse_pages_fast,
        lambda client: client.meta.events.unregister(
            "before-parse.*.ListObjectsV2", unique_id="fcn-read-objects"
        ),
    )
    slow = _per_key(bucket, folder, number)
    pipeline.store.s3_client.parse_pages_fast = fast
    return f"{number:,}, us per key", slow, _per_key(bucket, folder, number)


def _per_key(bucket: Bucket, folder: str, number: int) -> str:
    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        found = sum(1 for _ in bucket.walk(folder))
        times.append(time.process_time() - start)
        assert found == number, f"{found} keys were listed"
    return f"{1e6 * min(times) / number:.1f}"


if __name__ == "__main__":
    main()
