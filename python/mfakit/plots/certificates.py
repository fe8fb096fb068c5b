"""Certified brackets against attacks, and a closer look at the samples whose bracket is wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .common import BLACK, BLUE, COLORS, VERMILION, axes_on, new_figure, styled
from .images import as_images, draw_image, magnification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..attacks import MinimalResult
    from ..bayes.classifier import BayesClassifier
    from ..theory.gaps import GapCauses

__all__ = ["bracket_plot", "uncertified_plot"]


def bracket_plot(
    lower: ArrayLike,
    upper: ArrayLike,
    attack: ArrayLike,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Certified brackets against an attack, a sample a column, sorted by the lower bound.

    Parameters
    ----------
    lower, upper : array-like, [n]
        Of :func:`mfakit.attacks.minimal_perturbation`, ℓ2.
    attack : array-like, [n]
        ℓ2 of an attack; NaN where it failed.
    title : str, optional
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.

    Raises
    ------
    ValueError
        For no finite bracket.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> X, y = clf.sample(20, rng=0)
    >>> minimal = mfakit.attacks.minimal_perturbation(clf, X, y)
    >>> attack = mfakit.attacks.gradient_attack(clf, X, y)
    >>> figure = mfakit.plots.bracket_plot(minimal.lower, minimal.upper, attack.l2)
    """
    low, high, found = (np.asarray(values, np.float64) for values in (lower, upper, attack))
    shown = np.flatnonzero(np.isfinite(high) & (high > 0))
    if not shown.size:
        raise ValueError("there is no finite bracket to draw")
    order = shown[np.argsort(low[shown], kind="stable")]
    rank = np.arange(len(order))
    figure, ax = axes_on(ax, 6.0, 3.2)
    with styled():
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


def uncertified_plot(
    clf: BayesClassifier,
    X: ArrayLike,
    result: MinimalResult,
    *,
    m: int = 6,
    shape: Sequence[int] | None = None,
    title: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> Figure:
    """The samples with the widest brackets, and what wide brackets have in common.

    Left: original, nearest point known and magnified difference of the `m` samples with the largest gap. Right: every
    sample's gap against what p_T ≤ |T| max p_t gives away (:func:`mfakit.theory.explain_gaps`), and against the number
    of components of its own class that shape the boundary there.

    Parameters
    ----------
    clf : BayesClassifier
    X : array-like, [n, d]
        What was certified.
    result : MinimalResult
        Of :func:`mfakit.attacks.minimal_perturbation` on X.
    m : int
        Samples shown.
    shape : tuple of int, optional
        (h, w) or (h, w, 3); None takes square images.
    title : str, optional
    value_range : (low, high), optional
        Black and white of the images; None covers 98% of the pixels shown, as noisy samples leave [0, 1] by far.

    Raises
    ------
    ValueError
        If no sample was fooled, X is not what was certified, or features are no image.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=1.0)
    >>> X, y = clf.sample(10, rng=0)
    >>> figure = mfakit.plots.uncertified_plot(clf, X, mfakit.attacks.minimal_perturbation(clf, X, y))
    """
    from ..theory.gaps import explain_gaps

    causes = explain_gaps(clf, result)
    images = as_images(X, shape)
    if len(images) != len(result):
        raise ValueError(f"X must be the samples that were certified, {len(result)}, got {len(images)}")
    worst = causes.rows[np.argsort(-causes.gap, kind="stable")[: max(m, 1)]]
    moved = as_images(np.asarray(result.x_adv)[worst], images.shape[1:], "x_adv")
    height = 3 * images.shape[1] / images.shape[2]
    figure = new_figure(0.85 * len(worst) + 7.2, max(0.85 * height, 2.2) + (0.85 if title else 0.55))
    if value_range is None:
        low, high = np.quantile(images[worst], (0.01, 0.99))
        value_range = (float(low), float(max(high, low + 1e-12)))
    with styled():
        parts: Any = figure.subfigures(1, 2, width_ratios=(0.85 * len(worst) + 0.9, 6.3))
        left, right = parts
        _draw_widest(left, images[worst], moved, result, worst, value_range)
        by_cause, by_number = right.subplots(1, 2, sharey=True)
        _draw_causes(by_cause, by_number, causes)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def _draw_widest(
    figure: SubFigure, images: Any, moved: Any, result: MinimalResult, rows: Any, value_range: tuple[float, float]
) -> None:
    """Three rows of images, the bracket above each column."""
    factor = magnification(moved - images)
    axes = figure.subplots(3, len(rows), squeeze=False)
    names = ("original", "nearest\nknown", f"difference\n× {factor}")
    for j, row in enumerate(rows):
        draw_image(axes[0, j], images[j], value_range)
        draw_image(axes[1, j], moved[j], value_range)
        draw_image(axes[2, j], factor * (moved[j] - images[j]), (-1.0, 1.0), "RdBu_r")
        axes[0, j].set_title(f"{result.lower[row]:.2f} … {result.upper[row]:.2f}", fontsize=7, pad=3)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=4)


def _draw_causes(by_cause: Axes, by_number: Axes, causes: GapCauses) -> None:
    gap = 100 * np.maximum(causes.gap, 1e-12)
    predicted = 100 * np.maximum(causes.predicted, 1e-12)
    ends = np.array([min(gap.min(), predicted.min()) / 1.5, max(gap.max(), predicted.max()) * 1.5])
    by_cause.plot(ends, ends, color=BLACK, linewidth=0.8, linestyle=(0, (4, 2)), label="all of log|T| is lost")
    by_cause.scatter(predicted, gap, s=9, color=BLUE, alpha=0.7, linewidths=0)
    by_cause.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    by_cause.set_xlabel("log|T| / (slope · upper) (%)")
    by_cause.set_ylabel("gap, (upper - lower) / upper (%)")
    by_cause.legend(loc="upper left")
    by_number.scatter(causes.own_active, gap, s=9, color=VERMILION, alpha=0.7, linewidths=0)
    by_number.set_xlabel("components of the own class\nactive at the boundary")
    by_number.set_xlim(left=0.9)
    by_number.tick_params(labelleft=False)
