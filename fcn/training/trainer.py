"""Training: one step, one evaluation, and the state between them; images in, numbers out.

A step is defined by its images alone. It is the same on one worker or many, in one pass or in
micro-batches, as far as floating point allows: the loss is divided by what the whole step has.
"""

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fcn.architectures import AUXILIARY, BLOCKS, ENCODERS
from fcn.inference.memory import if_it_fits
from fcn.inference.predictor import Prediction, Predictor
from fcn.inference.preprocess import Preprocess
from fcn.inference.uploads import stack
from fcn.metrics import ConfusionMatrix
from fcn.models import Network
from fcn.training.auxiliary import RATE, WithAuxiliary
from fcn.training.batch import Batch
from fcn.training.batch_norm import share_batch_norms
from fcn.training.distributed import sum_over_workers, world_size
from fcn.training.dropout import seed_dropout
from fcn.training.losses import at_size_of, cross_entropy_sum, divisor
from fcn.training.micro_batches import MicroBatches
from fcn.training.recipes import Recipe
from fcn.training.recomputed import recompute_blocks
from fcn.training.region_losses import region_loss_sum
from fcn.weights.record import IGNORE_INDEX, Checkpoint

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_EVALUATED_TOGETHER = 8
# Steps after which what fits is known: after the first one, the optimizer holds its state.
_UNPROVEN_STEPS = 2
# Of all classes over the images that are evaluated together: 256 MiB in float32.
_MAX_SCORES = 1 << 26

Tensors = dict[str, torch.Tensor]
Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
_Rated = tuple[str, nn.Parameter, float]


@dataclass(frozen=True)
class Evaluation:
    """How a network does on labelled images.

    Attributes:
        matrix: Pixels by their class in the ground truth and in the mask.
        loss: Mean cross-entropy of the labelled pixels, all classes weighing alike, in nats; NaN
            without a labelled pixel.
    """

    matrix: ConfusionMatrix
    loss: float


