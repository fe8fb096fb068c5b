"""Pictures of samples, perturbations and distances as matplotlib figures; needs ``mfakit[plots]``.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to nobody: no window, no global state, safe in
threads. Save it with ``figure.savefig(path)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "PIXEL_THRESHOLD",
    "Perturbations",
    "bracket_plot",
    "distance_histogram",
    "image_shape",
    "magnification",
    "perturbation_panel",
    "pixel_histogram",
    "show_images",
]

Array = NDArray[Any]

# Section 2.4: changes of at most so much per pixel are hardly seen.
PIXEL_THRESHOLD = 5 / 255
# Okabe and Ito's colours, told apart with any colour vision.
BLUE, VERMILION, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#222222"
COLORS = (BLUE, VERMILION, GREEN, PURPLE)
DPI = 160
STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": BLACK,
    "savefig.dpi": DPI,
    "figure.dpi": DPI,
}


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mfakit[plots]'") from error
    with _style():
        return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def image_shape(n_features: int) -> tuple[int, ...]:
    """(h, w) of square grey images or (h, w, 3) of square colour images with so many features.

    Raises
    ------
    ValueError
        If neither fits.
    """
    for channels in (1, 3):  # n = s² and n = 3 s² exclude each other
        side = round((n_features / channels) ** 0.5)
        if side * side * channels == n_features:
            return (side, side) if channels == 1 else (side, side, 3)
    raise ValueError(f"{n_features} features are no square image, grey or colour; pass its shape, such as (28, 20)")


def _images(X: ArrayLike, shape: Sequence[int] | None, name: str = "X") -> Array:
    """Samples [n, d] as images [n, h, w] or [n, h, w, 3], float64."""
    array = np.asarray(X, np.float64)
    if array.ndim != 2 or not len(array):
        raise ValueError(f"{name} must be [n, d] with at least one sample, got shape {array.shape}")
    shape = tuple(shape) if shape is not None else image_shape(array.shape[1])
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or int(np.prod(shape)) != array.shape[1]:
        raise ValueError(f"{name} has {array.shape[1]} features, which are not an image of shape {shape}")
    return array.reshape(len(array), *shape)


def _draw_image(ax: Axes, image: Array, value_range: tuple[float, float], cmap: str = "gray") -> Any:
    low, high = value_range
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if image.ndim == 3:
        return ax.imshow(np.clip((image - low) / (high - low), 0, 1), interpolation="nearest")
    return ax.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")


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
        A line above each image.
    title : str, optional
    value_range : (low, high)
        What is black and white; values beyond are cut off in the picture.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> figure = mfakit.plots.show_images(clf.sample(12, rng=0)[0], title="samples")
    """
    images = _images(X, shape)
    n = len(images)
    columns = min(n, columns or max(1, round((2 * n) ** 0.5)))
    rows = -(-n // columns)
    cell = 0.75
    figure = _figure(cell * columns, cell * rows * (1.25 if captions else 1.0) + (0.35 if title else 0.05))
    with _style():
        axes = figure.subplots(rows, columns, squeeze=False)
        for i, ax in enumerate(axes.flat):
            if i >= n:
                ax.axis("off")
                continue
            _draw_image(ax, images[i], value_range)
            if captions:
                ax.set_title(captions[i], fontsize=7, pad=2)
        if title:
            figure.suptitle(title, fontsize=10)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
    return figure


@dataclass(frozen=True)
class Perturbations:
    """One attack for :func:`perturbation_panel`: samples [m, d] that are shown, and where they were moved to.

    Attributes
    ----------
    label : str
        What was attacked, such as "symmetric".
    X, x_adv : array, [m, d]
    changes : array, optional
        The changes of every pixel of every attacked sample, any shape, for the histogram; None: of those shown.
    """

    label: str
    X: Array
    x_adv: Array
    changes: Array | None = None


def magnification(changes: ArrayLike) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, … by which 99.5% of the changes stay below 1."""
    top = float(np.quantile(np.abs(changes), 0.995))
    factors = [m * 10**e for e in range(6) for m in (1, 2, 5)]
    return max((f for f in factors if f * top <= 1.0), default=1)


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
    """
    blocks = [(_images(a.X, shape, "X"), _images(a.x_adv, shape, "x_adv")) for a in attacks]
    m = len(blocks[0][0]) if blocks else 0
    if not blocks or any(len(images) != m for block in blocks for images in block):
        raise ValueError("attacks must hold at least one Perturbations, all with equally many samples")
    sheet = _Sheet(m, blocks[0][0].shape[1:3], len(attacks), title, bool(captions))
    limit = max(float(np.abs(_changes(a)).max()) for a in attacks)
    with _style():
        for i, (attack, (originals, adversarials)) in enumerate(zip(attacks, blocks, strict=True)):
            _draw_block(sheet, i, attack.label, originals, adversarials, value_range, captions)
            histogram = sheet.histogram(i)
            pixel_histogram(
                {attack.label: _changes(attack)}, ax=histogram, limit=limit, colors=COLORS[i % len(COLORS) :]
            )
    return sheet.figure


def _changes(attack: Perturbations) -> Array:
    return np.asarray(attack.x_adv, np.float64) - np.asarray(attack.X) if attack.changes is None else attack.changes


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
        self.figure = _figure(*self.size)
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
        _draw_image(axes[0], originals[j], value_range)
        _draw_image(axes[1], adversarials[j], value_range)
        drawn = _draw_image(axes[2], factor * difference[j], (-1.0, 1.0), "RdBu_r")
        axes[2].set_xlabel(f"ℓ2 {l2[j]:.2f}", labelpad=3, fontsize=8)
        if captions:
            axes[0].set_title(captions[j], pad=3, fontsize=8)
        if j == 0:
            changed = f"difference × {factor}" + ("\n(grey: none)" if originals.ndim == 4 else "")
            for name, ax in zip(("original", "adversarial", changed), axes, strict=True):
                ax.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=5)
    if originals.ndim == 3:
        bar = sheet.figure.colorbar(drawn, cax=sheet.scale(block), ticks=[-1, 0, 1])
        bar.ax.set_yticklabels([f"{1 / factor:+g}", "0", f"{-1 / factor:+g}"][::-1], fontsize=7)
        bar.ax.tick_params(length=2, pad=2)
        bar.outline.set_visible(False)


