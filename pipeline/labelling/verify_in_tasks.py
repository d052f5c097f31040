"""Verify on a cluster: pieces of a run are checked in Ray tasks, many at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline.cluster.connect import start_ray
from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import in_tasks, wait_for_a_task
from pipeline.labelling.check_piece import Check, Checked
from pipeline.labelling.pieces import Piece
from pipeline.labelling.verify import CheckPieces
from pipeline.memory import use_system_allocator
from pipeline.settings.shared import ConnectionFields

# In a task, beside others on the same node.
_THREADS = 4
# Each thread has a heap of its own in glibc (mallopt(3)), and each piece its threads, so that what
# is free lies in ever more places: 3 MiB more with every piece, and none with one heap.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


def in_cluster(settings: ConnectionFields) -> CheckPieces:
    """Connect to a cluster, and return what checks pieces there.

    Args:
        settings: They name it, and say how long to wait.

    Raises:
        SettingError: There is no such cluster.
        WaitedTooLong: It has no room for a task.
    """
    start_ray(settings.ray_address)
    wait_for_a_task(settings)

    def check_pieces(check: Check, pieces: Sequence[Piece]) -> Iterator[Checked]:
        rows = [{"piece": piece.model_dump_json()} for piece in pieces]
        work = _Task(replace(check, threads=_THREADS))
        with own_errors():
            done = in_tasks(rows, work, settings.max_wait_minutes, _ENVIRONMENT)
            for row in done.iter_rows():
                yield Checked.model_validate_json(row["checked"])

    return check_pieces


class _Task:
    """Checks one piece; rows of Ray hold JSON."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def __call__(self, row: Mapping[str, str]) -> dict[str, str]:
        use_system_allocator()
        return {"checked": self._check(Piece.model_validate_json(row["piece"])).model_dump_json()}
