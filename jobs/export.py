"""`export`: write images and masks of an output in another program's form."""

from jobs.logs.output import say
from pipeline.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES
from pipeline.export.export import export
from pipeline.export.newest import Answers
from pipeline.export.writer import WriteAll, here
from pipeline.labelling.history import History
from pipeline.settings.export import ExportSettings
from pipeline.wording import count


def run(settings: ExportSettings) -> int:
    """Export images and masks of an output.

    Args:
        settings: From file, environment and flags.

    Returns:
        0, or 4 if images had to be left out that are there.

    Raises:
        SettingError: The format can't hold the classes, or its library is not installed.
        InputError: There is nothing to export.
    """
    storage = settings.storage()
    answers = Answers.of(History.with_archive(storage, settings.output), settings.run_id)
    done = export(answers, settings, storage, _connected(settings))
    say(f"{count(done.num_images, 'image')} in {settings.to}, as {settings.format}")
    return EXIT_TOO_MANY_BAD_IMAGES if done.num_left_out else EXIT_OK


def _connected(settings: ExportSettings) -> WriteAll:
    """Return what writes images: this process, or tasks where there is a cluster."""
    if settings.ray_address is None:
        return here
    # Ray takes seconds to import, which what is done here must not wait for.
    from pipeline.export.write_in_tasks import in_cluster  # noqa: PLC0415

    return in_cluster(settings)
