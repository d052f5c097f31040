"""What a cluster's nodes are asked, each in a process of its own."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray._private.worker import global_worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.packing import Node
from pipeline.cluster.ray_errors import last_line
from pipeline.errors import SettingError
from pipeline.versions import differences, versions

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# A node that starts its first process, on a slow disk.
_ANSWER_S = 60.0
VERSIONS_REMEDY = "let all nodes run the same image, or the same lock of packages"


@dataclass(frozen=True)
class Answers:
    """What the nodes have said, by the node's name; `failed` says why one has not."""

    given: Mapping[str, Any]
    failed: Mapping[str, str]


def alive_nodes() -> list[Node]:
    """List the nodes that are up."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return [_node(one) for one in found if one["Alive"]]


def own_node() -> Node:
    """Return the node of this process."""
    own: str = ray.get_runtime_context().get_node_id()
    return next(node for node in alive_nodes() if node.node_id == own)


def _node(one: Mapping[str, Any]) -> Node:
    name = f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']}, {one['NodeID'][:8]})"
    return Node(one["Resources"], one["NodeID"], name)


def ask_every_node(
    question: Callable[..., _T], *arguments: object, timeout_s: float = _ANSWER_S
) -> Answers:
    """Call a function once on every node.

    Args:
        question: What to call; it and its answer travel.
        arguments: Are passed on to the call.
        timeout_s: Seconds after which a node counts as silent.
    """
    # Without CPUs it runs beside any work, and on a head that has none.
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {}
    for node in alive_nodes():
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        asked[node.name] = task.options(scheduling_strategy=there).remote(*arguments)
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    given: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name, answer in asked.items():
        try:
            given[name] = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(answer, force=True)
            failed[name] = f"no answer within {timeout_s:.0f} s"
        except ray.exceptions.RayError as error:
            failed[name] = last_line(error)
    return Answers(given, failed)


class NoRoom(Exception):
    """No process could be started in time."""


class ProcessFailed(Exception):
    """A process has ended with an error, whose last line this holds."""


def ask_one_process(
    question: Callable[..., _T],
    *arguments: object,
    num_cpus: float,
    num_gpus: float,
    timeout_s: float,
) -> _T:
    """Call a function once in a process of its own, wherever there is room for it.

    Args:
        question: What to call; it and its answer travel.
        arguments: Are passed on to the call.
        num_cpus: CPUs that it needs.
        num_gpus: GPUs that it needs.
        timeout_s: Seconds for all of it, waiting for room included.

    Raises:
        NoRoom: There was no answer in that time.
        ProcessFailed: The function raised, or its process died.
    """
    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_calls=1, max_retries=0)(question)
    asked = task.remote(*arguments)
    try:
        answer: _T = ray.get(asked, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(asked, force=True)
        raise NoRoom(f"no answer within {timeout_s:.0f} s") from None
    except ray.exceptions.RayError as error:
        raise ProcessFailed(last_line(error)) from error
    return answer


def session_folder() -> str:
    """Return where Ray keeps its session on this node, and with it what it spills.

    Called in a process that has joined Ray.
    """
    folder: str = _own_node().get_session_dir_path()
    return folder


def raylet_socket() -> str:
    """Return the path of the Unix socket at which Ray's process on this node listens.

    Called in a process that has joined Ray.
    """
    path: str = _own_node().raylet_socket_name
    return path


def object_store_socket() -> str:
    """Return the path of the Unix socket of the object store on this node, which the raylet has.

    Called in a process that has joined Ray.
    """
    path: str = _own_node().plasma_store_socket_name
    return path


def _own_node() -> Any:
    """Return what Ray knows of this node; nothing public tells where it keeps its session."""
    assert global_worker.node is not None, "called in a process that has joined Ray"
    return global_worker.node


def check_versions() -> None:
    """Refuse a cluster whose nodes differ in what decides a mask's pixels.

    Raises:
        SettingError: Python or a package has another version on some node than here.
    """
    if len(alive_nodes()) <= 1:
        return
    answers = ask_every_node(versions)
    for name, reason in answers.failed.items():
        _log.warning("node %s could not be asked for its versions: %s", name, reason)
    found = differing(answers)
    if found:
        raise SettingError(f"{'; '.join(found)}; {VERSIONS_REMEDY}")


def differing(answers: Answers) -> list[str]:
    """Name the nodes whose versions are not those of this process.

    Args:
        answers: Of `versions`.
    """
    ours = versions()
    return [
        f"node {name} has {', '.join(found)}"
        for name, theirs in answers.given.items()
        if (found := differences(ours, theirs))
    ]
