"""`precision: auto`: chosen once by the GPUs, then kept with the network's runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.packing import Node
from pipeline.labelling.precision import choose_precision, compute_capabilities, decided
from pipeline.labelling.session import open_job
from pipeline.settings.label import LabelSettings
from tests.disk_runs import draw_images, make_settings, start_run


def _node(*kinds: str, gpus: float = 0) -> Node:
    resources = {"CPU": 8.0, **({"GPU": gpus} if gpus else {})}
    return Node({**resources, **{f"accelerator_type:{kind}": 1.0 for kind in kinds}})


@pytest.mark.parametrize(
    ("nodes", "fields", "expected"),
    [
        ([_node()], {}, "fp32"),
        ([_node("H100", gpus=8)], {}, "bf16"),
        ([_node(), _node("A10G", gpus=1), _node("L40S", gpus=4)], {}, "bf16"),
        ([_node("GH200-480GB", gpus=1)], {}, "bf16"),
        ([_node("B200", gpus=8)], {}, "bf16"),
        ([_node("H100", gpus=8)], {"gpus_per_replica": 0}, "fp32"),
        ([_node("T4", gpus=1)], {}, "fp32"),
        ([_node("H100", gpus=8), _node("V100", gpus=1)], {}, "fp32"),
        ([_node(gpus=1)], {}, "fp32"),
        ([_node("AMD-Instinct-MI210", gpus=1)], {}, "fp32"),
        ([_node()], {"gpus_per_replica": 1}, "fp32"),
    ],
)
def test_bf16_is_for_gpus_that_are_known_to_be_good_at_it(
    nodes: list[Node], fields: dict[str, Any], expected: str
) -> None:
    """Only if every GPU is of a kind from Ampere on; CPUs, older and unknown ones get fp32."""
    settings = LabelSettings(input="in", output="out", weights="random:0", **fields)
    assert choose_precision(settings, nodes, dict) == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([8.6], "bf16"), ([8.9, 12.0], "bf16"), ([8.6, 7.5], "fp32"), ([7.5], "fp32"), ([], "fp32")],
)
def test_the_driver_is_asked_for_what_ray_does_not_name(
    capabilities: list[float], expected: str
) -> None:
    """Of a GeForce or an RTX card Ray says too little; one that nobody can name gets fp32."""
    settings = LabelSettings(input="in", output="out", weights="random:0")
    nodes = [_node("H100", gpus=1), replace(_node("RTX", gpus=2), name="desk")]
    assert choose_precision(settings, nodes, lambda: {"desk": capabilities}) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 8.6; echo 7.5", [8.6, 7.5]), ("echo no devices; exit 6", []), ("echo '[N/A]'", [])],
)
def test_the_driver_says_the_compute_capability(
    script: str, expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By nvidia-smi; a machine without it, or with an older one, says nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compute_capabilities() == []
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert compute_capabilities() == expected


def test_a_slow_choice_says_how_to_choose_another(caplog: pytest.LogCaptureFixture) -> None:
    """Where GPUs get fp32 the log names their kind, and the faster precisions."""
    settings = LabelSettings(input="in", output="out", weights="random:0")
    choose_precision(settings, [_node("T4", gpus=1)], dict)
    assert "the GPUs are T4; precision=bf16" in caplog.text


@pytest.mark.parametrize("earlier", ["fp32", "bf16"])
def test_an_output_keeps_its_precision(tmp_path: Path, earlier: str) -> None:
    """A network that has a run in the output goes on with that run's precision, without Ray."""
    source = draw_images(tmp_path, 1)
    job = open_job(make_settings(tmp_path, source, width=4, num_classes=3, precision=earlier))
    start_run(tmp_path, source, network=job.record)
    again = open_job(make_settings(tmp_path, source, width=4, num_classes=3))
    assert again.record.fingerprint == job.record.fingerprint
    assert decided(again) is again


def test_another_network_does_not_decide(tmp_path: Path) -> None:
    """A run of other weights says nothing about this network's precision."""
    source = draw_images(tmp_path, 1)
    start_run(tmp_path, source)
    assert open_job(make_settings(tmp_path, source, weights="random:7")).network.precision == "auto"


def test_a_trial_on_another_input_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest run of the same input decides, and the log names it."""
    source = draw_images(tmp_path, 2)
    fields = {"width": 4, "num_classes": 3}
    for place, precision, run_id in ((source, "fp32", "nightly"), ("image_0.png", "bf16", "trial")):
        settings = make_settings(tmp_path, source / place, precision=precision, **fields)
        start_run(tmp_path, source / place, network=open_job(settings).record, run_id=run_id)
    caplog.set_level("INFO")
    job = open_job(make_settings(tmp_path, source, **fields))
    assert job.network.precision == "fp32"
    assert "precision=auto: fp32, as in run nightly" in caplog.text


def test_an_upgrade_of_a_decoder_keeps_the_precision(tmp_path: Path) -> None:
    """A new decoder is another fingerprint, and no reason to choose anew."""
    source = draw_images(tmp_path, 1)
    fields = {"width": 4, "num_classes": 3}
    record = open_job(make_settings(tmp_path, source, precision="bf16", **fields)).record
    older = record.model_copy(update={"deciding": {**record.deciding, "decoder": "rules-0"}})
    start_run(tmp_path, source, network=older)
    assert open_job(make_settings(tmp_path, source, **fields)).network.precision == "bf16"
