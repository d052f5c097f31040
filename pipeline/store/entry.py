"""One stored object: what a listing shows of it, and how a reader finds that it is another one."""

from dataclasses import dataclass

from pipeline.errors import ErrorCode, StoreError

# How versions begin that a bucket without ETags gives: the time of the last change, and the size.
WITHOUT_ETAG = "time-"


@dataclass(frozen=True)
class Entry:
    """One stored object as a listing shows it.

    `version` changes whenever the content does: the ETag in a bucket, mtime in ns and size on a
    disk; empty where a listing shows what may not be looked at. `num_bytes` is its size.
    """

    uri: str
    version: str
    num_bytes: int


def check_size(uri: str, num_bytes: int, max_bytes: int | None) -> None:
    """Refuse an object that is larger than the limit. Raises StoreError."""
    if max_bytes is not None and num_bytes > max_bytes:
        raise StoreError(
            ErrorCode.TOO_MANY_BYTES,
            f"{uri} has {num_bytes} bytes, the limit is {max_bytes} (max_image_bytes)",
        )


def changed_since(uri: str, version: str, found: str) -> StoreError:
    """Build the error for an object that has another version than the plan says."""
    return StoreError(
        ErrorCode.CHANGED, f"{uri} was planned as version {version} and is {found} by now"
    )


def check_part(uri: str, span: range, data: bytes) -> None:
    """Refuse less than a part of an object that was planned. Raises StoreError.

    Args:
        uri: The object.
        span: The bytes of it that were asked for.
        data: What there is of them.
    """
    if len(data) < len(span):
        raise StoreError(
            ErrorCode.CHANGED,
            f"{uri} was planned with bytes {span.start} to {span.stop - 1} and ends before them",
        )
