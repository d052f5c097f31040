"""A bucket that a process knows: obstore asks as s3fs did, and s3fs where obstore can't."""

import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.errors import Stopped, StoreError
from pipeline.store.access import Access
from pipeline.store.s3 import open_s3
from pipeline.store.storage import Storage
from tests.certificates import make_certificates
from tests.fault_proxy import Fault, Proxy, Reply, fault_proxy, refusal
from tests.servers import Server, moto_server

_THROUGH_OBSTORE = "object_store"


@dataclass
class Known:
    """A bucket behind a proxy, whose address s3fs has found already."""

    proxy: Proxy
    storage: Storage
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/in/object"

    def agents(self) -> list[str]:
        """Return which library has made each request since, and forget them."""
        agents = [headers["user-agent"].partition("/")[0] for headers in self.proxy.headers]
        self.proxy.headers.clear()
        self.proxy.requests.clear()
        return agents


@pytest.fixture
def known(s3: Server) -> Iterator[Known]:
    bucket = s3.make_bucket()
    s3.put(bucket, "in/object", b"content")
    with fault_proxy(s3.endpoint_url) as proxy:
        storage = Storage(proxy.endpoint_url, timeout_s=2.0, patience_s=60.0, attempts=5)
        known = Known(proxy, storage, bucket)
        known.storage.read(known.uri)
        known.agents()
        yield known


def test_a_process_asks_with_obstore_from_the_second_request_on(s3: Server) -> None:
    """The first request to a bucket is s3fs's; those that follow are not, of whichever kind."""
    bucket = s3.make_bucket()
    with fault_proxy(s3.endpoint_url) as proxy:
        storage = Storage(proxy.endpoint_url)
        storage.write(f"s3://{bucket}/a", b"1")
        known = Known(proxy, storage, bucket)
        assert known.agents() == ["aiobotocore"]
        assert storage.create(f"s3://{bucket}/b", b"2")
        assert not storage.create(f"s3://{bucket}/b", b"3")
        assert storage.read(f"s3://{bucket}/b") == b"2"
        assert storage.stat(f"s3://{bucket}/b").num_bytes == 1
        storage.remove(f"s3://{bucket}/b")
        assert not storage.exists(f"s3://{bucket}/b")
    assert set(known.agents()) == {_THROUGH_OBSTORE}


def test_what_obstore_gives_up_is_an_exception(known: Known) -> None:
    """A panic of Rust is no `Exception`: it would end a run, where another error is a row."""
    client = open_s3(known.proxy.endpoint_url, 2.0, Access())
    with pytest.raises(RuntimeError, match="obstore gave a request up"):
        client.get(known.uri, "no\nheader", None)


@pytest.mark.parametrize("key", ["a//b", "/a", "a/./b", "a/../b", "a/b/", "a\tb", "a b+c%2F~ü^"])
def test_every_key_is_itself(key: str, known: Known, s3: Server) -> None:
    """A key that obstore would take for another one, or refuses, is asked for through s3fs."""
    uri = f"s3://{known.bucket}/{key}"
    known.storage.write(uri, b"odd")
    assert set(s3.objects(known.bucket)) == {"in/object", key}
    assert known.storage.read(uri) == b"odd"
    known.storage.remove(uri)
    assert not known.storage.exists(uri)
    known.agents()
    known.storage.read(known.uri)
    assert known.agents() == [_THROUGH_OBSTORE], "one odd key has changed how all are asked for"


def test_a_server_that_leaves_headers_out_is_asked_once(known: Known) -> None:
    """What obstore can't take is asked for again through s3fs, and then through it alone."""
    chunked = Fault("GET", "", "after", times=9, change=lambda reply: replace(reply, chunked=True))
    known.proxy.faults.append(chunked)
    for agents in ([_THROUGH_OBSTORE, "aiobotocore"], ["aiobotocore"]):
        assert known.storage.read(known.uri) == b"content"
        assert known.agents() == agents


@pytest.mark.parametrize(
    "reply",
    [refusal(301, "PermanentRedirect"), Reply(307), refusal(400, "AuthorizationHeaderMalformed")],
)
def test_a_bucket_elsewhere_is_found_by_s3fs(reply: Reply, known: Known) -> None:
    """A redirect to another region is no refusal: s3fs follows it."""
    known.proxy.faults.append(Fault("GET", "object", "before", lambda: reply))
    assert known.storage.read(known.uri) == b"content"
    assert known.agents()[:2] == [_THROUGH_OBSTORE, "aiobotocore"]


