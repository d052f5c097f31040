"""`evaluate`: a labelled set through the labelling flow, and its masks against the ground truth.

The masks are those of `label`: an evaluation judges what a nightly job would write, at the size
of each image.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jobs.label import exit_code
from jobs.logs.output import say
from pipeline.cluster.connect import start_ray
from pipeline.evaluation.evaluate import check_ground_truth, score_masks, write
from pipeline.evaluation.summary import METRICS, check_classes, describe, identity, shown
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
    say(_as_text(found, folder))
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


def _as_text(found: dict[str, Any], folder: str) -> str:
    headline = (
        f"{found['num_scored']} of {found['num_images']} images of {found['split']} scored, "
        f"{found['num_pixels']:,} labelled pixels"
    )
    mean_iu, pixels, accuracy, weighted = (shown(found[name]) for name in METRICS)
    metrics = (
        f"  mean IU {mean_iu}, pixel accuracy {pixels}, mean accuracy {accuracy}, "
        f"f.w. IU {weighted}"
    )
    lines = [headline, metrics, _how_sure(found), ""]
    lines.append(f"  {'class':<24}{'IU':>8}{'accuracy':>10}{'outline IU':>12}{'pixels':>15}")
    for name, scores in found["classes"].items():
        if scores is None:
            lines.append(f"  {name[:23]:<24}{'absent':>8}")
        else:
            shares = (
                f"{scores['iu']:>8.4f}{scores['accuracy']:>10.4f}{scores['boundary_iu']:>12.4f}"
            )
            lines.append(f"  {name[:23]:<24}{shares}{scores['num_pixels']:>15,}")
    lines += ["", f"  {folder}/metrics.json", f"  {folder}/confusion_matrix.parquet, .png"]
    lines += [f"  {folder}/images.parquet"]
    return "\n".join(lines)


def _how_sure(found: dict[str, Any]) -> str:
    outlines, error = shown(found["mean_boundary_iu"]), shown(found["calibration_error"])
    ends = found["mean_iu_95"]
    interval = "unknown" if ends is None else f"{shown(ends[0])} to {shown(ends[1])}"
    return (
        f"  mean IU in 95 % of bootstraps {interval}, near outlines {outlines}, "
        f"calibration error {error}"
    )
