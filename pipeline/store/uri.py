"""URIs: `s3://bucket/key` (or gs, az) or `file:///absolute/path`, never percent-encoded."""

import glob
import os
import re
from urllib.parse import unquote

from fsspec.utils import glob_translate

from pipeline.errors import SettingError
from pipeline.redact import holds_secret

# What is read from the web is no place of the pipeline: only the source of published weights.
WEB = ("http://", "https://")
# Amazon S3 and what imitates it, Google Cloud Storage, Azure Blob Storage.
BUCKETS = ("s3://", "gs://", "az://")
_PLACES = "a local path, file://, s3://, gs:// or az://"
_GOOGLES = re.compile(r"\Agcs://")
# One account is a setting, since a URI here names a bucket and a key.
_AZURES = re.compile(r"\A(?:abfss?|wasbs?)://([^@/]+)@([^./]+)\.[^/]+/?(.*)\Z", re.DOTALL)
# As Hadoop and Spark write them: s3a://bucket/key, file:/path, and file://localhost/path.
_SPARKS_S3 = re.compile(r"\As3[an]://")
_ONE_SLASH = re.compile(r"\A(s3[an]?|gs|gcs|az):/?(?!/)")
_WINDOWS = re.compile(r"\A([A-Za-z]:[\\/](?!/)|\\\\)")
_SHORT_FILE = re.compile(r"\Afile:(//localhost)?/(?!/)")


def normalise_uri(text: str, field: str) -> str:
    """Bring what a user typed into the form of all URIs here.

    Args:
        text: A path, `file://...`, or `s3://bucket/...`, `gs://...`, `az://container/...`.
        field: The setting's name, for the message.

    Raises:
        SettingError: The text is empty, holds a secret, or the scheme is another one.
    """
    if not text.strip():
        raise SettingError(f"{field} is empty; give {_PLACES}")
    if "\0" in text or not is_utf8(text):
        raise SettingError(f"{field}={text!r} is no text in UTF-8")
    if found := _AZURES.match(text):
        container, account, key = found.groups()
        raise SettingError(
            f"{field}={text!r}: write az://{container}/{key}, and az_account={account} beside it"
        )
    if holds_secret(text):
        raise SettingError(
            f"{field}={text!r} holds a password or a signature, which would stand in logs and "
            "tables; give the plain name, and credentials the way the store's tools find them"
        )
    text = _GOOGLES.sub("gs://", _SPARKS_S3.sub("s3://", text))
    _refuse_near_misses(text, field)
    if text.startswith(BUCKETS):
        return _in_bucket(text, field)
    text = _SHORT_FILE.sub("file:///", text)
    scheme, separator, path = text.partition("://")
    if separator and scheme != "file":
        raise SettingError(f"{field}={text!r}: scheme {scheme!r} is not supported; use {_PLACES}")
    path = os.path.abspath(os.path.expanduser(path if separator else text))
    # POSIX leaves two slashes at the start to the system; here they are one, as on Linux.
    return "file:///" + path.lstrip("/")


def _in_bucket(text: str, field: str) -> str:
    """Bring a bucket's URI into its form. Raises SettingError."""
    scheme, _, place = text.partition("://")
    bucket, _, key = place.partition("/")
    if not bucket:
        raise SettingError(f"{field}={text!r} names no bucket; write {scheme}://BUCKET/PREFIX")
    if any(map(str.isspace, bucket)):
        raise SettingError(f"{field}={text!r}: a bucket's name, {bucket!r}, has no space in it")
    return f"{scheme}://{bucket}/{key}".rstrip("/")


def _refuse_near_misses(text: str, field: str) -> None:
    """Refuse what would be a strange local path, and is meant otherwise. Raises SettingError."""
    if found := _ONE_SLASH.match(text):
        scheme = {"gcs": "gs"}.get(found[1], found[1][:2])
        rest = text[found.end() :]
        raise SettingError(f"{field}={text!r} lacks a slash; write {scheme}://{rest}")
    scheme, separator, place = text.partition("://")
    if separator and scheme != scheme.lower() and f"{scheme.lower()}://" in BUCKETS:
        raise SettingError(f"{field}={text!r}: write {scheme.lower()}://{place}")
    if _WINDOWS.match(text):
        raise SettingError(
            f"{field}={text!r} is a path of Windows; give it as Linux sees it, as in "
            "/mnt/c/photos (WSL), or a bucket's"
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


def is_utf8(text: str) -> bool:
    """Return whether a text can be written: JSON can name half of a pair of code units."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_wildcard(uri: str) -> bool:
    """Return whether the text is a glob pattern."""
    return glob.has_magic(uri)


def wildcard_pattern(uri: str) -> re.Pattern[str]:
    """Compile a glob pattern: `*` stays in a folder, `**` does not."""
    return re.compile(glob_translate(uri))
