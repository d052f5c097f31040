"""What tasks raise, as it arrives on the driver."""

import pytest
import ray
import ray.data

from pipeline.cluster.data_context import set_switches
from pipeline.cluster.ray_errors import own_errors
from pipeline.errors import ClusterLost, ErrorCode, PipelineError, SettingError, StoreError

_ERRORS = [
    SettingError("batch_size=0: too few; give 1 or more"),
    StoreError(ErrorCode.TIMEOUT, "s3://bucket/key: no answer within 60 s"),
]


@pytest.mark.parametrize("error", _ERRORS, ids=["setting", "store"])
def test_an_error_of_ours_arrives_as_it_was_raised(ray_session: str, error: PipelineError):
    """With its type and its words, and without advice of Ray's on retries."""

    def fail(_: dict) -> dict:
        raise error

    failing = ray.data.range(1).map(fail)
    set_switches(failing.context, 5)

    with pytest.raises(type(error)) as raised, own_errors():
        list(failing.iter_rows())

    assert str(raised.value) == str(error)


def test_the_loss_of_the_raylet_is_no_bug() -> None:
    """Where Ray's own process has died, the command ends with 5 and can be run again."""
    with pytest.raises(ClusterLost, match="raylet, has died") as raised, own_errors():
        raise ray.exceptions.LocalRayletDiedError
    assert raised.value.exit_code == 5
