"""`verify`: re-read an output and prove its promises."""

import logging
import os
from collections.abc import Sequence

from jobs.logs.output import say
from pipeline.errors import EXIT_OK, BrokenPromise, StoreError
from pipeline.labelling.archive import remove_archives
from pipeline.labelling.delta import contradictions
from pipeline.labelling.history import History
from pipeline.labelling.repair import find_torn, remove, restore, unused
from pipeline.labelling.runs import Run
from pipeline.labelling.verify import CheckPieces, Verdict, here, verify
from pipeline.settings.verify import VerifySettings
from pipeline.wording import count

_log = logging.getLogger(__name__)

_UNPUBLISHED = (
    "The run is published. Without its manifest its images count as not done until the same "
    "command has finished it again: with these weights and this version of the decoders, and "
    "with the images of these masks' shards still there, unchanged. Where that can't be, leave it "
    "as it is"
)
_OF_NO_RUN = (
    "Readers of all tables read them, too. `fcn clean OUTPUT` names a removal that was cut off "
    "and ends it; else put runs/RUN back, or remove the folders run=RUN of masks, images and "
    "class_statistics"
)
_LOGS_ANEW = (
    "The tables are whole without it. `label` with --delta-log adds what a log lacks; to begin "
    "both anew, remove the folders _delta_log before"
)


def run(settings: VerifySettings) -> int:
    """Verify a run or all of an output, or repair them.

    Args:
        settings: From file, environment and flags.

    Returns:
        0 if what is finished is whole, 5 if what was asked for is unfinished: the newest run,
        the one that `run_id` names, or all there are. Of a repair: 0.

    Raises:
        BrokenPromise: Something contradicts something.
    """
    if settings.repair:
        return repair(settings)
    output = settings.output
    broken = unfinished = 0
    history = History(settings.storage(), output)
    runs = history.require(settings.run_id)
    asked_for = runs if settings.all_ else runs[-1:]
    check_pieces = _connected(settings)
    for one in asked_for:
        verdict = verify(one, _threads(), settings.sample, check_pieces)
        say(f"run {one.run_id}: {_describe(verdict)}{_strays(verdict, one)}")
        if one.record.output != output:
            say(f"  It was written to {one.record.output}; the tables' mask_uri point there.")
        broken += sum(verdict.breaks.numbers.values())
        unfinished += not verdict.finished
    broken += _breaks_of_output(history, asked_for, every=settings.run_id is None)
    if broken:
        raise BrokenPromise(
            f"{broken} breaks in {output}. `fcn verify OUTPUT --repair --run-id RUN` names what "
            "has to go with files that are cut off or gone, so that label does their shards again; "
            "a file that is wrong otherwise counts as gone once you have removed it"
        )
    _say_which(runs, asked_for)
    if unfinished:
        _log.warning("%d run(s) unfinished; run their command again to finish them", unfinished)
    return StoreError.exit_code if unfinished == len(asked_for) else EXIT_OK


def _say_which(runs: Sequence[Run], asked_for: Sequence[Run]) -> None:
    """Name the input where one run stands for many: it may be an evaluation's."""
    if len(asked_for) < len(runs):
        others = f"{count(len(runs) - 1, 'earlier run')} not checked, which --all checks"
        _log.info("the newest run's input is %s; %s", runs[-1].record.input, others)


def _breaks_of_output(history: History, asked_for: list[Run], *, every: bool) -> int:
    """Say what is broken beside the runs themselves; returns how much."""
    history.refresh()  # others may have published meanwhile
    orphans = history.orphans() if every else []
    for orphan in orphans[:10]:
        say(f"table of no known run: {orphan}")
    if orphans:
        say(f"  {_OF_NO_RUN}")
    found = contradictions(history, asked_for)
    for said in found[:10]:
        say(f"Delta log: {said}")
    if found:
        say(f"  {_LOGS_ANEW}")
    return len(orphans) + len(found)


def repair(settings: VerifySettings) -> int:
    """Name what is torn in an output, or gone of one run, and what goes, unless it is dry.

    Args:
        settings: From file, environment and flags.

    Raises:
        InputError: It is no output, or holds no such run.
        LockHeld: Somebody is at work there.
    """
    storage, output = settings.storage(), settings.output
    History(storage, output).require_output()
    run_ids = storage.children(f"{output}/runs")
    for run_id in run_ids if settings.run_id is None else [settings.run_id]:
        found = find_torn(storage, output, run_id, _threads(), named=settings.run_id is not None)
        for torn in found:
            say(f"broken: {torn.uri}: {torn.reason}")
        gone = {uri for torn in found for uri in torn.goes}
        anew = sum(torn.content is not None for torn in found)
        if anew and not settings.dry_run:
            restore(storage, found)
            say(f"run {run_id}: {anew} file(s) written anew")
        elif anew:
            say("  would be written anew; --no-dry-run does it")
        if settings.dry_run or not gone:
            for uri in sorted(gone):
                say(f"  would go: {uri}")
            if any(uri.endswith("/manifest.json") for uri in gone):
                say(f"  {_UNPUBLISHED}")
            again = "; --no-dry-run removes them" if gone else ""
            say(f"run {run_id}: {len(found)} broken file(s), {len(gone)} to be removed{again}")
            continue
        with unused(storage, output, run_id):
            # Archives may hold what the run has said; after it, those that were written meanwhile.
            remove_archives(storage, output)
            number = remove(storage, output, run_id, found)
            say(f"run {run_id}: {number} file(s) removed; run label again")
            remove_archives(storage, output)
    return EXIT_OK


def _connected(settings: VerifySettings) -> CheckPieces:
    """Return what checks pieces: this process, or tasks where there is a cluster."""
    if settings.ray_address is None:
        return here
    # Ray takes seconds to import, which what is done here must not wait for.
    from pipeline.labelling.verify_in_tasks import in_cluster  # noqa: PLC0415

    return in_cluster(settings)


def _threads() -> int:
    return 2 * (os.cpu_count() or 1)


def _describe(verdict: Verdict) -> str:
    if verdict.breaks:
        return f"BROKEN\n{verdict.breaks}"
    if not verdict.finished:
        return f"unfinished ({verdict.num_missing} shards to do), {_masks(verdict)} are whole"
    return f"whole: {_masks(verdict)}, tables and totals agree"


def _strays(verdict: Verdict, run: Run) -> str:
    if not verdict.num_strays:
        return ""
    kind = "tar(s) of masks" if run.masks_in_tars else "mask(s)"
    return (
        f"\n  {verdict.num_strays} more {kind} lie in {run.masks_folder} that no row names: what "
        "a kill left of images that then could not be read. The tables say what counts"
    )


def _masks(verdict: Verdict) -> str:
    """Say how many were read, where it was a sample."""
    of_all = f" read of {verdict.num_ok}" if verdict.num_masks < verdict.num_ok else ""
    return f"{verdict.num_masks} masks{of_all}"
