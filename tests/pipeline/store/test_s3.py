"""A bucket whose server leaves out, weakens, repeats or refuses: what stands in its place."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from jobs.__main__ import main
from pipeline.errors import ErrorCode, Scope, StoreError
from pipeline.settings.label import LabelSettings
from pipeline.store import s3_client
from pipeline.store.access import Access
from pipeline.store.attempts import Pace
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, Proxy, Reply, fault_proxy, page, refusal
from tests.servers import Server

_ALWAYS = 10**6


@dataclass
class Place:
    """A bucket behind a proxy, with one object in it."""

    proxy: Proxy
    storage: Storage
    folder: str

    @property
    def uri(self) -> str:
        return f"{self.folder}/object"

    def change(self, change: Callable[[Reply], Reply], method: str = "", path: str = "") -> None:
        for one in (method,) if method else ("GET", "HEAD", "PUT"):
            self.proxy.faults.append(Fault(one, path, "after", times=_ALWAYS, change=change))

    def refuse(self, reply: Reply, method: str = "GET", times: int = _ALWAYS) -> Fault:
        fault = Fault(method, "object", "before", lambda: reply, times=times)
        self.proxy.faults.append(fault)
        return fault


@pytest.fixture(params=["s3fs", "obstore"])
def place(request: pytest.FixtureRequest, s3: Server) -> Iterator[Place]:
    """Return a bucket that this process has never asked, or one that it has found before."""
    bucket = s3.make_bucket()
    s3.put(bucket, "in/object", b"content")
    with fault_proxy(s3.endpoint_url) as proxy:
        # Tries and not seconds end it, so that no test hangs on how busy the machine is.
        storage = Storage(proxy.endpoint_url, timeout_s=2.0, patience_s=60.0, attempts=5)
        place = Place(proxy, storage, f"s3://{bucket}/in")
        if request.param == "obstore":
            replace(storage, pace=Pace()).read(place.uri)
            proxy.requests.clear()
            proxy.headers.clear()
        yield place


def _chunked(reply: Reply) -> Reply:
    return replace(reply, chunked=True)


def _without_etag(reply: Reply) -> Reply:
    return reply.without("ETag")


def _without_both(reply: Reply) -> Reply:
    return replace(_without_etag(reply), chunked=True)


def _weak(reply: Reply) -> Reply:
    return reply.with_header("ETag", "W/{}".format)


@pytest.mark.parametrize("change", [_chunked, _without_etag, _without_both, _weak])
def test_an_object_is_read_in_its_version(change: Callable[[Reply], Reply], place: Place) -> None:
    """Without a length, without an ETag, or with a weak one, the listed version is what is read."""
    listed = next(iter(place.storage.walk(place.folder)))
    place.change(change)
    found = place.storage.stat(place.uri)
    for entry in (listed, found):
        assert place.storage.read_version(place.uri, entry.version, 10, 7) == b"content"
    assert found.num_bytes == 7


def test_another_size_of_the_same_version_is_a_change(place: Place) -> None:
    """A manifest may say a wrong size: a store that says another three times is believed."""
    version = place.storage.stat(place.uri).version
    before = len(place.proxy.requests)
    with pytest.raises(StoreError, match="of 9 bytes and is the same of 7") as caught:
        place.storage.read_version(place.uri, version, 100, 9)
    assert caught.value.code is ErrorCode.CHANGED
    assert len(place.proxy.requests) == before + 3


def test_without_an_etag_another_version_is_told_by_time_and_size(place: Place) -> None:
    """Where a server sends no ETag, another size is another version."""
    place.change(_without_etag)
    version = place.storage.stat(place.uri).version
    place.storage.write(place.uri, b"another content")
    with pytest.raises(StoreError) as caught:
        place.storage.read_version(place.uri, version, 100)
    assert caught.value.code is ErrorCode.CHANGED


def test_a_body_larger_than_the_limit_is_not_read_without_a_length(place: Place) -> None:
    """The limit holds where no header says how much will come."""
    place.change(_chunked)
    with pytest.raises(StoreError) as caught:
        place.storage.read_version(place.uri, None, 6)
    assert caught.value.code is ErrorCode.TOO_MANY_BYTES


def test_a_write_without_an_etag_is_read_back(place: Place) -> None:
    """A server that acknowledges a write without an ETag is believed if the object is there."""
    place.change(_without_etag, "PUT")
    assert place.storage.create(f"{place.folder}/new", b"1")
    assert place.storage.read(f"{place.folder}/new") == b"1"
    place.proxy.faults = [Fault("PUT", "lost", "before", lambda: Reply(200), times=2)]
    assert place.storage.create(f"{place.folder}/lost", b"2")
    assert place.storage.read(f"{place.folder}/lost") == b"2"


@pytest.mark.parametrize("method", ["stat", "read", "walk", "children", "create"])
def test_a_page_for_people_is_no_store(method: str, place: Place) -> None:
    """Whatever is asked, an answer for browsers is refused at once, as the endpoint's fault."""
    place.proxy.faults += [
        Fault(one, "", "before", page, times=_ALWAYS) for one in ("GET", "HEAD", "PUT")
    ]
    ask = getattr(place.storage, method)
    given = (place.uri, b"x") if method == "create" else (place.uri,)
    with pytest.raises(StoreError, match="this is no S3 endpoint") as caught:
        list(ask(*given))
    assert (caught.value.scope, caught.value.refused) == (Scope.STORE, True)
    # Where obstore has not seen the headers, s3fs has asked for them.
    assert len(place.proxy.requests) <= 2


