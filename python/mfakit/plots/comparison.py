"""Several classifiers under attack on the same samples, all on one scale (Figures 8 and 18)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .common import COLORS, new_figure, styled
from .histograms import pixel_histogram
from .images import LINE, as_images, draw_image, magnification, wrapped
from .panels import Perturbations, draw_scale, name_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison_panel"]

Array = NDArray[Any]

# Inches.
CELL, GAP, LABELS, BAR, HISTOGRAM, HEAD, FOOT = 0.74, 0.06, 1.12, 1.25, 2.9, 0.5, 0.62


def comparison_panel(
    attacks: Sequence[Perturbations],
    *,
    shape: Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    colors: Mapping[str, str] | None = None,
    title: str | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Some samples, and for every classifier its adversarial images, their differences, and the histogram of all pixel
    changes (Figures 8 and 18).

    Everything is on one scale: differences of all classifiers are magnified alike, and histograms share their axes. A
    sample that an attack did not move is marked.

    Parameters
    ----------
    attacks : sequence of Perturbations
        One per classifier, all of the same samples.
    shape : tuple of int, optional
        (h, w) or (h, w, 3); None takes square images.
    captions : sequence of str, optional
        Above each column; long ones are wrapped.
    colors : mapping of label to str, optional
        Of the histograms; None takes them in the order of the attacks.
    title : str, optional
    value_range : (low, high)
        Black and white of the images.

    Raises
    ------
    ValueError
        For no attacks, attacks on different samples, or features that are no image.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> X, y = clf.sample(4, rng=0)
    >>> r = mfakit.attacks.gradient_attack(clf, X, y)
    >>> figure = mfakit.plots.comparison_panel([mfakit.plots.Perturbations("Bayes", X, r.x_adv)])
    """
    if not attacks:
        raise ValueError("attacks must hold at least one Perturbations, got none")
    originals = as_images(attacks[0].X, shape, "X")
    if any(not np.array_equal(a.X, attacks[0].X) for a in attacks):
        raise ValueError("attacks must all be of the same samples X, to be shown side by side")
    moved = [as_images(a.x_adv, shape, "x_adv") for a in attacks]
    differences = [points - originals for points in moved]
    above = [wrapped(caption, CELL + GAP) for caption in captions or ()]
    lines = max((caption.count("\n") + 1 for caption in above), default=1)
    sheet = _Sheet(len(originals), originals.shape[1:3], len(attacks), bool(title), lines)
    factor = magnification(np.stack(differences))
    with styled():
        sheet.say(0.12, 0.22, title or "", fontsize=12)
        for j, image in enumerate(originals):
            ax = sheet.image(0, j)
            draw_image(ax, image, value_range)
            if above:
                ax.set_title(above[j], pad=3, fontsize=7 if lines > 1 else 8)
            if j == 0:
                name_row(ax, "original")
        for i, (attack, points, change) in enumerate(zip(attacks, moved, differences, strict=True)):
            sheet.say(0.12, sheet.block_top(i) - 0.2, attack.label, fontsize=10, fontweight="bold")
            _draw_rows(sheet, i, points, change, factor, value_range)
        _draw_histograms(sheet, attacks, colors or {})
    return sheet.figure


class _Sheet:
    """Where the parts go, in inches from the top left corner."""

    def __init__(self, m: int, shape: tuple[int, ...], n_blocks: int, title: bool, lines: int) -> None:
        self.height = CELL * shape[0] / shape[1]
        self.top = (0.4 if title else 0.0) + 0.3 + LINE * max(0, lines - 2)
        self.first_block = self.top + self.height + HEAD
        self.block = 2 * (self.height + GAP) + FOOT
        self.left = LABELS + m * (CELL + GAP)
        self.size = (self.left + BAR + HISTOGRAM + 0.15, self.first_block + n_blocks * self.block)
        self.figure = new_figure(*self.size)
        self.figure.set_layout_engine("none")

    def block_top(self, block: int) -> float:
        return self.first_block + block * self.block

    def place(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        w, h = self.size
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h), **options)

    def image(self, row: int, column: int) -> Axes:
        """Row 0 holds the originals, then come two of each block."""
        block, second = divmod(row - 1, 2)
        top = self.top if row == 0 else self.block_top(block) + second * (self.height + GAP)
        return self.place(LABELS + column * (CELL + GAP), top, CELL, self.height)

    def say(self, left: float, top: float, text: str, **options: Any) -> None:
        self.figure.text(left / self.size[0], 1 - top / self.size[1], text, va="center", **options)


def _draw_rows(
    sheet: _Sheet, block: int, points: Array, change: Array, factor: int, value_range: tuple[float, float]
) -> None:
    """Adversarial images over magnified differences, with ℓ2 below each, and the scale of the differences."""
    l2 = np.linalg.norm(change.reshape(len(change), -1), axis=1)
    colour = "\n(grey: none)" if points.ndim == 4 else ""
    for j in range(len(points)):
        upper, lower = (sheet.image(1 + 2 * block + k, j) for k in range(2))
        draw_image(upper, points[j], value_range)
        shown = 0.5 + 0.5 * factor * change[j] if points.ndim == 4 else factor * change[j]
        drawn = draw_image(lower, shown, (0.0, 1.0) if points.ndim == 4 else (-1.0, 1.0), "RdBu_r")
        lower.set_xlabel(f"ℓ2 {l2[j]:.2f}" if l2[j] > 0 else "not fooled", labelpad=3, fontsize=8)
        if j == 0:
            name_row(upper, "adversarial")
            name_row(lower, f"difference × {factor}" + colour)
    if points.ndim == 3:
        top = sheet.block_top(block) + sheet.height + GAP
        draw_scale(sheet.place(sheet.left + 0.04, top, 0.09, sheet.height), drawn, factor)


def _draw_histograms(sheet: _Sheet, attacks: Sequence[Perturbations], colors: Mapping[str, str]) -> None:
    """All pixel changes of each classifier, with the mean ℓ2 of its samples, on common axes."""
    changes = [attack.counted() for attack in attacks]
    limit = max(values.limit for values in changes)
    axes = []
    for i, (attack, values) in enumerate(zip(attacks, changes, strict=True)):
        if not values.counts.sum():
            continue
        height = 2 * sheet.height + GAP - 0.12
        ax = sheet.place(sheet.left + BAR, sheet.block_top(i) + 0.12, HISTOGRAM, height)
        color = colors.get(attack.label, COLORS[i % len(COLORS)])
        pixel_histogram({attack.label: values}, ax=ax, limit=limit, colors=(color,))
        ax.set_title(
            f"mean ℓ2 {values.mean_l2:.2f}; {100 * values.within:.0f}% of the pixels within ±5/255", fontsize=8.5
        )
        axes.append(ax)
        if i < len(attacks) - 1:
            ax.set_xlabel("")
    if axes:
        low, high = (f(ax.get_ylim()[k] for ax in axes) for k, f in ((0, min), (1, max)))
        for ax in axes:
            ax.set_ylim(low, high)
