"""How a command leaves Ray, so that its exit code is the one that is seen."""

import sys

from pipeline.cluster.leftovers import end_mine
from pipeline.cluster.watcher import dismiss_watchers
from pipeline.ending import leave_at_once
from pipeline.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES

_DONE = (EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES)


def leave_ray(code: int) -> int:
    """End the process with a code if it has left work in Ray, and else return the code.

    What Ray does at exit then crashes now and then: its C++ threads, and a thread of Python's that
    waits in them, meet what is gone already, and a command that was stopped ends with 139 in place
    of 5. Everything of ours is put away by now. So the processes of a Ray that was started for this
    command are killed, a cluster notices that its driver is gone, and Ray's end is passed over.
    Where the work was done, Ray ends in order, and sends its last metrics.

    Args:
        code: The exit code.

    Returns:
        The same code.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized() and code not in _DONE:
        # What they would say of Ray's end, and with which code, is not true of this one.
        dismiss_watchers()
        leave_at_once(code, end_mine)
    return code
