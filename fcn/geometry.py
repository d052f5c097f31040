"""Where the outputs of a chain of layers lie in its input: their spacing, centres and reach.

Output `o` of a chain looks at the input around pixel `stride * o + centre`, at `receptive_field`
pixels in a row. A convolution or pool with kernel k, stride s, dilation d and padding p puts its
output o around the index s * o + d * (k - 1) / 2 - p of what it reads; a transposed convolution is
the same relation read backwards. Folding this over the layers gives every alignment of the paper
(19, 27 and 31 for VGG16, 18 for AlexNet, 5 and 9 for the skips), for every input size, because
pools that round up add their surplus at the bottom and the right only.

Source: Long, Shelhamer, Darrell 2015, section 3; `coord_map` of the reference implementation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

# (height, width), or (row, column).
Size = tuple[int, int]

_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Geometry:
    """How outputs lie in the input; the default is the input itself.

    Attributes:
        stride: Input pixels from one output to the next.
        centre: Input pixel at the centre of what output 0 looks at; negative outside of the image.
        receptive_field: Input pixels in a row that one output looks at.
    """

    stride: Fraction = Fraction(1)
    centre: Fraction = Fraction(0)
    receptive_field: Fraction = Fraction(1)

    def then(self, layers: Iterable[nn.Module]) -> "Geometry":
        """Follow a chain of layers; those that look at single pixels change nothing.

        Args:
            layers: Square ones, in order.
        """
        geometry = self
        for layer in layers:
            if isinstance(layer, nn.ConvTranspose2d):
                geometry = geometry.upsampled(*_sides(layer))
            elif isinstance(layer, _WINDOWS):
                geometry = geometry.windowed(layer)
            else:
                geometry = getattr(layer, "follow", lambda before: before)(geometry)
        return geometry

    def upsampled(self, kernel_size: int, stride: int, padding: int = 0) -> "Geometry":
        """Follow a transposed convolution."""
        finer = self.stride / stride
        return Geometry(
            stride=finer,
            centre=self.centre - finer * ((kernel_size - 1) * _HALF - padding),
            receptive_field=self.receptive_field + (kernel_size - 1) * finer,
        )

    def cropped(self, first: int) -> "Geometry":
        """Leave out the outputs before `first`."""
        return Geometry(self.stride, self.centre + first * self.stride, self.receptive_field)

    def first_at(self, other: "Geometry") -> int:
        """Find this chain's output that lies where output 0 of another of the same stride lies.

        Raises:
            ValueError: None does: the two differ by a fraction of the stride.
        """
        first = (other.centre - self.centre) / self.stride
        if self.stride != other.stride or first.denominator != 1:
            raise ValueError(f"{self} and {other} do not lie on one grid")
        return int(first)

    @property
    def reach(self) -> int:
        """Input pixels that an output looks at beyond its own index times the stride, at most."""
        return int((self.receptive_field - 1) * _HALF + abs(self.centre)) + 1

    def windowed(self, layer: nn.Module) -> "Geometry":
        """Follow a convolution or a pool."""
        kernel_size, stride, padding = _sides(layer)
        extent = (kernel_size - 1) * _side(getattr(layer, "dilation", 1))
        return Geometry(
            stride=self.stride * stride,
            centre=self.centre + self.stride * (extent * _HALF - padding),
            receptive_field=self.receptive_field + extent * self.stride,
        )


def smallest_input(layers: Iterable[nn.Module]) -> int:
    """Find the smallest height or width that leaves an output after every layer.

    Args:
        layers: As for `Geometry.then`, none of them upsampling.
    """
    chain = list(layers)
    return next(size for size in range(1, 1 << 16) if _output_size(chain, size) > 0)


def _output_size(layers: Iterable[nn.Module], size: int) -> int:
    for layer in layers:
        if not isinstance(layer, _WINDOWS):
            continue
        kernel_size, stride, padding = _sides(layer)
        extent = (kernel_size - 1) * _side(getattr(layer, "dilation", 1)) + 1
        surplus = stride - 1 if getattr(layer, "ceil_mode", False) else 0
        # Zeros at the bottom and the right alone move nothing.
        surplus += getattr(layer, "trailing", 0)
        size = (size + 2 * padding - extent + surplus) // stride + 1
        if size < 1:
            return 0
    return size


def _sides(layer: nn.Module) -> tuple[int, int, int]:
    return _side(layer.kernel_size), _side(layer.stride), _side(layer.padding)


def _side(value: object) -> int:
    """Return the one number of a square layer's pair."""
    side = value[0] if isinstance(value, tuple) else value
    assert isinstance(side, int), f"{value!r} is the size of no square layer"
    return side
