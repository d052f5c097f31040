"""What tasks raise, as it arrives on the driver."""

import pytest
import ray.data

from pipeline.cluster.data_context import set_switches
from pipeline.cluster.ray_errors import own_errors
from pipeline.errors import ErrorCode, PipelineError, SettingError, StoreError

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
