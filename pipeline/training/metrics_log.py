"""What people watch: metrics.jsonl, TensorBoard's files, and messages to the driver.

Only worker 0 watches. A bucket takes no appends: metrics.jsonl, which is small, is written anew,
and TensorBoard gets a further file, collected in a temporary folder, at each writing.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from fcn.metrics import Metrics
from fcn.training.trainer import Evaluation
from fcn.weights.classes import ClassLabel
from pipeline.training.run_folder import TrainingRun

_MESSAGE_INTERVAL_S = 0.5
_GREY = 128
# Of each of the three pictures side by side, in pixels.
_STRIP_WIDTH = 512
# Of the picture of a confusion matrix, in pixels, about; and the colour of all of a class.
_CONFUSION_SIDE = 512
_BLUE = np.array([8, 48, 107])

Message = dict[str, Any]


class Watch:
    """Keeps what is measured, and tells the driver."""

    def __init__(
        self,
        run: TrainingRun,
        classes: Sequence[ClassLabel],
        step: int,
        send: Callable[[Message], None],
    ) -> None:
        """Resume from what the run has measured up to a step; later lines are forgotten.

        Args:
            run: Whose folder the files are in.
            classes: For the names and colours.
            step: Steps done, over all stages.
            send: Takes messages to the driver.
        """
        self._run = run
        self._names = [label.name for label in classes]
        self._legend = (
            "The share of a class's pixels (rows, from above) that is predicted as each class "
            f"(columns, from the left): {', '.join(self._names)}"
        )
        self._palette = np.full((256, 3), _GREY, np.uint8)
        self._palette[: len(classes)] = [label.color for label in classes]
        self._lines = [line for line in run.metrics() if line["total_steps"] <= step]
        self._folder = tempfile.TemporaryDirectory(prefix="fcn-tensorboard-")
        # TensorBoard forgets the steps that a killed process did and this one does again.
        self._writer = SummaryWriter(self._folder.name, purge_step=step + 1)
        self._started_at, self._num_files = int(time.time()), 0
        self._send = send
        self._sent_at = 0.0

    def __enter__(self) -> Self:
        """Watch from now on."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the temporary folder."""
        self._writer.close()
        self._folder.cleanup()

    def say(self, text: str) -> None:
        """Send a line for the log."""
        self._send({"say": text})

    def progress(self, step: int, of: int | None, share: float, loss: float) -> None:
        """Tell how far the training is, now and then.

        Args:
            step: Steps done.
            of: Steps planned; None if the time limit alone ends it.
            share: Of the training that is done, 0 to 1.
            loss: The loss of the last step.
        """
        if time.monotonic() - self._sent_at > _MESSAGE_INTERVAL_S:
            self._sent_at = time.monotonic()
            self._send({"step": step, "of": of, "share": share, "loss": loss})

    def losses(self, last: int, losses: Sequence[float], rate: float, gradient_norm: float) -> None:
        """Keep the losses of the steps up to `last`, and rate and norm of the gradients of that."""
        for step, loss in enumerate(losses, start=last - len(losses) + 1):
            self._writer.add_scalar("train/loss", loss, step)
        self._writer.add_scalar("train/learning_rate", rate, last)
        self._writer.add_scalar("train/gradient_norm", gradient_norm, last)

    def evaluation(self, line: Message, evaluation: Evaluation | None) -> None:
        """Keep an evaluation, and send its line.

        Args:
            line: What is known of the training at this point.
            evaluation: On val; None without one.
        """
        found: dict[str, Any] = {}
        step = line["total_steps"]
        if evaluation is not None:
            metrics = _described(evaluation.matrix.metrics(), self._names)
            found = {"val_loss": evaluation.loss, **metrics}
            pixels = _confusion(evaluation.matrix.counts)
            self._writer.add_image("val/confusion_matrix", pixels, step, dataformats="HWC")
            self._writer.add_text("val/confusion_matrix", self._legend, step)
        line = {**line, **found, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        self._lines.append(line)
        self._writer.add_scalar("train/images_per_s", line["images_per_s"], step)
        for name, value in found.items():
            if name != "class_iu":
                self._writer.add_scalar(f"val/{name.removeprefix('val_')}", value, step)
        for name, value in found.get("class_iu", {}).items():
            if value is not None:
                self._writer.add_scalar(f"val_class_iu/{name}", value, step)
        self._send({"evaluation": line})

    def strip(
        self,
        step: int,
        rows: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]],
    ) -> None:
        """Keep a picture: image, truth and prediction side by side, a row per image.

        Args:
            step: Steps done, over all stages.
            rows: Image (H, W, 3), truth (H, W) and prediction (H, W), all uint8.
        """
        for index, (image, truth, prediction) in enumerate(rows):
            # Whole pixels are left out: classes have no colours between them.
            every = slice(None, None, -(-image.shape[1] // _STRIP_WIDTH))
            parts = [image, self._palette[truth], self._palette[prediction]]
            side_by_side = np.hstack([part[every, every] for part in parts])
            self._writer.add_image(f"val/{index}", side_by_side, step, dataformats="HWC")

    def files(self) -> list[tuple[str, bytes]]:
        """Return what is new, as files that belong into the run's folder: URI and content."""
        self._writer.close()
        found = [self._run.metrics_file(self._lines)]
        for path in sorted(Path(self._folder.name).iterdir()):
            # TensorBoard reads files in the order of their names.
            name = f"events.out.tfevents.{self._started_at:010d}.{self._num_files:06d}"
            found.append((f"{self._run.folder}/tensorboard/{name}", path.read_bytes()))
            self._num_files += 1
            path.unlink()
        self._writer = SummaryWriter(self._folder.name)
        return found


def _confusion(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw a confusion matrix, from white to blue; matplotlib would write to the worker's home.

    Args:
        counts: Of shape (classes, classes): ground truth in rows, prediction in columns.

    Returns:
        RGB of shape (H, W, 3), one square for each pair.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colours = 255 + shares[..., np.newaxis] * (_BLUE - 255)
    side = max(1, _CONFUSION_SIDE // len(counts))
    pixels: NDArray[np.uint8] = colours.round().astype(np.uint8)
    return pixels.repeat(side, axis=0).repeat(side, axis=1)


def _described(metrics: Metrics, names: Sequence[str]) -> dict[str, Any]:
    """Return the paper's four metrics and the IU per class; None for classes that are absent."""
    shares = metrics.class_iu.tolist()
    return {
        "pixel_accuracy": metrics.pixel_accuracy,
        "mean_accuracy": metrics.mean_accuracy,
        "mean_iu": metrics.mean_iu,
        "frequency_weighted_iu": metrics.frequency_weighted_iu,
        "class_iu": {
            name: None if np.isnan(share) else share
            for name, share in zip(names, shares, strict=True)
        },
    }
