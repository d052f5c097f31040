"""The web as a store: what is asked again, and what its answers mean."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.storage import Storage


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, _, data = self.path.partition("?")[0].strip("/").partition("/")
        # Of two answers by their numbers, the first is given once.
        first, _, then = status.partition("-")
        self.server.num_asked += 1
        self.send_response(int(first if self.server.num_asked == 1 or not then else then))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    """Return the address of a server that answers as the path asks: /STATUS/DATA."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.num_asked = 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", ["503", "500", "429", "408"])
def test_what_may_pass_is_asked_again(web: str, status: str) -> None:
    """A server that is busy is asked again, and both requests are counted."""
    storage = Storage()
    assert storage.read(f"{web}/{status}-200/weights?version=1") == b"weights"
    assert storage.requests == {"read": 2}
    assert storage.retries == {"request": 1}


@pytest.mark.parametrize(
    ("status", "code"), [("404", ErrorCode.NOT_FOUND), ("403", ErrorCode.FORBIDDEN)]
)
def test_a_refusal_is_not_asked_again(web: str, status: str, code: ErrorCode) -> None:
    """What is missing or forbidden stays so; the message keeps the query for itself."""
    storage = Storage()
    with pytest.raises(StoreError, match=f"{web}/{status}/a") as caught:
        storage.read(f"{web}/{status}/a?key=secret")
    assert caught.value.code is code
    assert "secret" not in caught.value.message
    assert storage.requests == {"read": 1}


def test_a_server_that_never_recovers_does_not_answer(web: str) -> None:
    """After the last attempt the store has not answered."""
    storage = Storage(attempts=2)
    with pytest.raises(StoreError, match="no answer") as caught:
        storage.read(f"{web}/503/a")
    assert "bring the file here and name its path" in caught.value.message
    assert caught.value.code is ErrorCode.TIMEOUT
    assert storage.requests == {"read": 2}
