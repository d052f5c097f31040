"""Pages of S3's listings, read by the C parser: botocore's own takes 90 to 160 us per key.

botocore asks its handlers of `before-parse` first, which may read an answer in its place. What it
has read is taken out of the answer; the rest goes on as it always does: errors, tokens, names that
are percent-encoded.
"""

import gc
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET

from botocore.utils import parse_timestamp

_log = logging.getLogger(__name__)

_ROOT = "ListBucketResult"
# XML 1.0, 2.2: what no document may hold, as it is or as a reference by number.
_NO_XML = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"
    "|&#0*(?:[0-8]|1[124-9]|2[0-9]|3[01]);"
    "|&#x0*(?:[0-8bcef]|1[0-9a-f]);",
    re.IGNORECASE,
)
# botocore calls handlers of a wildcard first. One of its own looks through each answer for an error
# in it, with a parser of its own; of what was read here it then sees the rest alone.
_FIRST_OF_ALL = "before-parse.*.ListObjectsV2"


def parse_pages_fast(client: Any) -> None:
    """Let a client read listings with the C parser; a second call changes nothing.

    Args:
        client: Of botocore, or aiobotocore, for S3.
    """
    client.meta.events.register(_FIRST_OF_ALL, _read_objects, unique_id="fcn-read-objects")


def _read_objects(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    if response_dict["status_code"] >= 300:
        return
    try:
        found = _take_objects(response_dict)
    except ET.ParseError:
        found = _take_legible(response_dict)
    except (LookupError, ValueError):
        return  # botocore says what is wrong with it
    if found:
        customized_response_dict["Contents"] = found


def _take_legible(response_dict: dict[str, Any]) -> list[dict[str, Any]]:
    """Read a page with names that XML can't hold, of a store that does not encode them.

    The one name is then another, under which nothing is found; the others are what they are.
    """
    body = response_dict["body"].decode("utf-8", errors="replace")
    response_dict["body"] = _NO_XML.sub("\ufffd", body).encode()
    try:
        found = _take_objects(response_dict)
    except (ET.ParseError, LookupError, ValueError):
        return []
    if found:
        _log.warning("a listing has names that XML can't hold; \ufffd stands for what they are")
    return found


@contextmanager
def _without_collections() -> Iterator[None]:
    """Hold the garbage collector off while a tree is made that goes by itself.

    It would walk over all that the process holds every few thousand elements: half of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _take_objects(response_dict: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the objects of a page, and leave the rest of it in its place; none of what is no page.

    Raises:
        ParseError, LookupError, ValueError: It makes no sense.
    """
    with _without_collections():
        # The parser is expat, which knows no outer entities and limits what inner ones grow to.
        root = ET.fromstring(response_dict["body"])  # noqa: S314
        name = str(root.tag).rpartition("}")[2]
        space = str(root.tag).removesuffix(name)
        contents = f"{space}Contents"
        found = [_read_object(one, space) for one in root if one.tag == contents]
        if name != _ROOT or not found:
            return []
        root[:] = [one for one in root if one.tag != contents]
        response_dict["body"] = ET.tostring(root)
    return found


def _read_object(element: ET.Element, space: str) -> dict[str, Any]:
    """Read an object; its time is wanted only where it has no ETag. Raises KeyError, ValueError."""
    key = element.findtext(f"{space}Key")
    if key is None:
        raise KeyError("Key")
    found: dict[str, Any] = {"Key": key, "Size": int(element.findtext(f"{space}Size", "0"))}
    if tag := element.findtext(f"{space}ETag"):
        found["ETag"] = tag
    elif time := element.findtext(f"{space}LastModified"):
        found["LastModified"] = parse_timestamp(time)
    return found
