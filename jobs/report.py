"""`report`: show what a run has done."""

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.labelling import report
from pipeline.labelling.history import History
from pipeline.settings.shared import OutputSettings


def run(settings: OutputSettings) -> int:
    """Print the report of one run, or of all that are published.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        InputError: There is no run.
    """
    texts = []
    history = History(settings.storage(), settings.output)
    for one in history.require(settings.run_id):
        manifest = one.manifest()
        if manifest is None:
            todo = one.missing()
            texts.append(
                f"Run {one.run_id} is unfinished: {len(todo)} of {one.record.num_shards} shards "
                f"to do; label --input {one.record.input} --weights {one.record.network.weights} "
                "with its other settings goes on"
            )
        else:
            texts.append(report.as_text(one, manifest))
    say("\n\n".join(texts))
    return EXIT_OK