class Trainer:
    """A network that is being trained, on one device of one worker."""

    def __init__(  # noqa: PLR0913 - keyword-only, one per thing that a worker can choose
        self,
        network: Network,
        record: Checkpoint,
        recipe: Recipe,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        class_weights: Sequence[float] | None = None,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        """Move the network to the device and make its optimizer.

        Args:
            network: With the weights to start from.
            record: How images are brought to the network.
            recipe: How it is trained.
            device: As PyTorch names it.
            precision: Of the forward pass: `fp32`, or `bf16` by autocast. Weights, loss and
                gradients of the weights are float32 in both.
            class_weights: The class weights of the loss; None weighs all alike.
            gradient_checkpointing: Whether the network's blocks (`fcn.architectures.BLOCKS`) forget
                their activations and compute them again; the numbers stay the same.
            seed: Of dropout.
        """
        self._device = torch.device(device)
        # As `Predictor` has it, so that the first evaluation changes nothing.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        self._record = record
        self._recipe = recipe
        self._dtype = PRECISIONS[precision]
        self._precision = precision
        self._seed = seed
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self._trained: nn.Module = self._network
        if recipe.auxiliary_loss:
            place = AUXILIARY[record.network]
            self._trained = WithAuxiliary(self._network, place, record.num_classes)
            self._trained.to(self._device).to(memory_format=torch.channels_last)
        self._frozen = _freeze(self._network, record.network) if not recipe.encoder_rate else []
        self._train()
        self._dropouts = seed_dropout(self._trained)
        self._average = copy.deepcopy(self._network).eval() if recipe.ema_decay else None
        if gradient_checkpointing:
            recompute_blocks(self._network, BLOCKS[record.network])
        shared = share_batch_norms(self._trained, self._device)
        self._parallel: nn.Module = (
            DistributedDataParallel(shared) if world_size() > 1 else self._trained
        )
        self._preprocess = Preprocess(record).to(self._device)
        self._weights = (
            None
            if class_weights is None
            else torch.tensor(class_weights, dtype=torch.float32, device=self._device)
        )
        self._optimizer = _make_optimizer(self._rates(), recipe)
        self._parts = MicroBatches(recipe, self._device)
        self._steps_taken = 0
        self._gradient_norm = torch.tensor(math.nan)

    @property
    def network(self) -> Network:
        """What is evaluated and kept: the running mean of the weights, if the recipe has one."""
        return self._network if self._average is None else self._average

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._device

    @property
    def gradient_norm(self) -> float:
        """Euclidean norm of the gradients of the last step, before any clipping; NaN before it.

        Reading it waits for the device.
        """
        return self._gradient_norm.item()

    @property
    def micro_batch_size(self) -> int | None:
        """Images that pass together at most, by the recipe, or as memory has it; None: all."""
        return self._parts.size

    def step(self, batch: Batch, step: int, progress: float) -> torch.Tensor:
        """Take one step of the optimizer; all workers call it together.

        If there is no memory for the first steps, a lone worker passes half as many images
        together, and again, down to one.

        Args:
            batch: This worker's images: its share of the recipe's `batch_size`.
            step: Steps done before.
            progress: Share of the training that is done, 0 to 1, for the schedule.

        Returns:
            What this worker's images add to the loss of the step: a scalar on the device, to be
            summed over the workers.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate(step, progress) * group["factor"]
        loss = self._fitted(batch, progress)
        self._gradient_norm = self._clip_gradients()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._follow(step)
        self._steps_taken += 1
        return loss

    def _fitted(self, batch: Batch, progress: float) -> torch.Tensor:
        """Sum up the gradients of a step, in smaller parts while memory is short."""
        # Of several, the others would wait for a pass that one of them has to repeat.
        while self._steps_taken < _UNPROVEN_STEPS and world_size() == 1:
            # What a pass that is cut off has changed beside gradients: running means.
            before = [buffer.clone() for buffer in self._trained.buffers()]
            loss = if_it_fits(self._gradients, batch, progress)
            if loss is not None:
                return loss
            self._optimizer.zero_grad()
            for buffer, value in zip(self._trained.buffers(), before, strict=True):
                buffer.copy_(value)
            if not self._parts.halve(batch):
                break
        return self._gradients(batch, progress)

    def _gradients(self, batch: Batch, progress: float) -> torch.Tensor:
        """Sum up the gradients of a step. Returns what this worker adds to its loss."""
        micro_batches = list(self._parts.divide(batch))
        parts = [self._to_device(part) for part in micro_batches]
        total = sum_over_workers(
            torch.stack(
                [divisor(self._recipe.divisor, part[1], self._weights) for part in parts]
            ).sum()
        )
        # Nothing to divide by: `one`, or a step without any labelled pixel.
        total = torch.where(total > 0, total, 1.0).float()
        loss = torch.zeros((), device=self._device)
        for index, (images, truths) in enumerate(parts):
            self._seed_dropout(micro_batches[index].places)
            with self._summing(last=index == len(parts) - 1):
                part = self._loss(images, truths, total, progress)
                # DistributedDataParallel takes the mean of the workers' gradients.
                (part * world_size()).backward()  # type: ignore[no-untyped-call]  # PyTorch's
            loss += part.detach()
        return loss

    def evaluate(self, samples: Iterable[Labelled]) -> Evaluation:
        """Label images as a replica does and compare with their ground truth, at their own size.

        Args:
            samples: Image and truth, as in `Batch`; this worker's share.

        Returns:
            Of the samples of all workers.

        Raises:
            FloatingPointError: Scores are not finite; on all workers, if they are on one.
        """
        predictor = self._predictor()
        matrix, loss, failed = ConfusionMatrix.zeros(self._record.num_classes), 0.0, 0
        try:
            for some in _together(samples, self._record.num_classes):
                for found, (_, truth) in zip(_predict(predictor, some), some, strict=True):
                    matrix += ConfusionMatrix.of(truth, found.mask, self._record.num_classes)
                    loss += _loss_of(found, truth)
        except FloatingPointError:
            failed = 1
        self._train()
        if sum_over_workers(torch.tensor(failed, device=self._device)).item():
            raise FloatingPointError("scores of val are not finite")
        counts = sum_over_workers(torch.from_numpy(matrix.counts.copy()).to(self._device))
        summed = torch.tensor(loss, dtype=torch.float64, device=self._device)
        total = sum_over_workers(summed).item()
        num_pixels = int(counts.sum())
        mean = total / num_pixels if num_pixels else math.nan
        return Evaluation(ConfusionMatrix(counts.cpu().numpy()), mean)

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Label images with the network as it is now.

        Args:
            images: RGB, uint8 of shape (H, W, 3) each.

        Returns:
            Class indices, uint8 of shape (H, W) each.
        """
        found = _whole(self._predictor().predict(images))
        self._train()
        return [one.mask for one in found]

    def state(self) -> Tensors:
        """Return all tensors that the next step depends on, by name, on the CPU.

        Raises:
            FloatingPointError: Weights are not finite: this state is not worth keeping.
        """
        tensors = _named("network", self._network.state_dict())
        if self._average is not None:
            tensors |= _named("average", self._average.state_dict())
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise FloatingPointError(f"{name} is not finite")
        if isinstance(self._trained, WithAuxiliary):
            tensors |= _named("auxiliary", self._trained.head.state_dict())
        for index, values in self._optimizer.state_dict()["state"].items():
            tensors |= _named(f"optimizer/{index}", values)
        return tensors

    def restore(self, tensors: Tensors) -> None:
        """Go back to a state.

        Args:
            tensors: From `state`, of the same network and recipe.
        """
        self._network.load_state_dict(_below("network", tensors))
        if self._average is not None:
            self._average.load_state_dict(_below("average", tensors))
        if isinstance(self._trained, WithAuxiliary):
            self._trained.head.load_state_dict(_below("auxiliary", tensors))
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _below("optimizer", tensors).items():
            index, _, value = name.partition("/")
            states.setdefault(int(index), {})[value] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate of a step, for whoever shows it."""
        return self._recipe.rate(step, progress)

    def _train(self) -> None:
        self._trained.train()
        for module in self._frozen:
            module.eval()

    def _predictor(self) -> Predictor:
        return Predictor(
            self.network, self._record, device=str(self._device), precision=self._precision
        )

    def _seed_dropout(self, places: Sequence[int]) -> None:
        for dropout in self._dropouts:
            dropout.expect([f"{self._seed} {place}" for place in places])

    def _to_device(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        images, truths = (stack(some, self._device) for some in (part.images, part.truths))
        return (
            images.to(self._device, non_blocking=True),
            truths.to(self._device, non_blocking=True).long(),
        )

    def _loss(
        self, images: torch.Tensor, truths: torch.Tensor, total: torch.Tensor, progress: float
    ) -> torch.Tensor:
        """Return what some images add to the loss of the step, whose divisor is `total`."""
        half = self._dtype is not torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=half):
            scores = self._parallel(self._preprocess(images))
        auxiliary = None
        if isinstance(self._trained, WithAuxiliary):
            scores, auxiliary = scores
        scores = at_size_of(truths, scores)
        loss = self._cross_entropy(scores, truths)
        if auxiliary is not None:
            of_head = self._cross_entropy(at_size_of(truths, auxiliary), truths)
            loss = loss + self._recipe.auxiliary_loss * of_head
        return loss / total + self._region_loss(scores, truths, progress)

    def _cross_entropy(self, scores: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
        return cross_entropy_sum(scores, truths, self._weights, self._recipe.label_smoothing)

    def _region_loss(
        self, scores: torch.Tensor, truths: torch.Tensor, progress: float
    ) -> torch.Tensor | float:
        recipe = self._recipe
        if recipe.region_loss == "none" or progress < recipe.region_loss_from:
            return 0.0
        return region_loss_sum(recipe.region_loss, scores, truths) / recipe.batch_size

    def _clip_gradients(self) -> torch.Tensor:
        """Scale large gradients down. Returns their norm before that.

        They are those of all workers together: they have been summed.
        """
        trained = list(self._trained.parameters())
        if self._recipe.max_gradient_norm:
            return nn.utils.clip_grad_norm_(trained, self._recipe.max_gradient_norm)
        return nn.utils.get_total_norm([one.grad for one in trained if one.grad is not None])

    def _rates(self) -> list[_Rated]:
        """Return what is trained: name, parameter, and the factor of its learning rate."""
        encoder = ENCODERS.get(self._record.network)
        rated = [
            (name, one, self._recipe.encoder_rate if encoder and name.startswith(encoder) else 1.0)
            for name, one in self._network.named_parameters()
            if one.requires_grad
        ]
        if isinstance(self._trained, WithAuxiliary):
            rated += [(name, one, RATE) for name, one in self._trained.head.named_parameters()]
        return rated

    def _summing(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Sum gradients over the workers once per step, with its last micro-batch."""
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._parallel.no_sync()

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the running mean of the weights; early on it forgets faster."""
        if self._average is None:
            return
        decay = min(self._recipe.ema_decay, (1 + step) / (10 + step))
        current, averages = self._network.state_dict(), self._average.state_dict()
        moved = [name for name, mean in averages.items() if mean.is_floating_point()]
        torch._foreach_lerp_(
            [averages[name] for name in moved], [current[name] for name in moved], 1 - decay
        )
        for name in averages.keys() - moved:
            averages[name].copy_(current[name])


def _together(samples: Iterable[Labelled], num_classes: int) -> Iterator[list[Labelled]]:
    """Group samples that are evaluated together, as far as memory for their scores goes."""
    some: list[Labelled] = []
    for sample in samples:
        scores = num_classes * sum(truth.size for _, truth in [*some, sample])
        if some and (len(some) == _EVALUATED_TOGETHER or scores > _MAX_SCORES):
            yield some
            some = []
        some.append(sample)
    if some:
        yield some


def _predict(predictor: Predictor, samples: Sequence[Labelled]) -> list[Prediction]:
    images = [image for image, _ in samples]
    return _whole(predictor.predict(images, with_scores=True))


def _whole(found: Sequence[Prediction | None]) -> list[Prediction]:
    whole = [one for one in found if one is not None]
    assert len(whole) == len(found), "what is trained on fits in memory"
    return whole


def _loss_of(found: Prediction, truth: NDArray[np.uint8]) -> float:
    """Sum the cross-entropy over the labelled pixels of an image."""
    scores_1CHW = torch.from_numpy(found.scores)[None]
    truth_1HW = torch.from_numpy(truth).long()[None]
    loss = F.cross_entropy(scores_1CHW, truth_1HW, ignore_index=IGNORE_INDEX, reduction="none")
    return loss.sum(dtype=torch.float64).item()


def _freeze(network: nn.Module, name: str) -> list[nn.Module]:
    """Exclude a network's encoder from training. Returns it, to be kept in evaluation mode."""
    encoder = network.get_submodule(ENCODERS[name].removesuffix("."))
    encoder.requires_grad_(requires_grad=False)
    return [encoder]


def _make_optimizer(rated: Iterable[_Rated], recipe: Recipe) -> torch.optim.Optimizer:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, rate in rated:
        kernel = parameter.ndim > 1
        factor = rate if kernel or not name.endswith("bias") else rate * recipe.bias_rate
        decay = recipe.weight_decay if kernel else 0.0
        groups.setdefault((decay, factor), []).append(parameter)
    given = [
        {"params": some, "weight_decay": decay, "factor": factor}
        for (decay, factor), some in groups.items()
    ]
    # All tensors in one call, to the same bits; PyTorch's default does it on GPUs only.
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            given, lr=recipe.learning_rate, momentum=recipe.momentum, foreach=True
        )
    return torch.optim.AdamW(given, lr=recipe.learning_rate, foreach=True)


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {
        f"{prefix}/{name}": tensor.detach().cpu().contiguous()
        for name, tensor in tensors.items()
        if tensor is not None
    }


def _below(prefix: str, tensors: Tensors) -> Tensors:
    start = f"{prefix}/"
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
