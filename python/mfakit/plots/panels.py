"""Original, adversarial and difference images in blocks, with the histogram of all pixel changes (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .common import COLORS, new_figure, styled
from .histograms import PixelChanges, pixel_histogram
from .images import as_images, draw_image, magnification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["Perturbations", "draw_scale", "name_row", "perturbation_panel"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Perturbations:
    """One attack for :func:`perturbation_panel`: samples [m, d] that are shown, and where they were moved to.

    Attributes
    ----------
    label : str
        What was attacked, such as "symmetric".
    X, x_adv : array, [m, d]
    changes : array [n, d] or PixelChanges, optional
        The changes of every pixel of every attacked sample, for the histogram; None: of those shown that moved.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> X = np.zeros((2, 16))
    >>> mfakit.plots.Perturbations("symmetric", X, X + 0.1).counted().mean_l2.__round__(2)
    0.4
    """

    label: str
    X: Array
    x_adv: Array
    changes: Array | PixelChanges | None = None

    def counted(self) -> PixelChanges:
        """The changes that the histogram shows."""
        if isinstance(self.changes, PixelChanges):
            return self.changes
        if self.changes is not None:
            return PixelChanges.of(self.changes)
        change = np.asarray(self.x_adv, np.float64) - np.asarray(self.X)
        return PixelChanges.of(change[np.any(change != 0, axis=1)])


def perturbation_panel(
    attacks: Sequence[Perturbations],
    *,
    shape: Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Original, adversarial and magnified difference of some samples, and the histogram of all pixel changes (Figure
    5).

    Originals and adversarials share one scale; differences are on one symmetric scale after the factor that their
    label states.

    Parameters
    ----------
    attacks : sequence of Perturbations
        A block of three rows each, from top to bottom.
    shape : tuple of int, optional
        (h, w) or (h, w, 3); None takes square images.
    captions : sequence of str, optional
        A line above each column.
    title : str, optional
    value_range : (low, high)
        Black and white of the images.

    Raises
    ------
    ValueError
        For no attacks, unequal numbers of samples, or features that are no image.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> X, y = clf.sample(3, rng=0)
    >>> r = mfakit.attacks.gradient_attack(clf, X, y)
    >>> figure = mfakit.plots.perturbation_panel([mfakit.plots.Perturbations("symmetric", X, r.x_adv)])
    """
    blocks = [(as_images(a.X, shape, "X"), as_images(a.x_adv, shape, "x_adv")) for a in attacks]
    m = len(blocks[0][0]) if blocks else 0
    if not blocks or any(len(images) != m for block in blocks for images in block):
        raise ValueError("attacks must hold at least one Perturbations, all with equally many samples")
    sheet = _Sheet(m, blocks[0][0].shape[1:3], len(attacks), title, bool(captions))
    counted = [attack.counted() for attack in attacks]
    limit = max(changes.limit for changes in counted)
    with styled():
        for i, (attack, (originals, adversarials)) in enumerate(zip(attacks, blocks, strict=True)):
            _draw_block(sheet, i, attack.label, originals, adversarials, value_range, captions)
            histogram = sheet.histogram(i)
            pixel_histogram({attack.label: counted[i]}, ax=histogram, limit=limit, colors=COLORS[i % len(COLORS) :])
    return sheet.figure


class _Sheet:
    """Where the parts of a panel go, in inches from the top left corner, so that images of all blocks line up."""

    CELL, GAP, LABELS, BAR, HISTOGRAM, FOOT = 0.78, 0.07, 1.12, 1.2, 3.0, 0.5

    def __init__(self, m: int, shape: tuple[int, ...], n_blocks: int, title: str | None, captions: bool) -> None:
        self.m, self.cell_height = m, self.CELL * shape[0] / shape[1]
        self.top = 0.4 if title else 0.05
        self.head = 0.55 if captions else 0.4
        self.images = 3 * (self.cell_height + self.GAP)
        self.block = self.head + self.images + self.FOOT
        self.left = self.LABELS + m * (self.CELL + self.GAP)
        self.size = (self.left + self.BAR + self.HISTOGRAM + 0.15, self.top + n_blocks * self.block)
        self.figure = new_figure(*self.size)
        self.figure.set_layout_engine("none")
        if title:
            self.figure.text(0.12 / self.size[0], 1 - 0.2 / self.size[1], title, fontsize=12, va="center")

    def place(self, left: float, top: float, width: float, height: float) -> Axes:
        w, h = self.size
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))

    def image(self, block: int, row: int, column: int) -> Axes:
        top = self.top + block * self.block + self.head + row * (self.cell_height + self.GAP)
        return self.place(self.LABELS + column * (self.CELL + self.GAP), top, self.CELL, self.cell_height)

    def scale(self, block: int) -> Axes:
        top = self.top + block * self.block + self.head + 2 * (self.cell_height + self.GAP)
        return self.place(self.left + 0.04, top, 0.09, self.cell_height)

    def histogram(self, block: int) -> Axes:
        top = self.top + block * self.block + self.head
        return self.place(self.left + self.BAR, top, self.HISTOGRAM, self.images - self.GAP)

    def heading(self, block: int, text: str) -> None:
        top = self.top + block * self.block + 0.15
        self.figure.text(0.12 / self.size[0], 1 - top / self.size[1], text, fontsize=10, fontweight="bold", va="center")


def _draw_block(
    sheet: _Sheet,
    block: int,
    label: str,
    originals: Array,
    adversarials: Array,
    value_range: tuple[float, float],
    captions: Sequence[str] | None,
) -> None:
    """Three rows of images under a heading, ℓ2 below each column, and the scale of the differences."""
    difference = adversarials - originals
    factor = magnification(difference)
    l2 = np.linalg.norm(difference.reshape(len(difference), -1), axis=1)
    sheet.heading(block, label)
    for j in range(len(originals)):
        axes = [sheet.image(block, row, j) for row in range(3)]
        draw_image(axes[0], originals[j], value_range)
        draw_image(axes[1], adversarials[j], value_range)
        drawn = draw_image(axes[2], factor * difference[j], (-1.0, 1.0), "RdBu_r")
        axes[2].set_xlabel(f"ℓ2 {l2[j]:.2f}", labelpad=3, fontsize=8)
        if captions:
            axes[0].set_title(captions[j], pad=3, fontsize=8)
        if j == 0:
            changed = f"difference × {factor}" + ("\n(grey: none)" if originals.ndim == 4 else "")
            for name, ax in zip(("original", "adversarial", changed), axes, strict=True):
                name_row(ax, name)
    if originals.ndim == 3:
        draw_scale(sheet.scale(block), drawn, factor)


def name_row(ax: Axes, text: str) -> None:
    """What a row of images shows, to the left of its first."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=5)


def draw_scale(ax: Axes, drawn: AxesImage, factor: int) -> None:
    """The scale of differences that were drawn magnified, from -1 to 1."""
    bar = ax.figure.colorbar(drawn, cax=ax, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels([f"{-1 / factor:+g}", "0", f"{1 / factor:+g}"], fontsize=7)
    bar.ax.tick_params(length=2, pad=2)
    bar.outline.set_visible(False)
