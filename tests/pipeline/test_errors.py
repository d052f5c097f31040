"""Errors: what they carry between processes, and what they mean for the exit code."""

import pickle

import pytest

from pipeline.errors import (
    EXIT_BUG,
    EXIT_OK,
    EXIT_TOO_MANY_BAD_IMAGES,
    BrokenPromise,
    ErrorCode,
    FingerprintMismatch,
    ImageError,
    InputError,
    LockHeld,
    PipelineError,
    SettingError,
    Stopped,
    StoreError,
    own_error,
)


@pytest.mark.parametrize("kind", [ImageError, StoreError])
@pytest.mark.parametrize("code", ErrorCode)
def test_errors_with_a_code_travel_between_processes(
    kind: type[ImageError] | type[StoreError], code: ErrorCode
) -> None:
    """Code and message of an error arrive in another process as they left."""
    received = pickle.loads(pickle.dumps(kind(code, "what happened")))
    assert type(received) is kind
    assert (received.code, received.message, str(received)) == (
        code,
        "what happened",
        "what happened",
    )


@pytest.mark.parametrize(
    "kind", [SettingError, InputError, FingerprintMismatch, LockHeld, BrokenPromise]
)
def test_errors_without_a_code_travel_between_processes(kind: type[PipelineError]) -> None:
    """The message of an error arrives in another process as it left."""
    received = pickle.loads(pickle.dumps(kind("what happened")))
    assert (type(received), str(received)) == (kind, "what happened")


def test_the_exit_codes_are_these() -> None:
    """The exit codes are the contract of the documentation."""
    assert {
        kind.__name__: kind.exit_code for kind in (*PipelineError.__subclasses__(), Stopped)
    } == {
        "SettingError": 2,
        "InputError": 3,
        "StoreError": 5,
        "FingerprintMismatch": 6,
        "LockHeld": 7,
        "WorkersLost": 5,
        "ReplicasLost": 5,
        "ClusterLost": 5,
        "WaitedTooLong": 5,
        "Diverged": 2,
        "BrokenPromise": 1,
        "Stopped": 5,
    }
    assert (EXIT_OK, EXIT_BUG, EXIT_TOO_MANY_BAD_IMAGES) == (0, 1, 4)


def test_the_codes_of_images_are_these() -> None:
    """The codes stand in published tables; which of them a retry takes up is documented."""
    assert {str(code) for code in ErrorCode if code.transient} == {
        *("not_found", "forbidden", "timeout", "throttled", "changed", "out_of_memory"),
        *("failed", "archived"),
    }
    assert {str(code) for code in ErrorCode if not code.transient} == {
        *("too_many_bytes", "too_many_pixels", "unsupported_format"),
        *("corrupt", "truncated", "unsupported_mode", "crashed", "too_slow"),
        *("name_too_long", "name_not_utf8", "name_refused"),
    }


def test_no_handler_of_errors_swallows_a_stop() -> None:
    """A stop is no Exception, an image's error is no PipelineError."""
    assert not issubclass(Stopped, Exception)
    assert not issubclass(ImageError, PipelineError)


class _WrappedError(Exception):
    """As Ray wraps what a task raises: the cause is an attribute."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("wrapped")
        self.cause = cause


def test_an_own_error_is_found_in_what_a_library_wraps_around_it() -> None:
    """The error that has an exit code is found below a library's attribute or `from`."""
    own = StoreError(ErrorCode.TIMEOUT, "no answer")
    chained = RuntimeError("outermost")
    chained.__cause__ = _WrappedError(own)
    assert own_error(_WrappedError(own)) is own
    assert own_error(chained) is own
    assert own_error(own) is own


def test_a_bug_stays_a_bug() -> None:
    """Without an own error below it, an error is given back as it is."""
    bug = RuntimeError("bug")
    bug.__cause__ = KeyError("deeper")
    assert own_error(bug) is bug


def test_a_store_refuses_what_is_missing_or_forbidden() -> None:
    """Of all codes these say that asking again can't help."""
    refused = {code for code in ErrorCode if StoreError(code, "what happened").refused}
    assert refused == {ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.ARCHIVED}
