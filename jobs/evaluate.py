"""`evaluate`: a labelled set through the labelling flow, and its masks against the ground truth.

The masks are those of `label`: an evaluation judges what a nightly job would write, at the size
of each image.
"""

import hashlib
import json
from collections.abc import Sequence

from jobs.label import exit_code
from jobs.logs.output import say
from pipeline.cluster.connect import start_ray
from pipeline.evaluation.as_text import as_text
from pipeline.evaluation.evaluate import check_ground_truth, score_masks, write
from pipeline.evaluation.summary import check_classes, describe, identity
from pipeline.inputs.data_set import Asked, open_data_set
from pipeline.inputs.samples import Sample
from pipeline.inputs.splits import Fold, by_fold, by_share, groups_of, matching
from pipeline.inputs.unpacked import unpack_truths
from pipeline.labelling.flow import label
from pipeline.labelling.precision import decided
from pipeline.labelling.session import open_job
from pipeline.settings.evaluate import EvaluateSettings


def run(settings: EvaluateSettings) -> int:
    """Label the images of a split, score the masks, and write what is found.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code: that of the labelling.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    storage = settings.storage()
    data_set = open_data_set(storage, _asked(settings))
    samples = _chosen(data_set.found.split(settings.split), settings)
    text = "".join(json.dumps({"uri": sample.image_uri}) + "\n" for sample in samples).encode()
    name = f"{settings.split}-{hashlib.sha256(text).hexdigest()[:12]}"
    manifest = f"{settings.output}/evaluations/inputs/{name}.jsonl"
    job = open_job(settings.label_settings(manifest))
    check_classes(job, data_set)
    unpacked_to = f"{settings.output}/evaluations/inputs/unpacked"
    truths = unpack_truths(storage, samples, unpacked_to)
    storage.write(manifest, text)
    start_ray(settings.ray_address)
    job = decided(job)
    check_ground_truth(job, data_set, settings.split, truths)
    outcome = label(job)
    scores = score_masks(job, data_set, truths)
    folder = f"{settings.output}/evaluations/{name}-{identity(job, data_set, samples)}"
    names = [one.name for one in data_set.classes]
    found = describe(job, settings, scores, names, samples)
    write(storage, folder, found, scores, names)
    say(as_text(found, folder))
    return exit_code(outcome, settings.max_error_rate)


def _asked(settings: EvaluateSettings) -> Asked:
    drawn_to = f"{settings.output}/evaluations/inputs/ground_truth"
    return Asked(settings.data, settings.split, settings.classes, settings.truth_coding, drawn_to)


def _chosen(samples: Sequence[Sample], settings: EvaluateSettings) -> Sequence[Sample]:
    if settings.val_match is not None:
        samples = matching(samples, settings.val_match)
    if settings.val_fold is not None:
        fold = Fold.parse(settings.val_fold)
        samples = by_fold(samples, fold, settings.seed, settings.val_group)[1]
    if settings.val_share:
        samples = by_share(samples, settings.val_share, settings.seed, settings.val_group)[1]
    # An image of no group is said before hours of labelling.
    groups_of(samples, settings.val_group)
    return samples
