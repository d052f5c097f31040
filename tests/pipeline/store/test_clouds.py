"""Google Cloud Storage and Azure Blob Storage: conditions, listings, refusals, ways in."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline.errors import ErrorCode, Scope, SettingError, StoreError
from pipeline.settings.label import LabelSettings
from pipeline.store.access import Access
from pipeline.store.extent import Extent
from pipeline.store.probe import probe_conditional_put, writable_storage
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, Proxy, fault_proxy, page, refusal
from tests.servers import CloudServer, gcs_server

_ALWAYS = 10**6


@dataclass
class Place:
    """A bucket or container behind a proxy."""

    proxy: Proxy
    storage: Storage
    bucket: str

    @property
    def uri(self) -> str:
        return f"{self.bucket}/in/object"


@pytest.fixture
def place(cloud: CloudServer) -> Iterator[Place]:
    where = urlsplit(cloud.endpoint_url)
    with fault_proxy(f"http://{where.netloc}") as proxy:
        endpoint: dict[str, Any] = {
            f"{cloud.scheme}_endpoint_url": f"{proxy.endpoint_url}{where.path}"
        }
        # Tries and not seconds end it, so that no test hangs on how busy the machine is.
        storage = Storage(timeout_s=2.0, patience_s=60.0, attempts=5, **endpoint)
        place = Place(proxy, storage, cloud.make_bucket())
        storage.write(place.uri, b"content")
        proxy.requests.clear()
        proxy.headers.clear()
        yield place


def test_one_of_two_creates(place: Place) -> None:
    """An object is created once; whoever comes later learns whether it is the same."""
    uri = f"{place.bucket}/new"
    assert place.storage.create(uri, b"mine")
    assert not place.storage.create(uri, b"another's")
    assert place.storage.create(uri, b"mine")
    assert place.storage.read(uri) == b"mine"
    assert probe_conditional_put(place.storage, f"{place.bucket}/out")


def test_a_lost_answer_is_settled_by_the_bytes(place: Place) -> None:
    """A write that was done, and whose answer was lost, is made again and has succeeded."""
    for act in (lambda: None, lambda: 500):
        place.proxy.faults = [Fault("PUT", "", "after", act)]
        uri = f"{place.bucket}/lost-{len(place.storage.retries)}"
        assert place.storage.create(uri, b"mine")
        assert place.proxy.faults[0].struck == 1


def test_a_version_is_read_or_has_changed(place: Place) -> None:
    """The version of a listing and of a look-up is what is read; after a write it is another."""
    listed = next(iter(place.storage.walk(place.bucket)))
    assert listed == place.storage.stat(place.uri)
    assert place.storage.read_version(place.uri, listed.version, 10, 7) == b"content"
    assert f'"{listed.version}"' in {one.get("if-match") for one in place.proxy.headers}
    place.storage.write(place.uri, b"another")
    with pytest.raises(StoreError) as caught:
        place.storage.read_version(place.uri, listed.version, 10, 7)
    assert caught.value.code is ErrorCode.CHANGED
    with pytest.raises(StoreError) as caught:
        place.storage.read_version(place.uri, None, 6)
    assert caught.value.code is ErrorCode.TOO_MANY_BYTES


def test_a_part_of_an_object_is_read(place: Place) -> None:
    """What is asked for comes, of what lies beyond the end only what is there."""
    spans = {(0, 3): b"con", (3, 4): b"tent", (5, 9): b"nt", (7, 1): b"", (70, 5): b""}
    for (offset, number), expected in spans.items():
        assert place.storage.read_extent(Extent(place.uri, offset, number)) == expected
    assert place.storage.find_extent(Extent(f"{place.uri}-none", 0, 3)) is None


def test_a_part_is_of_the_version_that_was_planned(place: Place) -> None:
    """A part of an object that has changed since is `changed`, and not taken for the one before."""
    version, part = place.storage.stat(place.uri).version, Extent(place.uri, 1, 4)
    assert place.storage.read_version_of(part, version, 4) == b"onte"
    place.storage.write(place.uri, b"another")
    with pytest.raises(StoreError) as caught:
        place.storage.read_version_of(part, version, 4)
    assert caught.value.code is ErrorCode.CHANGED


def test_a_listing_has_every_page(place: Place) -> None:
    """All objects below a folder are listed, also where a page has to be asked for again."""
    names = {f"{place.bucket}/many/{number % 2}/{number:04}" for number in range(230)}
    for name in names:
        place.storage.write(name, b"x")
    place.storage.write(f"{place.bucket}/many2", b"x")
    place.proxy.faults = [Fault("GET", "prefix=many", "after", lambda: None)]
    assert {entry.uri for entry in place.storage.walk(f"{place.bucket}/many")} == names
    assert place.proxy.faults[0].struck == 1
    assert place.storage.children(f"{place.bucket}/many") == ["0", "1"]
    assert place.storage.children(place.bucket) == ["in", "many", "many2"]
    assert place.storage.children(f"{place.bucket}/nothing") == []
    assert place.storage.lists(f"{place.bucket}/many2")
    assert not place.storage.lists(f"{place.bucket}/man")


def test_a_mark_of_a_folder_is_no_object(place: Place) -> None:
    """An empty `folder/`, which consoles make, is not listed; an empty object is."""
    place.storage.write(f"{place.bucket}/in/empty", b"")
    mark = Fault("HEAD", "empty", "before", lambda: 404)
    for shown in (["empty", "object"], ["object"]):
        found = place.storage.walk(f"{place.bucket}/in")
        assert sorted(entry.uri.rpartition("/")[2] for entry in found) == shown
        place.proxy.faults = [mark]


@pytest.mark.parametrize("key", ["a b+c%2F~ü^", "%2e/x", "a&b=<c>"])
def test_a_key_is_itself(key: str, place: Place) -> None:
    """A key is no URL: what is special there means nothing."""
    uri = f"{place.bucket}/odd/{key}"
    place.storage.write(uri, b"odd")
    assert place.storage.read(uri) == b"odd"
    assert [entry.uri for entry in place.storage.walk(f"{place.bucket}/odd")] == [uri]


@pytest.mark.parametrize("key", ["a//b", "a/../b", "a/./b", "a\tb"])
def test_a_key_that_can_not_be_named_is_not_there(key: str, place: Place) -> None:
    """A key that would mean another object is refused, and nothing is asked."""
    place.proxy.requests.clear()
    with pytest.raises(StoreError, match="are read in S3 only") as caught:
        place.storage.read(f"{place.bucket}/{key}")
    assert (caught.value.code, place.proxy.requests) == (ErrorCode.NOT_FOUND, [])


def test_what_is_removed_is_gone(place: Place) -> None:
    """A removal is no error where there is nothing any more."""
    for _ in range(2):
        place.storage.remove(place.uri)
        assert not place.storage.exists(place.uri)


def test_a_folder_that_is_removed_is_gone_with_all_below_it(place: Place) -> None:
    """All below the prefix goes, at any depth, and nothing beside it; none is no error."""
    for name in ("a/1", "a/b/2", "ab/3"):
        place.storage.write(f"{place.bucket}/{name}", b"x")
    for _ in range(2):
        place.storage.remove_folder(f"{place.bucket}/a")

    left = {
        entry.uri.removeprefix(f"{place.bucket}/") for entry in place.storage.walk(place.bucket)
    }
    assert left == {"ab/3", "in/object"}


@pytest.mark.parametrize(
    ("status", "code", "expected", "scope"),
    [
        (401, "AuthenticationRequired", "forbidden", Scope.STORE),
        (403, "AuthenticationFailed", "forbidden", Scope.STORE),
        (403, "AccessDenied", "forbidden", Scope.OBJECT),
        (403, "AuthorizationPermissionMismatch", "forbidden", Scope.OBJECT),
        (400, "UserProjectMissing", "forbidden", Scope.BUCKET),
        (404, "NoSuchBucket", "not_found", Scope.BUCKET),
        (404, "ContainerNotFound", "not_found", Scope.BUCKET),
        (404, "BlobNotFound", "not_found", Scope.OBJECT),
        (429, "TooManyRequests", "throttled", Scope.OBJECT),
        (503, "ServerBusy", "throttled", Scope.OBJECT),
        (500, "OperationTimedOut", "timeout", Scope.OBJECT),
    ],
)
def test_a_refusal_says_what_it_is_true_of(
    status: int, code: str, expected: str, scope: Scope, place: Place
) -> None:
    """Credentials are the store's matter, a bucket's its own, the rest the object's."""
    place.proxy.faults = [Fault("GET", "", "before", lambda: refusal(status, code), times=_ALWAYS)]
    with pytest.raises(StoreError) as caught:
        replace(place.storage, attempts=1).read(place.uri)
    assert (caught.value.code, caught.value.scope) == (expected, scope)


