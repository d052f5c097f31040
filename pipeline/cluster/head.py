"""Ray's head and raylet, watched: without them a command ends with 5, before Ray ends it with 1.

A worker of Ray that has had no answer of the head for a minute, or of the raylet of its node for
some seconds, exits at once, from C++, and the driver is one. Where a raylet ends in order (SIGTERM,
`ray stop`), it does so within a tenth of a second: as soon as it asks the object store for
something, which is the first that goes.
"""

import logging
import os
import select
import socket
import threading
import time

import ray

from pipeline.cluster.leftovers import end_mine
from pipeline.cluster.nodes import object_store_socket, raylet_socket
from pipeline.cluster.watcher import Watcher
from pipeline.ending import end_within, raise_in_main_thread
from pipeline.errors import ClusterLost

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_ANSWER_S = 5.0
# A Ray of our own has nobody who starts its head again.
_OWN_LOST_S = 5.0
# Kubernetes may: Ray itself waits for 60 s (gcs_rpc_server_reconnect_timeout_s).
_CLUSTER_LOST_S = 45.0
_GRACE_S = 10.0
# In which a process that is killed closes all that it has open.
_BOTH_S = 0.01
# Others may be at the log, and Ray will not wait for them.
_SAY_S = 0.02


def watch_head(*, restarts: bool) -> None:
    """Raise ClusterLost in the main thread if this process's Ray is gone for good.

    Args:
        restarts: Whether somebody may start it again.
    """
    lost_after_s = _CLUSTER_LOST_S if restarts else _OWN_LOST_S
    address = ray.get_runtime_context().gcs_address
    raylet, store = raylet_socket(), object_store_socket()
    error = ClusterLost(
        f"Ray's head at {address}, or its raylet on this machine, does not answer any more; has "
        "it been killed?"
    )
    raise_it = raise_in_main_thread(error)

    def watch(watcher: Watcher) -> None:
        answered = time.monotonic()
        while ray.is_initialized():
            if _answers(address):
                answered = time.monotonic()
            # Nobody starts a raylet again.
            lost = time.monotonic() - answered > lost_after_s or not _listens(raylet)
            if lost and watcher.on_duty and ray.is_initialized():
                end_within(_GRACE_S, "the loss of Ray", end_mine)
                raise_it()
                return
            time.sleep(_LOOK_S)

    def watch_store(watcher: Watcher) -> None:
        if _ends_in_order(store, raylet) and watcher.on_duty and ray.is_initialized():
            line = "%s; run the same command again to resume"
            said = threading.Thread(target=_log.error, args=(line, error), daemon=True)
            said.start()
            said.join(_SAY_S)
            os._exit(error.exit_code)

    for one in (watch, watch_store):
        Watcher(one).start()


def _ends_in_order(store: str, raylet: str) -> bool:
    """Wait for the end of the object store; return whether the raylet that has it lives on.

    Nothing is asked of the two Unix sockets: a process that is killed closes both, one after the
    other.
    """
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as last:
        first.connect(store)
        last.connect(raylet)
        first.recv(1)
        return not select.select([last], [], [], _BOTH_S)[0]


def _listens(path: str) -> bool:
    """Return whether the process behind a Unix socket is alive; a busy one is."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(_ANSWER_S)
        try:
            one.connect(path)
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError:
        return False
    return True
