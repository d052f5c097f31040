"""Export on a cluster: images are written in Ray tasks, some at a time.

What is said of many images together stays with the driver, and so do the order and the names.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain
from typing import Any

from pipeline.cluster.connect import start_ray
from pipeline.cluster.nodes import own_node
from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import in_order, wait_for_a_task
from pipeline.errors import InputError
from pipeline.export.writer import Named, WriteAll, Writer, here
from pipeline.settings.export import ExportSettings
from pipeline.store.extent import Extent
from pipeline.store.uri import BUCKETS

_log = logging.getLogger(__name__)

# In a task, beside others on the same node.
_THREADS = 4
# A quarter of a second of work where images are small; of large ones fewer are in memory.
_IMAGES_PER_TASK = 64
_BYTES_PER_TASK = 64 << 20


def in_cluster(settings: ExportSettings) -> WriteAll:
    """Return what lets images be written on a cluster, where that is the better place.

    Tasks on other nodes don't see this one's disks. Images in a Parquet file are read from the
    start of their row group, which many tasks would do again and again.

    Args:
        settings: They name the cluster, say how long to wait, and where the export goes.

    Returns:
        Raises, when it is called, SettingError if there is no such cluster, or one without the
        form's library; WaitedTooLong if it has no room for a task.
    """

    def write_all(writer: Writer, named: Iterator[Named]) -> Iterator[Any]:
        first = next(named, None)
        if first is None:
            return iter(())
        named = chain([first], named)
        if Extent.of_image(first[1]).cell is not None:
            _log.info("images in Parquet files are read in order, by this process without tasks")
            return here(writer, named)
        start_ray(settings.ray_address)
        if all(uri.startswith(BUCKETS) for uri in (settings.to, settings.output, first[1]["uri"])):
            wait_for_a_task(settings)
            return _in_tasks(writer, _in_buckets(named), settings)
        node = own_node()
        where = "in tasks on this node alone" if node.resources.get("CPU") else "without tasks"
        _log.info("local paths, which other nodes may not see: images are written %s", where)
        if not node.resources.get("CPU"):
            return here(writer, named)
        return _in_tasks(writer, named, settings, node.node_id)

    return write_all


def _in_tasks(
    writer: Writer, named: Iterator[Named], settings: ExportSettings, node_id: str | None = None
) -> Iterator[Any]:
    work, limit = _Task(replace(writer, threads=_THREADS)), settings.max_wait_minutes
    with own_errors():
        # A library that the cluster's image lacks has a sentence where it is imported by name.
        list(in_order([type(writer.form).__module__], _import, limit, node_id))
        tasks = in_order(_groups(named), work, limit, node_id)
        yield from chain.from_iterable(tasks)


class _Task:
    """Writes some images."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __call__(self, named: Sequence[Named]) -> list[Any]:
        return list(self._writer(named))


def _import(module: str) -> None:
    import_module(module)


def _in_buckets(named: Iterator[Named]) -> Iterator[Named]:
    """Refuse images on a disk among those in buckets, as a manifest may name them."""
    for name, row in named:
        if not row["uri"].startswith(BUCKETS):
            raise InputError(
                f"{row['uri']} lies on a disk, which the cluster's other nodes may not see; leave "
                "ray_address and RAY_ADDRESS out to export on this machine"
            )
        yield name, row


def _groups(named: Iterator[Named]) -> Iterator[list[Named]]:
    some: list[Named] = []
    num_bytes = 0
    for one in named:
        some.append(one)
        num_bytes += one[1]["num_bytes"] or 0
        if len(some) == _IMAGES_PER_TASK or num_bytes >= _BYTES_PER_TASK:
            yield some
            some, num_bytes = [], 0
    if some:
        yield some
