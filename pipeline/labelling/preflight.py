"""The pre-flight check: can every node do the work? One without rights would fail its images."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from pipeline.cluster.nodes import (
    VERSIONS_REMEDY,
    Answers,
    alive_nodes,
    ask_every_node,
    differing,
    session_folder,
)
from pipeline.cluster.packing import Node
from pipeline.errors import SettingError
from pipeline.inputs.source import Source
from pipeline.labelling.finding import Finding, Level, change, note, ok
from pipeline.labelling.places import DRIVER, Places, look
from pipeline.labelling.replicas import Replicas
from pipeline.labelling.runs import Run, read_shard
from pipeline.labelling.schema import ImageRow, ShardTask
from pipeline.settings.label import LabelSettings
from pipeline.versions import versions

_log = logging.getLogger(__name__)

_HERE = "the node"
_GIB = float(1 << 30)
# Of each replica: the shards in its three calls, encoded and as masks, and the next ones.
_SHARDS_PER_REPLICA = 8
# Ray makes no more objects on a disk that is fuller (RAY_local_fs_capacity_threshold).
_FULL = 0.95


@dataclass(frozen=True)
class Seen:
    """What one node has seen: the places, its versions, and the disk that Ray spills to."""

    places: list[Finding]
    versions: dict[str, str]
    disk_total: int
    disk_free: int


def check_start(run: Run, shard: ShardTask, settings: LabelSettings) -> None:
    """Refuse a cluster of which a node can't do the work; a single node is not asked.

    Args:
        run: That is to be labelled.
        shard: One of it, of which every node reads an image.
        settings: What the job was asked to do.

    Raises:
        SettingError: A node can't read it, can't write the output, has other versions, or has no
            room for a shard.
    """
    nodes = alive_nodes()
    if len(nodes) <= 1:
        return
    if "file://" in (run.record.input[:7], run.output[:7]):
        _log.warning("several nodes and local paths: they must lie on a disk that all nodes share")
    places = replace(Places.of(settings), image=_readable(read_shard(run.storage, shard)))
    # No shard of the run has more.
    shard_bytes = min(settings.max_shard_bytes, run.record.num_bytes)
    _refuse(_findings(places, nodes, shard_bytes))


def _readable(images: Sequence[ImageRow]) -> Source | None:
    """Return the first image that is to be read; what the plan refuses is not."""
    for image in images:
        if image.get("error_code") is None:
            place = (image["key"], image["uri"], image["etag"], image["num_bytes"])
            return Source(*place, offset=image.get("image_offset"))
    return None


def _findings(places: Places, nodes: Sequence[Node], shard_bytes: int) -> list[Finding]:
    answers = ask_every_node(see, places)
    for name, reason in answers.failed.items():
        _log.warning("node %s could not be asked what it can reach: %s", name, reason)
    heard = Answers(answers.given, {})
    return [
        *check_nodes(heard, look(places, DRIVER)),
        *check_room(nodes, heard, shard_bytes, None),
    ]


def _refuse(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.level is Level.NOTE:
            _log.warning("%s", _said(finding))
    wrong = [_said(finding) for finding in findings if finding.level is Level.CHANGE]
    if wrong:
        raise SettingError(". ".join(wrong))


def _said(finding: Finding) -> str:
    return f"{finding.subject}: {finding.found}; {finding.remedy}"


def see(places: Places) -> Seen:
    """Look at the places, the versions and the disk, in a worker on a node."""
    disk = shutil.disk_usage(session_folder())
    return Seen(look(places, _HERE), versions(), disk.total, disk.free)


def check_nodes(answers: Answers, before: Sequence[Finding]) -> Iterator[Finding]:
    """Compare what nodes have seen with what they must see.

    Args:
        answers: Of `see`.
        before: What the driver has found, which need not be said again of a node.
    """
    for name, reason in answers.failed.items():
        remedy = "install the same fcn-pipeline there, or submit with --working-dir"
        yield change(f"node {name}", reason, remedy)
    yield from _check_places(answers, {finding.found for finding in before})
    different = differing(Answers({n: seen.versions for n, seen in answers.given.items()}, {}))
    for found in different:
        yield change("versions", found, VERSIONS_REMEDY)
    if not different:
        found = ", ".join(f"{name} {version}" for name, version in versions().items())
        yield ok("versions", f"the same on {len(answers.given)} node(s): {found}")


def _check_places(answers: Answers, said: AbstractSet[str]) -> Iterator[Finding]:
    wrong = [
        Finding(one.subject.replace(_HERE, f"node {name}"), one.level, one.found, one.remedy)
        for name, seen in answers.given.items()
        for one in seen.places
        if one.level is Level.CHANGE
    ]
    yield from (finding for finding in wrong if finding.found not in said)
    if answers.given and not wrong:
        yield ok("rights of the nodes", f"{len(answers.given)} node(s) read input and write output")


def check_room(
    nodes: Sequence[Node],
    answers: Answers,
    shard_bytes: int,
    replicas: Replicas | None,
) -> Iterator[Finding]:
    """Compare object store and disk with what lies in them at a time.

    Args:
        nodes: Those that are up.
        answers: Of `see`.
        shard_bytes: Of the largest shard, encoded.
        replicas: The replicas of the job; None if they are not known.
    """
    per_node = -(-replicas.number // len(nodes)) if replicas else 1
    needed = shard_bytes * _SHARDS_PER_REPLICA * per_node
    before = "object store and disk"
    for node in nodes:
        name, store = node.name, node.object_store_bytes
        if name not in answers.given:
            continue
        seen = answers.given[name]
        found = (
            f"node {name}: store {store / _GIB:.1f} GiB, disk {seen.disk_free / _GIB:.1f} of "
            f"{seen.disk_total / _GIB:.1f} GiB free; {needed / _GIB:.1f} GiB of shards are in it "
            "at a time"
        )
        if store < 2 * shard_bytes or seen.disk_free < (1 - _FULL) * seen.disk_total:
            yield change(before, found, "lower max_shard_bytes, or give the node more of both")
        elif store < needed:
            yield note(before, found, "lower max_shard_bytes, or Ray moves objects to the disk")
        else:
            yield ok(before, found)
