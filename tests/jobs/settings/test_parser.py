"""Settings: file < environment < flags, and errors that say what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobs.__main__ import COMMANDS, main
from jobs.settings.demo import DemoSettings
from jobs.settings.flags import parse, variable_of
from jobs.settings.parser import read_settings
from jobs.settings_page import document
from pipeline.errors import ErrorCode, SettingError, StoreError
from pipeline.settings.label import LabelSettings
from pipeline.settings.select import SelectSettings
from pipeline.settings.shared import Group, OutputSettings, StoreSettings
from pipeline.settings.train import TrainSettings
from tests.product import REPOSITORY

_PLACES = ["--input", "in", "--output", "out"]
_REQUIRED = [*_PLACES, "--weights", "random:0"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FCN_") or name in ("AWS_ENDPOINT_URL", "RAY_ADDRESS"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    # Help is wrapped at the width of the terminal.
    monkeypatch.setenv("COLUMNS", "10000")


def _label(*flags: str) -> LabelSettings:
    return read_settings(LabelSettings, "label", [*_REQUIRED, *flags], os.environ)


def _output(*flags: str) -> OutputSettings:
    return read_settings(OutputSettings, "verify", flags, os.environ)


def _config(folder: Path, text: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


# Where settings come from


def test_required_settings_are_enough() -> None:
    """Input, output and weights suffice; all else has the default that the class states."""
    assert _label() == LabelSettings(input="in", output="out", weights="random:0")
    assert _output("out") == OutputSettings(output="out")


def test_flags_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting is taken from the first of flag, environment and file that gives it."""
    config = _config(tmp_path, "batch_size: 3\nio_threads: 4\nwidth: 6\nnum_classes: 7\n")
    monkeypatch.setenv("FCN_BATCH_SIZE", "30")
    monkeypatch.setenv("FCN_IO_THREADS", "40")
    found = _label("--config", config, "--batch-size", "300")
    assert (found.batch_size, found.io_threads, found.width, found.num_classes) == (300, 40, 6, 7)
    assert found.max_shard_images == 256


