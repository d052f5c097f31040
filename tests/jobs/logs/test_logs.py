"""Logs for machines: whatever happens, every line is an object, and says what it belongs to."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from jobs.__main__ import main
from pipeline.labelling.cost import Work
from pipeline.store.storage import Storage
from tests.jobs.training_product import PLAIN, scenes, train
from tests.product import REPOSITORY, draw_photographs, label, label_flags, the_run

_FIELDS = {"timestamp", "level", "logger", "message", "run", "shard", "attempt"}
_SECRET = "http://me:secret@store/a?X-Amz-Signature=secret"


def parsed(text: str) -> list[dict]:
    """Read lines, each of which has to be an object with the fields of all lines."""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert line.keys() >= _FIELDS, line
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    return found


def fcn(folder: Path, *words: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, words)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environ},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "there is no command 'nothing'"),
        (["label", "--input", "in", "--log-format", "json"], "output: is missing; give it as a"),
        (["label", "--batchsize", "3", "--log-format=json"], "fcn label has no flag --batchsize"),
        ([*label_flags("in", "out"), "--s3-endpoint-url", _SECRET], "='http://***@store/a?***'"),
        (["verify", "gone"], "holds no run"),
        (["submit", "--", "label", "--input", _SECRET], "would stand in Ray's record of the job"),
    ],
)
def test_errors_of_settings_are_objects(words: list[str], message: str, tmp_path: Path):
    """What is wrong before any work is said in the form that flag or environment asks for."""
    by_flag = any("--log-format" in word for word in words)
    done = fcn(tmp_path, *words, FCN_LOG_FORMAT="" if by_flag else "json")

    lines = parsed(done.stderr)
    assert done.returncode in (2, 3)
    assert message in lines[-1]["message"]
    assert {line["run"] for line in lines} == {None}
    assert "secret" not in done.stderr


def test_a_full_disk_below_what_is_printed_is_no_bug(tmp_path: Path):
    """A command that can't say what it has found ends with 5 and one sentence."""
    (tmp_path / "locks").mkdir()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jobs", "clean", str(tmp_path)],
            cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    [line] = done.stderr.splitlines()
    assert done.returncode == 5
    assert "what the command prints can't be written: No space left on device; run the" in line


def test_another_format_is_a_wrong_setting(caplog: pytest.LogCaptureFixture):
    """A format that there is not is refused with those that there are."""
    assert main([*label_flags("in", "out"), "--log-format", "xml"]) == 2
    assert "log_format='xml': Input should be 'text' or 'json'" in caplog.text


def test_a_config_file_can_ask_for_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """From when the settings are read, the log is as the file says."""
    (tmp_path / "job.yaml").write_text("log_format: json\n")

    assert label("gone", tmp_path, "--config", tmp_path / "job.yaml") == 3

    lines = parsed(capfd.readouterr().err)
    assert "does not exist" in lines[-1]["message"]


_PROGRAM = """
import logging, os, sys, threading, warnings
from jobs import __main__ as program
from jobs.logs import logs
from pipeline.log_context import belong_to
from pipeline.settings.shared import NoSettings

SECRET = sys.argv.pop()

def fail(*_):
    raise KeyError(SECRET)

def chat(_):
    logs.configure(os.environ["FCN_LOG_FORMAT"])
    belong_to("r", 3)
    warnings.warn(f"a library warns of {SECRET}\\nin lines")
    print(f"printed {SECRET}", file=sys.stderr)
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    os.write(2, b"native code\\nspeaks, \\xff and ends amid a line")
    extra = {"shard": 7, "note": SECRET}
    logging.getLogger("a.library").warning("of %d %% of\\n%s", 9, "lines", extra=extra)
    return 0

program.COMMANDS |= {
    name: program.Command(NoSettings, f"__main__:{name}", "") for name in ("fail", "chat")
}
code = program.main(sys.argv[1:])
print("after", file=sys.stderr)
sys.exit(code)
"""


def _run(command: str, log_format: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, command, _SECRET],
        cwd=REPOSITORY, env={**os.environ, "FCN_LOG_FORMAT": log_format},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_bug_has_its_traceback_and_ends_with_1(log_format: str):
    """In both forms the log has the whole traceback, without the secret in it."""
    done = _run("fail", log_format)

    assert done.returncode == 1
    assert "secret" not in done.stderr
    shown = done.stderr.removesuffix("after\n")
    if log_format == "json":
        [line] = parsed(shown)
        assert (line["level"], line["message"]) == ("CRITICAL", "this is a bug; what led to it:")
        shown = line["traceback"]
    assert "Traceback (most recent call last)" in shown
    assert "KeyError: 'http://***@store/a?***'" in shown