def test_profiles_regions_and_endpoints_of_the_configuration_hold(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, region and endpoint that a profile names are those of obstore's requests, too."""
    bucket = s3.make_bucket()
    with fault_proxy(s3.endpoint_url) as proxy:
        (tmp_path / "config").write_text(
            "[profile other]\nregion = eu-west-3\naws_access_key_id = OTHERKEY\n"
            f"aws_secret_access_key = secret\nendpoint_url = {proxy.endpoint_url}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "other")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name)
        # A time of its own, so that nothing is open yet.
        storage = Storage(timeout_s=4.25)
        for _ in range(2):
            storage.write(f"s3://{bucket}/a", b"1")
        signed = [headers["authorization"] for headers in proxy.headers]
        agents = Known(proxy, storage, bucket).agents()
    assert agents == ["aiobotocore", _THROUGH_OBSTORE]
    assert all("Credential=OTHERKEY/" in one and "/eu-west-3/s3/" in one for one in signed)


def test_the_environments_proxy_is_used(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY stands between the process and the store, whichever library asks."""
    bucket = s3.make_bucket()
    with fault_proxy(s3.endpoint_url) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint_url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        endpoint = s3.endpoint_url.replace("127.0.0.1", "localhost")
        storage = Storage(endpoint, timeout_s=4.5, patience_s=1.0)
        for _ in range(2):
            storage.write(f"s3://{bucket}/a", b"1")
        assert proxy.requests == [("PUT", f"{endpoint}/{bucket}/a")] * 2
        assert Known(proxy, storage, bucket).agents() == ["aiobotocore", _THROUGH_OBSTORE]


def test_the_authority_that_the_environment_names_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_CA_BUNDLE holds for both libraries; without it nobody trusts such a server."""
    certificates = make_certificates(tmp_path)
    with moto_server(tmp_path / "log", certificates) as server:
        with pytest.raises(StoreError, match=r"(?i)certificate"):
            Storage(server.endpoint_url, timeout_s=4.75, attempts=1).read("s3://bucket/a")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.authority))
        bucket = server.make_bucket()
        storage = Storage(server.endpoint_url, timeout_s=4.5, attempts=1)
        for _ in range(2):
            storage.write(f"s3://{bucket}/a", b"1")
        assert storage.read(f"s3://{bucket}/a") == b"1"
        assert not open_s3(server.endpoint_url, 4.5, Access())._through_s3fs


def test_every_request_is_signed_paid_and_encrypted_as_before(known: Known) -> None:
    """Anonymous reads, paid reads and the key for writes hold for obstore's requests."""
    for access, method, expected in (
        (Access(anonymous=True), "GET", {}),
        (Access(requester_pays=True), "GET", {"x-amz-request-payer": "requester"}),
        (
            Access(kms_key_id="key"),
            "PUT",
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "key",
            },
        ),
    ):
        storage = replace(known.storage, access=access)
        for _ in range(2):
            with suppress(StoreError):  # nothing is public here
                storage.read(known.uri) if method == "GET" else storage.write(known.uri, b"x")
        headers = known.proxy.headers[-1]
        assert expected.items() <= headers.items()
        assert ("authorization" in headers) is not access.anonymous


def test_a_signal_is_taken_while_the_store_is_silent(known: Known) -> None:
    """The main thread acts on a signal at once, not when the store has answered."""
    taken = threading.Event()
    waited: list[bool] = []

    def be_silent() -> int:
        waited.append(taken.wait(1.9))
        return 500

    def interrupt(*_: object) -> None:
        raise Stopped("SIGALRM")

    known.proxy.faults.append(Fault("GET", "", "before", be_silent, times=9))
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(Stopped):
            known.storage.read(known.uri)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not waited, "the answer was waited for"
    taken.set()


def test_a_storage_in_use_travels(known: Known) -> None:
    """What a process has opened stays with it."""
    travelled = pickle.loads(pickle.dumps(known.storage))
    assert travelled.read(known.uri) == b"content"
