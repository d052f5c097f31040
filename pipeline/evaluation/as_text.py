"""An evaluation as a person reads it on a terminal."""

from typing import Any

from pipeline.evaluation.summary import METRICS, shown


def as_text(found: dict[str, Any], folder: str) -> str:
    """Write the figures of an evaluation for a terminal.

    Args:
        found: As `summary.describe` has them.
        folder: URI of the folder with the files.
    """
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
