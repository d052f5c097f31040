"""The parts of Ray that its documentation does not promise, and what rests on each of them.

After an upgrade of Ray this says what is gone, which function of ours used it, and what would
break in a run without it.
"""

import ast
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline import errors
from pipeline.cluster import (
    actor_pool,
    connect,
    data_context,
    head,
    job_server,
    last_step,
    leftovers,
    nodes,
    packing,
    ray_errors,
    raylet_lines,
)
from pipeline.labelling import chain
from pipeline.training import fit

_RAY = Path(ray.__file__).parent
_ROOT = Path(__file__).parents[3]
_EXECUTION = "ray.data._internal.execution"
_POOL = "ray.data._internal.actor_autoscaler.autoscaling_actor_pool"
_POOL_FILE = "data/_internal/actor_autoscaler/autoscaling_actor_pool.py"
_EXECUTOR_FILE = "data/_internal/execution/streaming_executor.py"
_CALLBACK = f"{_EXECUTION}.execution_callback:ExecutionCallback"
_SDK = "ray.dashboard.modules.dashboard_sdk"
_SDK_FILE = "dashboard/modules/dashboard_sdk.py"
_PROMISES_OF = {
    "grow": "a run works on nodes that are added, and gives back the room that it set aside",
    "fetch": "fetches go on growing with a cluster, and leave room for writes",
    "written": "what is labelled is written while the rest is read, on nodes that replicas fill",
    "fetched": "a task that fetches many shards is at most two ahead of what takes them",
    "settle": "a submission whose answer was lost is found again, and is not made twice",
    "room": "doctor and every start compare the disk that Ray spills to with the shards",
    "memory": "a training that is short of memory ends with 2 and says which settings to lower",
    "stop": "SIGTERM ends a command in order, with 5",
    "quiet": "the log is one line per event, and an error is said once",
    "errors": "an error of ours that a worker raised keeps its exit code",
}


