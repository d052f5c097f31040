"""`clean`: remove the runs of an output that newer ones have replaced."""

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.labelling.clean import Removable, find_left, find_replaced, remove_run, size_of
from pipeline.labelling.history import History
from pipeline.settings.clean import CleanSettings
from pipeline.store.storage import Storage


def run(settings: CleanSettings) -> int:
    """Name what can go, and remove it unless the run is dry.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        InputError: There is no run, or a table is damaged.
        LockHeld: Somebody is at work on a run's input and network.
    """
    storage, output = settings.storage(), settings.output
    found = find_left(storage, output)
    if settings.keep_newest:
        history = History(storage, output)
        found += find_replaced(history, of_any_network=settings.any_network)
    for one in found:
        _clean(storage, settings, one)
    again = "; --no-dry-run removes them" if found and settings.dry_run else ""
    say(f"{len(found)} run(s) {'can go' if settings.dry_run else 'are gone'}{again}")
    return EXIT_OK


def _clean(storage: Storage, settings: CleanSettings, found: Removable) -> None:
    files, num_bytes = size_of(storage, found)
    say(f"run {found.run_id}: {found.reason}; {files:,} files, {num_bytes / 1e6:,.1f} MB")
    if not settings.dry_run:
        remove_run(storage, settings.output, found)
