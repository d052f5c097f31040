"""The steps of the rate finder, on every worker of a training."""

import torch

from fcn.training.batch import Batch
from fcn.training.distributed import rank, sum_over_workers, world_size
from fcn.training.trainer import Trainer
from fcn.weights.record import IGNORE_INDEX
from pipeline.training.ingest import Share, steps
from pipeline.training.loop import loader
from pipeline.training.metrics_log import Watch
from pipeline.training.plan import TrainingPlan
from pipeline.training.rate_range import NUM_STEPS, Tried
from pipeline.training.run_folder import TrainingRun


def try_rates(plan: TrainingPlan, trainer: Trainer, run: TrainingRun, watch: Watch) -> None:
    """Take steps at growing rates until the loss has grown too much, and write what was seen.

    Args:
        plan: Whose first stage is tried.
        trainer: With a recipe whose schedule is `range`.
        run: Where the rates and losses go.
        watch: What people see.
    """
    stage = plan.stages[0]
    share = Share(rank(), world_size(), stage.recipe.batch_size)
    tried = Tried([], [])
    batches = steps(loader(plan, stage), plan.train, share, 0, NUM_STEPS)
    for step, batch in enumerate(batches):
        progress = step / (NUM_STEPS - 1)
        loss = sum_over_workers(trainer.step(batch, step, progress)).item()
        watch.progress(step + 1, NUM_STEPS, (step + 1) / NUM_STEPS, loss)
        if not _is_labelled(batch, trainer.device):
            continue  # Its loss is 0, to which no other one falls.
        tried = Tried([*tried.rates, trainer.rate(step, progress)], [*tried.losses, loss])
        if tried.is_over:
            break
    if rank() == 0:
        run.write_rates(tried.to_csv())


def _is_labelled(batch: Batch, device: torch.device) -> bool:
    """Return whether a pixel of the step has a class, on any worker."""
    mine = any((truth != IGNORE_INDEX).any() for truth in batch.truths)
    return bool(sum_over_workers(torch.tensor(float(mine), device=device)).item())
