"""What the tests share: real object stores, one Ray for the session, pictures."""

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import (
    CLOUD_CREDENTIALS,
    CREDENTIALS,
    CloudServer,
    Server,
    azurite,
    azurite_server,
    gcs_server,
    moto_server,
    rclone_server,
)

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before Ray or a server starts: their processes inherit it.
os.environ.update({**CREDENTIALS, **CLOUD_CREDENTIALS})
os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"})
for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "RAY_ADDRESS"):
    os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what was captured in UTF-8, in which it travels where several processes test."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that honours If-None-Match."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def naive_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that ignores If-None-Match."""
    folder = tmp_path_factory.mktemp("rclone")
    (folder / "data").mkdir()
    with rclone_server(folder / "data", folder / "log") as server:
        yield server


@pytest.fixture(scope="session")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudServer]:
    """Return a server of Google's kind."""
    with gcs_server(tmp_path_factory.mktemp("gcs") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def az(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudServer]:
    """Return a server of Azure's kind; without node there is none."""
    if azurite() is None:
        pytest.skip("Azurite is not installed: `make azurite`, which needs npm")
    with azurite_server(tmp_path_factory.mktemp("azurite") / "log") as server:
        yield server


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest) -> CloudServer:
    """Return each server of those clouds."""
    server: CloudServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """Return the address of a Ray with two cores that all tests share."""
    import ray  # noqa: PLC0415 - most tests need no Ray
    import ray.data  # noqa: PLC0415 - its loggers exist from now on

    from pipeline.cluster.connect import BUSY  # noqa: PLC0415 - as above

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # A test before may have called a command that started a Ray of its own.
    ray.shutdown()
    context = ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level="WARNING",
        log_to_driver=False,
        # As pipeline/cluster/connect.py does it on one machine.
        _system_config={"num_workers_soft_limit": 18, **BUSY},
    )
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def camvid() -> Path:
    """Return the folder of the CamVid photographs, which are never part of the repository."""
    folder = Path(__file__).parent.parent.parent / "shared" / "camvid"
    if not folder.is_dir():
        pytest.skip(f"the CamVid photographs are not at {folder}")
    return folder
