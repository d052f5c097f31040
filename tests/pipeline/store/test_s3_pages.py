"""Pages of listings that are read in botocore's place."""

from typing import Any

import botocore.handlers
import botocore.session
import pytest

from pipeline.store.s3_pages import parse_pages_fast

_PAGE = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>bucket</Name><IsTruncated>false</IsTruncated><KeyCount>2</KeyCount>
  <Contents><Key>a.jpg</Key><Size>5</Size><ETag>"one"</ETag></Contents>
  <Contents><Key>b.jpg</Key><Size>0</Size><LastModified>2026-01-01T00:00:00Z</LastModified>
  </Contents>
</ListBucketResult>"""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what reads an answer, and what botocore's look for an error in it was given."""
    seen: list[bytes] = []
    monkeypatch.setattr(
        botocore.handlers, "_looks_like_special_case_error", lambda _, body: seen.append(body)
    )
    client = botocore.session.get_session().create_client("s3", "us-east-1")
    parse_pages_fast(client)

    def _read(body: bytes) -> tuple[dict[str, Any], list[bytes]]:
        found: dict[str, Any] = {}
        client.meta.events.emit(
            "before-parse.s3.ListObjectsV2",
            operation_model=client.meta.service_model.operation_model("ListObjectsV2"),
            response_dict={"status_code": 200, "headers": {}, "body": body},
            customized_response_dict=found,
        )
        return found, seen

    return _read


def test_a_page_is_read_once(read: Any) -> None:
    """What was read of a page is not parsed by botocore again, which looks for errors in it."""
    found, [seen] = read(_PAGE)
    assert [one["Key"] for one in found["Contents"]] == ["a.jpg", "b.jpg"]
    assert found["Contents"][0] == {"Key": "a.jpg", "Size": 5, "ETag": '"one"'}
    assert found["Contents"][1]["LastModified"].year == 2026
    assert b"a.jpg" not in seen
    assert b"IsTruncated" in seen


@pytest.mark.parametrize(
    "body",
    [
        _PAGE[:200],
        _PAGE.replace(b"<Key>b.jpg</Key>", b""),
        _PAGE.replace(b"<Size>5</Size>", b"<Size>five</Size>"),
        b"<Error><Code>InternalError</Code></Error>",
        b"<html><body>Welcome</body></html>",
        b"",
    ],
)
def test_what_is_no_page_is_botocores(read: Any, body: bytes) -> None:
    """An answer that makes no sense is left to botocore, whole."""
    found, [seen] = read(body)
    assert found == {}
    assert seen == body
