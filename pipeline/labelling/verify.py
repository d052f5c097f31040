"""Verify: re-read everything that a run has written, and prove the promises.

In: a run. Out: what contradicts what. Runs without Ray and without torch, piece by piece in memory
that does not grow with the run; or its pieces are checked in tasks (verify_in_tasks.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.labelling.breaks import Breaks
from pipeline.labelling.check_piece import Check, Checked
from pipeline.labelling.mask_names import MASK_ENDING
from pipeline.labelling.mask_tar import TAR_ENDING
from pipeline.labelling.pieces import Piece, pieces_of
from pipeline.labelling.records import Manifest
from pipeline.labelling.recount import check_manifest
from pipeline.labelling.runs import TABLES, Run

# Checks pieces, wherever; what it found comes in their order.
CheckPieces = Callable[[Check, Sequence[Piece]], Iterator[Checked]]


@dataclass(frozen=True)
class Verdict:
    """What verify found.

    Attributes:
        breaks: Contradictions.
        num_masks: Masks that were read and compared.
        num_ok: Images with a mask; more than `num_masks` where a sample was read.
        num_missing: Shards without a commit; a run with some is unfinished, which is no break.
        finished: Whether the run is published to the end.
        num_strays: Masks in a finished run's folder that no row names, or tars of them, as a kill
            leaves them where the image can't be read any more; counted where all were read.
    """

    breaks: Breaks
    num_masks: int
    num_ok: int
    num_missing: int
    finished: bool
    num_strays: int = 0


def here(check: Check, pieces: Sequence[Piece]) -> Iterator[Checked]:
    """Check pieces in this process, one after the other."""
    return map(check, pieces)


def verify(run: Run, threads: int, share: float = 1.0, check_pieces: CheckPieces = here) -> Verdict:
    """Re-read a run's plan, commits, masks and tables and compare them.

    Args:
        run: Finished or not.
        threads: Masks read at a time.
        share: Of the masks that are read, 0 to 1; all else is compared in full.
        check_pieces: Does the work.

    Raises:
        StoreError: The store did not answer, which proves nothing.
    """
    breaks = Breaks()
    # Asked first: it is written last, so that a manifest is there where it is.
    ended = run.finished()
    manifest = _read_manifest(run, breaks, ended=ended)
    missing = run.uncommitted()
    pieces = list(pieces_of(run, manifest, missing))
    # The plan is heavy, and each piece has its own part of it.
    check = Check(run.narrowed(()), threads, share)
    found = Checked()
    for one in check_pieces(check, pieces):
        found.breaks.add_all(one.breaks)
        found.count.add_all(one.count)
    breaks.add_all(found.breaks)
    if manifest is not None:
        check_manifest(run, manifest, found.count, breaks)
        _check_no_others(run, manifest, breaks)
        if missing:
            breaks.add("manifest in spite of missing commits", f"{len(missing)} shards")
    finished = manifest is not None and ended
    num_ok = found.count.num_ok
    num_named = found.count.num_tars if run.masks_in_tars else num_ok
    num_strays = _num_there(run) - num_named if finished and share == 1 else 0
    numbers = (found.count.num_read, num_ok, len(missing))
    return Verdict(breaks, *numbers, finished, max(0, num_strays))


def _num_there(run: Run) -> int:
    """Count the masks in a run's folder, or the tars of them."""
    if not run.storage.children(run.masks_folder):
        return 0
    ending = TAR_ENDING if run.masks_in_tars else MASK_ENDING
    return sum(entry.uri.endswith(ending) for entry in run.storage.walk(run.masks_folder))


def _read_manifest(run: Run, breaks: Breaks, *, ended: bool) -> Manifest | None:
    try:
        found = run.manifest()
    except InputError as error:
        breaks.add("manifest is unreadable", str(error))
        return None
    if found is None and ended:  # no command goes on with it, unless it is named
        breaks.add("file is missing", run.manifest_uri.removeprefix(f"{run.output}/"))
    return found


def _check_no_others(run: Run, manifest: Manifest, breaks: Breaks) -> None:
    """Find tables beside the run's own: whoever reads the folder takes them for published."""
    named = {part.file for part in (*manifest.images, *manifest.class_statistics)}
    for folder in map(run.table_folder, TABLES):
        for name in run.storage.children(folder):
            file = f"{folder}/{name}".removeprefix(f"{run.output}/")
            # What else a desktop lays there, .DS_Store or desktop.ini, is read by nobody.
            if name.endswith(".parquet") and file not in named:
                breaks.add("table file that no manifest names", file)
