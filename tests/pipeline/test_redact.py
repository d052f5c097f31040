"""Masking: secrets of URLs are hidden wherever they stand, and other names are left alone."""

import traceback

import pytest

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.redact import holds_secret, redacted, without_secret

_SIGNED = "X-Amz-Expires=600&X-Amz-Signature=secret&X-Amz-Credential=secret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"input='https://b/a.jpg?{_SIGNED}': no", "input='https://b/a.jpg?***': no"),
        (f"s3://b/a?b.jpg?{_SIGNED} in row 3", "s3://b/a?*** in row 3"),
        ("/a.jpg?AWSAccessKeyId=x&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D", "/a.jpg?***"),
        ("https://x.blob/a?sv=2&sig=secret", "https://x.blob/a?***"),
        ("HTTP://me:secret@store:9000/x or", "HTTP://***@store:9000/x or"),
        ("'http://me:se/cr'e@t@store'", "'http://***@store'"),
        ("https://secret@store", "https://***@store"),
        ("redis://:secret@store", "redis://***@store"),
    ],
)  # fmt: skip
def test_secrets_are_hidden(text: str, shown: str) -> None:
    """User, password, query and signature are hidden; server, path and the words around stay."""
    assert redacted(text) == shown
    assert holds_secret(text)
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("s3://b/icons@2x.png", "s3://b/what?.jpg", "file:///a/b?c=d&e.png", "a:b@c", "me@host"),
        *("http://127.0.0.1:9000/bucket/key: no answer", "100 %", "what is sig=1 ?"),
        *("http://127.0.0.1:9000/b/a@2x.png", "http://store/b/a@2x.png", "s3://b/why?sig=a.jpg"),
    ],
)
def test_other_names_are_left_alone(text: str) -> None:
    """Names of objects may hold @ and ?, and addresses without secrets are shown."""
    assert redacted(text) == text
    assert not holds_secret(text)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://store:9000", "http://store:9000"),
        ("https://user:pa%40ss@store:9000/path", "https://store:9000/path"),
        ("https://user:p@ss@store", "https://store"),
        ("https://token@store/?key=secret#more", "https://store/"),
        ("http://user:secret@[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_secrets_are_taken_out_of_urls(url: str, kept: str) -> None:
    """Of a URL the server and the path are kept; user, password, query and fragment are not."""
    assert without_secret(url) == kept


def test_no_error_of_ours_holds_a_secret() -> None:
    """Whatever a library has said, message, code's message and traceback hide it."""
    error = StoreError(ErrorCode.TIMEOUT, f"no answer: http://me:secret@h/a?{_SIGNED}")

    for text in (str(error), error.message, repr(error), *traceback.format_exception(error)):
        assert "secret" not in text
    assert str(InputError("manifest s3://b/a.csv")) == "manifest s3://b/a.csv"