def test_whatever_is_written_to_stderr_becomes_lines():
    """Warnings, prints, native code, threads that die: all is objects of the run, without secrets.

    What is written after the command is as it was.
    """
    done = _run("chat", "json")

    assert done.returncode == 0
    assert done.stderr.endswith("\nafter\n")
    assert "secret" not in done.stderr
    lines = parsed(done.stderr.removesuffix("after\n"))
    assert {(line["run"], line["attempt"]) for line in lines} == {("r", 3)}
    said = {line["logger"]: line for line in lines}
    assert "library warns of http://***@store/a?***\nin lines" in said["py.warnings"]["message"]
    assert said["a.library"]["message"] == "of 9 % of\nlines"
    assert (said["a.library"]["shard"], said["a.library"]["level"]) == (7, "WARNING")
    written = [line["message"] for line in lines if line["logger"] == "stderr"]
    assert written[0] == "printed http://***@store/a?***"
    assert "Exception in thread worker:" in written
    assert "KeyError: 'http://***@store/a?***'" in written
    assert written[-2:] == ["native code", "speaks, \\xff and ends amid a line"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = draw_photographs(tmp_path_factory.mktemp("photographs"), 8)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.runs
def test_a_whole_run_in_a_terminal_is_lines(photographs: Path, tmp_path: Path):
    """No bar, a line per committed shard with what its record says, and each of the run.

    The process starts its own Ray, whose C++ code writes to stderr.
    """
    reading, writing = os.openpty()
    flags = ("--max-shard-images", 3, "--max-error-rate", 0.2, "--log-format", "json")
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", *label_flags(photographs, tmp_path / "out", *flags)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=writing,
    ) as process:  # fmt: skip
        os.close(writing)
        shown = _read(reading)
        assert process.wait(60) == 0, shown
        assert b"8 of 9 images have a mask" in process.stdout.read()

    lines = parsed(shown)
    run = the_run(f"file://{tmp_path}/out")
    known = next(index for index, line in enumerate(lines) if line["run"])
    assert {(line["run"], line["attempt"]) for line in lines[known:]} == {(run.run_id, 1)}
    assert "3 of 3 shards to do" in lines[known]["message"]
    shards = {line["shard"]: line for line in lines if line["shard"] is not None}
    assert sorted(shards) == run.committed()
    assert sum(line["images"] for line in shards.values()) == 9
    assert sum(line["failed"] for line in shards.values()) == 1
    for shard, line in shards.items():
        work = _work(run.storage, run.commit_uri(shard))
        assert (line["replica"], line["retries"]) == (work.replica, work.retries)
        assert line["seconds"]["network"] == pytest.approx(work.seconds["network"], abs=1e-3)
        assert line["seconds"].keys() == {"fetch", "decode", "network", "encode", "write"}


def _read(terminal: int) -> str:
    data = b""
    while True:
        try:
            data += os.read(terminal, 4096)
        except OSError:  # the last writer has gone
            return data.decode()


def _work(storage: Storage, commit_uri: str) -> Work:
    import pyarrow as pa  # noqa: PLC0415 - this one test
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = pq.read_schema(pa.BufferReader(storage.read(commit_uri)))
    return Work.of_metadata(schema.metadata)


def test_a_log_for_people_has_no_line_per_shard(
    ray_session: str, photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """As text the log has lines of progress, whose number does not grow with the shards."""
    assert label(photographs, tmp_path, "--max-shard-images", 3, "--max-error-rate", 0.2) == 0

    assert "9 of 9 images" in caplog.text
    assert "is committed" not in caplog.text


@pytest.mark.runs
def test_a_training_says_which_it_is(
    ray_session: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    """The lines of a training have its name and the number of its lock, and no shard."""
    monkeypatch.setenv("FCN_LOG_FORMAT", "json")
    data = scenes(tmp_path / "data", 4, 2)

    assert train(data, tmp_path, "first", *PLAIN, "--batch-size", 2, "--epochs", 1) == 0

    lines = parsed(capfd.readouterr().err)
    [known] = [line for line in lines if "images to train on" in line["message"]]
    assert (known["run"], known["shard"], known["attempt"]) == ("first", None, 1)
    assert (lines[-1]["run"], lines[-1]["attempt"]) == ("first", 1)
