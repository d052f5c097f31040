"""`precision: auto`: the arithmetic that a network's runs in an output begin with, and keep."""

import logging
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pipeline.cluster.connect import connect
from pipeline.cluster.nodes import alive_nodes, ask_every_node
from pipeline.cluster.packing import Node
from pipeline.labelling.network import AUTO
from pipeline.labelling.replicas import gpus_for_each
from pipeline.labelling.session import Job
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)

_UNKNOWN = "of a kind that Ray does not name"
# Ray's names of NVIDIA cards of compute capability 8.0 and newer, which have matrix units for
# bf16; of many others Ray says no more than "RTX" or "G", so their driver is asked. PyTorch's own
# `is_bf16_supported` also says yes to cards that compute it by detours.
_HAS_BF16 = re.compile(r"(A10|A10G|A30|A40|A100|A6000|L4|L40S?|G?[HB][1-9]\d{1,2})([-_ ].*)?")
_ASK = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
_ASK_S = 20.0
_AMPERE = 8.0


def decided(job: Job) -> Job:
    """Choose the precision of a job whose output has no run of its network; connects to Ray.

    Args:
        job: A job; one whose precision is known stays as it is.

    Raises:
        SettingError: There is no such cluster.
        ClusterLost: Ray does not start on this machine.
    """
    if job.network.precision != AUTO:
        return job
    connect(job.settings.ray_address)
    precision = choose_precision(job.settings, alive_nodes(), _ask_drivers)
    _log.info("precision=auto: %s, for this network in this output from now on", precision)
    network = replace(job.network, precision=precision)
    return replace(job, network=network, record=network.record())


def choose_precision(
    settings: LabelSettings,
    nodes: Sequence[Node],
    ask_drivers: Callable[[], Mapping[str, Sequence[float]]],
) -> str:
    """Return bf16 if all GPUs of a cluster are known to be good at it, else fp32.

    Args:
        settings: They say whether replicas get GPUs.
        nodes: Those that are up.
        ask_drivers: Returns the compute capabilities of the GPUs of each node, by its name.
    """
    if not gpus_for_each(settings, nodes):
        return "fp32"
    with_gpus = [node for node in nodes if node.num_gpus]
    unknown = [node for node in with_gpus if not _is_known(node)]
    said = ask_drivers() if unknown else {}
    if with_gpus and all(_is_ampere(said.get(node.name, ())) for node in unknown):
        return "bf16"
    kinds = {kind for node in with_gpus for kind in node.gpu_kinds or [_UNKNOWN]}
    _log.warning(
        "precision=auto: fp32, because the GPUs are %s; precision=bf16 is many times faster on "
        "Ampere and newer, fp16 on older ones",
        ", ".join(sorted(kinds)) or "not there yet",
    )
    return "fp32"


def _is_known(node: Node) -> bool:
    return bool(node.gpu_kinds) and all(_HAS_BF16.fullmatch(kind) for kind in node.gpu_kinds)


def _is_ampere(capabilities: Sequence[float]) -> bool:
    return bool(capabilities) and min(capabilities) >= _AMPERE


def _ask_drivers() -> Mapping[str, Sequence[float]]:
    return ask_every_node(compute_capabilities).given


def compute_capabilities() -> list[float]:
    """Ask this machine's driver for the compute capability of each GPU; none if it can't say."""
    try:
        asked = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            _ASK, capture_output=True, text=True, check=True, timeout=_ASK_S
        )
        return [float(line) for line in asked.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
