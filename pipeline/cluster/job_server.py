"""Ray's job server, translated: what it answers, how it fails, and how a lost answer is settled.

Everything here may be asked again: a connection that breaks is opened anew, and a submission
whose answer was lost is recognised by a mark in the job's metadata.
"""

import asyncio
import logging
import os
import re
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobErrorType, JobSubmissionClient
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from pipeline.errors import ClusterLost, LockHeld, SettingError

__all__ = ["JobDetails", "RayJobs", "node_lost"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_TIMEOUT_S = 60.0
_PAUSE_S = 2.0
# A stream that is silent for so long may be dead without a sign; `label` speaks every 30 s.
_SILENCE_S = 60.0
_MARK = "fcn_submission"
_REMEDY = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) to the token "
    "that the cluster was started with"
)


class _Client(JobSubmissionClient):
    """Ray's client, which without a limit would wait for ever on a connection that is dead."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": _TIMEOUT_S, **options})


class RayJobs:
    """The jobs of one cluster."""

    def __init__(self, address: str | None, lost_after_s: float) -> None:
        """Connect.

        Args:
            address: URL of the dashboard; None takes a Ray that runs on this machine.
            lost_after_s: Seconds without an answer after which the cluster counts as lost.

        Raises:
            ClusterLost: Nobody answers.
            SettingError: Somebody else answers, or asks for another token; or no address is given
                and not one Ray runs on this machine.
        """
        self._lost_after_s = lost_after_s
        self.address = address or "this machine's address"
        self._client = self._connect(address)
        self.address = self._client.get_address()

    def find(self, name: str) -> list[JobDetails]:
        """List a run's jobs on this cluster, oldest first.

        Args:
            name: The first one's submission id; later ones are NAME-2, NAME-3, ...
        """
        found = [(_number(name, job), job) for job in self._ask(self._client.list_jobs)]
        numbered = [(number, job) for number, job in found if number is not None]
        return [job for _, job in sorted(numbered, key=lambda pair: pair[0])]

    def submit(self, submission_id: str, entrypoint: str, runtime_env: dict[str, Any]) -> None:
        """Submit a job.

        Raises:
            LockHeld: Somebody else has just taken the id.
            SettingError: Ray refuses the job.
        """
        mark = uuid.uuid4().hex

        def submit() -> None:
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata={_MARK: mark},
            )

        try:
            self._ask(submit)
        except RuntimeError as error:
            if not _name_taken(error):
                reason = str(error).strip().splitlines()[-1]
                raise SettingError(f"Ray refuses the job: {reason}") from error
            standing = self._ask(lambda: self._client.get_job_info(submission_id))
            # The answer to a first try was lost: the job that stands there is ours.
            if (standing.metadata or {}).get(_MARK) != mark:
                raise LockHeld(f"{submission_id} was submitted by somebody else just now") from None

    def follow(self, submission_id: str, show: Callable[[str], None]) -> JobDetails:
        """Pass a job's log on until it ends, through any number of lost connections.

        Args:
            submission_id: The job.
            show: Takes each piece of the log.

        Returns:
            The job in its last state.

        Raises:
            ClusterLost: The cluster, or the job, is gone.
        """
        log = _Log(show)
        while True:
            job = self._info(submission_id)
            if job.status.is_terminal():
                self._catch_up(submission_id, log)
                return job
            if not asyncio.run(self._tail(submission_id, log)):
                # Also where a proxy lets requests pass and no streams.
                self._catch_up(submission_id, log)
                asyncio.run(asyncio.sleep(_PAUSE_S))

    def _info(self, submission_id: str) -> JobDetails:
        try:
            return self._ask(lambda: self._client.get_job_info(submission_id))
        except RuntimeError as error:
            raise ClusterLost(
                f"the cluster at {self.address} knows no job {submission_id}: it was started anew, "
                f"or the job was deleted ({str(error).strip()})"
            ) from error

    async def _tail(self, submission_id: str, log: "_Log") -> bool:
        """Follow the stream; False if it broke off."""
        stream = self._client.tail_job_logs(submission_id)
        position = 0
        try:
            while True:
                text = await asyncio.wait_for(anext(stream), _SILENCE_S)
                position = log.add(position, text)
        except (StopAsyncIteration, TimeoutError):
            return True
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            _log.info("the log of %s broke off (%s); asking again", submission_id, error)
            return False
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # Ray's generator is typed as less

    def _catch_up(self, submission_id: str, log: "_Log") -> None:
        try:
            log.add(0, self._ask(lambda: self._client.get_job_logs(submission_id)))
        except RuntimeError as error:
            # With the node that held it; the job's end is known all the same.
            _log.warning("the log of %s can't be read: %s", submission_id, str(error)[:500])

    def _connect(self, address: str | None) -> JobSubmissionClient:
        _quieten()
        if address is not None:
            # Ray lets its variables go before the argument, which here comes from a flag.
            os.environ["RAY_API_SERVER_ADDRESS"] = address
        try:
            return _Client(address)
        except AuthenticationError as error:
            raise self._other_token(error) from error
        except (RuntimeError, ValueError) as error:
            raise SettingError(f"address={address!r} is no Ray dashboard: {error}") from error
        except OSError as error:
            if address in (None, "auto") and "Please specify" in str(error):
                raise _unnamed(error) from error
            raise ClusterLost(
                f"no Ray cluster answers at {self.address}: {str(error).rstrip('.')}; is it up, "
                "and is its port (8265) reachable from here"
            ) from error

    def _ask(self, question: Callable[[], _T]) -> _T:
        asking = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_delay(self._lost_after_s),
            wait=wait_random_exponential(multiplier=0.5, max=15),
            before_sleep=self._say_lost,
            reraise=True,
        )
        try:
            return asking(question)
        except AuthenticationError as error:
            raise self._other_token(error) from error
        except (OSError, RuntimeError) as error:
            if not _may_pass(error):
                raise
            raise ClusterLost(
                f"the cluster at {self.address} has not answered for {self._lost_after_s:.0f} s "
                f"(lost_after_s): {error}. A job that it has goes on; --attach follows it again"
            ) from error

    def _say_lost(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            _log.warning("no answer from %s: %s", self.address, state.outcome.exception())

    def _other_token(self, error: AuthenticationError) -> SettingError:
        reason = str(error).partition("\n")[0]
        return SettingError(f"the cluster at {self.address} refuses: {reason}; {_REMEDY}")


class _Log:
    """Shows each character of a log once: every stream begins with the first."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._shown = 0

    def add(self, position: int, text: str) -> int:
        """Take a piece that begins at a position, and give the position after it."""
        end = position + len(text)
        if end > self._shown:
            self._show(text[max(0, self._shown - position) :])
            self._shown = end
        return end


