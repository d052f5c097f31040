"""`report`: show what a run has done."""

from collections.abc import Mapping, Sequence

from jobs.logs.output import say
from jobs.settings.parser import read_settings
from pipeline.errors import EXIT_OK
from pipeline.labelling import report
from pipeline.labelling.history import History
from pipeline.settings.shared import OutputSettings


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the report of one run, or of all that are published.

    Args:
        argv: Flags.
        environ: Environment variables.

    Returns:
        The exit code.

    Raises:
        InputError: There is no run.
    """
    settings = read_settings(OutputSettings, "report", argv, environ)
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
