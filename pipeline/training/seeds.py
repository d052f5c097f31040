"""Several trainings that differ in nothing but their seed: what their figures say together.

One seed's figure is a draw: where 0.65 and 0.66 stand side by side, mean and spread say whether
that is a difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from fcn.weights.record import Checkpoint
from pipeline.settings.train import TrainSettings

_SHOWN = {
    "mean_iu": "mean IU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iu": "f.w. IU",
}


def runs_of(settings: TrainSettings) -> list[TrainSettings]:
    """Return the settings of each training: one, or RUN_NAME-SEED for each of several seeds.

    Args:
        settings: Of the command.
    """
    if settings.num_seeds == 1:
        return [settings]
    seeds = range(settings.seed, settings.seed + settings.num_seeds)
    return [
        settings.model_copy(
            update={"seed": seed, "num_seeds": 1, "run_name": f"{settings.run_name}-{seed}"}
        )
        for seed in seeds
    ]


def describe_seeds(records: Sequence[Checkpoint]) -> str:
    """Lay out mean, standard deviation and ends of the figures on val.

    Args:
        records: Of the best weights of each training, of the same classes.
    """
    found = [record.provenance["metrics"] for record in records]
    head = f"{len(records)} seeds, on val"
    lines = [f"{head:<26}{'mean':>8}{'std':>9}{'least':>9}{'most':>9}"]
    lines += [_row(name, values) for name, values in _figures(found)]
    return "\n".join(lines)


def _figures(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    for name, shown in _SHOWN.items():
        yield shown, [one[name] for one in found if name in one]
    for name in found[0].get("class_iu", ()):
        yield (
            f"IU of {name}",
            [one["class_iu"][name] for one in found if one["class_iu"][name] is not None],
        )


def _row(name: str, values: Sequence[float]) -> str:
    if not values:
        return f"  {name[:23]:<24}{'absent':>8}"
    spread = f"{stdev(values):.4f}" if len(values) > 1 else "-"
    ends = f"{min(values):>9.4f}{max(values):>9.4f}"
    return f"  {name[:23]:<24}{mean(values):>8.4f}{spread:>9}{ends}"