def pixel_histogram(
    changes: Mapping[str, ArrayLike],
    *,
    threshold: float = PIXEL_THRESHOLD,
    bins: int = 81,
    limit: float | None = None,
    colors: Sequence[str] = COLORS,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How much single pixels were changed, with lines at ± `threshold` and the share of pixels between them (section
    2.4).

    Parameters
    ----------
    changes : mapping of label to array
        x_adv - x, any shape, in data units.
    threshold : float
        5/255 by default, for images in [0, 1].
    bins : int
    limit : float, optional
        The axis goes from -limit to limit, and what lies beyond is in the outermost bins; None covers all changes.
    colors : sequence of str
    title : str, optional
        None says, for a single array, how much of it is within the threshold.
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.
    """
    arrays = {label: np.asarray(values, np.float64).ravel() for label, values in changes.items()}
    if not arrays or not all(values.size for values in arrays.values()):
        raise ValueError("changes must hold at least one array that is not empty")
    limit = max(limit or max(float(np.abs(values).max()) for values in arrays.values()), 1.5 * threshold)
    edges = np.linspace(-limit, limit, bins + 1)
    within = {label: f"{100 * float((np.abs(v) <= threshold).mean()):.0f}%" for label, v in arrays.items()}
    name = _fraction(threshold)
    figure, ax = _axes(ax)
    with _style():
        for (label, values), color in zip(arrays.items(), colors, strict=False):
            share = 100 * np.histogram(np.clip(values, -limit, limit), edges)[0] / values.size
            ax.stairs(
                share, edges, fill=True, color=color, alpha=0.45, label=f"{label}: {within[label]} within ±{name}"
            )
            ax.stairs(share, edges, color=color, linewidth=0.9)
        for sign in (-1, 1):
            ax.axvline(sign * threshold, color=BLACK, linestyle=(0, (4, 2)), linewidth=0.9)
        _label_pixel_axes(ax, limit, name)
        if len(arrays) > 1:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.2)
        elif title is None:
            title = f"{next(iter(within.values()))} of the pixels changed by at most {name}"
        if title and len(arrays) == 1:
            ax.set_title(title, fontsize=9)
        elif title:
            ax.figure.suptitle(title, fontsize=10)
    return figure


def _label_pixel_axes(ax: Axes, limit: float, name: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(-limit, limit)
    ax.set_xlabel(f"change of a pixel, data units (dashed: ±{name})")
    ax.set_ylabel("pixels per bin (%)", labelpad=2)


def _fraction(threshold: float) -> str:
    """The threshold as it is said: 5/255 rather than 0.0196."""
    steps = round(255 * threshold)
    return f"{steps}/255" if abs(255 * threshold - steps) < 1e-9 else f"{threshold:.3g}"


def _axes(ax: Axes | None) -> tuple[Figure, Axes]:
    """The axes to draw on, in a figure of their own if none were given."""
    if ax is not None:
        ax.spines[["top", "right"]].set_visible(False)  # axes made elsewhere do not know our style
        return ax.figure, ax  # type: ignore[return-value]
    figure = _figure(4.4, 3.0)
    with _style():
        return figure, figure.subplots()


def distance_histogram(
    distances: Mapping[str, ArrayLike],
    *,
    marks: Mapping[str, float] | None = None,
    bins: int = 50,
    colors: Sequence[str] = COLORS,
    title: str | None = None,
    xlabel: str = "ℓ2 distance (data units)",
    ax: Axes | None = None,
) -> Figure:
    """Histograms of distances on one axis, each with its mean (Figure 14).

    Parameters
    ----------
    distances : mapping of label to array
        Finite values; NaN (attacks that failed) are left out.
    marks : mapping of label to float, optional
        Vertical lines, such as the smallest distance of all subspaces.
    bins : int
        Over the range of all distances together.
    colors : sequence of str
    title, xlabel : str
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.
    """
    arrays = {label: np.asarray(values, np.float64).ravel() for label, values in distances.items()}
    arrays = {label: values[np.isfinite(values)] for label, values in arrays.items()}
    if not arrays or not all(values.size for values in arrays.values()):
        raise ValueError("distances must hold at least one array with finite values")
    every = np.concatenate([*arrays.values(), list((marks or {}).values())])
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    figure, ax = _axes(ax)
    with _style():
        for (label, values), color in zip(arrays.items(), colors, strict=False):
            share = 100 * np.histogram(values, edges)[0] / values.size
            ax.stairs(share, edges, fill=True, color=color, alpha=0.35, label=f"{label}, mean {values.mean():.2f}")
            ax.stairs(share, edges, color=color, linewidth=1.0)
            ax.axvline(float(values.mean()), color=color, linewidth=1.2)
        for (label, value), dash in zip((marks or {}).items(), ((0, (1, 1.5)), (0, (5, 2))), strict=False):
            ax.axvline(value, color=BLACK, linestyle=dash, linewidth=1.2, label=f"{label}, {value:.2f}")
        ax.set_xlabel(xlabel)
        ax.set_ylabel("samples per bin (%)")
        ax.set_ylim(bottom=0)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.4, borderaxespad=0.1, frameon=False)
        if title:
            ax.set_title(title, pad=14 + 11 * (len(arrays) + len(marks or {})))
    return figure


def bracket_plot(
    lower: ArrayLike,
    upper: ArrayLike,
    attack: ArrayLike,
    *,
    title: str | None = None,
) -> Figure:
    """Certified brackets against an attack, a sample a column, sorted by the lower bound.

    Parameters
    ----------
    lower, upper : array-like, [n]
        Of :func:`mfakit.attacks.minimal_perturbation`, ℓ2.
    attack : array-like, [n]
        ℓ2 of an attack; NaN where it failed.
    title : str, optional
    """
    low, high, found = (np.asarray(values, np.float64) for values in (lower, upper, attack))
    shown = np.flatnonzero(np.isfinite(high) & (high > 0))
    if not shown.size:
        raise ValueError("there is no finite bracket to draw")
    order = shown[np.argsort(low[shown], kind="stable")]
    rank = np.arange(len(order))
    figure = _figure(6.0, 3.2)
    with _style():
        ax = figure.subplots()
        ax.scatter(rank, found[order], s=6, color=COLORS[1], label="gradient attack", linewidths=0)
        ax.vlines(rank, low[order], high[order], color=COLORS[0], linewidth=1.5)
        ax.plot(rank, low[order], color=COLORS[0], linewidth=1.2, label="certified bracket")
        ax.set_xlabel("sample, sorted")
        ax.set_ylabel("ℓ2 to the decision boundary")
        ax.set_ylim(bottom=0)
        ax.legend(loc="upper left")
        if title:
            ax.set_title(title)
    return figure
