"""What can go wrong, and what each of it means for the run.

PipelineError              ends the command with its own exit code
 + SettingError            2  the user must change a setting
 + InputError              3  there is no usable input
 + StoreError              5  the object store did not answer: run the same command again
 + FingerprintMismatch     6  the run was started with another network or decoder
 + LockHeld                7  another run is at work on the same thing
 + WorkersLost             5  workers of a training died too often: run the same command again
 + ReplicasLost            5  one shard has ended too many replicas: run the same command again
 + ClusterLost             5  Ray does not answer, or does not start: run the same command again
 + WaitedTooLong           5  no room for replicas, or no progress: run the same command again
 + Diverged                2  a training's loss is no number: the user must change a setting
 + BrokenPromise           1  the output contradicts itself: `verify` shows it
Stopped                    5  SIGTERM or SIGINT: run the same command again
ImageError                 never leaves its step: it becomes the status of one row

Everything else that is raised is a bug (exit code 1, with its traceback).
"""

from enum import StrEnum

from pipeline.redact import redacted

EXIT_OK = 0
EXIT_BUG = 1
EXIT_TOO_MANY_BAD_IMAGES = 4


class ErrorCode(StrEnum):
    """Why one image has no mask. The values are a contract: they stand in the images table."""

    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    ARCHIVED = "archived"
    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    CHANGED = "changed"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    UNSUPPORTED_MODE = "unsupported_mode"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    TOO_SLOW = "too_slow"
    FAILED = "failed"
    NAME_TOO_LONG = "name_too_long"
    NAME_NOT_UTF8 = "name_not_utf8"
    NAME_REFUSED = "name_refused"

    @property
    def transient(self) -> bool:
        """Return whether the cause lies outside the image's bytes, so that a retry can succeed."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {
        ErrorCode.NOT_FOUND,
        ErrorCode.FORBIDDEN,
        ErrorCode.ARCHIVED,
        ErrorCode.TIMEOUT,
        ErrorCode.THROTTLED,
        ErrorCode.CHANGED,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.FAILED,
    }
)


class Scope(StrEnum):
    """What a failure of a store is true of: the object asked for, its bucket, or whatever is asked.

    The last is a matter of credentials, clocks and endpoints.
    """

    OBJECT = "object"
    BUCKET = "bucket"
    STORE = "store"


class ImageError(Exception):
    """One image is bad; its row says so and the run goes on."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """Keep the code beside the message.

        Args:
            code: What readers of the images table filter by.
            message: What happened, the value and the limit, for a person.
        """
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type["ImageError"], tuple[ErrorCode, str]]:
        """Travel between processes with both arguments."""
        return (ImageError, (self.code, self.message))


class PipelineError(Exception):
    """The command ends with `exit_code`; the message tells the user what to do."""

    exit_code = EXIT_BUG

    def __init__(self, message: str) -> None:
        """Hide what a message must not hold: it goes into logs, reports and tables.

        Args:
            message: What happened, the value, the limit and the remedy.
        """
        super().__init__(redacted(message))


class SettingError(PipelineError):
    """A setting is wrong; raised before any work."""

    exit_code = 2


class InputError(PipelineError):
    """There is no usable input: it is missing, unreadable, or its names collide."""

    exit_code = 3


class StoreError(PipelineError):
    """The object store refused or did not answer."""

    exit_code = 5

    def __init__(self, code: ErrorCode, message: str, scope: Scope = Scope.OBJECT) -> None:
        """Keep the kind of the failure beside the message.

        Args:
            code: The code an image gets that fails for this reason.
            message: What was tried, on which URI, and what the store said.
            scope: What it is true of; no row says what is not true of its image alone.
        """
        super().__init__(message)
        self.code = code
        self.message = str(self)
        self.scope = scope

    @property
    def refused(self) -> bool:
        """Whether there is no such object, or it can't be touched: asking again can't help."""
        return self.code in (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.ARCHIVED)

    @property
    def lasting(self) -> bool:
        """Whether it is true of the data, as that nothing is there, and not of an hour."""
        return self.refused or not self.code.transient

    def __reduce__(self) -> tuple[type["StoreError"], tuple[ErrorCode, str, Scope]]:
        """Travel between processes with all arguments."""
        return (type(self), (self.code, self.message, self.scope))


class UnsupportedError(StoreError):
    """The store has no put-if-absent; found out by the probe at the start."""


class FingerprintMismatch(PipelineError):
    """The run exists and was started with something else that decides the masks' pixels."""

    exit_code = 6


class LockHeld(PipelineError):
    """Another process is at work on the same input with the same network."""

    exit_code = 7


class Diverged(PipelineError):
    """A training's loss has become NaN or infinite; the same settings would lead there again."""

    exit_code = 2


class WorkersLost(PipelineError):
    """Workers of a training died more often than is allowed."""

    exit_code = 5


class ReplicasLost(PipelineError):
    """Replicas died over one shard more often than its images can explain."""

    exit_code = 5


class ClusterLost(PipelineError):
    """The Ray cluster of a job does not answer, or Ray does not start."""

    exit_code = 5


class WaitedTooLong(PipelineError):
    """The cluster had no room for replicas, or they made no progress, for too long."""

    exit_code = 5


class BrokenPromise(PipelineError):
    """The output contradicts itself."""


class Stopped(BaseException):
    """The process was told to end; what is committed stays, the rest is left for the next call.

    A BaseException, as KeyboardInterrupt is, so that no handler of errors swallows it.
    """

    exit_code = 5


def own_error(error: BaseException) -> BaseException:
    """Find the PipelineError that a library has wrapped.

    Args:
        error: What the library raised; Ray's own errors have their source in `cause`.

    Returns:
        The innermost PipelineError of its causes; without one, the error itself, which is a bug.
    """
    found = error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PipelineError):
            found = cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return found
