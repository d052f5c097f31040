"""SIGKILL at random, for as long as one likes: what is killed, when, and whether anything is lost.

    python -m tests.campaign --minutes 60

Each round labels photographs in a new output, kills one thing at a random moment, runs the command
again until it is done, and compares masks and tables with those of an undisturbed run. It stops at
the first difference and says how to repeat the round. Figures: docs/reliability.md.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from pipeline.store.storage import Storage
from tests.product import draw_photographs, label_flags, mask_hashes, start, tables, the_run
from tests.servers import CREDENTIALS, free_port, rclone_command, server_process

_NUM_PHOTOGRAPHS = 40
_FLAGS = ("--max-shard-images", 4, "--lock-lease-s", 2, "--io-patience-s", 20)
# The plan appears before Ray starts; the work lies within so many seconds after it.
_WORK_S = 15.0
_DONE, _AGAIN = 0, 5
_MAX_RERUNS = 6
_STORE = "the store, for 3 s"
_AWAY_S = 3.0
_END_S = 400.0
# What differs where the same photographs lie in another place.
_OF_THE_PLACE = {"uri", "etag", "image_id"}


@dataclass(frozen=True)
class Place:
    """Where a round reads and writes.

    Attributes:
        source: Of the photographs.
        output: A new one.
        storage: That reads it.
        flags: That the command needs for it.
        restart: Stops the store in the midst of its work and starts it again; None on a disk.
    """

    source: str
    output: str
    storage: Storage
    flags: tuple[str, ...] = ()
    restart: Callable[[], None] | None = None


@dataclass
class Tally:
    """What a campaign has done."""

    kills: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    reruns: int = 0
    lost: int = 0

    def __str__(self) -> str:
        """Say it in a few lines."""
        kills = ", ".join(f"{what} {number}" for what, number in sorted(self.kills.items()))
        codes = ", ".join(f"{code}: {number}" for code, number in sorted(self.codes.items()))
        return (
            f"{self.kills.total()} kills ({kills}); exit codes of what was disturbed: {codes}; "
            f"{self.reruns} reruns; images lost or changed: {self.lost}"
        )


def main() -> None:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    os.environ.update(CREDENTIALS)
    end = time.monotonic() + 60 * arguments.minutes
    tally, seed = Tally(), arguments.seed
    with tempfile.TemporaryDirectory() as folder:
        photographs = draw_photographs(Path(folder) / "photographs", _NUM_PHOTOGRAPHS)
        undisturbed = _undisturbed(photographs, Path(folder) / "undisturbed")
        while time.monotonic() < end:
            print(f"seed {seed}: {_round(seed, photographs, Path(folder), undisturbed, tally)}")
            print(f"  {tally}", flush=True)
            seed += 1
    sys.exit(tally.lost > 0)


def _undisturbed(photographs: Path, output: Path) -> tuple[object, object]:
    log = output.with_suffix(".log")
    assert start(label_flags(photographs, output, *_FLAGS), log).wait(_END_S) == _DONE
    return _found(the_run(f"file://{output}"))


def _found(run: object) -> tuple[object, object]:
    """Read masks and tables, without what tells one place from another."""
    kept = [
        [{name: row[name] for name in row if name not in _OF_THE_PLACE} for row in table]
        for table in tables(run)
    ]
    return mask_hashes(run), kept


def _round(
    seed: int, photographs: Path, folder: Path, undisturbed: tuple[object, object], tally: Tally
) -> str:
    chance = random.Random(seed)
    victim = chance.choice([*_VICTIMS, _STORE])
    home = folder / str(seed)
    home.mkdir()
    with _place(victim, photographs, home) as place:
        flags = label_flags(place.source, place.output, *_FLAGS, *place.flags)
        process = start(flags, home / "log")
        _wait_for_plan(place, process)
        time.sleep(chance.uniform(0, _WORK_S))
        if place.restart is not None:
            place.restart()
            tally.kills[victim] += 1
        else:
            tally.kills[victim] += _kill(victim, process, chance)
        codes = [_ended(process)]
        tally.codes[codes[0]] += 1
        while codes[-1] != _DONE:
            assert len(codes) <= _MAX_RERUNS, (codes, (home / "log").read_text())
            codes.append(_ended(start(flags, home / "log")))
            tally.reruns += 1
            assert codes[-1] in (_DONE, _AGAIN), (home / "log").read_text()
        verified = start(["verify", place.output, *place.flags], home / "log").wait(_END_S)
        same = verified == 0 and _found(the_run(place.output, place.storage)) == undisturbed
        if not same:
            tally.lost += 1
            sys.exit(f"seed {seed}, {victim}: verify {verified}\n{(home / 'log').read_text()}")
    shutil.rmtree(home)
    return f"{victim}, exit codes {codes}"


def _ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(_END_S)


def _wait_for_plan(place: Place, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not place.storage.children(f"{place.output}/runs"):
        time.sleep(0.1)


def _kill(victim: str, process: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """Kill one of what the command has started; False if it is not there (any more)."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
        found = _VICTIMS[victim](psutil.Process(process.pid), family)
        targets = found if victim == "everything" else [chance.choice(found)] if found else []
        for one in targets:
            one.kill()
    except psutil.NoSuchProcess:
        return False
    return bool(targets)


def _titled(family: list[psutil.Process], *words: str) -> list[psutil.Process]:
    return [one for one in family if any(word in _title(one) for word in words)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


_VICTIMS: dict[str, Callable[[psutil.Process, list[psutil.Process]], list[psutil.Process]]] = {
    "driver": lambda driver, _: [driver],
    "everything": lambda driver, family: [*family, driver],
    "raylet": lambda _, family: _titled(family, "/raylet/raylet"),
    "Ray's head": lambda _, family: _titled(family, "gcs_server"),
    "replica": lambda _, family: _titled(family, "Segmenter"),
    "task worker": lambda _, family: [
        one for one in _titled(family, "ray::") if not _titled([one], "Segmenter", "Agent")
    ],
}


@contextmanager
def _place(victim: str, photographs: Path, home: Path) -> Iterator[Place]:
    """Open a place: a disk, or, where the store is what is killed, a server that keeps files."""
    if victim != _STORE:
        yield Place(str(photographs), f"file://{home}/out", Storage())
        return
    shutil.copytree(photographs, home / "buckets" / "bucket" / "in")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as running:
        serve = partial(
            server_process, rclone_command(home / "buckets", port), home / "store", port
        )
        running.enter_context(serve())

        def restart() -> None:
            running.pop_all().__exit__(None, None, None)
            time.sleep(_AWAY_S)
            running.enter_context(serve())

        flags = ("--s3-endpoint-url", url)
        yield Place("s3://bucket/in", "s3://bucket/out", Storage(url), flags, restart)


if __name__ == "__main__":
    main()
