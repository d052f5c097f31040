"""Submission to a real Ray head with token authentication, from another directory."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from ray.job_submission import JobDetails

from jobs.__main__ import main
from jobs.settings.submission import submission_name
from jobs.submit import exit_code
from pipeline.labelling import plan
from pipeline.labelling.session import open_job
from pipeline.settings.label import LabelSettings
from pipeline.store.lock import Lock
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, fault_proxy
from tests.jobs.training_product import PLAIN, scenes, train_flags
from tests.product import NETWORK, REPOSITORY, draw_photographs, label_flags, the_run
from tests.ray_nodes import TOKEN, Head, ray_head
from tests.servers import Server
from tests.wire import wire

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the project as its wheel installs it: all that a cluster has."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "w")
    subprocess.run([*pip, *build, REPOSITORY], check=True, timeout=120)
    [wheel] = (folder / "w").iterdir()
    install = ("install", "--quiet", "--no-deps", "--target", folder / "packages", wheel)
    subprocess.run([*pip, *install], check=True, timeout=120)
    return folder / "packages"


@pytest.fixture(scope="module")
def head(installed: Path) -> Iterator[Head]:
    path = str(installed)
    with ray_head(dashboard=True, PYTHONPATH=path) as found:
        where = [sys.executable, "-c", "import jobs; print(jobs.__file__)"]
        environ = found.environ(PYTHONPATH=path)
        shown = subprocess.run(where, env=environ, cwd="/", check=True, capture_output=True)
        assert shown.stdout.decode().startswith(path)
        yield found


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), 16)


@dataclass(frozen=True)
class User:
    """Somebody in a directory of their own who submits to a cluster."""

    head: Head
    folder: Path
    stack: ExitStack

    def start(self, *words: object, url: str = "", **environ: str) -> subprocess.Popen[str]:
        address = ("--address", url or self.head.dashboard_url)
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "submit", *address, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder, env=self.head.environ(**environ),
        )  # fmt: skip
        self.stack.callback(process.wait, 60)
        self.stack.callback(process.kill)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            self.stack.enter_context(stream)
        return process

    def submit(self, *words: object, url: str = "", **environ: str) -> tuple[int, str, str]:
        process = self.start(*words, url=url, **environ)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def ask(self, path: str) -> dict:
        request = urllib.request.Request(
            f"{self.head.dashboard_url}/api/jobs/{path}",
            headers={"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict = json.load(answer)
            return found


@pytest.fixture
def user(head: Head, tmp_path: Path) -> Iterator[User]:
    (tmp_path / "elsewhere").mkdir()
    with ExitStack() as stack:
        yield User(head, tmp_path / "elsewhere", stack)


def test_a_done_job_gives_0_through_a_lost_connection(
    user: User, photographs: Path, s3: Server, tmp_path: Path
):
    """Cut off for seconds amid the log, `submit` shows each line once and ends as the job.

    FCN_RUN_ID names run and job; nothing else of the environment is in Ray's record.
    """
    reached, released = threading.Event(), threading.Event()

    def hold() -> int | None:
        reached.set()
        released.wait(60)
        return 503

    bucket = s3.make_bucket()
    for photograph in photographs.iterdir():
        s3.put(bucket, f"in/{photograph.name}", photograph.read_bytes())
    places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
    with fault_proxy(s3.endpoint_url) as proxy, wire(user.head.dashboard_url) as line:
        proxy.faults.append(Fault("PUT", r"/commits/", "before", hold))
        words = label_flags(*places, "--s3-endpoint-url", proxy.endpoint_url)
        process = user.start("--", *words, url=line.url, FCN_RUN_ID="nightly", FCN_WAIT="true")
        shown = _read_until(process, "shards to do")
        assert reached.wait(60)
        line.cut()
        time.sleep(2)
        released.set()
        line.mend()
        shown, errors = shown + _rest(process.stdout), _rest(process.stderr)

    assert process.wait(60) == 0, errors
    assert line.cuts
    assert "no answer" in errors or "broke off" in errors
    assert "16 of 16 images have a mask" in shown
    assert the_run(places[1], Storage(s3.endpoint_url)).run_id == "nightly"
    name = submission_name(words, {"FCN_RUN_ID": "nightly"})
    assert name.startswith("fcn-label-nightly-")
    assert shown == user.ask(f"{name}/logs")["logs"]
    record = user.ask(name)
    assert record["driver_exit_code"] == 0
    assert record["runtime_env"]["env_vars"] == {"FCN_RUN_ID": "nightly"}
    assert "testing-secret" not in json.dumps(record)


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if words in line:
            return shown
    raise AssertionError(f"{words!r} is not in {shown!r}")


def _rest(stream: IO[str] | None) -> str:
    # `communicate` would not see what a line before has read ahead.
    assert stream is not None
    return stream.read()


def test_exit_codes_come_back(user: User, photographs: Path, s3: Server, tmp_path: Path):
    """What each job ended with is what its `submit` ends with; the log shows why."""
    bad = draw_photographs(tmp_path / "bad", 2)
    (bad / "bad.jpg").write_bytes(b"no image")
    with fault_proxy(s3.endpoint_url) as proxy, _held_lock(photographs, tmp_path / "held"):
        proxy.faults.append(Fault("GET", "/busy", "before", lambda: 503, times=1000))
        endpoint = ("--s3-endpoint-url", proxy.endpoint_url, "--io-attempts", 1)
        commands = {
            2: ["label", "--input", bad, "--output", "out", "--weights", "gone.safetensors"],
            4: label_flags(bad, tmp_path / "out"),
            5: label_flags("s3://busy/in", "s3://busy/out", *endpoint),
            7: label_flags(photographs, tmp_path / "held", "--lock-lease-s", 2),
        }
        started = {code: user.start("--", *words) for code, words in commands.items()}
        shown = {code: one.communicate(timeout=120) for code, one in started.items()}

    assert {code: one.returncode for code, one in started.items()} == {2: 2, 4: 4, 5: 5, 7: 7}
    words = {2: "gone.json does not exist", 4: "max_error_rate allows",
             5: "the store asks to slow down", 7: "is already working on the same"}  # fmt: skip
    for code, reason in words.items():
        assert reason in shown[code][0], shown[code]


def _held_lock(source: Path, output: Path) -> Lock:
    settings = LabelSettings(
        input=str(source),
        output=str(output),
        weights="random:0",
        width=4,
        num_classes=5,
        precision="fp32",
    )
    job = open_job(settings)
    place = f"{job.output}/locks/{plan.identity(settings, job.record.fingerprint)}"
    return Lock(job.storage, place, 2)


def test_a_stopped_job_ends_in_order_and_the_next_one_resumes(
    user: User, photographs: Path, s3: Server, tmp_path: Path
):
    """While it runs, the run is refused with 7 or followed; stopped it is 5; then it goes on.

    To stop following does not stop the job.
    """
    bucket = s3.make_bucket()
    for photograph in photographs.iterdir():
        s3.put(bucket, f"in/{photograph.name}", photograph.read_bytes())
    places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
    reached, released = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        released.wait(60)

    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.faults.append(Fault("PUT", r"/commits/shard-000003", "before", hold))
        flags = ("--max-shard-images", 1, "--s3-endpoint-url", proxy.endpoint_url)
        words = [*label_flags(*places, *flags), "--run-id", "tonight"]
        name = submission_name(words, {})
        first = user.start("--", *words)
        assert reached.wait(100), first.communicate(timeout=60)

        code, _, errors = user.submit("--", *words)
        assert code == 7
        assert f"{name} is running" in errors
        assert "--attach" in errors

        attached = user.start("--attach", "--", *words)
        assert f"Running entrypoint for job {name}" in _read_until(attached, "shards to do")
        attached.terminate()
        assert attached.wait(60) == 5
        assert "no longer followed, the job goes on" in _rest(attached.stderr)
        ray = str(Path(sys.executable).parent / "ray")
        stop = [ray, "job", "stop", "--address", user.head.dashboard_url, name]
        subprocess.run(stop, env=user.head.environ(), check=True, capture_output=True, timeout=60)
        shown, errors = first.communicate(timeout=60)
        assert first.returncode == 5, errors + shown
        assert "stopped by SIGTERM before the end; run the same command again to resume" in shown
        released.set()

        storage = Storage(s3.endpoint_url)
        run = the_run(places[1], storage)
        num_done = 16 - len(run.missing())
        assert 0 < num_done < 16
        [lock] = [uri.uri for uri in storage.walk(f"{places[1]}/locks") if "probe" not in uri.uri]
        assert json.loads(storage.read(lock))["released"]

        code, shown, errors = user.submit("--", *words)

    assert code == 0, errors + shown
    assert f"run tonight: {16 - num_done} of 16 shards to do" in shown
    assert user.ask(f"{name}-2")["driver_exit_code"] == 0
    assert main(["verify", places[1], "--s3-endpoint-url", s3.endpoint_url]) == 0


def test_a_proxy_without_streams_is_no_obstacle(user: User, tmp_path: Path):
    """Where only plain requests pass, and one answer is lost, the log comes all the same.

    The folder that goes along is in Ray's record; without waiting the exit code is 0.
    """
    words = ["verify", tmp_path / "nothing"]
    (tmp_path / "token").write_text(TOKEN["RAY_AUTH_TOKEN"])
    token = {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    taken = ("--working-dir", REPOSITORY)
    with fault_proxy(user.head.dashboard_url) as proxy:
        # Ray has taken the job, and nobody hears of it.
        proxy.faults.append(Fault("POST", "/api/jobs/$", "after", lambda: None))
        code, shown, errors = user.submit(*taken, "--", *words, url=proxy.endpoint_url, **token)
    assert proxy.faults[0].struck == 1
    assert code == 3, errors
    assert "broke off" in errors
    assert shown.count("Running entrypoint for job") == 1
    assert "nothing" in shown
    record = user.ask(submission_name([str(word) for word in words], {}))
    assert record["runtime_env"]["working_dir"].startswith("gcs://")

    code, shown, errors = user.submit("--no-wait", "--", *words)
    assert code == 0, errors
    assert "-2 is submitted" in shown


def test_a_network_is_trained_and_judged_by_jobs(user: User, tmp_path: Path):
    """`train` and `evaluate` end with 0 as jobs; FCN_RUN_ID names the run of `evaluate`.

    The run of `train` has its name from --run-name.
    """
    data, output = scenes(tmp_path / "data", 4, 2), tmp_path / "out"
    flags = ("--epochs", 1, "--batch-size", 4, *PLAIN)
    code, shown, errors = user.submit(
        "--", *train_flags(data, tmp_path, "run", *flags), FCN_RUN_ID="ignored"
    )
    assert code == 0, errors + shown
    weights = tmp_path / "run/model.safetensors"
    assert f"label images with --weights file://{weights}" in shown

    words = ["evaluate", "--data", data, "--output", output, "--weights", weights]
    code, shown, errors = user.submit("--", *words, FCN_RUN_ID="judged")
    assert code == 0, errors + shown
    assert "2 of 2 images of val scored" in shown
    assert the_run(f"file://{output}").run_id == "judged"
    name = submission_name([str(word) for word in words], {"FCN_RUN_ID": "judged"})
    assert name.startswith("fcn-evaluate-judged-")
    assert user.ask(name)["driver_exit_code"] == 0

    words[4] = tmp_path / "other"
    code, shown, errors = user.submit("--", *words, "--run-id", "flag", FCN_RUN_ID="judged")
    assert code == 0, errors + shown
    assert the_run(f"file://{tmp_path}/other").run_id == "flag"


def test_ray_job_submit_works_as_it_is(user: User, photographs: Path, tmp_path: Path):
    """`ray job submit --working-dir . -- python -m jobs label` needs nothing installed."""
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", ".",
               "--address", user.head.dashboard_url, "--", "python", "-m", "jobs"]  # fmt: skip
    done = subprocess.run(
        [*command, *label_flags(photographs, tmp_path / "out")],
        cwd=REPOSITORY, env=user.head.environ(PYTHONPATH=""),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 of 16 images have a mask" in done.stdout


def test_another_token_is_a_wrong_setting(user: User):
    """A cluster that refuses the token gives 2 and says where the token comes from."""
    code, _, errors = user.submit("--", "verify", "out", RAY_AUTH_TOKEN="another-0123456789")

    assert code == 2
    assert "RAY_AUTH_TOKEN" in errors


def test_no_cluster_is_5(user: User):
    """Where nobody answers the exit code is that of a run to be tried again."""
    code, _, errors = user.submit("--", "verify", "out", url="http://127.0.0.1:1")

    assert code == 5
    assert "no Ray cluster answers at http://127.0.0.1:1" in errors


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ((), "no Ray runs on this machine"),
        (("10.0.0.1:6379", "10.0.0.1:7000"), "several Rays run here"),
    ],
)
def test_without_an_address_one_ray_has_to_run_here(
    addresses: tuple[str, ...], found: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, tmp_path: Path,
):  # fmt: skip
    """With none, or with several, the exit code is 2 and the message names the flag."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: set(addresses))
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)

    assert main(["submit", "--", "verify", str(tmp_path / "out")]) == 2
    assert f"address is not given, and {found}" in caplog.text
    assert "`fcn submit --address http://HEAD:8265 -- ...`" in caplog.text
    assert all(one in caplog.text for one in addresses)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is to be submitted"),
        (["--", "demo"], "'demo' can't be submitted"),
        (["--working-dir", "gone", "--", "label"], "there is no such folder"),
        (["--", "label", "--s3-endpoint-url", "http://me:secret@host"], "holds a password"),
        (["--", "label", "--config", "s3://b/c.yaml", "--run-id", "2026/11/22"], "letters, digits"),
        (["--", "label", "--input", "in", "--output", "out"], "weights: is missing"),
        (["--address", "head:8265", "--", "verify", "out"], "as in http://head:8265"),
        (["--", "label", "--input=https://b/a.csv?X-Amz-Signature=secret"], "or a signature"),
        (["--", "label", "--config", "s3://b/job.yaml?X-Amz-Signature=secret"], "or a signature"),
        (["--working-dir", "https://b/a.zip?X-Amz-Signature=secret", "--", "label"], "or a signa"),
    ],
)
def test_a_wrong_submission_is_named(
    words: list[str], message: str, caplog: pytest.LogCaptureFixture
):
    """What can't be submitted is said before Ray is asked; a password is not repeated."""
    assert main(["submit", *words]) == 2
    assert message in caplog.text
    assert "secret" not in caplog.text


