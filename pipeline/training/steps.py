"""How many steps a training has, beside those of its recipe: too few give a bad network."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fcn.training.recipes import find_recipe
from pipeline.training.plan import TrainingPlan

# Of the recipe's steps: below that a training is another one.
_SHARE = 0.5


def planned_too_few(plan: TrainingPlan) -> str | None:
    """Say that large batches leave few steps; None where they do not.

    Args:
        plan: What is trained, on what, and how.
    """
    recipe = plan.stages[-1].recipe
    own = find_recipe(plan.settings.recipe, plan.settings.network).batch_size
    steps, usual = (_steps(plan, recipe.epochs, size) for size in (recipe.batch_size, own))
    decided_otherwise = plan.settings.max_train_minutes or plan.settings.find_rate
    if decided_otherwise or steps >= _SHARE * usual:
        return None
    return (
        f"batch_size={recipe.batch_size} makes {steps:,} steps of {recipe.epochs} epochs, where "
        f"{own}, the recipe's, makes {usual:,}; a network needs steps: raise epochs, to "
        f"{math.ceil(recipe.epochs * usual / steps)} for as many"
    )


def done_too_few(plan: TrainingPlan, lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Say that the time limit has ended a training early; None where it has not.

    Args:
        plan: What is trained, on what, and how.
        lines: The lines of its evaluations.
    """
    if not plan.settings.max_train_minutes or not lines:
        return None
    last, recipe = lines[-1], plan.stages[-1].recipe
    stopped_early = last["seconds"] < round(plan.stage_limit_s, 3)
    if stopped_early or last["epoch"] >= _SHARE * recipe.epochs:
        return None
    return (
        f"max_train_minutes={plan.settings.max_train_minutes:g} was enough for {last['step']:,} "
        f"steps, {last['epoch']:.1f} epochs of the {recipe.epochs} that the recipe has: the "
        "network is not what it could be; give it more time or a faster machine"
    )


def _steps(plan: TrainingPlan, epochs: int, batch_size: int) -> int:
    num_images: int = plan.train.num_rows
    return math.ceil(epochs * num_images / batch_size)
