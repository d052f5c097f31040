"""`clean`: remove the runs of an output that newer ones have replaced."""

from datetime import UTC, datetime, timedelta

from jobs.logs.output import say
from pipeline.errors import EXIT_OK, InputError, LockHeld
from pipeline.labelling.archive import replaced_files
from pipeline.labelling.clean import (
    Removable,
    find_left,
    find_replaced,
    find_unfinished,
    remove_run,
    size_of,
)
from pipeline.labelling.history import History
from pipeline.settings.clean import CleanSettings
from pipeline.store.storage import Storage
from pipeline.wording import count


def run(settings: CleanSettings) -> int:
    """Name what can go, and remove it unless the run is dry.

    Args:
        settings: From file, environment and flags.

    Returns:
        0, or 7 where somebody is at work on a run's input and network.

    Raises:
        InputError: It is no output, or a table is damaged.
    """
    storage, output = settings.storage(), settings.output
    History(storage, output).require_output()
    found = find_left(storage, output)
    if settings.keep_newest:
        found += find_replaced(History(storage, output), of_any_network=settings.any_network)
    if settings.unfinished_days is not None:
        before = datetime.now(UTC) - timedelta(days=settings.unfinished_days)
        found += find_unfinished(History(storage, output), before)
    gone = sum(_clean(storage, settings, one) for one in found)
    _clean_history(storage, settings)
    again = "; --no-dry-run removes them" if found and settings.dry_run else ""
    say(f"{gone} run(s) {'can go' if settings.dry_run else 'are gone'}{again}")
    return EXIT_OK if gone == len(found) else LockHeld.exit_code


def _clean_history(storage: Storage, settings: CleanSettings) -> None:
    """Name, or remove, what summaries of runs have left that newer ones have replaced."""
    try:
        uris = replaced_files(storage, settings.output)
    except InputError as error:  # it is derived, and the next publication writes another
        say(f"history: nothing of it can go: {error}")
        return
    for uri in () if settings.dry_run else uris:
        storage.remove(uri)
    if uris:
        can = "can go; --no-dry-run removes them" if settings.dry_run else "are gone"
        say(f"history: {count(len(uris), 'file')} that newer ones have replaced {can}")


def _clean(storage: Storage, settings: CleanSettings, found: Removable) -> bool:
    """Return whether it can go, or is gone."""
    files, num_bytes = size_of(storage, found)
    say(f"run {found.run_id}: {found.reason}; {files:,} files, {num_bytes / 1e6:,.1f} MB")
    try:
        if settings.dry_run or remove_run(storage, settings.output, found):
            return True
        say("  it stays: it has been finished since")
    except LockHeld as error:
        say(f"  it stays: {error}")
    return False
