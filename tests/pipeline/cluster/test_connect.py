"""Ray for a job: what is said where it does not come."""

import pytest
import ray

from pipeline.cluster.connect import connect
from pipeline.errors import ClusterLost, Stopped


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch):
    """Its own bare exception, as for a start that takes too long, becomes exit code 5."""

    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup.")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(ClusterLost, match=r"does not start .*: The current node timed out during"):
        connect(None)
    assert ClusterLost.exit_code == Stopped.exit_code
