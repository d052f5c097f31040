"""A server that speaks what of Google Cloud Storage's XML API the product uses; run as a process.

It keeps objects in memory, and follows https://cloud.google.com/storage/docs/xml-api: generations,
`x-goog-if-generation-match`, `If-Match`, ranges, and listings (version 2) page by page. Emulators
that come as packages overlook the condition of an upload, which the tests are about; so does this
one with --ignore-conditions. Whose requests these are it does not check.
"""

import argparse
import hashlib
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_PAGE = 100


@dataclass(frozen=True)
class Stored:
    """An object, as it was written at a time."""

    data: bytes
    generation: int
    changed: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'

    def headers(self) -> dict[str, str]:
        return {
            "ETag": self.etag,
            "Last-Modified": format_datetime(self.changed, usegmt=True),
            "x-goog-generation": str(self.generation),
            "Content-Type": "application/octet-stream",
        }


@dataclass
class Store:
    """Buckets of objects."""

    honours_conditions: bool
    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)
    num_written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, bucket: str, key: str, data: bytes, generation: str | None) -> Stored | None:
        """Write an object if it has this generation still; 0 stands for none."""
        with self.lock:
            there = self.buckets[bucket].get(key)
            expected = str(there.generation) if there else "0"
            if self.honours_conditions and generation not in (None, expected):
                return None
            self.num_written += 1
            stored = Stored(data, self.num_written, datetime.now(UTC))
            self.buckets[bucket][key] = stored
            return stored

    def listing(self, bucket: str, asked: dict[str, str]) -> str:
        """Return a page of a listing, as a document."""
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("continuation-token") or asked.get("start-after", "")
        with self.lock:
            there = sorted(self.buckets[bucket].items())
        shown: dict[str, str] = {}
        for key, stored in there:
            if not key.startswith(prefix):
                continue
            below = key[len(prefix) :]
            name, cut, _ = below.partition(delimiter) if delimiter else (below, "", "")
            if (whole := prefix + name + cut) > after:
                shown[whole] = _folder(whole) if cut else _entry(key, stored)
        page = sorted(shown)[:_PAGE]
        is_cut = len(shown) > len(page)
        token = (
            f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if is_cut else ""
        )
        return (
            f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>{bucket}</Name>"
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}"
            f"{''.join(shown[name] for name in page)}</ListBucketResult>"
        )


def _folder(name: str) -> str:
    return f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"


def _entry(key: str, stored: Stored) -> str:
    changed = stored.changed.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified>"
        f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.data)}</Size></Contents>"
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        bucket, key = self._place()
        if not key:
            self.store.buckets.setdefault(bucket, {})
            self._answer(200)
        elif bucket not in self.store.buckets:
            self._refuse(404, "NoSuchBucket")
        elif stored := self.store.put(
            bucket, key, data, self.headers.get("x-goog-if-generation-match")
        ):
            self._answer(200, stored.headers())
        else:
            self._refuse(412, "PreconditionFailed")

    def do_GET(self) -> None:
        bucket, key = self._place()
        if bucket not in self.store.buckets:
            self._refuse(404, "NoSuchBucket")
        elif not key:
            asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            page = self.store.listing(bucket, {name: values[0] for name, values in asked.items()})
            self._answer(200, {"Content-Type": "application/xml"}, page.encode())
        elif (stored := self.store.buckets[bucket].get(key)) is None:
            self._refuse(404, "NoSuchKey")
        elif self.headers.get("If-Match") not in (None, stored.etag):
            self._refuse(412, "PreconditionFailed")
        else:
            self._send(stored)

    do_HEAD = do_GET  # noqa: N815 - http.server's

    def do_DELETE(self) -> None:
        bucket, key = self._place()
        if self.store.buckets.get(bucket, {}).pop(key, None) is None:
            self._refuse(404, "NoSuchKey")
        else:
            self._answer(204)

    def _send(self, stored: Stored) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None:
            self._answer(200, stored.headers(), stored.data)
            return
        first, last = int(found[1]), min(int(found[2]), len(stored.data) - 1)
        if first > last:
            self._refuse(416, "InvalidRange")
            return
        shown = {"Content-Range": f"bytes {first}-{last}/{len(stored.data)}"}
        self._answer(206, stored.headers() | shown, stored.data[first : last + 1])

    def _place(self) -> tuple[str, str]:
        bucket, _, key = urlsplit(self.path).path.removeprefix("/").partition("/")
        return unquote(bucket), unquote(key)

    def _refuse(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"
        self._answer(status, {"Content-Type": "application/xml"}, body.encode())

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--ignore-conditions", action="store_true")
    given = parser.parse_args()
    store = Store(honours_conditions=not given.ignore_conditions)
    handler = type("Handler", (_Handler,), {"store": store})
    ThreadingHTTPServer(("127.0.0.1", given.port), handler).serve_forever()


if __name__ == "__main__":
    main()
