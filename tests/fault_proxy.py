"""A proxy between the product and an S3 server, which makes named faults happen on purpose.

A fault strikes at a request, before the server sees it or after the server has done it: the
moments that a kill or a lost answer separates. What the server answers can be changed, too.
"""

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

PASS = 0
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Reply:
    """What a client gets.

    `length` is the Content-Length that it is told, that of the body by default; `chunked` tells it
    none. With `drip_s` the body comes byte by byte, with so many seconds between.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int | None = None
    chunked: bool = False
    drip_s: float = 0.0

    def without(self, name: str) -> "Reply":
        """Leave a header out."""
        kept = tuple(header for header in self.headers if header[0].lower() != name.lower())
        return replace(self, headers=kept)

    def with_header(self, name: str, value: Callable[[str], str]) -> "Reply":
        """Change the value of a header, if it is there."""
        changed = tuple(
            (key, value(old) if key.lower() == name.lower() else old) for key, old in self.headers
        )
        return replace(self, headers=changed)


def refusal(status: int, code: str) -> Reply:
    """Return what S3 says when it refuses: a document with a code."""
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"
    return Reply(status, (("Content-Type", "application/xml"),), body.encode())


def page(body: bytes = b"<html><body>Log in</body></html>") -> Reply:
    """Return what a console or a captive portal answers whatever is asked."""
    return Reply(200, (("Content-Type", "text/html"),), body)


@dataclass
class Fault:
    """What happens at a request, the first `times` times after `spared` ones.

    `when` is "before" or "after" the server has done it. `act` runs then; if it returns a status or
    a reply, the client gets that instead of the server's answer, at None the connection is cut, at
    `PASS` nothing else happens. `change` makes another reply of the server's own.
    """

    method: str
    path: str
    when: str
    act: Callable[[], int | Reply | None] = lambda: PASS
    times: int = 1
    struck: int = 0
    spared: int = 0
    change: Callable[[Reply], Reply] | None = None

    def strikes(self, method: str, path: str, when: str) -> bool:
        return (
            self.struck < self.times
            and (self.method, self.when) == (method, when)
            and re.search(self.path, path) is not None
        )


@dataclass
class Proxy:
    """A running proxy; add to `faults` at any time, read `requests` and `headers` afterwards."""

    endpoint_url: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str, when: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.strikes(method, path, when):
                    if fault.spared > 0:
                        fault.spared -= 1
                        continue
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
            self.proxy.headers.append({name.lower(): self.headers[name] for name in self.headers})
        if (fault := self._fault("before")) and self._strike(fault):
            return
        answer, data = self._pass_on(body)
        fault = self._fault("after")
        if fault is not None and self._strike(fault):
            return
        reply = self._reply(answer, data)
        self._send(fault.change(reply) if fault is not None and fault.change else reply)

    def _reply(self, answer: http.client.HTTPResponse, data: bytes) -> Reply:
        headers = tuple(
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in (*_HOP_BY_HOP, "content-length", "date", "server")
        )
        of_head = int(answer.getheader("Content-Length") or 0)
        return Reply(answer.status, headers, data, of_head if self.command == "HEAD" else None)

    def _send(self, reply: Reply) -> None:
        has_body = self.command != "HEAD"
        length = len(reply.body) if reply.length is None else reply.length
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if not reply.chunked:
            self.send_header("Content-Length", str(length))
        elif has_body:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if has_body:
            self._send_body(reply)
            self.close_connection |= not reply.chunked and length != len(reply.body)

    def _send_body(self, reply: Reply) -> None:
        if reply.chunked:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(reply.body), reply.body))
        elif reply.drip_s:
            for place in range(len(reply.body)):
                self.wfile.write(reply.body[place : place + 1])
                time.sleep(reply.drip_s)
        else:
            self.wfile.write(reply.body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do_request  # noqa: N815 - http.server's

    def _pass_on(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        # Closed also where a client that was killed has left it amid a request.
        with closing(http.client.HTTPConnection(*self.upstream, timeout=60)) as connection:
            connection.putrequest(
                self.command,
                # A client for whom this is a proxy by its environment names the server, too.
                re.sub("^http://[^/]+", "", self.path),
                skip_host=True,
                skip_accept_encoding=True,
            )
            for name, value in self.headers.items():
                if name.lower() not in (*_HOP_BY_HOP, "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer, answer.read()

    def _fault(self, when: str) -> Fault | None:
        return self.proxy.take(self.command, self.path, when)

    def _strike(self, fault: Fault) -> bool:
        """Let a fault act; return whether the client has its answer, or never gets one."""
        acted = fault.act()
        if acted == PASS:
            return False
        if acted is None:
            self.close_connection = True
            self.connection.close()
        else:
            self._send(acted if isinstance(acted, Reply) else Reply(acted))
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
