"""Kernels for GPUs against their plain forms, by Triton's interpreter."""

import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from fcn import kernels

# Triton looks at the variable when kernels are defined: a process of its own.
_BOTH = """
import json, os, sys
os.environ["TRITON_INTERPRET"] = "1"
import torch
from fcn.kernels.label import label_in_one_pass
from fcn.inference.labeller import label_plainly
number, classes, height, width, kind, layout, below = json.loads(sys.argv[1])
torch.manual_seed(0)
scores = 4 * torch.randn(number, classes, height, width)
scores[0, :, 0, 0] = 3.0
scores = scores.to(getattr(torch, kind))
if layout == "channels_last":
    scores = scores.to(memory_format=torch.channels_last)
if layout == "slice":
    scores = scores.repeat(1, 1, 2, 2)[:, :, 1 : 1 + height, 2 : 2 + width]
steps = 1 << 20
plain, fused = (
    label(scores, steps, with_confidence=True, ignore_below=below)
    for label in (label_plainly, label_in_one_pass)
)
of = lambda totals: totals[:-1].reshape(number, 2, classes + bool(below))
off = (of(plain[1])[:, 1] - of(fused[1])[:, 1]).abs()
print(json.dumps({
    "masks": torch.equal(plain[0], fused[0]),
    "ignored": (plain[0] == 255).float().mean().item(),
    "types": [str(one.dtype) for one in fused],
    "counts": torch.equal(of(plain[1])[:, 0], of(fused[1])[:, 0]),
    "steps": (off / of(plain[1])[:, 0].clamp(min=1)).max().item(),
    "bytes": (plain[2].int() - fused[2].int()).abs().max().item(),
    "wrong": [plain[1][-1].item(), fused[1][-1].item()],
}))
"""


@pytest.mark.parametrize(
    "case",
    [
        (2, 5, 37, 41, "float32", "contiguous", 0),
        (2, 5, 37, 41, "float32", "contiguous", 0.8),
        (1, 21, 33, 32, "bfloat16", "channels_last", 0),
        (1, 21, 33, 32, "bfloat16", "channels_last", 0.9),
        (3, 2, 1, 1, "float16", "contiguous", 0),
        (1, 255, 4, 5, "float32", "slice", 0),
        (1, 255, 4, 5, "float32", "slice", 0.5),
        (2, 1, 8, 9, "bfloat16", "channels_last", 0),
    ],
    ids=str,
)
def test_the_fused_kernel_labels_as_the_plain_form(case: tuple[object, ...]) -> None:
    """Masks and counts are equal; confidences differ by a step per pixel at most."""
    process = subprocess.run(
        [sys.executable, "-c", _BOTH, json.dumps(case)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert (found["masks"], found["counts"], found["wrong"]) == (True, True, [0, 0])
    assert (0.1 < found["ignored"] < 0.9) is bool(case[-1])
    assert found["types"] == ["torch.uint8", "torch.int64", "torch.uint8"]
    assert found["steps"] <= 1
    assert found["bytes"] <= 1


_NOT_FINITE = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from fcn.kernels.label import label_in_one_pass
for value in (float("nan"), float("inf")):
    scores = torch.zeros(2, 3, 4, 5)
    scores[1, 2, 3, 3] = value
    print(label_in_one_pass(scores, 1 << 20, with_confidence=False)[1][-1].item())
"""


def test_the_fused_kernel_counts_scores_that_are_not_finite() -> None:
    """A pixel with NaN or infinity among its scores is counted."""
    process = subprocess.run(
        [sys.executable, "-c", _NOT_FINITE], capture_output=True, text=True, check=False
    )
    assert process.stdout.split() == ["1", "1"], process.stderr


_POOLS = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from fcn.kernels.pool import max_pool
plain = torch.nn.MaxPool2d(2, 2, ceil_mode=True)
for shape in [(2, 8, 9, 7), (1, 3, 1, 1), (3, 16, 10, 12), (1, 70, 33, 40)]:
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
        assert torch.equal(max_pool(features), plain(features)), shape
features[0, 1, 2, 3] = float("nan")
print(max_pool(features)[0, 1, 1].isnan().tolist().index(True))
"""


def test_the_pool_gives_what_pytorch_gives() -> None:
    """Pooled features are equal in every bit, at odd sizes too, and a NaN stays one."""
    process = subprocess.run(
        [sys.executable, "-c", _POOLS], capture_output=True, text=True, check=False
    )
    assert process.stdout.split() == ["1"], process.stderr


class _OutOfResources(Exception):
    """As Triton's own errors, which have no class of Python's but this."""


@pytest.fixture
def unknown() -> Iterator[None]:
    """Forget what is known of kernels, before and after."""
    kernels.find_kernels.cache_clear()
    yield
    kernels.find_kernels.cache_clear()


def _failing(monkeypatch: pytest.MonkeyPatch, where: str, error: Exception) -> None:
    """Let a kernel that is tried fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    there = {"max_pool": lambda *_: None, "label_in_one_pass": lambda *_, **__: None}
    monkeypatch.setattr(
        kernels, "import_module", lambda _: SimpleNamespace(**{**there, where: fail})
    )
    ones = torch.ones(1, 8, 2, 2)
    monkeypatch.setattr(kernels.torch, "ones", lambda *_, **__: ones)


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("where", ["max_pool", "label_in_one_pass"])
@pytest.mark.parametrize(
    "error", [_OutOfResources("shared memory"), subprocess.CalledProcessError(1, "gcc")], ids=str
)
def test_kernels_that_do_not_compile_are_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str, error: Exception
) -> None:
    """Whatever Triton or a compiler raises, PyTorch's operations take their place."""
    _failing(monkeypatch, where, error)
    assert kernels.find_kernels(torch.device("cuda", 0)) is None
    assert f"Triton can't be used here ({error})" in caplog.text


@pytest.mark.usefixtures("unknown")
def test_short_memory_says_nothing_about_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed on as PyTorch's own, and the kernels are tried again."""
    _failing(monkeypatch, "max_pool", RuntimeError("Triton Error [CUDA]: out of memory"))
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            kernels.find_kernels(torch.device("cuda", 0))
