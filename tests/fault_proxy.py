"""A proxy between the product and an S3 server, which makes named faults happen on purpose.

A fault strikes at a request, before the server sees it or after the server has done it: the
moments that a kill or a lost answer separates.
"""

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

PASS = 0
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Fault:
    """What happens at a request, the first `times` times.

    `when` is "before" or "after" the server has done it. `act` runs then; if it returns a status,
    the client gets that instead of the server's answer, at None the connection is cut, at `PASS`
    nothing else happens.
    """

    method: str
    path: str
    when: str
    act: Callable[[], int | None]
    times: int = 1
    struck: int = 0

    def strikes(self, method: str, path: str, when: str) -> bool:
        return (
            self.struck < self.times
            and (self.method, self.when) == (method, when)
            and re.search(self.path, path) is not None
        )


@dataclass
class Proxy:
    """A running proxy; add to `faults` at any time, read `requests` afterwards."""

    endpoint_url: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str, when: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.strikes(method, path, when):
                    fault.struck += 1
                    return fault
        return None


class Gate:
    """Holds requests from a certain one on until it is opened; use it in a `with` block."""

    def __init__(self, proxy: Proxy, method: str, path: str, num_passing: int) -> None:
        self._proxy = proxy
        self._passing = Fault(method, path, "before", lambda: PASS, times=num_passing)
        self._held = Fault(method, path, "before", self._hold, times=10**6)
        self._opened = threading.Event()

    def __enter__(self) -> Self:
        self._proxy.faults += [self._passing, self._held]
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    @property
    def holds(self) -> bool:
        """Whether a request has come to it that may not pass."""
        return self._held.struck > 0

    def open(self) -> None:
        self._opened.set()

    def _hold(self) -> int:
        self._opened.wait(300)
        return PASS


class _Handler(BaseHTTPRequestHandler):
    """Passes one request on, unless a fault strikes."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy
    upstream: tuple[str, int]

    def do_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.proxy.lock:
            self.proxy.requests.append((self.command, self.path))
        if self._struck("before"):
            return
        answer, data = self._pass_on(body)
        if self._struck("after"):
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_HOP_BY_HOP, "content-length", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do_request  # noqa: N815 - http.server's

    def _pass_on(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in (*_HOP_BY_HOP, "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer, data

    def _struck(self, when: str) -> bool:
        fault = self.proxy.take(self.command, self.path, when)
        if fault is None:
            return False
        status = fault.act()
        if status == PASS:
            return False
        if status is not None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.close_connection = True
            self.connection.close()
        return True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def fault_proxy(upstream_url: str) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    upstream = urlsplit(upstream_url)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients that were killed
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
    place = (upstream.hostname, upstream.port)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"proxy": proxy, "upstream": place})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
