"""Tasks: one for each row of what is in memory, by Ray Data, or for each item of what is not."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.data_context import set_switches
from pipeline.cluster.reservation import give_back, wait_for_room
from pipeline.errors import ClusterLost, WaitedTooLong
from pipeline.settings.shared import ConnectionFields

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")

# What Ray sets aside for a task: less than a worker of a training of any size, so that they never
# fuse, and small enough that two fit beside a worker on two cores.
TASK_CPUS = 0.5
# Beyond those that run, so that none waits for this process; a cluster that grows is asked for so
# many at first. What is done waits in Ray's object store.
_LEAST_IN_FLIGHT, _MOST_IN_FLIGHT = 8, 128
# A node that is taken away takes what its tasks have done with it; what ends its process each time
# is no accident.
_MAX_RETRIES = 10
_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
)


def wait_for_a_task(settings: ConnectionFields) -> None:
    """Wait until a cluster, if it is one, has room for a task. Raises WaitedTooLong."""
    if settings.ray_address is None:
        return
    each = {"CPU": TASK_CPUS}
    give_back(wait_for_room(1, "task(s)", each, {}, settings))


def in_tasks(
    rows: Sequence[Mapping[str, Any]],
    work: Callable[[Any], Mapping[str, Any]],
    max_wait_minutes: float | None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Lay out work on rows as a dataset, which does it when it is read, in the order of the rows.

    Args:
        rows: At least one.
        work: Done on each of them; travels to tasks.
        max_wait_minutes: Without any progress; None where somebody else minds it.
        environment: Variables of the processes that do it, which are started for them.
    """
    # Ray types every row as a class of its own.
    source: Any = ray.data.from_items([dict(row) for row in rows], override_num_blocks=len(rows))
    runtime_env = {"env_vars": dict(environment)} if environment else None
    done = source.map(work, num_cpus=TASK_CPUS, runtime_env=runtime_env)
    done.context.execution_options.preserve_order = True
    set_switches(done.context, max_wait_minutes)
    return done


def in_order(
    items: Iterable[_Item],
    work: Callable[[_Item], _Done],
    max_wait_minutes: float,
    node_id: str | None = None,
) -> Iterator[_Done]:
    """Do work on items in tasks, some ahead of what is taken, and give its results in their order.

    Ray Data would have all items in memory first.

    Args:
        items: Each is taken when there is room for it.
        work: Done on each of them; travels to tasks as it is now.
        max_wait_minutes: Without the next result.
        node_id: The node that does it; None leaves that to Ray.

    Raises:
        WaitedTooLong: There was none in that time.
        ClusterLost: A task has ended its process, or lost its node, time and again.
    """
    # Ray's types know functions with types alone.
    task: Any = ray.remote(num_cpus=TASK_CPUS, max_retries=_MAX_RETRIES)(_do)
    if node_id is not None:
        task = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
    shared, ahead = ray.put(work), deque[Any]()
    for item in items:
        ahead.append(task.remote(shared, item))
        if len(ahead) >= _num_in_flight():
            yield _result(ahead.popleft(), max_wait_minutes)
    while ahead:
        yield _result(ahead.popleft(), max_wait_minutes)


def _do(work: Callable[[_Item], _Done], item: _Item) -> _Done:
    return work(item)


def _num_in_flight() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
    slots = int(resources.get("CPU", 0) / TASK_CPUS)
    return min(max(_LEAST_IN_FLIGHT, 2 * slots), _MOST_IN_FLIGHT)


def _result(task: Any, max_wait_minutes: float) -> Any:
    try:
        return ray.get(task, timeout=60 * max_wait_minutes)
    except ray.exceptions.GetTimeoutError as error:
        raise WaitedTooLong(
            f"no task has ended for {max_wait_minutes:g} minutes (max_wait_minutes): they wait "
            "for nodes or hang; see `ray status`"
        ) from error
    except _LOST as error:
        raise ClusterLost(
            f"a task has lost its process or its node {_MAX_RETRIES + 1} times: "
            f"{str(error).partition(chr(10))[0]}; is memory short on the nodes?"
        ) from error
