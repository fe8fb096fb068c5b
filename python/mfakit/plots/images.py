"""Samples as images: grids of them, and originals beside adversarial images and their differences."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["as_images", "draw_image", "image_shape", "magnification", "show_images", "wrapped"]

Array = NDArray[Any]

# Inches: an image's side in a grid, and the width of a character and height of a line of its caption.
SIDE, CHARACTER, LINE = 0.75, 0.064, 0.18


def image_shape(n_features: int) -> tuple[int, ...]:
    """(h, w) of square grey images or (h, w, 3) of square colour images with this number of features.

    Raises
    ------
    ValueError
        If neither fits.

    Examples
    --------
    >>> import mfakit
    >>> mfakit.plots.image_shape(784), mfakit.plots.image_shape(12_288)
    ((28, 28), (64, 64, 3))
    """
    for channels in (1, 3):  # n = s² and n = 3 s² exclude each other
        side = round((n_features / channels) ** 0.5)
        if side * side * channels == n_features:
            return (side, side) if channels == 1 else (side, side, 3)
    raise ValueError(f"{n_features} features are no square image, grey or colour; pass its shape, such as (28, 20)")


def as_images(X: ArrayLike, shape: Sequence[int] | None, name: str = "X") -> Array:
    """Samples [n, d] as images [n, h, w] or [n, h, w, 3], float64; `name` is for the error of any that are not."""
    array = np.asarray(X, np.float64)
    if array.ndim != 2 or not len(array):
        raise ValueError(f"{name} must be [n, d] with at least one sample, got shape {array.shape}")
    shape = tuple(shape) if shape is not None else image_shape(array.shape[1])
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or int(np.prod(shape)) != array.shape[1]:
        raise ValueError(f"{name} has {array.shape[1]} features, which are not an image of shape {shape}")
    return array.reshape(len(array), *shape)


def draw_image(ax: Axes, image: Array, value_range: tuple[float, float], cmap: str = "gray") -> Any:
    """One image without axes; grey ones by `cmap` over `value_range`, colour ones cut off there."""
    low, high = value_range
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if image.ndim == 3:
        return ax.imshow(np.clip((image - low) / (high - low), 0, 1), interpolation="nearest")
    return ax.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")


def wrapped(caption: str, width: float) -> str:
    """The caption, in lines that fit into this width in inches; words stay whole."""
    most = max(1, int(width / CHARACTER))
    return "\n".join(textwrap.fill(line, most, break_long_words=False) for line in caption.split("\n"))


def show_images(
    X: ArrayLike,
    *,
    shape: Sequence[int] | None = None,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Samples as a grid of images.

    Parameters
    ----------
    X : array-like, [n, d]
        Flattened height-width-channel.
    shape : tuple of int, optional
        (h, w) or (h, w, 3); None takes square images.
    columns : int, optional
        Images per row; None makes the grid about twice as wide as high.
    captions : sequence of str, optional
        Above each image, whose cell is as wide as the longest line.
    title : str, optional
    value_range : (low, high)
        What is black and white; values beyond are cut off in the picture.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> figure = mfakit.plots.show_images(clf.sample(12, rng=0)[0], title="samples")
    """
    images = as_images(X, shape)
    n = len(images)
    columns = min(n, columns or max(1, round((2 * n) ** 0.5)))
    rows = -(-n // columns)
    lines = [line for caption in captions or () for line in caption.split("\n")]
    cell = max(SIDE, CHARACTER * max(map(len, lines), default=0))
    above = LINE * max((caption.count("\n") + 1 for caption in captions or ()), default=0)
    figure = new_figure(cell * columns, (SIDE + above) * rows + (0.35 if title else 0.05))
    with styled():
        axes = figure.subplots(rows, columns, squeeze=False)
        for i, ax in enumerate(axes.flat):
            if i >= n:
                ax.axis("off")
                continue
            draw_image(ax, images[i], value_range)
            if captions:
                ax.set_title(captions[i], fontsize=7, pad=2)
        if title:
            figure.suptitle(title, fontsize=10)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
    return figure


def magnification(changes: ArrayLike) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, … by which 99.5% of the changes stay below 1.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfakit.plots.magnification(np.full(100, 0.04))
    20
    """
    top = float(np.quantile(np.abs(changes), 0.995))
    factors = [m * 10**e for e in range(6) for m in (1, 2, 5)]
    return max((f for f in factors if f * top <= 1.0), default=1)
