"""The theorems validated: shares of samples against σ, and how their radii are distributed at each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .common import BLACK, BLUE, GREEN, PURPLE, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..theory.theorem1 import Theorem1Validation
    from ..theory.theorem2 import Theorem2Validation
    from ..theory.theorem3 import Theorem3Validation

__all__ = ["theorem1_plot", "theorem2_plot", "theorem3_plot"]

Array = NDArray[Any]


def theorem1_plot(found: Theorem1Validation, *, title: str | None = None) -> Figure:
    """Left: the share of samples certified to nearly ‖d‖/2, against σ. Right: their radii over ‖d‖/2 at each σ.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> found = mfakit.theory.validate_theorem1(np.zeros(4), np.ones(4), n=10)
    >>> figure = mfakit.plots.theorem1_plot(found)
    """
    figure, share, ratio = _two_axes(title)
    with styled():
        label = f"radius ≥ {1 - found.tolerance:g} ‖d‖/2"
        _draw_shares(share, found.sigmas, {label: (found.share, BLUE, "o-")})
        share.plot(found.sigmas, 100 * found.expected_share, color=BLACK, linestyle=(0, (4, 2)), label="expected, Φ")
        _finish_shares(share)
        _draw_rows(ratio, found.sigmas, found.ratio, BLUE)
        ratio.axhline(1.0, color=BLACK, linewidth=0.8)
        ratio.set_ylabel("certified radius / (‖d‖/2)")
        ratio.set_ylim(bottom=0)
    return figure


def theorem2_plot(found: Theorem2Validation, *, title: str | None = None) -> Figure:
    """Left: shares of samples whose certified radius reaches what distances promise, against σ. Right: the radius over
    the sample's own half distance D/2, at each σ.

    Examples
    --------
    >>> import mfakit
    >>> base = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.validate_theorem2(base, n=2, sigmas=(0.1, 0.01))
    >>> figure = mfakit.plots.theorem2_plot(found)
    """
    figure, share, ratio = _two_axes(title)
    with styled():
        _draw_shares(
            share,
            found.sigmas,
            {
                "radius ≥ D/2": (found.share_half_distance, BLUE, "o-"),
                "radius ≥ (D - ε)/2": (found.share_provable, VERMILION, "s--"),
                "radius ≥ min d/2": (found.share_half_min, GREEN, "^:"),
            },
        )
        _finish_shares(share)
        _draw_rows(ratio, found.sigmas, found.ratio, BLUE)
        ratio.axhline(1.0, color=BLACK, linewidth=0.8)
        ratio.set_ylabel("certified radius / (D/2)")
        ratio.set_ylim(bottom=0)
    return figure


def theorem3_plot(found: Mapping[str, Theorem3Validation], *, title: str | None = None) -> Figure:
    """Left: mean radius against σ with the closed form and, where it is not 0, the limit. Right: every sample's radius.

    Parameters
    ----------
    found : mapping of label to Theorem3Validation
        Such as outliers in the other class only, and in both.
    title : str, optional

    Examples
    --------
    >>> import mfakit
    >>> base = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.validate_theorem3(base, n=2, sigmas=(0.1, 0.01))
    >>> figure = mfakit.plots.theorem3_plot({"outlier: other class": found})
    """
    if not found:
        raise ValueError("found must hold at least one validation to draw")
    figure, mean, every = _two_axes(title)
    with styled():
        offsets = np.linspace(-0.5, 0.5, len(found) + 2)[1:-1] if len(found) > 1 else np.zeros(1)
        for (label, one), color, offset in zip(found.items(), (BLUE, VERMILION, PURPLE), offsets, strict=False):
            mean.plot(one.sigmas, one.mean_upper, "o-", color=color, markersize=4, linewidth=1.2, label=label)
            _draw_rows(every, one.sigmas, one.upper, color, shift=offset, width=0.7 / len(found))
        first = next(iter(found.values()))
        closed = np.nanmean(first.closed_form, axis=1)
        mean.plot(first.sigmas, closed, color=BLACK, linestyle=(0, (4, 2)), linewidth=0.9, label="closed form")
        for (label, one), color in zip(found.items(), (BLUE, VERMILION, PURPLE), strict=False):
            if np.nanmax(one.limit) > 0:
                limit = float(np.nanmean(one.limit))
                mean.axhline(limit, color=color, linestyle=(0, (1, 1.5)), linewidth=1.0, label=f"mean limit, {label}")
        _sigma_axis(mean, first.sigmas)
        mean.set_yscale("log")
        mean.set_ylabel("mean radius, ℓ2 (data units)")
        mean.legend(loc="lower left")
        every.set_yscale("log")
        every.set_ylabel("radius, ℓ2 (data units)")
    return figure


def _two_axes(title: str | None) -> tuple[Figure, Axes, Axes]:
    figure = new_figure(8.2, 3.3)
    with styled():
        left, right = figure.subplots(1, 2)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure, left, right


def _draw_shares(ax: Axes, sigmas: Array, curves: Mapping[str, tuple[Array, str, str]]) -> None:
    for label, (values, color, line) in curves.items():
        ax.plot(sigmas, 100 * values, line, color=color, markersize=4, linewidth=1.2, label=label)
    _sigma_axis(ax, sigmas)


def _finish_shares(ax: Axes) -> None:
    ax.set_ylim(-3, 103)
    ax.set_ylabel("share of samples (%)")
    ax.legend(loc="lower right")


def _sigma_axis(ax: Axes, sigmas: Array) -> None:
    """σ on a log scale that falls to the right: the limit lies there."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_xscale("log")
    ax.set_xlim(sigmas.max() * 1.3, sigmas.min() / 1.3)
    ax.xaxis.set_major_locator(FixedLocator(list(sigmas)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    ax.set_xlabel("σ (data units)")


def _draw_rows(ax: Axes, sigmas: Array, values: Array, color: str, *, shift: float = 0.0, width: float = 0.7) -> None:
    """A strip of points for each row of `values` [s, N], with its median and the range from 5% to 95%."""
    jitter = np.random.default_rng(0)  # the same picture every time
    for i, row in enumerate(values):
        shown = row[np.isfinite(row)]
        if not shown.size:
            continue
        at = i + shift
        ax.scatter(
            at + jitter.uniform(-width / 2, width / 2, shown.size), shown, s=4, color=color, alpha=0.3, linewidths=0
        )
        low, middle, high = np.quantile(shown, (0.05, 0.5, 0.95))
        ax.vlines(at, low, high, color=BLACK, linewidth=1.0)
        ax.hlines(middle, at - width / 3, at + width / 3, color=BLACK, linewidth=1.6)
    ax.set_xticks(range(len(sigmas)), [f"{s:.3g}" for s in sigmas])
    ax.set_xlabel("σ, data units (bars: 5%, median, 95%)")
