"""Secrets in texts: what of a URL no log, record, table or message may hold."""

import re
from urllib.parse import urlsplit, urlunsplit

_MASK = r"\1***"
# Up to the last @: who types a password does not always encode its slashes and quotes. But a host,
# or a host and a port, before the first slash is no user. Lengths are bounded, since a search from
# every place of a long text to its end takes for ever.
_USER = re.compile(
    r"(https?://)(?=[^\s/@]{0,500}[:@])(?![^\s/@:]{0,500}:\d{1,5}(?:[/,\s]|$))\S{0,2000}(?=@)",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(://)[^/@\s]{0,500}:[^/@\s]{0,500}(?=@)")
_QUERY = re.compile(r"(https?://[^\s?'\"]{0,2000}\?)[^\s'\"]+", re.IGNORECASE)
# The name of an object may hold a question mark; these are the parameters of presigned URLs, of
# AWS (both versions), Google and Azure.
_SIGNATURE = re.compile(
    r"(\?)[^\s'\"]{0,2000}?\b(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)=|"
    r"(?:Signature|sig)=[^\s'\"&]{20})[^\s'\"]*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Hide users, passwords, queries and signatures of all URLs in a text.

    Args:
        text: Any text, as of a message or a traceback.
    """
    if "@" not in text and "?" not in text:
        # Of a million names in a manifest, all.
        return text
    for secret in (_SIGNATURE, _QUERY, _USER, _PASSWORD):
        text = secret.sub(_MASK, text)
    return text


def holds_secret(text: str) -> bool:
    """Return whether `redacted` would hide something.

    Args:
        text: A URL, or any text.
    """
    return redacted(text) != text


def without_secret(url: str) -> str:
    """Remove user, password, query and fragment from a URL.

    Args:
        url: Any URL.
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
