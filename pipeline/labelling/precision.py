"""`precision: auto`: the arithmetic that a network's runs in an output begin with, and keep."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace

from pipeline.cluster.connect import connect
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.packing import Node
from pipeline.labelling.network import AUTO
from pipeline.labelling.replicas import gpus_for_each
from pipeline.labelling.session import Job
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)

_UNKNOWN = "of a kind that Ray does not name"
# Ray's names of NVIDIA cards of compute capability 8.0 and newer, which have matrix units for
# bf16. PyTorch's own `is_bf16_supported` also says yes to cards that compute it by detours.
_HAS_BF16 = re.compile(r"(A10|A10G|A30|A40|A100|A6000|L4|L40S?|G?[HB][1-9]\d{1,2})([-_ ].*)?")


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
    precision = choose_precision(job.settings, alive_nodes())
    _log.info("precision=auto: %s, for this network in this output from now on", precision)
    network = replace(job.network, precision=precision)
    return replace(job, network=network, record=network.record())


def choose_precision(settings: LabelSettings, nodes: Sequence[Node]) -> str:
    """Return bf16 if all GPUs of a cluster are known to be good at it, else fp32.

    Args:
        settings: They say whether replicas get GPUs.
        nodes: Those that are up.
    """
    if not gpus_for_each(settings, nodes):
        return "fp32"
    with_gpus = [node for node in nodes if node.num_gpus]
    kinds = {kind for node in with_gpus for kind in node.gpu_kinds or [_UNKNOWN]}
    if kinds and all(_HAS_BF16.fullmatch(kind) for kind in kinds):
        return "bf16"
    _log.warning(
        "precision=auto: fp32, because the GPUs are %s; precision=bf16 is many times faster on "
        "Ampere and newer, fp16 on older ones",
        ", ".join(sorted(kinds)) or "not there yet",
    )
    return "fp32"
