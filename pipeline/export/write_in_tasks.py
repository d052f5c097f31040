"""Export on a cluster: images are written in Ray tasks, some at a time.

What is said of many images together stays with the driver, and so do the order and the names.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from pipeline.cluster.connect import start_ray
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import in_order, wait_for_a_task
from pipeline.export.writer import Named, WriteAll, Writer
from pipeline.settings.export import ExportSettings
from pipeline.store.uri import BUCKETS

_log = logging.getLogger(__name__)

# In a task, beside others on the same node.
_THREADS = 4
# A quarter of a second of work, and as many images and masks in memory.
_IMAGES_PER_TASK = 64


def in_cluster(settings: ExportSettings) -> WriteAll:
    """Connect to a cluster, and return what lets images be written there.

    Args:
        settings: They name it, say how long to wait, and where the export goes.

    Raises:
        SettingError: There is no such cluster.
        WaitedTooLong: It has no room for a task.
    """
    start_ray(settings.ray_address)
    wait_for_a_task(settings)
    local = not (settings.to.startswith(BUCKETS) and settings.output.startswith(BUCKETS))
    if local and len(alive_nodes()) > 1:
        _log.warning("several nodes and local paths: they must lie on a disk that all nodes share")

    def write_all(writer: Writer, named: Iterator[Named]) -> Iterator[Any]:
        work = _Task(replace(writer, threads=_THREADS))
        with own_errors():
            tasks = in_order(_groups(named), work, settings.max_wait_minutes)
            yield from chain.from_iterable(tasks)

    return write_all


class _Task:
    """Writes some images."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __call__(self, named: Sequence[Named]) -> list[Any]:
        return list(self._writer(named))


def _groups(named: Iterator[Named]) -> Iterator[list[Named]]:
    while some := list(islice(named, _IMAGES_PER_TASK)):
        yield some
