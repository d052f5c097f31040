"""What `doctor` asks the nodes, quickly, before a run: one node without rights fails its images."""

import logging
from dataclasses import replace

from jobs.doctor.cluster import check_nodes, check_room, see
from jobs.doctor.finding import Finding, Level
from jobs.doctor.places import DRIVER, Places, look
from pipeline.cluster.nodes import Answers, alive_nodes, ask_every_node
from pipeline.errors import SettingError
from pipeline.inputs.listing import Source
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)


def check_start(settings: LabelSettings, image: Source, shard_bytes: int) -> None:
    """Refuse a cluster of which a node can't do the work.

    Args:
        settings: Of the job.
        image: One that is to be labelled.
        shard_bytes: That no shard of the run has more of, encoded.

    Raises:
        SettingError: A node can't read it, can't write the output, has other versions, or has no
            room for a shard.
    """
    places = replace(Places.of(settings), image=image)
    answers = ask_every_node(see, places)
    for name, reason in answers.failed.items():
        _log.warning("node %s could not be asked what it can reach: %s", name, reason)
    heard = Answers(answers.given, {})
    findings = [
        *check_nodes(heard, look(places, DRIVER)),
        *check_room(alive_nodes(), heard, shard_bytes, None),
    ]
    for finding in findings:
        if finding.level is Level.NOTE:
            _log.warning("%s", _said(finding))
    wrong = [_said(finding) for finding in findings if finding.level is Level.CHANGE]
    if wrong:
        raise SettingError(". ".join(wrong))


def _said(finding: Finding) -> str:
    return f"{finding.subject}: {finding.found}; {finding.remedy}"
