"""Marks: which shards replicas are at work on, so that a successor knows what one died over.

<output>/runs/<run_id>/marks/000007-00.json is put if it is absent before a replica begins with
shard 7; whoever finds it there puts -01, and so on. They stay: a writer needs no right to delete.
One small object per shard, beside one for each of its masks; and it outlives replica, node and
driver. Ray Data sets max_restarts to -1: whoever dies is started anew, and is given what it had.
"""

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ErrorCode, ReplicasLost
from pipeline.labelling.runs import Run
from pipeline.store.storage import Storage

# Two deaths tell that the network is at fault, each two further ones name an image.
_MAX_DEATHS = 20
_DEATHS_OF_A_CULPRIT = 2


@dataclass(frozen=True)
class Marks:
    """The marks of a run, on their way to its replicas.

    Attributes:
        storage: Reads and writes the run's objects.
        folder: URI of the marks.
        attempt: Number of the lock of the command at work.
    """

    storage: Storage
    folder: str
    attempt: int

    @staticmethod
    def of_run(run: Run) -> "Marks":
        """Return those of a run."""
        return Marks(run.storage, f"{run.folder}/marks", run.attempt)

    def leave(self, shard: int, born_at: float) -> "Mark":
        """Note that this replica begins with a shard.

        Args:
            shard: Its number.
            born_at: When this replica was started, in seconds since the epoch: soon after the
                death of the one before it, which so tells a hang from a crash.

        Raises:
            StoreError: The store did not take it.
            ReplicasLost: Too many replicas have died over it in this command.
        """
        before: list[dict[str, Any]] = []
        while True:
            uri = f"{self.folder}/{shard:06d}-{len(before):02d}.json"
            mark = Mark(self.storage, uri, self._content(before, born_at), before)
            if self.storage.create(uri, mark.encoded()):
                self._check(shard, before)
                return mark
            before.append(_decoded(self.storage.read(uri)))

    def _content(self, before: list[dict[str, Any]], born_at: float) -> dict[str, Any]:
        return {
            "replica": f"{socket.gethostname()}:{os.getpid()}",
            "attempt": self.attempt,
            "id": uuid.uuid4().hex,
            "culprits": _culprits(before, born_at) if before else {},
        }

    def _check(self, shard: int, before: list[dict[str, Any]]) -> None:
        lost = _replicas(before, self.attempt)
        if len(lost) >= _MAX_DEATHS:
            raise ReplicasLost(
                f"{len(lost)} replicas have died over shard {shard}, the last of them "
                f"{lost[-1]} (host:process): more than its images explain; look at the logs of "
                "Ray's workers, the memory of the nodes and their GPUs"
            )


@dataclass(frozen=True)
class Mark:
    """One replica's mark on one shard.

    Attributes:
        storage: Reads and writes the run's objects.
        uri: Its place.
        content: What it says.
        before: What the marks of those say that were at work on the shard before.
    """

    storage: Storage
    uri: str
    content: dict[str, Any]
    before: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lost(self) -> list[str]:
        """The replicas (host:process) that this command has lost over the shard."""
        return _replicas(self.before, self.content["attempt"])

    @property
    def culprits(self) -> dict[str, tuple[ErrorCode, str]]:
        """Code and message by image_id, of images that replicas died over."""
        found: dict[str, list[str]] = self.content["culprits"]
        return {image: (ErrorCode(code), text) for image, (code, text) in found.items()}

    def encoded(self) -> bytes:
        """Return the bytes of the object."""
        return json.dumps(self.content).encode()

    def note(self, image_id: str, limit_s: float) -> None:
        """Note which image this replica has in its network, and no other in any risk.

        Args:
            image_id: If the replica dies now, as one has before, it is the culprit.
            limit_s: Seconds after which its death is that of a hang.
        """
        alone = {"image_id": image_id, "until": time.time() + limit_s, "limit_s": limit_s}
        noted = {**self.content, "alone": alone}
        self.storage.write(self.uri, json.dumps(noted).encode())

    def clear(self) -> None:
        """Take the note back: the network has done with the image."""
        self.storage.write(self.uri, self.encoded())


def _replicas(marks: list[dict[str, Any]], attempt: int) -> list[str]:
    return [str(mark.get("replica")) for mark in marks if mark.get("attempt") == attempt]


def _culprits(marks: list[dict[str, Any]], seen_at: float) -> dict[str, list[str]]:
    """Name the culprits that dead replicas knew of, and the one that the last death has shown.

    One death accuses nobody: a replica may go with its node, or be killed with its command.
    """
    mark = marks[-1]
    known = dict(mark.get("culprits", {}))
    alone = mark.get("alone")
    if alone is None or _deaths_over(alone["image_id"], marks) < _DEATHS_OF_A_CULPRIT:
        return known
    replica = f"the replica {mark.get('replica')} (host:process)"
    if seen_at > alone["until"]:
        code, what = ErrorCode.TOO_SLOW, f"held it for longer than {alone['limit_s']:g} s"
        text = f"the network of {replica} {what} (max_image_s)"
    else:
        code, text = (
            ErrorCode.CRASHED,
            f"{replica}, like one before it, died with this image alone in its network",
        )
    return {**known, alone["image_id"]: [str(code), text]}


def _deaths_over(image_id: str, marks: list[dict[str, Any]]) -> int:
    return sum(mark.get("alone", {}).get("image_id") == image_id for mark in marks)


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        # Cut off by a crash of the machine, which says enough.
        return {}
    return found if isinstance(found, dict) else {}
