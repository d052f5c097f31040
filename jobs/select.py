"""`select`: write down which images of an output people should look at."""

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.export.newest import Answers
from pipeline.export.selection import select
from pipeline.labelling.history import History
from pipeline.settings.select import SelectSettings
from pipeline.wording import count


def run(settings: SelectSettings) -> int:
    """Select images of an output.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        InputError: There is no finished run, or no image is as asked for.
    """
    storage = settings.storage()
    answers = Answers.of(History.with_archive(storage, settings.output), settings.run_id)
    chosen = select(answers, settings, storage)
    words = ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in chosen.items())
    say(f"{count(chosen.total(), 'image')} in {settings.to}: {words}")
    return EXIT_OK
