"""Discrete classes (Figure 3 c and g, Lemma A.2): where they live, the optimal decision, and levels to its boundary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._checks import as_generator
from .common import BLUE, VERMILION, axes_on, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..theory.lemma_a2 import LemmaA2Check, LemmaA2Validation

__all__ = ["lemma_a2_plot", "quantization_plot"]

Array = NDArray[Any]

CLASS_COLORS = (BLUE, VERMILION)


def quantization_plot(
    cases: Mapping[str, LemmaA2Check], *, n_points: int = 400, rng: Any = 0, title: str | None = None
) -> Figure:
    """A row per case: samples on the optimal decision, levels to its boundary, and how many of them the samples have.

    Parameters
    ----------
    cases : mapping of label to LemmaA2Check
        Of tables with two features.
    n_points : int
        Samples drawn per class.
    rng : numpy.random.Generator, int or None
        For the samples.
    title : str, optional

    Raises
    ------
    ValueError
        For no cases, or tables that have not two features.

    Examples
    --------
    >>> import mfakit
    >>> tables = mfakit.theory.random_discrete_classes(10, rng=0)
    >>> figure = mfakit.plots.quantization_plot({"as drawn": mfakit.theory.check_lemma_a2(*tables)})
    """
    if not cases or any(case.levels.ndim != 2 for case in cases.values()):
        raise ValueError("cases must hold at least one check of tables with two features")
    generator = as_generator(rng, "rng")
    figure = new_figure(9.6, 3.0 * len(cases) + (0.35 if title else 0.05))
    with styled():
        axes = figure.subplots(len(cases), 3, squeeze=False, width_ratios=(1, 1.12, 1.15))
        for (label, case), (samples, levels, histogram) in zip(cases.items(), axes, strict=True):
            _draw_samples(samples, case, n_points, generator)
            samples.set_title(label)
            _draw_levels(levels, case)
            _draw_histogram(histogram, case)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def _draw_samples(ax: Axes, case: LemmaA2Check, n: int, rng: np.random.Generator) -> None:
    from matplotlib.colors import ListedColormap

    _show(ax, case.decision, ListedColormap(["#CFE3F1", "#F7DCC8"]), vmin=0, vmax=1)
    for c, table in enumerate((case.table0, case.table1)):
        cells = rng.choice(table.size, size=n, p=table.ravel() / table.sum())
        row, column = np.unravel_index(cells, table.shape)
        ax.scatter(row, column, s=5, color=CLASS_COLORS[c], linewidths=0, alpha=0.7, label=f"class {c}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handletextpad=0.1, markerscale=2)


def _draw_levels(ax: Axes, case: LemmaA2Check) -> None:
    finite = np.isfinite(case.levels)
    top = float(case.levels[finite].max()) if finite.any() else 1.0
    # Classes on either side of white: the boundary is where colours meet.
    signed = np.where(finite, np.where(case.decision == 0, -case.levels, case.levels), 0.0)
    drawn = _show(ax, signed, "RdBu_r", vmin=-top, vmax=top)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.85, pad=0.03)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    bar.outline.set_visible(False)
    ax.set_title("levels to the boundary")


def _show(ax: Axes, values: Array, cmap: Any, **limits: float) -> Any:
    """Feature 0 to the right, feature 1 upwards."""
    drawn = ax.imshow(values.T, origin="lower", cmap=cmap, interpolation="nearest", **limits)  # type: ignore[arg-type]
    ax.set_xlabel("level of feature 0")
    ax.set_ylabel("level of feature 1")
    return drawn


def _draw_histogram(ax: Axes, case: LemmaA2Check) -> None:
    finite = np.isfinite(case.levels)
    top = int(case.levels[finite].max()) if finite.any() else 1
    for c in (0, 1):
        mass = np.where(finite, case.mass(c), 0.0)
        counts = np.bincount(case.levels[finite].astype(int), weights=mass[finite], minlength=top + 1)
        share = 100 * counts / max(mass.sum(), 1e-300)
        ax.stairs(
            share, np.arange(top + 2) - 0.5, fill=True, color=CLASS_COLORS[c], alpha=0.45,
            label=f"class {c}: {100 * case.one_level[c]:.0f}% one level away",
        )  # fmt: skip
    ax.set_xlim(0.4, top + 0.6)
    ax.set_xlabel("levels to change")
    ax.set_ylabel("share of the class (%)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))


def lemma_a2_plot(found: LemmaA2Validation, *, title: str | None = None, ax: Axes | None = None) -> Figure:
    """The share of either class that is one level away against 1 - p₀(f = k), a thin line per pair of tables.

    Parameters
    ----------
    found : LemmaA2Validation
    title : str, optional
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.

    Raises
    ------
    ValueError
        For no concentrations.

    Examples
    --------
    >>> import mfakit
    >>> found = mfakit.theory.validate_lemma_a2(10, n=2)
    >>> figure = mfakit.plots.lemma_a2_plot(found)
    """
    drawn = ~np.isnan(found.concentrations)
    if not drawn.any():
        raise ValueError("found has no concentrations to draw")
    away = 1 - found.concentrations[drawn]
    figure, ax = axes_on(ax, 4.6, 3.2)
    with styled():
        for c, color in enumerate(CLASS_COLORS):
            share = 100 * found.one_level[drawn, :, c]
            ax.plot(away, share, color=color, linewidth=0.5, alpha=0.35)
            ax.plot(away, share.mean(axis=1), "o-", color=color, markersize=4, linewidth=1.6, label=f"class {c}, mean")
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_ylim(-3, 103)
        ax.set_xlabel("1 - p₀(f = k): class 0 is ever more concentrated →")
        ax.set_ylabel("one level from the boundary (%)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        if title:
            ax.set_title(title, pad=22)
    return figure