def test_a_burst_is_outlasted(place: Place) -> None:
    """A store that is busy is asked again by us alone, and counted."""
    busy = Fault("GET", "", "before", lambda: refusal(503, "ServerBusy"), times=3)
    place.proxy.faults = [busy]
    assert place.storage.read(place.uri) == b"content"
    assert (busy.struck, place.storage.retries) == (3, {"request": 3})


def test_a_body_that_is_not_whole_is_asked_for_anew(place: Place) -> None:
    """A body that breaks off, or drips, is no object."""
    for change in (
        lambda reply: replace(reply, length=30),
        lambda reply: replace(reply, drip_s=1.0),
    ):
        place.proxy.faults = [Fault("GET", "object", "after", change=change)]
        assert place.storage.read(place.uri) == b"content"
    assert place.storage.retries == {"body": 2}


def test_a_page_for_people_is_no_store(place: Place) -> None:
    """An answer without what every object has is refused at once, as the endpoint's fault."""
    place.proxy.faults = [Fault("GET", "", "before", page, times=_ALWAYS)]
    place.proxy.requests.clear()
    with pytest.raises(StoreError, match=r"check .*_endpoint_url") as caught:
        place.storage.read(place.uri)
    assert (caught.value.scope, caught.value.refused) == (Scope.STORE, True)
    assert len(place.proxy.requests) == 1