def test_all_settings_can_stand_in_the_file(tmp_path: Path) -> None:
    """A file with every field of `label` gives what it says, and is enough."""
    given = LabelSettings(
        input="a", output="b", weights="random:0", retry_failed="all", max_error_rate=0.5
    ).model_dump()
    config = _config(tmp_path, json.dumps({**given, "scales": list(given["scales"])}))
    found = read_settings(LabelSettings, "label", ["--config", config], os.environ)
    assert found.model_dump() == given


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, [], False),
        ({}, ["--flip"], True),
        ({"FCN_FLIP": "true"}, [], True),
        ({"FCN_FLIP": "1"}, ["--no-flip"], False),
    ],
)
def test_switches_can_be_set_and_unset(
    environ: dict[str, str], flags: list[str], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch is set by its flag or variable, and a flag with `no-` unsets it again."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert _label(*flags).flip is expected


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, [], "transient"),
        ({}, ["--retry-failed"], "transient"),
        ({}, ["--retry-failed", "--flip"], "transient"),
        ({}, ["--retry-failed", "all"], "all"),
        ({}, ["--retry-failed=none"], "none"),
        ({"FCN_RETRY_FAILED": "1"}, [], "transient"),
        ({"FCN_RETRY_FAILED": "false"}, [], "none"),
        ({"FCN_RETRY_FAILED": "none"}, ["--retry-failed"], "transient"),
    ],
)
def test_a_switch_that_became_a_policy_can_be_written_as_before(
    environ: dict[str, str], flags: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--retry-failed stands with a value or alone; a variable or file may say yes or no."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert _label(*flags).retry_failed == expected


def test_a_command_may_have_no_flags() -> None:
    """A command whose settings all have defaults is called by its name alone."""
    assert parse(DemoSettings, "demo", []) == {}


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing, as schedulers do, leaves the default."""
    monkeypatch.setenv("FCN_RUN_ID", "")
    assert _label().run_id is None


def test_the_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FCN_CONFIG names the file; a flag names another."""
    monkeypatch.setenv("FCN_CONFIG", _config(tmp_path, "batch_size: 3"))
    assert _label().batch_size == 3
    (tmp_path / "other.yaml").write_text("batch_size: 4")
    assert _label("--config", str(tmp_path / "other.yaml")).batch_size == 4


def test_the_file_may_be_a_uri(tmp_path: Path) -> None:
    """A config is read through the storage, so that a bucket can hold it."""
    config = _config(tmp_path, "batch_size: 3")
    assert _label("--config", f"file://{config}").batch_size == 3
    assert _label(f"--config=file://{config}").batch_size == 3


def test_the_aws_endpoint_fills_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is that of AWS's variables, the more special first, unless it is given."""
    assert _label().s3_endpoint_url is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
    assert _label().s3_endpoint_url == "http://general"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special")
    assert _label().s3_endpoint_url == "http://special"
    assert _output("out").s3_endpoint_url == "http://special"
    assert _label("--s3-endpoint-url", "http://given").s3_endpoint_url == "http://given"
    monkeypatch.setenv("FCN_S3_ENDPOINT_URL", "http://variable")
    assert _label().s3_endpoint_url == "http://variable"


def test_the_ray_address_fills_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of Ray is RAY_ADDRESS, as `ray job submit` sets it, unless it is given."""
    assert _label().ray_address is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert _label().ray_address == "auto"
    assert _label("--ray-address", "ray://head:10001").ray_address == "ray://head:10001"


def test_settings_reach_the_storage() -> None:
    """Endpoint, time-out and attempts are those of the storage that is opened."""
    storage = _label(
        "--s3-endpoint-url", "http://s", "--io-timeout-s", "7", "--io-attempts", "2"
    ).storage()
    assert (storage.s3_endpoint_url, storage.timeout_s, storage.attempts) == ("http://s", 7.0, 2)


# What is wrong


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch-size", "many"], ["batch_size='many'", "valid integer"]),
        (["--batch-size", "0"], ["batch_size='0'", "greater than or equal to 1"]),
        (["--png-compress-level", "10"], ["png_compress_level='10'", "less than or equal to 9"]),
        (["--max-error-rate", "1.5"], ["max_error_rate='1.5'", "less than or equal to 1"]),
        (["--max-error-rate", "nan"], ["max_error_rate='nan'"]),
        (["--width", "7"], ["width='7'", "multiple of 2"]),
        (["--num-classes", "256"], ["num_classes='256'", "less than or equal to 255"]),
        (["--precision", "fp64"], ["precision='fp64'", "'auto', 'fp32', 'tf32', 'bf16' or 'fp16'"]),
        (["--scales", "[0.01]"], ["scales=[0.01]", "not between 0.1 and 8"]),
        (["--mask-name", "short"], ["mask_name='short'", "'replace' or 'full'"]),
        (["--run-id", "../up"], ["run_id='../up'", "letters, digits"]),
        (["--run-id", "a\n"], ["run_id='a\\n'", "letters, digits"]),
        (["--run-id", ""], ["run_id=''", "letters, digits"]),
        (["--weights-sha256", "abc"], ["weights_sha256='abc'", "pattern"]),
        (["--io-timeout-s", "0"], ["io_timeout_s='0'", "greater than 0"]),
        (["--lock-lease-s", "-1"], ["lock_lease_s='-1'", "greater than 0"]),
        (["--gpus-per-replica", "-0.5"], ["gpus_per_replica='-0.5'", "greater than or equal to 0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bad_value_is_named(flags: list[str], words: list[str]) -> None:
    """A value that is not allowed is refused with the setting, the value and what is allowed."""
    with pytest.raises(SettingError) as caught:
        _label(*flags)
    assert [word for word in words if word not in str(caught.value)] == []
    assert caught.value.exit_code == 2


def test_all_bad_values_are_named_at_once() -> None:
    """Who has made three mistakes is told of three."""
    with pytest.raises(SettingError) as caught:
        _label("--width", "3", "--batch-size", "0", "--io-threads", "x")
    named = {problem.partition(":")[0] for problem in str(caught.value).split("; ")}
    assert named == {"width='3'", "batch_size='0'", "io_threads='x'"}


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value in the environment is refused like one on the command line."""
    monkeypatch.setenv("FCN_MAX_ERROR_RATE", "1 %")
    with pytest.raises(SettingError, match="max_error_rate='1 %': Input should be a valid number"):
        _label()


def test_missing_settings_are_named() -> None:
    """What is required and not given is named, with the three places where it can stand."""
    with pytest.raises(SettingError) as caught:
        read_settings(LabelSettings, "label", ["--input", "in"], os.environ)
    hint = "is missing; give it as a flag, as FCN_... or in the config file"
    assert str(caught.value) == f"output: {hint}; weights: {hint}"


def test_a_value_that_is_too_short_is_named() -> None:
    """Of a setting of two values that has one, the setting is named and not a place in it."""
    flags = ["--data", "d", "--output", "o", "--run-name", "r", "--crop", "64"]
    with pytest.raises(SettingError, match=r"^crop=\[64\]: more values are wanted, as in \[480"):
        read_settings(TrainSettings, "train", flags, os.environ)


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    """A misspelt key in the file is refused, with its value: it does nothing silently."""
    config = _config(tmp_path, "batchsize: 3\n")
    with pytest.raises(
        SettingError, match=r"batchsize=3: is no setting \(did you mean batch_size\?\)"
    ):
        _label("--config", config)


def test_one_file_serves_all_commands(tmp_path: Path) -> None:
    """`verify` takes its own keys from a file of `label`, and passes over the others."""
    config = _config(tmp_path, "input: in\nrun_id: 2026-11-22\n")
    assert _output("out", "--config", config).run_id == "2026-11-22"


def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt FCN_ variable is refused."""
    monkeypatch.setenv("FCN_BATCHSIZE", "3")
    with pytest.raises(SettingError, match="environment variable FCN_BATCHSIZE names no setting"):
        _label()


def test_a_variable_of_another_command_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that is shared by all commands serves `verify` too."""
    monkeypatch.setenv("FCN_INPUT", "in")
    monkeypatch.setenv("FCN_S3_ENDPOINT_URL", "http://store")
    assert _output("out").s3_endpoint_url == "http://store"


def test_an_unknown_flag_ends_with_2() -> None:
    """A misspelt flag ends the command with 2, is named, and so is the one that was meant."""
    with pytest.raises(SettingError, match="no flag --batchsize; did you mean --batch-size") as one:
        _label("--batchsize", "3")
    assert one.value.exit_code == 2


def test_flags_are_not_abbreviated() -> None:
    """The beginning of a flag's name is not that flag: a later flag could take it over."""
    with pytest.raises(SettingError, match="no flag --batch"):
        _label("--batch", "3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must hold `name: value` lines, it holds a list"),
        ("", "must hold `name: value` lines, it is empty"),
        ("a: [: b", "is not valid YAML: line 1: "),
        ("a: \x01", "is not valid YAML"),
        ("1: a", "must hold `name: value` lines, it holds a dict of another form"),
    ],
    ids=["list", "empty", "syntax", "control character", "number"],
)
def test_a_file_of_another_form_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """A config that is no YAML mapping of settings is refused with what it is."""
    with pytest.raises(SettingError, match=message):
        _label("--config", _config(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A config that is not there is refused with its name."""
    with pytest.raises(SettingError, match=r"config='.*/gone\.yaml': .* does not exist"):
        _label("--config", f"{tmp_path}/gone.yaml")


@pytest.mark.parametrize("weights", ["random:", "random:x", "random:-1", "random:1.5"])
def test_random_weights_need_a_number(weights: str) -> None:
    """A seed that is no number is refused with an example."""
    with pytest.raises(SettingError, match="needs a number, as in random:0"):
        read_settings(LabelSettings, "label", [*_PLACES, "--weights", weights], os.environ)


@pytest.mark.parametrize(
    "flags", [["--width", "16"], ["--network", "fcn_all_skips"], ["--classes", "c.json"]]
)
def test_a_checkpoint_says_what_it_is_itself(flags: list[str]) -> None:
    """What a checkpoint's record says can't be typed in beside it, not even the default."""
    name = flags[0].removeprefix("--")
    words = [*_PLACES, "--weights", "model.safetensors", *flags]
    with pytest.raises(SettingError, match=f"{name} is for weights=random:SEED only"):
        read_settings(LabelSettings, "label", words, os.environ)


# Help


def _help(kind: type[StoreSettings], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the help of every flag, positional ones by their name in capitals."""
    with pytest.raises(SystemExit) as caught:
        read_settings(kind, "label", ["--help"], os.environ)
    assert caught.value.code == 0
    entries: dict[str, str] = {}
    for line in capsys.readouterr().out.splitlines():
        found = re.match(r"  (?:(--[a-z0-9-]+)|([A-Z_]+)\s)[^\n]*", line)
        if found:
            name = (found[1] or found[2]).removeprefix("--").replace("-", "_").lower()
            entries[name] = line
        elif entries:
            entries[list(entries)[-1]] += " " + line.strip()
    return entries


@pytest.mark.parametrize("kind", [LabelSettings, OutputSettings])
def test_every_setting_is_in_the_help(
    kind: type[StoreSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    """--help lists every field with its whole description."""
    shown = _help(kind, capsys)
    for name, field in kind.model_fields.items():
        assert field.description, name
        assert " ".join(field.description.split()) in " ".join(shown[name].split()), name
    assert set(kind.model_fields) | {"config"} <= set(shown)


def _shown(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


def test_help_is_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """The flags of `label` stand under the headings, in their order."""
    headings = re.findall(r"^([a-z ]+):$", _shown("label", capsys), re.MULTILINE)
    groups = [group.value for group in Group if group not in {Group.TRAINING, Group.RECIPE}]
    assert headings == ["options", *groups]


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_is_what_a_person_types(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No default is null, and what stands for a value is a word: neither JSON nor a Python type."""
    shown = _shown(command, capsys)
    assert "default: null" not in shown
    values = set(re.findall(r"^  --[a-z0-9-]+ ([^\s,{]+)", shown, re.MULTILINE))
    assert values <= {"TEXT", "INT", "FLOAT", "FLOATS", "INT,INT", "FLOAT,FLOAT"}


@pytest.mark.parametrize("text", ["0.75,1", "[0.75,1]", "[0.75, 1]", "0.75 1"])
@pytest.mark.parametrize("place", ["flag", "variable"])
def test_several_numbers_are_typed_as_people_do(
    place: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers have commas between them, with brackets or without, as flags and as variables."""
    if place == "variable":
        monkeypatch.setenv("FCN_SCALES", text)
    assert _label(*(["--scales", text] if place == "flag" else [])).scales == (0.75, 1.0)


def test_a_flag_may_be_repeated_for_several_numbers() -> None:
    """A flag of several numbers that is given twice gives both; one word among them is named."""
    assert _label("--scales", "1", "--scales", "2").scales == (1.0, 2.0)
    with pytest.raises(SettingError, match=r"scales\.1='x'"):
        _label("--scales", "1,x")


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (["--precision", "fp32", "--precision=bf16"], "--precision"),
        (["--input", "other"], "--input"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config"),
        (["--run-id", "a", "--run-id", "b"], "--run-id"),
    ],
)
def test_a_flag_of_one_value_is_given_once(flags: list[str], flag: str) -> None:
    """Of two values the last one does not win: the flag is refused by its name."""
    with pytest.raises(SettingError, match=f"^{flag} is given twice; it takes one value$"):
        _label(*flags)


def test_a_flag_that_python_has_no_name_for_is_given_once(caplog: pytest.LogCaptureFixture) -> None:
    """`select --class sky --class car` does not select cars, nor one range of two."""
    for words in (["--class", "sky"], ["--class-share", "sky", "0.1..0.5"]):
        assert main(["select", "out", "--to", "x.parquet", *words, *words]) == 2
        assert f"{words[0]} is given twice" in caplog.text


@pytest.mark.parametrize(
    "words",
    [
        ["traffic light", "0.1..0.5"],
        ["traffic light 0.1..0.5"],
        ["traffic", "light", "0.1..0.5"],
    ],
)
def test_a_range_of_a_class_needs_no_quotes(words: list[str]) -> None:
    """With quotes around all, around the name or around nothing, OUTPUT behind it stays OUTPUT."""
    flags = ["--class-share", *words, "/out", "--to", "/x.parquet"]
    found = read_settings(SelectSettings, "select", flags, {})
    assert found.share_range == ("traffic light", 0.1, 0.5)
    assert found.output == "file:///out"


def test_null_gives_up_what_was_set_before(tmp_path: Path) -> None:
    """The flag `null` is no value, where a setting can have none."""
    config = _config(tmp_path, "max_replicas: 3")
    assert _label("--config", config, "--max-replicas", "null").max_replicas is None
    with pytest.raises(SettingError, match="batch_size='null'"):
        _label("--batch-size", "null")


def test_the_page_of_the_settings_is_up_to_date() -> None:
    """docs/settings.md is what `make docs-settings` writes, and names every field."""
    page = (REPOSITORY / "docs" / "settings.md").read_text()
    assert page == document(), "call `make docs-settings`"
    for command in COMMANDS.values():
        for name in command.settings.model_fields:
            assert f"`{variable_of(name)}`" in page


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script for a shell knows commands, flags and choices; without a shell they are named."""
    assert main(["--completion", shell]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("import-weights", "--max-error-rate", "tf32"))
    assert main(["--completion", "cmd"]) == 2


def test_bash_completes() -> None:
    """Bash fills in a command, a flag and a choice."""
    asked = (["lab"], ["label", "--max-err"], ["label", "--precision", "tf"])
    lines = [
        f"COMPREPLY=(); COMP_WORDS=(fcn {' '.join(words)}); COMP_CWORD={len(words)}; _shtab_fcn; "
        'echo "${COMPREPLY[@]}"'
        for words in asked
    ]
    script = subprocess.run(
        [sys.executable, "-m", "jobs", "--completion", "bash"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", "\n".join([script, *lines])], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["label", "--max-error-rate", "tf32"]


def test_the_versions_are_said_without_loading_them() -> None:
    """`fcn --version` names torch, Ray and Python beside its own version, and imports neither."""
    program = (
        "import sys; from jobs.__main__ import main; main(['--version'])\n"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    number = r"\d+\.\d+\S*"
    assert re.fullmatch(
        rf"fcn-pipeline {number} \(torch {number}, Ray {number}, Python {number}\)\n", shown
    )


_UNITS = (
    *(
        "second",
        "minute",
        "costs",
        "byte",
        "pixel",
        "image",
        "class",
        "channel",
        "share",
        "replica",
        "GPU",
        "CPU",
    ),
    *("thread", "level", "object", "how often"),
)


def _is_number(annotation: Any) -> bool:
    kinds = {annotation, *getattr(annotation, "__args__", ())}
    return bool(kinds & {int, float})


@pytest.mark.parametrize("kind", [LabelSettings, OutputSettings])
def test_every_number_says_what_it_counts(kind: type[BaseModel]) -> None:
    """The description of every numeric field names its unit or what it counts."""
    numbers = {
        name: field.description or ""
        for name, field in kind.model_fields.items()
        if _is_number(field.annotation)
    }
    assert len(numbers) >= 2
    assert [
        name for name, text in numbers.items() if not any(unit in text for unit in _UNITS)
    ] == []
    assert [
        name for name, text in numbers.items() if name.endswith("_s") and "seconds" not in text
    ] == []


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        *("http://user:secret@store:9000", "https://secret@store", "http://a:se/cret@store"),
        *("https://store/?token=secret", "http://store?X-Amz-Signature=secret"),
    ],
)
@pytest.mark.parametrize("name", ["flag", "FCN_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "file"])
def test_an_endpoint_holds_no_secret(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes from, it is refused, the message says where credentials belong, not which.

    That goes for an endpoint that is needed to read the config, too.
    """
    flags = ["--config", "s3://bucket/job.yaml"]
    if name == "flag":
        flags += ["--s3-endpoint-url", url]
    elif name == "file":
        flags = ["--config", _config(tmp_path, f"s3_endpoint_url: {url}")]
    else:
        monkeypatch.setenv(name, url)
    with pytest.raises(
        SettingError, match="credentials belong where the store's tools find"
    ) as caught:
        _label(*flags)
    assert "secret" not in str(caught.value)
    assert "s3_endpoint_url='http" in str(caught.value)


@pytest.mark.parametrize("url", ["store:9000", "http://", "ftp://store", "http://a b"])
def test_an_endpoint_is_a_url(url: str) -> None:
    """What is no URL is refused with an example."""
    with pytest.raises(SettingError, match=r"as in http://127\.0\.0\.1:9000"):
        _label("--s3-endpoint-url", url)


def test_a_key_in_the_file_is_not_repeated(tmp_path: Path) -> None:
    """Credentials in a config are named as no setting, without their value, in any form of file."""
    for text in (
        *("aws_secret_access_key: secret", "[default]\naws_secret_access_key = secret"),
        *("aws_secret_access_key = secret", "- secret", "aws: [secret"),
    ):
        with pytest.raises(SettingError) as caught:
            _label("--config", _config(tmp_path, text))
        assert "secret" not in str(caught.value).replace("aws_secret_access_key", "")


def test_settings_can_not_be_changed() -> None:
    """Settings stay what was recorded."""
    with pytest.raises(ValueError, match="frozen"):
        _label().batch_size = 9


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ErrorCode.FORBIDDEN, "; when that is mended, run the same command again to resume"),
        (ErrorCode.TIMEOUT, "no answer; run the same command again to resume"),
    ],
)
def test_what_a_store_refuses_is_to_be_mended_first(
    code: ErrorCode, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without credentials the same command fails again; after a silence it may not."""

    def refuse(_: object) -> int:
        raise StoreError(code, "no answer")

    monkeypatch.setattr("jobs.report.run", refuse)
    assert main(["report", "out"]) == 5
    assert caplog.messages[-1].endswith(words)
