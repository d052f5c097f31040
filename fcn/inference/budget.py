"""What a predictor tries at all: what fits by estimate, and has not just been refused."""

from collections.abc import Sequence

from torch import nn

from fcn.inference.memory import MemoryEstimate
from fcn.inference.refusals import Part, Refusals
from fcn.weights.record import Checkpoint

# Of the memory that pictures leave free, what the estimate may fill.
_SHARE = 0.75
# A picture, its copies and its mask, per pixel; score maps come on top.
_PICTURE_BYTES = 8
_FLOAT_BYTES = 4


class Budget:
    """The memory of a predictor, and what is known not to fit into it.

    Attributes:
        num_refusals: How often there was no memory for a part.
    """

    def __init__(
        self,
        network: nn.Module,
        record: Checkpoint,
        scales: Sequence[float],
        memory_bytes: int | None,
    ) -> None:
        """Begin with nothing refused.

        Args:
            network: As it scores on the CPU.
            record: Its checkpoint record.
            scales: At which images are scored, `image_scale` included.
            memory_bytes: What the process may take for images; None sets no limit by estimate.
        """
        self._memory_bytes = memory_bytes
        self._score_bytes = _FLOAT_BYTES * record.num_classes
        self._refusals = Refusals()
        self._estimate: MemoryEstimate | None = None
        # An estimate keeps the network: none is made where none is asked for, as on GPUs.
        if memory_bytes is not None:
            sizes = record.in_channels, record.num_classes, scales
            self._estimate = MemoryEstimate(network, *sizes)
        self.num_refusals = 0

    def fits(
        self, part: Part, picture_pixels: int, *, with_scores: bool = False, smallest: bool
    ) -> bool:
        """Say whether a part may be tried, as far as is known.

        Args:
            part: Number, height and width of what goes through the network together.
            picture_pixels: Of the whole pictures, whose bytes are there beside it.
            with_scores: Whether the pictures' score maps are there, too.
            smallest: Whether there is no smaller part. It is tried: an image fails by what is
                true now.
        """
        if not smallest and self._refusals.passes_over(part):
            return False
        if self._memory_bytes is None or self._estimate is None:
            return True
        per_pixel = _PICTURE_BYTES + (self._score_bytes if with_scores else 0)
        free = self._memory_bytes - per_pixel * picture_pixels
        return self._estimate.num_bytes(*part) <= _SHARE * free

    def refuse(self, part: Part) -> None:
        """Take down that there was no memory for a part.

        Args:
            part: That was tried.
        """
        self.num_refusals += 1
        self._refusals.remember(part)
