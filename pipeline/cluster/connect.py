"""Ray for a job: the cluster it was submitted to, or one of its own for as long as it runs."""

import logging
import os
import signal
import socket
from urllib.parse import urlsplit

import ray
import ray.data  # its loggers exist from now on

from pipeline.cluster.head import watch_head
from pipeline.cluster.leftovers import (
    end_leftovers,
    end_mine,
    mark_session,
    marked_as_mine,
    whose_session,
)
from pipeline.cluster.nodes import check_versions, session_folder
from pipeline.cluster.raylet_lines import log_raylet_lines, quiet_core
from pipeline.ending import WORK_GRACE_S, end_within, stop_on_signals
from pipeline.errors import ClusterLost, SettingError, Stopped

_log = logging.getLogger(__name__)

# Reading and writing need a CPU beside the replica's, also where there is one core.
_MIN_CPUS = 2
_IDLE_PROCESSES = 16
_CONNECT_S = 10.0
# A head or a raylet on this machine that does not answer is busy: who is gone is told by sockets
# (head.py). Ray would take a minute, or five checks of ten seconds, for its end, and exit with 1.
BUSY = {"gcs_rpc_server_reconnect_timeout_s": 3600, "health_check_failure_threshold": 360}
_OF_THE_MACHINE = (OSError, RuntimeError)


def start_ray(ray_address: str | None) -> None:
    """Connect to a cluster whose nodes are alike, or start Ray on this machine.

    Args:
        ray_address: Where the cluster is; None starts one.

    Raises:
        SettingError: There is no cluster at the address, or its nodes have other versions.
        ClusterLost: Ray does not start on this machine.
    """
    connect(ray_address)
    check_versions()


def connect(ray_address: str | None) -> None:
    """Connect to a cluster as it is, or start Ray on this machine.

    Args:
        ray_address: Where the cluster is; None starts one.

    Raises:
        SettingError: There is no cluster at the address.
        ClusterLost: Ray does not start on this machine.
    """
    if ray.is_initialized():
        return
    _log.info("starting Ray %s", ray_address or "on this machine")
    try:
        with quiet_core():
            _init(ray_address)
        # Ray has just put its own handler in place, which ends the process with the number 15.
        stop_on_signals(WORK_GRACE_S, end_mine)
    except SystemExit as ended:
        end_within(WORK_GRACE_S, signal.SIGTERM.name, end_mine)
        raise Stopped(signal.SIGTERM.name) from ended
    watch_head(restarts=ray_address is not None)
    _quieten()


def _init(ray_address: str | None) -> None:
    if ray_address:
        _check_reachable(ray_address)
        try:
            ray.init(address=ray_address, logging_level=logging.WARNING, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise SettingError(
                f"ray_address={ray_address!r}: {error}; is this a Ray cluster's address? Does it "
                "ask for a token? Then set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to it, unless "
                "it is in ~/.ray/auth_token, where `ray start` writes it"
            ) from error
        _refuse_a_private_one(ray_address)
    else:
        _start_here()


def _refuse_a_private_one(ray_address: str) -> None:
    """Refuse the Ray of another command, which `auto` finds as well, and which ends with it."""
    owner = whose_session(session_folder())
    if owner is not None:
        ray.shutdown()
        raise SettingError(
            f"ray_address={ray_address!r}: the Ray there is that of another command (process "
            f"{owner}), which has started it for itself and ends it; leave ray_address out, or "
            "start a cluster with `ray start --head`"
        )


def _start_here() -> None:
    cores = len(os.sched_getaffinity(0))
    end_leftovers()
    try:
        # "local": without it Ray would join a cluster that happens to run on this machine.
        with marked_as_mine():
            ray.init(
                address="local",
                num_cpus=max(_MIN_CPUS, cores),
                include_dashboard=False,
                logging_level=logging.ERROR,
                # What its processes print is in their log files; what ends a run is said by us.
                log_to_driver=False,
                # As many idle processes are kept as there are CPUs, and actors are counted with
                # them: on a small machine every task would start, and import, anew.
                _system_config={"num_workers_soft_limit": _IDLE_PROCESSES + cores, **BUSY},
            )
        mark_session(session_folder())
    except Exception as error:
        # Ray raises bare ones, as when its processes take too long; of other kinds are bugs.
        if type(error) is not Exception and not isinstance(error, _OF_THE_MACHINE):
            raise
        reason = " ".join(str(error).split())
        raise ClusterLost(
            f"Ray does not start on this machine: {reason} Is the machine busy, or short of memory "
            "or of room in /tmp?"
        ) from error


def _check_reachable(ray_address: str) -> None:
    """Find out in seconds what Ray tries for minutes: whether somebody listens there."""
    place = urlsplit(ray_address if "://" in ray_address else f"//{ray_address}")
    try:
        if place.hostname and place.port:
            socket.create_connection((place.hostname, place.port), _CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise SettingError(
            f"ray_address={ray_address!r}: nobody answers there: {error}; is the cluster up, and "
            "is this its address (that of a dashboard is for fcn submit)?"
        ) from error


def _quieten() -> None:
    log_raylet_lines()
    # Its lines look like all others.
    logging.getLogger("ray").handlers.clear()
    logging.getLogger("ray").propagate = True
    # Plans, finished datasets and the tracebacks of tasks are in Ray's own files; what ends a run
    # is said once, by the command.
    for handler in logging.getLogger("ray.data").handlers:
        # Its handler for files is no FileHandler.
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
    # It regrets that its progress bars are off; ours counts images.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
