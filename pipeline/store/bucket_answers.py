"""What an answer says, be it complete or not: some stores leave headers out or weaken them."""

import re
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from pipeline.store.bucket_errors import BodyBrokeError, NotS3Error, is_page
from pipeline.store.entry import WITHOUT_ETAG

_ERROR_DOCUMENT = re.compile(
    rb"\A\s*(<\?xml[^>]*>)?\s*<Error[ >].{0,2000}?<Code>([^<]{1,100})<", re.DOTALL
)

_IN_NO_HEADER = re.compile(r"[\x00-\x1f\x7f]")
_NO_S3 = (
    "this is no S3 endpoint: it answers with a page (text/html); check s3_endpoint_url, "
    "AWS_ENDPOINT_URL and what proxies stand between"
)


def etag_of(answer: Mapping[str, Any]) -> str:
    """Return the ETag without quotes and mark of weakness; empty if there is none.

    What no header can hold is none: nobody could ask for it.
    """
    found: str = answer.get("ETag") or ""
    return "" if _IN_NO_HEADER.search(found) else found.removeprefix("W/").strip('"')


def timed_version(changed: datetime | None, num_bytes: int) -> str:
    """Make a version of time and size; a listing has milliseconds, headers whole seconds."""
    seconds = int(changed.timestamp()) if changed is not None else 0
    return f"{WITHOUT_ETAG}{seconds}-{num_bytes}"


def version_of(answer: Mapping[str, Any], num_bytes: int) -> str:
    """Return what stands for the content: the ETag, else time and size.

    Args:
        answer: Headers of an object, or its entry of a listing.
        num_bytes: Its size.
    """
    return etag_of(answer) or timed_version(answer.get("LastModified"), num_bytes)


def is_version(answer: Mapping[str, Any], num_bytes: int, version: str) -> bool:
    """Return whether an object that was read is the version that was planned.

    Without an ETag in the answer, If-Match and the size must have detected it.
    """
    if version.startswith(WITHOUT_ETAG):
        return timed_version(answer.get("LastModified"), num_bytes) == version
    return etag_of(answer) in ("", version)


def check_answer(answer: Mapping[str, Any]) -> None:
    """Refuse a page for people, as proxies, portals and consoles send. Raises NotS3Error."""
    meta = answer.get("ResponseMetadata", {})
    headers = meta.get("HTTPHeaders", {})
    # Some stores give a type to the nothing that answers a removal.
    is_page = meta.get("HTTPStatusCode") != HTTPStatus.NO_CONTENT and headers.get(
        "content-type", ""
    ).startswith("text/html")
    if is_page and "etag" not in headers and not any(name.startswith("x-amz-") for name in headers):
        raise NotS3Error(_NO_S3)


def refuse_page(error: BaseException) -> None:
    """Refuse a page that comes as an error: what can't be parsed is 500 for botocore.

    Raises:
        NotS3Error: It is one.
    """
    if is_page(error):
        raise NotS3Error(_NO_S3) from error


def check_page(page: Mapping[str, Any]) -> None:
    """Refuse what is no page of a listing. Raises NotS3Error, or BodyBrokeError for an error."""
    check_answer(page)
    if not {"Name", "IsTruncated", "KeyCount", "MaxKeys", "Contents"} & page.keys():
        raise BodyBrokeError("the answer is no listing")


def check_span(data: bytes, span: range, num_bytes: int) -> None:
    """Refuse less than was asked for of an object. Raises BodyBrokeError.

    Args:
        data: What came.
        span: The bytes of the object that were asked for.
        num_bytes: The object's size.
    """
    expected = max(0, min(span.stop, num_bytes) - span.start)
    if len(data) != expected:
        raise BodyBrokeError(f"{len(data)} bytes came of the {expected} that were asked for")


def check_content(answer: Mapping[str, Any], data: bytes, num_bytes: int | None) -> None:
    """Refuse a body that is not the object's. Raises BodyBrokeError.

    Args:
        answer: Its headers.
        data: The body.
        num_bytes: The size of the version that was asked for, where it is known.
    """
    if not etag_of(answer) and (found := _ERROR_DOCUMENT.match(data)):
        raise BodyBrokeError(f"an error came as an object: {found[2].decode(errors='replace')}")
    if num_bytes not in (None, len(data)):
        raise BodyBrokeError(f"{len(data)} bytes came, the object has {num_bytes}")
