"""`doctor`: what would stand in the way of `label` with the same flags, and what it would take."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from jobs.doctor.cluster import check_cluster
from jobs.doctor.estimate import estimate
from jobs.logs.output import say
from pipeline.cluster.connect import connect
from pipeline.errors import EXIT_OK, PipelineError, SettingError
from pipeline.labelling.finding import Finding, Level, as_table, change
from pipeline.labelling.needs import Needs
from pipeline.labelling.places import DRIVER, Places, look, look_at_weights, look_for_images
from pipeline.labelling.precision import decided
from pipeline.labelling.replicas import Replicas
from pipeline.labelling.session import open_job
from pipeline.settings.cluster import DoctorSettings

_log = logging.getLogger(__name__)


def run(settings: DoctorSettings) -> int:
    """Look at everything that the job needs; writes only the probe that every start writes.

    Args:
        settings: Those of `label` and a few more, from file, environment and flags.

    Returns:
        0 if the job can start, 2 if something must be changed before.
    """
    findings = list(_examine(settings))
    say("\n".join(as_table(findings)))
    changes = sum(finding.level is Level.CHANGE for finding in findings)
    if changes:
        _log.error("%d finding(s) must be changed before `label` can do its work", changes)
        return SettingError.exit_code
    return EXIT_OK


def _examine(settings: DoctorSettings) -> Iterator[Finding]:
    places = Places.of(settings)
    _log.info("looking at input, output and weights")
    network, of_weights = look_at_weights(places, settings)
    image, of_input = look_for_images(places, settings.io_threads)
    places = replace(places, image=image)
    before = [of_weights, of_input, *look(places, DRIVER)]
    yield from before
    well = not any(finding.level is Level.CHANGE for finding in before)
    try:
        connect(settings.ray_address)
    except SettingError as error:
        yield change("Ray", str(error), "start the cluster, or give its ray_address")
        return
    _log.info("asking every node")
    replicas, of_cluster = check_cluster(settings, places, before)
    yield from of_cluster
    well = well and not any(finding.level is Level.CHANGE for finding in of_cluster)
    if well and network and replicas and settings.sample:
        yield from _estimate(settings, replicas)


def _estimate(settings: DoctorSettings, replicas: Replicas) -> Iterator[Finding]:
    _log.info("listing the input and labelling a sample of it")
    try:
        job = decided(open_job(settings))
        found = job.look()
        yield Needs.to_do(found).finding()
        yield from estimate(settings, job, found, replicas)
    except PipelineError as error:
        # What a listing as a whole shows: names that collide, a run of another fingerprint.
        yield change("plan", str(error), "as it says; fcn plan shows the same")