def test_what_is_removed_is_gone(place: Place) -> None:
    """A removal is answered with nothing, to which some stores give the type of a page."""
    place.storage.write(place.uri, b"data")
    place.storage.remove(place.uri)
    assert not place.storage.exists(place.uri)


def test_a_folder_that_is_removed_is_gone_with_all_below_it(place: Place) -> None:
    """All below the prefix goes, at any depth, and nothing beside it; none is no error."""
    for name in ("a/1", "a/b/2", "ab/3"):
        place.storage.write(f"{place.folder}/{name}", b"x")
    for _ in range(2):
        place.storage.remove_folder(f"{place.folder}/a")

    left = {
        entry.uri.removeprefix(f"{place.folder}/") for entry in place.storage.walk(place.folder)
    }
    assert {"ab/3"} <= left
    assert not any(name.startswith("a/") for name in left)


def test_a_page_that_is_no_xml_is_no_store_either(place: Place) -> None:
    """Most pages can't be parsed as XML; a store that has only ever sent such is none."""
    reply = page(b"<!DOCTYPE html><html><head><meta charset=utf-8><body>Log in<br>")
    place.proxy.faults.append(Fault("GET", "", "before", lambda: reply, times=_ALWAYS))
    with pytest.raises(StoreError, match="this is no S3 endpoint"):
        list(place.storage.walk(place.folder))
    assert len(place.proxy.requests) <= 5


