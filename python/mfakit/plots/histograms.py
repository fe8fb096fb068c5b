"""Histograms of pixel changes (section 2.4) and of distances (Figure 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..attacks.result import PIXEL_THRESHOLD
from .common import BLACK, COLORS, axes_on, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PixelChanges", "distance_histogram", "pixel_histogram"]

Array = NDArray[Any]

# Fine enough that the bins of a picture can be made of them.
FINE_BINS = 4001


@dataclass(frozen=True, eq=False)
class PixelChanges:
    """What is shown of the changes of all pixels, in 32 kB whatever their number.

    Attributes
    ----------
    counts : array, [4001] int64
        Pixels by their change, in equal bins from -limit to limit.
    limit : float
        The largest absolute change.
    within : float
        Share of pixels that changed by at most 5/255.
    mean_l2 : float
        Mean ℓ2 norm of a sample's change.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> changes = mfakit.plots.PixelChanges.of(np.array([[0.3, 0.0], [0.0, 0.4]]))
    >>> changes.limit, changes.within, round(changes.mean_l2, 2)
    (0.4, 0.5, 0.35)
    """

    counts: Array
    limit: float
    within: float
    mean_l2: float

    @classmethod
    def of(cls, changes: ArrayLike) -> PixelChanges:
        """Of changes x_adv - x [n, d] in data units; limit 0 and NaN if there are none."""
        values = np.atleast_2d(np.asarray(changes, np.float64))
        limit = float(np.abs(values).max()) if values.size else 0.0
        counts = np.histogram(values, FINE_BINS, (-limit, limit) if limit else (-1.0, 1.0))[0]
        within = float((np.abs(values) <= PIXEL_THRESHOLD).mean()) if values.size else float("nan")
        mean_l2 = float(np.linalg.norm(values, axis=1).mean()) if values.size else float("nan")
        return cls(counts, limit, within, mean_l2)

    def share(self, edges: Array) -> Array:
        """Share of pixels in the bins between `edges`, in per cent; what lies beyond is in the outermost bins."""
        reach = self.limit or 1.0
        below = np.interp(
            edges, np.linspace(-reach, reach, FINE_BINS + 1), np.concatenate([[0], np.cumsum(self.counts)])
        )
        below[0], below[-1] = 0, self.counts.sum()
        return np.asarray(100 * np.diff(below) / self.counts.sum())


def pixel_histogram(
    changes: Mapping[str, ArrayLike | PixelChanges],
    *,
    bins: int = 81,
    limit: float | None = None,
    colors: Sequence[str] = COLORS,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How much single pixels were changed, with lines at ± 5/255 and the share of pixels between them (section 2.4).

    Parameters
    ----------
    changes : mapping of label to array or PixelChanges
        x_adv - x [n, d], in data units.
    bins : int
    limit : float, optional
        The axis goes from -limit to limit, and what is beyond is in the outermost bins; None covers all changes.
    colors : sequence of str
    title : str, optional
        None says, for a single array, how much of it is within the threshold.
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> changes = np.random.default_rng(0).normal(scale=0.02, size=(10, 784))
    >>> figure = mfakit.plots.pixel_histogram({"attack": changes})
    """
    found = {label: v if isinstance(v, PixelChanges) else PixelChanges.of(v) for label, v in changes.items()}
    if not found or not all(values.counts.sum() for values in found.values()):
        raise ValueError("changes must hold at least one array that is not empty")
    limit = max(limit or max(values.limit for values in found.values()), 1.5 * PIXEL_THRESHOLD)
    edges = np.linspace(-limit, limit, bins + 1)
    within = {label: f"{100 * values.within:.0f}%" for label, values in found.items()}
    figure, ax = axes_on(ax)
    with styled():
        for (label, values), color in zip(found.items(), cycle(colors), strict=False):
            share = values.share(edges)
            ax.stairs(share, edges, fill=True, color=color, alpha=0.45, label=f"{label}: {within[label]} within ±5/255")
            ax.stairs(share, edges, color=color, linewidth=0.9)
        for sign in (-1, 1):
            ax.axvline(sign * PIXEL_THRESHOLD, color=BLACK, linestyle=(0, (4, 2)), linewidth=0.9)
        _label_pixel_axes(ax, limit)
        if len(found) > 1:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.2)
        elif title is None:
            title = f"{next(iter(within.values()))} of the pixels changed by at most 5/255"
        if title and len(found) == 1:
            ax.set_title(title, fontsize=9)
        elif title:
            ax.figure.suptitle(title, fontsize=10)
    return figure


def _label_pixel_axes(ax: Axes, limit: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(-limit, limit)
    ax.set_xlabel("change of a pixel, data units (dashed: ±5/255)")
    ax.set_ylabel("pixels per bin (%)", labelpad=2)


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

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> X, y = clf.sample(50, rng=0)
    >>> own, other = mfakit.theory.own_and_other_distances(clf, X, y)
    >>> figure = mfakit.plots.distance_histogram({"other class": other}, marks={"min d": 2.0})
    """
    arrays = {label: np.asarray(values, np.float64).ravel() for label, values in distances.items()}
    arrays = {label: values[np.isfinite(values)] for label, values in arrays.items()}
    if not arrays or not all(values.size for values in arrays.values()):
        raise ValueError("distances must hold at least one array with finite values")
    every = np.concatenate([*arrays.values(), list((marks or {}).values())])
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    figure, ax = axes_on(ax)
    with styled():
        for (label, values), color in zip(arrays.items(), cycle(colors), strict=False):
            share = 100 * np.histogram(values, edges)[0] / values.size
            ax.stairs(share, edges, fill=True, color=color, alpha=0.35, label=f"{label}, mean {values.mean():.2f}")
            ax.stairs(share, edges, color=color, linewidth=1.0)
            ax.axvline(float(values.mean()), color=color, linewidth=1.2)
        for (label, value), dash in zip((marks or {}).items(), ((0, (1, 1.5)), (0, (5, 2))), strict=False):
            ax.axvline(value, color=BLACK, linestyle=dash, linewidth=1.2, label=f"{label}, {value:.2f}")
        ax.set_xlabel(xlabel)
        ax.set_ylabel("samples per bin (%)")
        ax.set_ylim(bottom=0)
        entries = len(arrays) + len(marks or {})
        columns = 1 if entries < 4 else 2
        ax.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.4, borderaxespad=0.1, frameon=False,
            ncols=columns, columnspacing=1.0,
        )  # fmt: skip
        if title:
            ax.set_title(title, pad=14 + 11 * -(-entries // columns))
    return figure
