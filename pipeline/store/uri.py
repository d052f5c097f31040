"""URIs: `s3://bucket/key` or `file:///absolute/path`, never percent-encoded."""

import glob
import os
import re
from urllib.parse import unquote

from fsspec.utils import glob_translate

from pipeline.errors import SettingError
from pipeline.redact import holds_secret

# What is read from the web is no place of the pipeline: only the source of published weights.
WEB = ("http://", "https://")
# As Hadoop and Spark write them: s3a://bucket/key, file:/path, and file://localhost/path.
_SPARKS_S3 = re.compile(r"\As3[an]://")
_ONE_SLASH = re.compile(r"\As3[an]?:/?(?!/)")
_WINDOWS = re.compile(r"\A([A-Za-z]:[\\/](?!/)|\\\\)")
_SHORT_FILE = re.compile(r"\Afile:(//localhost)?/(?!/)")


def normalise_uri(text: str, field: str) -> str:
    """Bring what a user typed into the form of all URIs here.

    Args:
        text: A path, `file://...` or `s3://bucket/...`.
        field: The setting's name, for the message.

    Raises:
        SettingError: The text is empty, holds a secret, or the scheme is another one.
    """
    if not text.strip():
        raise SettingError(f"{field} is empty; give a local path, file:// or s3://")
    if "\0" in text or not _is_utf8(text):
        raise SettingError(f"{field}={text!r} is no text in UTF-8")
    if holds_secret(text):
        raise SettingError(
            f"{field}={text!r} holds a password or a signature, which would stand in logs and "
            "tables; give the plain s3:// name, and credentials the way AWS tools find them"
        )
    text = _SPARKS_S3.sub("s3://", text)
    _refuse_near_misses(text, field)
    if text.startswith("s3://"):
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not bucket:
            raise SettingError(f"{field}={text!r} names no bucket; write s3://BUCKET/PREFIX")
        return f"s3://{bucket}/{key}".rstrip("/")
    text = _SHORT_FILE.sub("file:///", text)
    scheme, separator, path = text.partition("://")
    if separator and scheme != "file":
        raise SettingError(
            f"{field}={text!r}: scheme {scheme!r} is not supported; "
            "use a local path, file:// or s3://"
        )
    return "file://" + os.path.abspath(os.path.expanduser(path if separator else text))


def _refuse_near_misses(text: str, field: str) -> None:
    """Refuse what would be a strange local path, and is meant otherwise. Raises SettingError."""
    if found := _ONE_SLASH.match(text):
        rest = text[found.end() :]
        raise SettingError(f"{field}={text!r} lacks a slash; write s3://{rest}")
    if _WINDOWS.match(text):
        raise SettingError(
            f"{field}={text!r} is a path of Windows; give it as Linux sees it, as in "
            "/mnt/c/photos (WSL), or s3://"
        )


def other_spellings(uri: str) -> list[str]:
    """Return what a manifest may have meant by a URI that names nothing, likeliest first.

    Spark writes file names percent-encoded, and tables made by hand have spaces at their ends.
    """
    bare = uri.strip()
    return [text for text in dict.fromkeys((bare, unquote(uri), unquote(bare))) if text != uri]


def as_folder(uri: str) -> str:
    """Give a URI the one slash at its end that makes it the prefix of what lies below."""
    return uri if uri.endswith("/") and not uri.endswith("://") else f"{uri}/"


def local_path(uri: str) -> str:
    """The path of a `file://` URI."""
    return uri.removeprefix("file://")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_wildcard(uri: str) -> bool:
    """Whether the text is a glob pattern."""
    return glob.has_magic(uri)


def wildcard_pattern(uri: str) -> re.Pattern[str]:
    """Compile a glob pattern: `*` stays in a folder, `**` does not."""
    return re.compile(glob_translate(uri))
