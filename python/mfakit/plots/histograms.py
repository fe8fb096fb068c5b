"""Histograms of pixel changes (section 2.4) and of distances (Figure 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..attacks.result import PIXEL_THRESHOLD
from .common import BLACK, COLORS, axes_on, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["distance_histogram", "pixel_histogram"]


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
        The axis goes from -limit to limit, and what is beyond is in the outermost bins; None covers all changes.
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
    figure, ax = axes_on(ax)
    with styled():
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
    figure, ax = axes_on(ax)
    with styled():
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