def _unnamed(error: OSError) -> SettingError:
    """Build the error for this machine's Ray, of which there is none, or more than one."""
    several = re.search(r"multiple active Ray instances: \{([^}]*)\}", str(error))
    found = f"several Rays run here ({several[1]})" if several else "no Ray runs on this machine"
    return SettingError(
        f"address is not given, and {found}; name the cluster's dashboard, as in "
        "`fcn submit --address http://HEAD:8265 -- ...`"
    )


def _number(name: str, job: JobDetails) -> int | None:
    found = re.fullmatch(re.escape(name) + r"(?:-(\d+))?", job.submission_id or "")
    return None if found is None else int(found[1] or 1)


def _may_pass(error: BaseException) -> bool:
    """Whether asking again can help: no connection, or a server that is in trouble itself."""
    if isinstance(error, RuntimeError):
        return _in_trouble(error) and not _name_taken(error)
    return isinstance(error, OSError)


def _in_trouble(error: RuntimeError) -> bool:
    """Return whether the server has answered with 5xx; the number stands in the text alone."""
    return "Request failed with status code 5" in str(error)


def _name_taken(error: RuntimeError) -> bool:
    """Return whether a submission id is taken; Ray answers with 500 and this text."""
    return "already exists" in str(error)


def node_lost(job: JobDetails) -> bool:
    """Say whether a job's node has gone, or was never there.

    Args:
        job: That has ended.
    """
    lost = (JobErrorType.JOB_SUPERVISOR_ACTOR_DIED, JobErrorType.JOB_SUPERVISOR_ACTOR_START_TIMEOUT)
    return job.error_type in {one.value for one in lost}


def _quieten() -> None:
    """Silence how each stream was closed: what that means is said here."""
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