@dataclass(frozen=True)
class Name:
    """A name that Ray must have: `module:Class.name`, also of a field, or `module:name`."""

    what: str
    used_in: Callable[..., Any] | type | str
    promise: str
    parameter: str | None = None

    def __str__(self) -> str:
        return self.what if self.parameter is None else f"{self.what}({self.parameter})"

    @property
    def owner(self) -> Any:
        module, _, path = self.what.partition(":")
        found = importlib.import_module(module)
        for part in path.split(".")[:-1]:
            found = getattr(found, part)
        return found

    @property
    def word(self) -> str:
        return self.parameter or self.what.rpartition(":")[2].rpartition(".")[2]

    def stands(self) -> bool:
        name = self.what.rpartition(":")[2].rpartition(".")[2]
        fields: dict[str, Any] = getattr(self.owner, "__dataclass_fields__", {})
        if self.parameter is None:
            return hasattr(self.owner, name) or name in fields
        parameters = inspect.signature(getattr(self.owner, name)).parameters
        return self.parameter in parameters

    def rename(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = self.what.rpartition(":")[2].rpartition(".")[2]
        if self.parameter is not None:
            monkeypatch.setattr(self.owner, name, lambda: None)
            return
        monkeypatch.delattr(self.owner, name, raising=False)
        fields = dict(getattr(self.owner, "__dataclass_fields__", {}))
        if fields.pop(name, None) is not None:
            monkeypatch.setattr(self.owner, "__dataclass_fields__", fields)


@dataclass(frozen=True)
class Text:
    """Words that a file of Ray must hold; `ours` are those of them that our source has."""

    what: str
    file: str
    used_in: Callable[..., Any] | type | str
    promise: str
    ours: str | None = None

    def __str__(self) -> str:
        return f"{self.what} in {self.file}"

    @property
    def word(self) -> str:
        return self.ours or self.what

    def stands(self) -> bool:
        return self.what.encode() in _read(_RAY / self.file)

    def rename(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(
            globals(), "_read", lambda path: path.read_bytes().replace(self.what.encode(), b"other")
        )


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _fields(owner: str, names: tuple[str, ...], used_in: Any, promise: str) -> list[Name]:
    return [Name(f"{owner}.{name}", used_in, _PROMISES_OF[promise]) for name in names]


def _texts(rows: list[tuple[str, str, Any, str, str | None]]) -> list[Text]:
    return [Text(what, file, used, _PROMISES_OF[key], ours) for what, file, used, key, ours in rows]


_PARTS: list[Name | Text] = [
    # The pool of replicas.
    *_fields("ray.data:DataContext", ("custom_execution_callback_classes",), data_context, "grow"),
    *_fields(
        _CALLBACK,
        (
            *("on_execution_step", "before_execution_starts"),
            *("after_execution_succeeds", "after_execution_fails"),
        ),
        actor_pool._ReplicaWatch,
        "grow",
    ),
    *_fields(
        f"{_EXECUTION}.interfaces.physical_operator:PhysicalOperator",
        ("get_autoscaling_actor_pools",),
        actor_pool._pools,
        "grow",
    ),
    *_fields(f"{_POOL}:AutoscalingActorPool", ("get_actor_info",), actor_pool._counts, "grow"),
    *_fields(
        f"{_POOL}:ActorPoolInfo", ("running", "pending", "restarting"), actor_pool._counts, "grow"
    ),
    *_fields(
        f"{_POOL}:AutoscalingActorPool",
        ("per_actor_resource_usage",),
        actor_pool._ReplicaWatch,
        "grow",
    ),
    *_fields(
        f"{_EXECUTION}.interfaces.execution_options:ExecutionResources",
        ("cpu", "gpu"),
        actor_pool._ReplicaWatch,
        "grow",
    ),
    *_fields(
        f"{_POOL}:AutoscalingActorConfig",
        ("min_size", "max_size", "initial_size"),
        actor_pool._enlarge,
        "grow",
    ),
    # What is not held back.
    *_fields(
        f"{_EXECUTION}.interfaces.physical_operator:PhysicalOperator",
        ("throttling_disabled",),
        last_step._NeverHoldBackLast,
        "written",
    ),
    # The limit of fetches.
    Name(
        "ray.data:TaskPoolStrategy",
        chain._label_part,
        _PROMISES_OF["fetch"],
        parameter="size",
    ),
    # The switches: one that Ray does not know any more is set without a word.
    Name(
        "ray.data:DataContext.max_errored_blocks",
        data_context.set_switches,
        "no image is lost with a block that failed",
    ),
    Name(
        "ray.data:DataContext.raise_original_map_exception",
        data_context.set_switches,
        _PROMISES_OF["errors"],
    ),
    Name(
        "ray.data:DataContext.enable_progress_bars",
        data_context.set_switches,
        _PROMISES_OF["quiet"],
    ),
    Name(
        "ray.data:DataContext.execution_no_progress_timeout_s",
        data_context.set_switches,
        "a run that waits for a GPU goes on waiting, one that hangs ends after max_wait_minutes",
    ),
    Name(
        "ray.data:DataContext.max_consecutive_actor_init_deaths",
        data_context.set_switches,
        "a network that does not fit into memory ends the run, and is not loaded for ever",
    ),
    Name(
        "ray.data:DataContext.target_max_block_size",
        data_context.keep_rows_apart,
        "a shard goes on as soon as it is fetched, and is held by nobody with others",
    ),
    Name(
        "ray.data.exceptions:ExecutionTimeoutError",
        ray_errors.own_errors,
        "a run that hangs ends with 5, and not as a bug",
    ),
    # Nodes.
    Name("ray._private.worker:global_worker", nodes._own_node, _PROMISES_OF["room"]),
    Name(
        "ray._private.node:Node.get_session_dir_path",
        nodes.session_folder,
        _PROMISES_OF["room"],
    ),
    Name(
        "ray._private.node:Node.raylet_socket_name",
        nodes.raylet_socket,
        "a command whose raylet is killed ends with 5, and not with 1 from C++",
    ),
    Name(
        "ray._private.node:Node.plasma_store_socket_name",
        nodes.object_store_socket,
        "a command whose raylet ends in order ends with 5, and not with 1 from C++",
    ),
    # Jobs.
    Name(
        f"{_SDK}:SubmissionClient._do_request",
        job_server._Client,
        "a request on a dead connection ends after a minute and is made again",
    ),
    Name(
        f"{_SDK}:SubmissionClient._do_request",
        job_server._Client,
        "a request on a dead connection ends after a minute and is made again",
        parameter="endpoint",
    ),
    *[
        Text(
            f'{name} = "{name}"',
            "dashboard/modules/job/common.py",
            job_server.node_lost,
            "a job whose node was lost ends with 5, and is submitted again",
            name,
        )
        for name in ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT")
    ],
    # Training.
    Name(
        "ray.train:RunConfig",
        fit.fit,
        "the workers of a training run with the environment that makes them fast",
        parameter="worker_runtime_env",
    ),
    Name("ray.train:WorkerGroupError", fit._raised, _PROMISES_OF["errors"]),
    Name(
        "ray.train:WorkerGroupError",
        fit._raised,
        _PROMISES_OF["errors"],
        parameter="worker_failures",
    ),
    Name(
        "ray.train:ControllerError",
        fit._raised,
        _PROMISES_OF["errors"],
        parameter="controller_failure",
    ),
    *_texts(
        [
            ("self._topology = ", _EXECUTOR_FILE, data_context.steps, "grow", "_topology"),
            (
                "callback.before_execution_starts(self)",
                _EXECUTOR_FILE,
                last_step._NeverHoldBackLast,
                "written",
                "before_execution_starts",
            ),
            (
                "not op.throttling_disabled()",
                "data/_internal/execution/resource_manager.py",
                last_step._NeverHoldBackLast,
                "written",
                "throttling_disabled",
            ),
            (
                "callback.on_execution_step(self)",
                _EXECUTOR_FILE,
                actor_pool._ReplicaWatch,
                "grow",
                "on_execution_step",
            ),
            *(
                (f"self._config.{name}", _POOL_FILE, actor_pool._enlarge, "grow", name)
                for name in ("min_size", "max_size")
            ),
            (
                "self._backpressure_policies",
                _EXECUTOR_FILE,
                actor_pool._allow_tasks,
                "fetch",
                "_backpressure_policies",
            ),
            (
                "num_tasks_running < self._concurrency_caps[op]",
                "data/_internal/execution/backpressure_policy/concurrency_cap_backpressure_policy.py",
                actor_pool._allow_tasks,
                "fetch",
                "_concurrency_caps",
            ),
            (
                "self._max_concurrency if self._max_concurrency is not None",
                "data/_internal/execution/operators/task_pool_map_operator.py",
                actor_pool._allow_tasks,
                "fetch",
                "_max_concurrency",
            ),
            (
                "2 * self.data_context._max_num_blocks_in_streaming_gen_buffer",
                "data/_internal/execution/operators/task_pool_map_operator.py",
                data_context.keep_rows_apart,
                "fetched",
                "two",
            ),
            ("self.node = ", "_private/worker.py", nodes._own_node, "room", ".node"),
            (
                "already exists. ",
                "dashboard/modules/job/job_manager.py",
                job_server._name_taken,
                "settle",
                "already exists",
            ),
            (
                "Request failed with status code {r.status_code}",
                _SDK_FILE,
                job_server._in_trouble,
                "settle",
                "Request failed with status code",
            ),
            (
                '"RAY_API_SERVER_ADDRESS"',
                "_private/ray_constants.py",
                job_server.RayJobs,
                "settle",
                None,
            ),
            (
                "            print_to_stdstream(\n",
                "_private/worker.py",
                raylet_lines.log_raylet_lines,
                "quiet",
                "print_to_stdstream",
            ),
            (
                "    connect(\n        _global_node,",
                "_private/worker.py",
                raylet_lines.quiet_core,
                "quiet",
                "connect",
            ),
            ("sys.exit(signum)", "_private/worker.py", connect.connect, "stop", "SystemExit"),
            (
                "running low on memory",
                "core/src/ray/raylet/raylet",
                ray_errors.tells_of_short_memory,
                "memory",
                None,
            ),
            (
                "error = error._base_exc",
                "train/v2/_internal/execution/worker_group/poll.py",
                fit._raised,
                "errors",
                "worker_failures",
            ),
            ("self.cause = cause", "exceptions.py", errors.own_error, "errors", '"cause"'),
            (
                '"Failed to {description} after',
                "data/_internal/util.py",
                ray_errors._without_advice,
                "quiet",
                "Failed to ",
            ),
            (
                'description="apply UDF transform"',
                "data/_internal/execution/operators/map_operator.py",
                ray_errors._without_advice,
                "quiet",
                "apply UDF transform",
            ),
            (
                "class SessionFileHandler(logging.Handler)",
                "data/_internal/logging.py",
                connect._quieten,
                "quiet",
                "StreamHandler",
            ),
            (
                "logging.getLogger(__name__)",
                "data/_internal/progress/__init__.py",
                connect._quieten,
                "quiet",
                '"ray.data._internal.progress"',
            ),
            (
                "logging.getLogger(__name__)",
                "dashboard/modules/job/sdk.py",
                job_server._quieten,
                "quiet",
                '"ray.dashboard.modules.job.sdk"',
            ),
        ]
    ),
    Text(
        'kwargs.pop("_system_config"',
        "_private/worker.py",
        connect._start_here,
        "a small machine keeps its processes, and imports torch once",
        "_system_config",
    ),
    Text(
        "num_workers_soft_limit",
        "_raylet.so",
        connect._start_here,
        "a small machine keeps its processes, and imports torch once",
    ),
    Text(
        "The current node timed out during startup",
        "_private/node.py",
        connect._start_here,
        "a machine that is too busy to start Ray is 5, and no bug",
        "as when its processes take too long",
    ),
    Text(
        "gcs_rpc_server_reconnect_timeout_s",
        "core/src/ray/raylet/raylet",
        head.watch_head.__module__.replace(".", "/") + ".py",
        "a command whose Ray has lost its head ends with 5 before Ray ends it with 1",
    ),
    *[
        Text(
            f'ray_remote_args["{name}"] = -1',
            "data/_internal/execution/operators/actor_pool_map_operator.py",
            "pipeline/labelling/marks.py",
            "a replica that dies is started anew, with the shards that it had",
            "max_restarts",
        )
        for name in ("max_restarts", "max_task_retries")
    ],
    Text(
        'os.path.join(self._session_dir, "logs")',
        "_private/node.py",
        leftovers._of_session,
        "what a killed command has left of its Ray is found and ended by the next one",
        "/logs/",
    ),
    Text(
        'RESOURCE_CONSTRAINT_PREFIX = "accelerator_type:"',
        "_common/utils.py",
        "pipeline/cluster/packing.py",
        "precision=auto is bf16 on GPUs that are good at it",
        "accelerator_type:",
    ),
    Text(
        "object_store_memory",
        "_raylet.so",
        packing.Node,
        "doctor and every start compare the object store of a node with the shards",
    ),
    *[
        Text(name, "_raylet.so", used, "every start knows the nodes and what they have")
        for name, used in (
            ("Alive", nodes.alive_nodes),
            ("Resources", nodes._node),
            ("NodeID", nodes._node),
            ("NodeManagerAddress", nodes._node),
        )
    ],
    Text(
        "NodeManagerHostname",
        "_raylet.so",
        nodes._node,
        "a finding names the node so that an operator finds it",
    ),
    Text(
        '"RAY_JOB_STOP_WAIT_TIME_S"',
        "dashboard/modules/job/job_supervisor.py",
        "infra/aws/cluster.yaml",
        _PROMISES_OF["stop"],
        "RAY_JOB_STOP_WAIT_TIME_S",
    ),
    Text(
        '"RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"',
        "autoscaler/v2/instance_manager/config.py",
        "infra/kuberay/train.yaml",
        "a GPU node that does not come is asked for elsewhere after a quarter of an hour",
        "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S",
    ),
]


def _check(part: Name | Text) -> None:
    assert part.stands(), (
        f"Ray {ray.__version__} has no {part}: {part.promise} (see {_where(part)})"
    )


def _where(part: Name | Text) -> str:
    used = part.used_in
    return used if isinstance(used, str) else str(getattr(used, "__qualname__", used))


@pytest.mark.parametrize("part", _PARTS, ids=str)
def test_ray_has_what_we_rely_on(part: Name | Text):
    """Every part of Ray that is not promised is there."""
    _check(part)


@pytest.mark.parametrize("part", _PARTS, ids=str)
def test_a_part_that_is_renamed_is_missed(part: Name | Text, monkeypatch: pytest.MonkeyPatch):
    """Without it the test above fails, and says which promise breaks."""
    part.rename(monkeypatch)

    with pytest.raises(AssertionError) as found:
        _check(part)

    assert part.promise in str(found.value)


@pytest.mark.parametrize("part", _PARTS, ids=str)
def test_the_table_says_where_a_part_is_used(part: Name | Text):
    """What the table names as the user of a part has its name in its source."""
    used = part.used_in
    source = (_ROOT / used).read_text() if isinstance(used, str) else inspect.getsource(used)
    assert part.word.strip('"') in source


def test_private_modules_of_ray_are_imported_in_the_seam_only():
    """No module outside pipeline/cluster/ imports what Ray keeps to itself, and there two do."""
    private = {
        str(path.relative_to(_ROOT))
        for package in ("fcn", "pipeline", "jobs")
        for path in (_ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in _names(node)
        if name.startswith("ray.") and any(part.startswith("_") for part in name.split("."))
    }
    assert private == {"pipeline/cluster/nodes.py", "pipeline/cluster/raylet_lines.py"}


def _names(node: ast.ImportFrom | ast.Import) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]
