"""What obstore raises, as errors of buckets.

Its classes tell too little apart: 409 and 412 are one of them, and a missing bucket is a missing
object. What the store has said stands in the message, as Rust shows the error: a line a field,
in which no text of the store's or the user's can begin a line of its own.
"""

import re

from obstore.exceptions import BaseError

from pipeline.store.bucket_errors import (
    BodyBrokeError,
    NobodyThereError,
    NoCredentialsHereError,
    RefusedError,
    UnclearError,
)

OBSTORE_ERRORS = (BaseError, OSError, ValueError, NotImplementedError)

_FIELDS = "\n\nDebug source:\n"
_STATUS = re.compile(r"^ *status: (\d{3}),$", re.MULTILINE)
_BODY = re.compile(r'^ *body: Some\(\n *"(.*)",$', re.MULTILINE)
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
# To the end of the first line; Azure's go on with ids.
_MESSAGE = re.compile(r"<Message>([^<\\]{1,1000})")
_KIND = re.compile(r"^ *kind: (Connect|Timeout|Request|Interrupted|Decode|Unknown),$", re.MULTILINE)
_URI = re.compile(r"^ *(https?://[^/ ]+)/.*,$", re.MULTILINE)
# Who gives machines their credentials, where nothing else does.
_METADATA = ("http://metadata.google.internal", "http://metadata", "http://169.254.169.254")
_REASON = re.compile(r'^ *(?:message|error): "(.*)",$', re.MULTILINE)
# What some stores answer with nothing, obstore itself refuses.
_BEYOND_THE_END = re.compile(r"^ *source: StartTooLarge \{$", re.MULTILINE)
_BARE_REDIRECT = re.compile("^ *inner: BareRedirect,$", re.MULTILINE)
# The headers had come.
_OF_BODIES = ("Interrupted", "Decode")


def translated(error: Exception) -> OSError:
    """Tell what has gone wrong.

    Args:
        error: One of `OBSTORE_ERRORS`.

    Returns:
        RefusedError for an answer of the store's, NobodyThereError or BodyBrokeError; OSError for
        a request that was cut off; NoCredentialsHereError; UnclearError for all else.
    """
    said, _, fields = str(error).rpartition(_FIELDS)
    server = found[1] if (found := _URI.search(fields)) else ""
    if server in _METADATA:
        return NoCredentialsHereError(said)
    if status := _STATUS.search(fields):
        return _refused(int(status[1]), fields)
    if kind := _KIND.search(fields):
        return _cut_off(kind[1], server, said, fields)
    if _BARE_REDIRECT.search(fields):
        return RefusedError(301, "", "")
    if _BEYOND_THE_END.search(fields):
        return RefusedError(416, "", "")
    # A batch of removals says no more.
    is_missing = isinstance(error, FileNotFoundError)
    return RefusedError(404, "", "") if is_missing else UnclearError(said or str(error))


def _cut_off(kind: str, server: str, said: str, fields: str) -> OSError:
    reasons = _REASON.findall(fields)
    reason = reasons[-1] if reasons else said.rpartition(" - ")[2]
    if kind == "Connect":
        return NobodyThereError(server)
    if kind in _OF_BODIES:
        return BodyBrokeError(f"the answer broke off: {reason}")
    return OSError("no answer in time" if kind == "Timeout" else reason)


def _refused(status: int, fields: str) -> RefusedError:
    body = found[1] if (found := _BODY.search(fields)) else ""
    code, message = _CODE.search(body), _MESSAGE.search(body)
    return RefusedError(status, code[1] if code else "", message[1] if message else "")
