"""The loop of a stage: step after step, evaluations and checkpoints between them.

Worker 0 writes checkpoints and metrics. What ends the training for all is agreed upon by all, so
that none waits for another; what happens to one worker alone raises, and Ray Train starts the
workers again from the last checkpoint.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import torch

from fcn.training.batch import Batch
from fcn.training.distributed import rank, sum_over_workers, world_size
from fcn.training.trainer import Evaluation, Trainer
from fcn.weights.files import save
from pipeline.errors import Diverged, ErrorCode, PipelineError, StoreError
from pipeline.images.augment import Augment
from pipeline.inputs.samples import Sample
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.ingest import Load, Reader, Share, samples, steps
from pipeline.training.metrics_log import Watch
from pipeline.training.plan import Stage, TrainingPlan
from pipeline.training.run_folder import TrainingRun
from pipeline.training.state_file import Position, to_bytes

# Losses are looked at together: reading each one would make a GPU wait for the CPU.
_LOSSES_AT_A_TIME = 10
_NUM_SHOWN = 3


class Ended(Exception):
    """The training ends here, on all workers: they have agreed on it."""

    def __init__(self, error: PipelineError) -> None:
        """Take the reason along.

        Args:
            error: What the command ends with.
        """
        super().__init__(str(error))
        self.error = error


def train_stage(
    plan: TrainingPlan, trainer: Trainer, position: Position, run: TrainingRun, watch: Watch
) -> Position:
    """Train from a position to the end of its stage.

    Args:
        plan: The run's plan.
        trainer: In the state of the position.
        position: How far the stage is.
        run: Where checkpoints go.
        watch: What people see.

    Returns:
        The position at the end.

    Raises:
        Ended: The loss is no number any more, or a checkpoint can't be written.
    """
    with closing(Checkpoints(run)) as checkpoints:
        loop = _Loop(plan, trainer, position, checkpoints, watch)
        if not loop.at_end:
            loop.train()
    return loop.position


class _Loop:
    def __init__(
        self,
        plan: TrainingPlan,
        trainer: Trainer,
        position: Position,
        checkpoints: Checkpoints,
        watch: Watch,
    ) -> None:
        self.position = position
        self._plan = plan
        self._stage = plan.stages[position.stage]
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._watch = watch
        self._num_steps = plan.num_steps(self._stage)
        self._load = loader(plan, self._stage)
        self._pending: list[torch.Tensor] = []
        self._rate = trainer.rate(position.step, self._share)
        self._since_saved = position
        self._since_evaluated = position
        self._epochs_said = self._epoch(position)
        self._part_said = trainer.micro_batch_size

    @property
    def at_end(self) -> bool:
        """Return whether the stage has had its steps or its time, or gets no better."""
        return self._share >= 1 or self._stopped_early

    @property
    def _stopped_early(self) -> bool:
        patience = self._plan.settings.early_stopping_evaluations
        return patience is not None and self.position.num_not_better >= patience

    @property
    def _share(self) -> float:
        """The share of the stage that is done, 0 to 1."""
        of_steps = self.position.step / self._num_steps if self._num_steps else 0.0
        return min(1.0, max(of_steps, self.position.seconds / self._plan.stage_limit_s))

    def train(self) -> None:
        batches = self._batches()
        batch = next(batches)
        # Start-up ends with the first images; from now on waiting for them counts.
        mark = time.monotonic()
        while True:
            self._rate = self._trainer.rate(self.position.step, self._share)
            self._pending.append(self._trainer.step(batch, self.position.step, self._share))
            # Read before workers wait for each other and for their GPUs: that belongs to the next.
            now = time.monotonic()
            self._advance(now - mark)
            mark = now
            if len(self._pending) >= _LOSSES_AT_A_TIME:
                self._look_at_losses()
            if self.at_end or self._evaluation_due():
                self._evaluate()
                mark = time.monotonic()
            if self.at_end or self._checkpoint_due():
                self._save()
                mark = time.monotonic()
            self._say_part()
            self._say_epoch()
            self._say_early_end()
            if self.at_end:
                self._together(self._checkpoints.wait)
                return
            batch = next(batches)

    def _batches(self) -> Iterator[Batch]:
        share = Share(rank(), world_size(), self._stage.recipe.batch_size)
        table, first = self._plan.train, self.position.step
        return steps(self._load, table, share, first, self._num_steps)

    def _advance(self, seconds: float) -> None:
        """Count a step; the time is that of worker 0, so that all agree on what is due."""
        agreed = seconds
        if world_size() > 1:
            mine = seconds if rank() == 0 else 0.0
            agreed = sum_over_workers(torch.tensor(mine, device=self._trainer.device)).item()
        self.position = dataclasses.replace(
            self.position,
            step=self.position.step + 1,
            total_steps=self.position.total_steps + 1,
            seconds=self.position.seconds + agreed,
        )

    def _look_at_losses(self) -> None:
        """Sum the losses over the workers and show them; a training that has gone wrong ends."""
        if not self._pending:
            return
        losses = sum_over_workers(torch.stack(self._pending)).tolist()
        self._pending.clear()
        for index, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = self.position.total_steps - len(losses) + index + 1
                raise Ended(self._diverged(f"the loss of step {step} is {loss}"))
        self.position = dataclasses.replace(
            self.position,
            loss_sum=self.position.loss_sum + math.fsum(losses),
            num_losses=self.position.num_losses + len(losses),
        )
        norm = self._trainer.gradient_norm
        self._watch.losses(self.position.total_steps, losses, self._rate, norm)
        self._watch.progress(self.position.step, self._num_steps, self._share, losses[-1])

    def _epoch(self, position: Position) -> int:
        num_images: int = self._plan.train.num_rows
        return position.step * self._stage.recipe.batch_size // num_images

    def _say_epoch(self) -> None:
        """Say that an epoch has ended that was not evaluated."""
        epoch = self._epoch(self.position)
        if epoch > self._epochs_said and self._since_evaluated != self.position:
            self._look_at_losses()
            loss = self.position.loss_sum / self.position.num_losses
            self._watch.say(
                f"epoch {epoch}, step {self.position.step}: loss {loss:.4g} since the last "
                f"evaluation, rate {self._rate:.3g}"
            )
        self._epochs_said = epoch

    def _say_part(self) -> None:
        """Say that memory was short; a batch norm then sees fewer images at a time."""
        size = self._trainer.micro_batch_size
        if size != self._part_said:
            self._part_said = size
            self._watch.say(
                f"memory is short for a step in one pass: {size} images at a time pass through "
                f"the network from now on, as with micro_batch_size={size}"
            )

    def _say_early_end(self) -> None:
        if self._stopped_early and self._share < 1:
            self._watch.say(
                f"stopped early, {self._share:.0%} done: {self.position.num_not_better} "
                f"evaluations in a row have not raised the mean IU of "
                f"{self.position.best_mean_iu:.4f} (early_stopping_evaluations)"
            )

    def _evaluation_due(self) -> bool:
        interval = self._plan.settings.evaluation_interval_epochs
        before, now = self._since_evaluated, self.position
        return self._epoch(now) // interval > self._epoch(before) // interval

    def _checkpoint_due(self) -> bool:
        elapsed = self.position.seconds - self._since_saved.seconds
        return elapsed >= self._plan.settings.checkpoint_interval_s

    def _evaluate(self) -> None:
        self._look_at_losses()
        found = self._measure()
        better = self.at_end if found is None else self._compare(found)

        def keep() -> None:
            self._show(found, better=better)
            self._checkpoints.write(self._watch.files())
            if better:
                self._checkpoints.keep_best(save(self._stage.record, self._trainer.network)[1])

        self._together(keep)
        self.position = dataclasses.replace(self.position, loss_sum=0.0, num_losses=0)
        self._since_evaluated = self.position

    def _compare(self, found: Evaluation) -> bool:
        """Return whether an evaluation is the best so far, and count those that were not."""
        now, best = found.matrix.metrics().mean_iu, self.position.best_mean_iu
        better = best is None or now > best
        self.position = dataclasses.replace(
            self.position,
            best_mean_iu=now if better else best,
            num_not_better=0 if better else self.position.num_not_better + 1,
        )
        return better

    def _measure(self) -> Evaluation | None:
        if not self._plan.val.num_rows:
            return None
        mine = self._plan.val.take(list(range(rank(), self._plan.val.num_rows, world_size())))
        try:
            return self._trainer.evaluate(samples(self._load, mine))
        except FloatingPointError as error:
            raise Ended(self._diverged(str(error))) from error

    def _show(self, found: Evaluation | None, *, better: bool) -> None:
        now, before = self.position, self._since_evaluated
        shown = (now.step - before.step) * self._stage.recipe.batch_size
        line = {
            "stage": now.stage,
            "network": self._stage.record.network,
            "epoch": round(now.step * self._stage.recipe.batch_size / self._plan.train.num_rows, 3),
            "step": now.step,
            "total_steps": now.total_steps,
            "seconds": round(now.seconds, 3),
            "loss": now.loss_sum / now.num_losses,
            "learning_rate": self._rate,
            "images_per_s": round(shown / max(now.seconds - before.seconds, 1e-9), 2),
            "best": better,
        }
        self._watch.evaluation(line, found)
        if found is not None:
            first = self._plan.val.slice(0, _NUM_SHOWN).to_pylist()
            some = [self._load.read(Sample(**row)) for row in first]
            masks = self._trainer.predict([image for image, _ in some])
            rows = [(*sample, mask) for sample, mask in zip(some, masks, strict=True)]
            self._watch.strip(now.total_steps, rows)

    def _save(self) -> None:
        """Write what a killed run goes on from."""
        self._look_at_losses()

        def write() -> None:
            last = to_bytes(self.position, self._trainer.state())
            # What a resumed run has behind it stands in the metrics; what it has not is cut off.
            self._checkpoints.write(self._watch.files(), last)

        self._together(write)
        self._since_saved = self.position

    def _together(self, work: Callable[[], None]) -> None:
        """Let worker 0 do something, and end the training on all of them if it fails."""
        error: PipelineError | None = None
        if rank() == 0:
            try:
                work()
            except FloatingPointError as problem:
                error = self._diverged(str(problem))
            except PipelineError as problem:
                error = problem
        flag = torch.tensor(float(error is not None), device=self._trainer.device)
        if sum_over_workers(flag).item():
            raise Ended(error or StoreError(ErrorCode.TIMEOUT, "worker 0 could not write"))

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"after step {self.position.total_steps}, at a learning rate of {self._rate:.3g}, "
            f"{what}: the training has diverged. The checkpoint before it stands. Give a lower "
            "learning_rate and another run_name; start weights that want another mean and std, "
            "or ground truth that is wrong, do this too"
        )


def loader(plan: TrainingPlan, stage: Stage) -> Load:
    """Return what loads the images of a stage."""
    settings, varied = plan.settings, stage.recipe.augmentation
    return Load(
        Reader(plan.storage, plan.coding, settings.max_image_pixels, settings.io_threads),
        Augment(**dataclasses.asdict(varied), seen_at=stage.record.image_scale),
        settings.seed,
    )
