"""What Ray says of its tasks is a line of the log, and no part of what a command prints."""

import logging
import time

import pytest
import ray
import ray._private.worker

from pipeline.cluster.raylet_lines import log_raylet_lines


class Slow:
    """Has not done its work when it is killed."""

    def work(self) -> None:
        time.sleep(600)


def test_a_task_that_is_tried_again_is_said_once_in_the_log(
    ray_session: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    """Three calls of an actor that dies are one warning, and nothing on stdout."""
    # So that it is put back.
    monkeypatch.setattr(
        ray._private.worker, "print_to_stdstream", ray._private.worker.print_to_stdstream
    )
    log_raylet_lines()
    options = {"num_cpus": 0.1, "max_restarts": 1, "max_task_retries": -1, "max_concurrency": 4}
    actor = ray.remote(Slow).options(**options).remote()
    with caplog.at_level(logging.WARNING, "pipeline.cluster.raylet_lines"):
        calls = [actor.work.remote() for _ in range(3)]
        ray.wait(calls, timeout=2)
        ray.kill(actor)
        end = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)

    [message] = caplog.messages
    assert message.startswith("Ray (raylet): Task Slow.work failed.")
    assert capsys.readouterr().out == ""
