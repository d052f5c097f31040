"""`report`: show what a run has done."""

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.labelling import report
from pipeline.labelling.runs import require_runs
from pipeline.settings.shared import OutputSettings
from pipeline.store.uri import normalise_uri


def run(settings: OutputSettings) -> int:
    """Print the report of one run, or of all that are published.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        InputError: There is no run.
    """
    output = normalise_uri(settings.output, "output")
    texts = []
    for one in require_runs(settings.storage(), output, settings.run_id):
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
