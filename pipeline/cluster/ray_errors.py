"""Ray's errors, translated: into ours, and into what they mean for the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data

from pipeline.errors import ClusterLost, WaitedTooLong, own_error


@contextmanager
def own_errors(
    waited: str = "no task has made progress for max_wait_minutes: they wait for nodes or hang",
) -> Iterator[None]:
    """Raise what tasks and actors have raised without what Ray has wrapped it in.

    Args:
        waited: What it means if Ray Data has made no progress for as long as it may.

    Raises:
        WaitedTooLong: It has not.
        ClusterLost: Ray is no longer there for this process.
    """
    try:
        yield
    except ray.exceptions.LocalRayletDiedError as error:
        raise ClusterLost(
            "Ray's own process on this machine, the raylet, has died; was it killed, or was memory "
            "short?"
        ) from error
    except ray.exceptions.RayError as error:
        raise _without_advice(own_error(error)) from error
    except ray.data.exceptions.ExecutionTimeoutError as error:
        raise WaitedTooLong(f"{waited}; see `ray status`") from error


def last_line(error: BaseException) -> str:
    """Return the line of an error that says what happened; Ray puts its tracebacks before it."""
    return str(own_error(error)).strip().splitlines()[-1]


def _without_advice(error: BaseException) -> BaseException:
    """Take off what Ray Data appends to an error's message: lines on retries, which are off."""
    if error.args and isinstance(error.args[0], str):
        message = error.args[0].partition("\nFailed to apply UDF transform")[0]
        error.args = (message, *error.args[1:])
    return error


def tells_of_short_memory(text: str) -> bool:
    """Say whether an error tells that Ray ended a process since its node ran short of memory.

    Ray has a class for it, which does not outlive the way through Ray Train: only its text does.

    Args:
        text: The text of the error.
    """
    return "running low on memory" in text