@pytest.mark.parametrize("command", ["plan", "label", "doctor"])
@pytest.mark.parametrize("local", ["input", "output", ""])
def test_a_console_in_place_of_the_endpoint_is_a_wrong_setting(
    command: str, local: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`plan`, `label` and `doctor` end with 2, whichever of input and output is in the bucket."""
    if command == "doctor":
        monkeypatch.setattr("jobs.doctor.doctor.connect", _no_cluster)
    (tmp_path / "input").mkdir()
    (tmp_path / "input/a.jpg").write_bytes(b"x")
    place.proxy.faults += [
        Fault(one, "", "before", page, times=_ALWAYS) for one in ("GET", "HEAD", "PUT")
    ]
    places = {
        name: str(tmp_path / name) if name == local else f"{place.folder}/{name}"
        for name in ("input", "output")
    }
    flags = [word for name, uri in places.items() for word in (f"--{name}", uri)]
    endpoint = ("--s3-endpoint-url", place.proxy.endpoint_url)
    assert main([command, *flags, "--weights", "random:0", *endpoint]) == 2


def _no_cluster(_: object) -> None:
    from pipeline.errors import SettingError  # noqa: PLC0415 - of this alone

    raise SettingError("no cluster is wanted here")


@pytest.mark.parametrize(
    ("status", "code", "expected", "scope"),
    [
        (400, "ExpiredToken", "forbidden", Scope.STORE),
        (403, "RequestTimeTooSkewed", "forbidden", Scope.STORE),
        (403, "InvalidAccessKeyId", "forbidden", Scope.STORE),
        (403, "SignatureDoesNotMatch", "forbidden", Scope.STORE),
        (400, "AuthorizationHeaderMalformed", "forbidden", Scope.STORE),
        (404, "NoSuchBucket", "not_found", Scope.BUCKET),
        (301, "PermanentRedirect", "forbidden", Scope.BUCKET),
        (403, "AccessDenied", "forbidden", Scope.OBJECT),
        (403, "InvalidObjectState", "archived", Scope.OBJECT),
        (404, "NoSuchKey", "not_found", Scope.OBJECT),
        (400, "KeyTooLongError", "forbidden", Scope.OBJECT),
        (503, "SlowDown", "throttled", Scope.OBJECT),
        (500, "InternalError", "timeout", Scope.OBJECT),
    ],
)
def test_a_refusal_says_what_it_is_true_of(
    status: int, code: str, expected: str, scope: Scope, place: Place
) -> None:
    """Credentials and clocks are the store's matter, a bucket's its own, the rest the object's."""
    hasty = replace(place.storage, attempts=1)
    place.refuse(refusal(status, code))
    with pytest.raises(StoreError) as caught:
        hasty.read(place.uri)
    assert (caught.value.code, caught.value.scope) == (expected, scope)


@pytest.mark.parametrize("status", [400, 403])
def test_a_refused_look_up_asks_for_the_reason(status: int, place: Place) -> None:
    """HEAD has no body; what it leaves open, GET says."""
    place.refuse(Reply(status), "HEAD")
    place.refuse(refusal(400, "ExpiredToken"))
    with pytest.raises(StoreError) as caught:
        place.storage.stat(place.uri)
    assert caught.value.scope is Scope.STORE


def test_nobody_there_is_the_stores_matter() -> None:
    """An endpoint at which nobody listens fails whatever is asked of it."""
    storage = Storage("http://127.0.0.1:1", attempts=2)
    with pytest.raises(StoreError, match="nobody answers at") as caught:
        storage.read("s3://bucket/object")
    assert (caught.value.code, caught.value.scope) == (ErrorCode.TIMEOUT, Scope.STORE)
    assert storage.retries == {"request": 1}


def test_a_burst_is_outlasted(place: Place) -> None:
    """A store that throttles for longer than a few tries is asked again, and counted."""
    fault = place.refuse(refusal(503, "SlowDown"), times=4)
    assert place.storage.read(place.uri) == b"content"
    assert (fault.struck, place.storage.retries) == (4, {"request": 4})


def test_patience_ends(place: Place) -> None:
    """A store that fails for longer than the patience has failed; the next request ends sooner."""
    fault = place.refuse(refusal(500, "InternalError"))
    storage = replace(place.storage, patience_s=2.0, attempts=50)
    storage.pace.answered()
    with pytest.raises(StoreError):
        storage.read(place.uri)
    first, fault.struck = fault.struck, 0
    with pytest.raises(StoreError):
        replace(storage, patience_s=300.0).read(place.uri)
    assert (first > 1, fault.struck) == (True, 3)


def test_a_body_that_is_not_whole_is_asked_for_anew(place: Place) -> None:
    """A body of another size than was listed, or an error in its place, is no object."""
    version = place.storage.stat(place.uri).version
    for change in (
        lambda reply: replace(reply, length=3),
        lambda reply: replace(reply, length=30),
        lambda reply: replace(reply.without("ETag"), body=refusal(200, "InternalError").body),
    ):
        place.proxy.faults = [Fault("GET", "object", "after", times=1, change=change)]
        assert place.storage.read_version(place.uri, version, 100, 7) == b"content"
        assert place.proxy.faults[0].struck == 1


def test_a_part_of_an_object_is_read(place: Place) -> None:
    """What is asked for comes, of what lies beyond the end only what is there."""
    spans = {(0, 3): b"con", (3, 4): b"tent", (5, 9): b"nt", (7, 1): b"", (70, 5): b""}
    for (offset, number), expected in spans.items():
        assert place.storage.read_extent(Extent(place.uri, offset, number)) == expected
    assert place.storage.read_extent(Extent(place.uri)) == b"content"
    assert place.storage.find_extent(Extent(f"{place.uri}-none", 0, 3)) is None
    assert {one.get("range") for one in place.proxy.headers} >= {"bytes=0-2", "bytes=70-74"}


def test_a_part_is_of_the_version_that_was_planned(place: Place) -> None:
    """A part of another version is refused, by the ETag or, where there is none, time and size."""
    part = Extent(place.uri, 1, 4)
    version = place.storage.stat(place.uri).version
    assert place.storage.read_version_of(part, version, 4) == b"onte"
    place.storage.write(place.uri, b"another")
    with pytest.raises(StoreError) as caught:
        place.storage.read_version_of(part, version, 4)
    assert caught.value.code is ErrorCode.CHANGED
    place.change(lambda one: one.without("ETag"))
    timed = place.storage.stat(place.uri).version
    assert place.storage.read_version_of(part, timed, 4) == b"noth"
    with pytest.raises(StoreError) as caught:
        place.storage.read_version_of(part, "time-0-7", 4)
    assert caught.value.code is ErrorCode.CHANGED


def test_a_part_beyond_the_end_of_its_version_has_changed(place: Place) -> None:
    """What a plan names is there or the object is another one, whether 416 says so or a body."""
    version = place.storage.stat(place.uri).version
    for offset in (5, 70):
        with pytest.raises(StoreError, match="ends before them") as caught:
            place.storage.read_version_of(Extent(place.uri, offset, 4), version, 4)
        assert caught.value.code is ErrorCode.CHANGED


def test_a_part_that_is_not_whole_is_asked_for_anew(place: Place) -> None:
    """A body of fewer bytes than were asked for, and than there are, is no part of an object."""
    fault = Fault("GET", "object", "after", change=lambda one: replace(one, body=one.body[:2]))
    place.proxy.faults.append(fault)
    assert place.storage.read_extent(Extent(place.uri, 1, 4)) == b"onte"
    assert (fault.struck, place.storage.retries) == (1, {"body": 1})


def test_a_store_that_gives_the_whole_object_is_understood(place: Place) -> None:
    """Where the range is passed over, the part is taken out of what came."""
    place.change(
        lambda one: replace(one, status=200, body=b"content").without("Content-Range"), "GET"
    )
    assert place.storage.read_extent(Extent(place.uri, 1, 4)) == b"onte"


def test_a_body_that_drips_is_asked_for_anew(place: Place) -> None:
    """A byte now and then is no sign of life: the request is made again, and the object read."""
    slow = Fault("GET", "object", "after", change=lambda reply: replace(reply, drip_s=1.0))
    place.proxy.faults.append(slow)
    assert place.storage.read(place.uri) == b"content"
    assert (slow.struck, place.storage.retries) == (1, {"body": 1})


def test_a_refusal_of_what_is_not_there_is_settled(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """412 for an object that nobody has written is asked again, then written, and said."""
    monkeypatch.setattr("pipeline.store.storage._AT_ODDS_S", (0.0, 0.0))
    for times in (1, 2):
        fault = Fault("PUT", f"new{times}", "before", lambda: 412, times=times)
        place.proxy.faults = [fault]
        assert place.storage.create(f"{place.folder}/new{times}", b"mine")
        assert place.storage.read(f"{place.folder}/new{times}") == b"mine"
        assert ("refuses it as existing" in caplog.text) == (times == 2)
    assert not place.storage.create(f"{place.folder}/new1", b"another's")


def test_a_listing_that_does_not_get_on_ends(place: Place) -> None:
    """A truncated page without a way on, or with the same one again, is an error, no loop."""
    for token in ("", "<NextContinuationToken>again</NextContinuationToken>"):
        body = (
            "<?xml version='1.0'?><ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated>"
            f"{token}</ListBucketResult>"
        )
        headers = (("Content-Type", "application/xml"),)
        reply = Reply(200, headers, body.encode())
        place.proxy.faults = [
            Fault("GET", "list-type", "before", lambda reply=reply: reply, times=_ALWAYS)
        ]
        with pytest.raises(StoreError, match="does not say which"):
            list(place.storage.walk(place.folder))


@pytest.mark.parametrize(("contents", "message"), [
    ("<Contents><Key>a</Key><Size>1</Size></Contents>", "shows the same page again"),
    ("", "4 empty pages in a row"),
])  # fmt: skip
def test_a_listing_with_a_new_token_each_time_ends(
    contents: str, message: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes no notice of tokens, or shows empty pages for ever, is an error, too."""
    numbers = count()
    monkeypatch.setattr(s3_client, "_MAX_EMPTY_PAGES", 3)

    def answer() -> Reply:
        body = (
            "<?xml version='1.0'?><ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated>"
            f"{contents}<NextContinuationToken>{next(numbers)}</NextContinuationToken>"
            "</ListBucketResult>"
        )
        return Reply(200, (("Content-Type", "application/xml"),), body.encode())

    place.proxy.faults = [Fault("GET", "list-type", "before", answer, times=_ALWAYS)]
    with pytest.raises(StoreError, match=message):
        list(place.storage.walk(place.folder))


@pytest.mark.parametrize("odd", [b"\x01", b"\xff", b"&#1;", b"&#x1F;", b"\xef\xbf\xbe"])
def test_a_name_that_no_xml_holds_costs_itself(
    odd: bytes, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a store that does not encode names, the others are listed, and it is no more found."""
    keys = [f"{place.folder}/{name}".split("/", 3)[3].encode() for name in ("a", "b")]
    contents = b"".join(
        b"<Contents><Key>" + key + b"</Key><Size>1</Size></Contents>"
        for key in (keys[0], keys[0] + odd, keys[1])
    )
    body = (
        b"<?xml version='1.0'?><ListBucketResult><Name>b</Name>"
        b"<IsTruncated>false</IsTruncated>" + contents + b"</ListBucketResult>"
    )
    reply = Reply(200, (("Content-Type", "application/xml"),), body)
    place.proxy.faults = [Fault("GET", "list-type", "before", lambda: reply, times=_ALWAYS)]
    found = [one.uri.rpartition("/")[2] for one in place.storage.walk(place.folder)]
    assert [found[0], found[2]] == ["a", "b"]
    assert found[1].startswith("a\ufffd")
    assert "names that XML can't hold" in caplog.text


def test_a_listing_shows_an_object_by_its_whole_name(place: Place) -> None:
    """An object whose name begins alike is another one."""
    place.storage.write(f"{place.folder}/object2", b"x")
    assert place.storage.lists(place.uri)
    assert not place.storage.lists(f"{place.folder}/obj")
    assert not place.storage.lists(f"{place.folder}/object3")


def _asked(place: Place, storage: Storage) -> dict[str, dict[str, str]]:
    """Read and write through a storage; return the headers of the requests by method."""
    place.proxy.requests.clear()
    place.proxy.headers.clear()
    with suppress(StoreError):  # the object is not public
        storage.for_input().read(place.uri)
    storage.write(f"{place.folder}/new", b"x")
    methods = [method for method, _ in place.proxy.requests]
    return dict(zip(methods, place.proxy.headers, strict=True))


def test_input_and_output_are_entered_apart(place: Place) -> None:
    """The input is read without a signature, or at the reader's cost; what is written is signed."""
    plain = _asked(place, place.storage)
    assert all("authorization" in headers for headers in plain.values())
    assert not any("x-amz-request-payer" in headers for headers in plain.values())
    public = _asked(place, replace(place.storage, input_access=Access(anonymous=True)))
    assert ["authorization" in public[method] for method in ("GET", "PUT")] == [False, True]
    paid = _asked(place, replace(place.storage, input_access=Access(requester_pays=True)))
    assert [paid[method].get("x-amz-request-payer") for method in ("GET", "PUT")] == [
        "requester",
        None,
    ]


def test_what_is_written_is_encrypted_with_the_key(place: Place) -> None:
    """Every write names the key of KMS, and no read does."""
    sent = _asked(place, replace(place.storage, access=Access(kms_key_id="alias/masks")))
    name = "x-amz-server-side-encryption-aws-kms-key-id"
    assert [sent[method].get(name) for method in ("GET", "PUT")] == [None, "alias/masks"]


def test_settings_say_how_buckets_are_entered() -> None:
    """--input-anonymous and --requester-pays are of the input alone, --s3-kms-key-id of writes."""
    given = LabelSettings(
        input="s3://a", output="s3://b", weights="random:0", input_anonymous=True,
        requester_pays=True, s3_kms_key_id="k",
    ).storage()  # fmt: skip
    assert given.access == Access(kms_key_id="k")
    assert given.for_input().access == Access(anonymous=True, requester_pays=True)


def _added(name: str, value: str) -> Callable[[Reply], Reply]:
    def change(reply: Reply) -> Reply:
        without = reply.without(name)
        return replace(without, headers=(*without.headers, (name, value)))

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Last-Modified", "yesterday"),
        ("Last-Modified", ""),
        ("Last-Modified", "Fri, 01 Jan 99999 00:00:00 GMT"),
        ("x-amz-mp-parts-count", "abc"),
        ("x-amz-object-lock-retain-until-date", "never"),
    ],
)
def test_a_header_that_makes_no_sense_is_an_error_of_that_object(
    place: Place, name: str, value: str
) -> None:
    """An answer is believed or asked for anew, and never ends as an exception of the parser's."""
    place.change(_added(name, value), "GET")
    found: object
    try:
        found = place.storage.read(place.uri)
    except StoreError as error:
        found = (error.code, error.scope)
    assert found in (b"content", (ErrorCode.TIMEOUT, Scope.OBJECT))


@pytest.mark.parametrize("status", [304, 418, 451, 599])
def test_a_status_that_no_store_has_is_an_error_of_that_object(place: Place, status: int) -> None:
    """Whatever number comes, it says nothing of the bucket."""
    place.refuse(Reply(status))
    with pytest.raises(StoreError) as found:
        place.storage.read(place.uri)
    assert found.value.scope is Scope.OBJECT


def test_a_gateway_without_its_store_is_asked_again(place: Place) -> None:
    """502 with a page for people is no wrong setting, but a store that is away for a while."""
    html = (("Content-Type", "text/html"),)
    place.refuse(Reply(502, html, b"<html>bad gateway</html>"), times=1)
    assert place.storage.read(place.uri) == b"content"


@pytest.mark.parametrize(
    ("element", "content"),
    [
        (b"Key", None),
        (b"Size", b"x"),
        (b"Size", b"-1"),
        (b"Size", b"9999999999999999999999"),
        (b"KeyCount", b"x"),
    ],
)
def test_a_listing_that_makes_no_sense_is_no_listing(
    place: Place, element: bytes, content: bytes | None
) -> None:
    """An entry without a name, and sizes that are none, are asked for anew, and then said."""
    new = b"" if content is None else b"<" + element + b">" + content + b"</" + element + b">"

    def change(reply: Reply) -> Reply:
        pattern = b"<" + element + b">[^<]*</" + element + b">"
        return replace(reply, body=re.sub(pattern, new, reply.body))

    place.change(change, "GET", "list-type")
    with pytest.raises(StoreError, match="makes no sense"):
        list(place.storage.walk(place.folder))