def test_an_anonymous_read_is_not_signed(place: Place) -> None:
    """The input of a public bucket is read without a signature, and the output written with one."""
    storage = replace(place.storage, input_access=Access(anonymous=True))
    with suppress(StoreError):  # Azurite's containers are not public
        storage.for_input().read(place.uri)
    storage.write(place.uri, b"x")
    assert ["authorization" in one for one in place.proxy.headers[-2:]] == [False, True]


def test_nobody_there_is_the_stores_matter(cloud: CloudServer) -> None:
    """An endpoint at which nobody listens fails whatever is asked of it, and is named."""
    endpoint: dict[str, Any] = {f"{cloud.scheme}_endpoint_url": "http://127.0.0.1:1"}
    with pytest.raises(StoreError, match=f"nobody answers at .*:1 .*{cloud.scheme}_") as caught:
        Storage(attempts=1, **endpoint).read(f"{cloud.scheme}://bucket/object")
    assert (caught.value.code, caught.value.scope) == (ErrorCode.TIMEOUT, Scope.STORE)


def test_without_credentials_it_is_said_where_they_are_looked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, no token, no metadata server: what is missing is named."""
    for name in ("GOOGLE_BEARER_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    # The servers of metadata have fixed addresses, at which nobody is here; another time limit
    # makes another client.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    storage = replace(place.storage, timeout_s=1.5, attempts=1)
    with pytest.raises(StoreError, match=r"no (Google|Azure) credentials found") as caught:
        storage.read(place.uri)
    assert (caught.value.code, caught.value.scope) == (ErrorCode.FORBIDDEN, Scope.STORE)


@pytest.fixture
def google(gs: CloudServer) -> Iterator[Place]:
    with fault_proxy(gs.endpoint_url) as proxy:
        yield Place(proxy, Storage(gs_endpoint_url=proxy.endpoint_url), gs.make_bucket())


def test_google_bills_the_project_and_encrypts_with_the_key(google: Place) -> None:
    """Reads of a bucket whose readers pay name a project, writes the key; not the other way."""
    key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    storage = replace(
        google.storage,
        access=Access(gs_kms_key=key),
        input_access=Access(requester_pays=True, gs_billing_project="payer"),
    )
    storage.write(google.uri, b"x")
    storage.for_input().read(google.uri)
    names = ("x-goog-encryption-kms-key-name", "x-goog-user-project")
    sent = [tuple(headers.get(name) for name in names) for headers in google.proxy.headers]
    assert sent == [(key, None), (None, "payer")]


def test_google_wants_a_project_that_pays(google: Place) -> None:
    """requester_pays alone says who, not from what."""
    with pytest.raises(SettingError, match="gs_billing_project"):
        replace(google.storage, access=Access(requester_pays=True)).read(google.uri)


def test_a_server_that_overlooks_conditions_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The probe finds that an upload's condition means nothing, and says it."""
    with gcs_server(tmp_path / "log", "--ignore-conditions") as server:
        storage = Storage(gs_endpoint_url=server.endpoint_url)
        found = writable_storage(storage, f"{server.make_bucket()}/out")
    assert not found.conditional_put
    assert "THE STORE IGNORES x-goog-if-generation-match" in caplog.text


def test_settings_say_how_clouds_are_entered() -> None:
    """Endpoints, account, key and project reach the storage."""
    given = LabelSettings(
        input="gcs://a/b/", output="az://c", weights="random:0", requester_pays=True,
        gs_endpoint_url="http://g", az_endpoint_url="http://a", az_account="account",
        gs_billing_project="p", gs_kms_key="projects/p/locations/l/keyRings/r/cryptoKeys/k",
    )  # fmt: skip
    storage = given.storage()
    assert given.input == "gs://a/b/"
    assert (storage.gs_endpoint_url, storage.az_endpoint_url) == ("http://g", "http://a")
    assert storage.az_account == "account"
    assert storage.access == Access(gs_kms_key="projects/p/locations/l/keyRings/r/cryptoKeys/k")
    assert storage.for_input().access == Access(requester_pays=True, gs_billing_project="p")
