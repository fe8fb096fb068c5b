"""The shape of the paper's network (appendix B.3) in whole numbers, so that what a file or a constructor asks for is
judged before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

from ..._lazy import lazy

__all__ = ["Layer", "Layout", "as_image_shape"]

# Images are halved until a side has this many pixels.
SMALLEST_SIDE = 4
MOST_PARAMETERS = 2**30
# A part of a batch takes a fraction of a second (so that Ctrl-C is answered) and this much memory for its activations.
PART_FLOPS, PART_BYTES = 25 * 10**9, 256 * 2**20


class Layer(NamedTuple):
    """A convolution, 3×3: channels in and out, its stride, and the height and width of what comes out."""

    n_in: int
    n_out: int
    stride: int
    height: int
    width: int


@dataclass(frozen=True)
class Layout:
    """3×3 convolutions with LeakyReLU, some of stride 2 at which the width doubles, and one fully connected layer.

    Parameters
    ----------
    image_shape : (height, width, channels)
    n_classes : int
        C.
    width : int
        Channels of the first layers.
    depth : int
        Convolutions. They halve the image until its smaller side has four pixels (28 → 14 → 7 → 4), at most once per
        layer and at evenly spaced layers, the last of all among them.
    """

    image_shape: tuple[int, int, int]
    n_classes: int
    width: int
    depth: int

    @lazy
    def layers(self) -> tuple[Layer, ...]:
        """The convolutions, first to last."""
        height, width, channels = self.image_shape
        halvings = _halvings(min(height, width), self.depth)
        strided = {(i + 1) * self.depth // halvings - 1 for i in range(halvings)}
        layers, n_out = [], self.width
        for i in range(self.depth):
            stride = 2 if i in strided else 1
            n_out *= stride
            height, width = -(-height // stride), -(-width // stride)
            layers.append(Layer(channels, n_out, stride, height, width))
            channels = n_out
        return tuple(layers)

    @property
    def n_features(self) -> int:
        """d."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def n_last(self) -> int:
        """Values that the fully connected layer reads."""
        last = self.layers[-1]
        return last.n_out * last.height * last.width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, by its name in the network and in files."""
        return dict(self._shapes())

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for i, layer in enumerate(self.layers):
            yield f"convolutions.{i}.weight", (layer.n_out, layer.n_in, 3, 3)
            yield f"convolutions.{i}.bias", (layer.n_out,)
        yield "output.weight", (self.n_classes, self.n_last)
        yield "output.bias", (self.n_classes,)

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        weights = sum(layer.n_out * (9 * layer.n_in + 1) for layer in self.layers)
        return weights + self.n_classes * (self.n_last + 1)

    @property
    def n_products(self) -> int:
        """Multiplications of a forward pass of one image."""
        pixels = sum(9 * layer.n_in * layer.n_out * layer.height * layer.width for layer in self.layers)
        return pixels + self.n_classes * self.n_last

    def check(self) -> None:
        """Raise for a network that no machine is meant to hold."""
        if self.n_parameters > MOST_PARAMETERS:
            raise ValueError(
                f"width={self.width} and depth={self.depth} make a network of {self.n_parameters:.1e} parameters for "
                f"images {self.image_shape}, more than {MOST_PARAMETERS:.1e}; lower them"
            )

    def rows_at_once(self, passes: int, itemsize: int = 4) -> int:
        """Images per part of a batch, if each costs this many forward passes."""
        flops = 2 * passes * self.n_products
        activations = self.n_features + sum(layer.n_out * layer.height * layer.width for layer in self.layers)
        return max(1, min(PART_FLOPS // flops, PART_BYTES // (2 * itemsize * activations)))


def _halvings(side: int, depth: int) -> int:
    count = 0
    while side > SMALLEST_SIDE and count < depth:
        side, count = -(-side // 2), count + 1
    return count


def as_image_shape(image_shape: Any, d: int) -> tuple[int, int, int]:
    """(height, width, channels) of images with d values: as given, one -1 filled in, or inferred for square ones.

    Raises
    ------
    ValueError
        A shape that is none, that d does not fit, or d = d of no square image with 1 or 3 channels.
    """
    if image_shape is None:
        for channels in (1, 3):
            side = round((d / channels) ** 0.5)
            if side * side * channels == d and d:
                return side, side, channels
        raise ValueError(
            f"X has {d} features, which make no square image of 1 or 3 channels; pass image_shape=(height, width, "
            f"channels)"
        )
    shape = tuple(image_shape) if isinstance(image_shape, tuple | list) else ()
    whole = all(isinstance(s, Integral) and not isinstance(s, bool) and (int(s) > 0 or s == -1) for s in shape)
    if len(shape) != 3 or not whole or shape.count(-1) > 1:
        raise ValueError(
            f"image_shape must be (height, width, channels), of which one may be -1, or None, got {image_shape!r}"
        )
    shape, known = tuple(map(int, shape)), 1
    for s in shape:
        known *= abs(s)
    if known != d if -1 not in shape else (d == 0 or d % known != 0):
        raise ValueError(
            f"X must hold images of image_shape={shape}, flattened height-width-channel, but it has {d} features; "
            f"pass the shape of these images"
        )
    height, width, channels = (d // known if s == -1 else s for s in shape)
    return height, width, channels