def test_a_run_has_one_name():
    """The id follows from command, run and output; without a run from all the flags."""
    words = ["label", "--input", "in", "--output", "s3://b/out", *NETWORK]
    named = submission_name([*words, "--run-id", "r"], {})

    assert named == submission_name([*words, "--run-id=r"], {})
    assert named == submission_name(words, {"FCN_RUN_ID": "r"})
    assert named == submission_name([*words, "--run-id", "r", "--retry-failed"], {})
    assert named != submission_name([*words, "--run-id", "r", "--output", "s3://b/other"], {})
    assert submission_name(words, {}) != submission_name([*words, "--flip"], {})
    assert submission_name(["train", "--run-name", "r"], {}).startswith("fcn-train-r-")


@pytest.mark.parametrize(
    ("status", "driver_exit_code", "error_type", "expected"),
    [
        ("SUCCEEDED", 0, None, 0),
        ("FAILED", 6, "JOB_ENTRYPOINT_COMMAND_ERROR", 6),
        ("STOPPED", None, None, 5),
        ("FAILED", -9, "JOB_ENTRYPOINT_COMMAND_ERROR", 5),
        ("FAILED", 137, "JOB_ENTRYPOINT_COMMAND_ERROR", 5),
        ("FAILED", 127, "JOB_ENTRYPOINT_COMMAND_ERROR", 2),
        ("FAILED", -11, "JOB_ENTRYPOINT_COMMAND_ERROR", 1),
        ("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", 1),
        ("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED", 5),
    ],
)
def test_every_end_of_a_job_has_its_exit_code(
    status: str, driver_exit_code: int | None, error_type: str | None, expected: int
):
    """A job's own code is kept; ended from outside is 5, ended by itself without a code is 1."""
    job = JobDetails(
        type="SUBMISSION", submission_id="x", entrypoint="x", status=status,
        driver_exit_code=driver_exit_code, error_type=error_type,
    )  # fmt: skip
    assert exit_code(job) == expected
