"""How large perturbations must be: bars of mean norms (Figure 7), and robust accuracy against the norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import BLACK, BLUE, GREEN, PURPLE, VERMILION, axes_on, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["norm_bars", "robustness_curves"]

Array = NDArray[Any]

SERIES = (BLUE, VERMILION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#F0E442", BLACK)


def norm_bars(
    norms: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    *,
    ylabel: str = "mean ℓ2 (data units)",
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Bars of mean perturbation norms, a group for each data set and a colour for each classifier (Figure 7).

    Parameters
    ----------
    norms : mapping of label to sequence of float
        One value a group; NaN where there is none.
    groups : sequence of str
    ylabel, title : str
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.

    Raises
    ------
    ValueError
        For no bars, or another number of values than groups.

    Examples
    --------
    >>> import mfakit
    >>> figure = mfakit.plots.norm_bars({"Bayes": [2.7, 2.9], "CNN": [1.9, 2.0]}, ["mnist-06", "mnist-27"])
    """
    if not norms or not groups or any(len(values) != len(groups) for values in norms.values()):
        raise ValueError(f"norms must hold at least one label, each with a value for each of the {len(groups)} groups")
    if ax is None:
        figure = new_figure(max(4.4, 1.2 + 0.22 * (len(norms) + 1.5) * len(groups)), 3.2)
        with styled():
            ax = figure.subplots()
    figure, ax = axes_on(ax)
    width = 0.8 / len(norms)
    places = np.arange(len(groups), dtype=np.float64)
    with styled():
        for i, (label, values) in enumerate(norms.items()):
            heights = np.asarray(values, np.float64)
            left = places + (i - (len(norms) - 1) / 2) * width
            ax.bar(left, np.nan_to_num(heights), width * 0.92, label=label, color=SERIES[i % len(SERIES)])
            for x, height in zip(left, heights, strict=True):
                if np.isnan(height):
                    ax.text(x, 0, "–", ha="center", va="bottom", fontsize=7)
        long = max(map(len, groups)) > 9
        ax.set_xticks(places, groups, rotation=25 if long else 0, ha="right" if long else "center")
        ax.set_ylabel(ylabel)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(norms), 4), frameon=False)
        if title:
            ax.set_title(title, pad=14 + 12 * -(-len(norms) // 4))
    return figure


def robustness_curves(
    curves: Mapping[str, ArrayLike],
    eps: ArrayLike,
    *,
    band: tuple[ArrayLike, ArrayLike] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Robust accuracy against the size of perturbations, and the certified band of the optimal classifier.

    Parameters
    ----------
    curves : mapping of label to array, [m]
        Shares of 1 that are right and that no perturbation up to eps was found to fool.
    eps : array, [m]
        ℓ2 in data units.
    band : (array [m], array [m]), optional
        Shares that are certified to be robust, and that may be: the lower and upper ends of certified radii.
    title : str, optional
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> eps = np.linspace(0, 4, 50)
    >>> figure = mfakit.plots.robustness_curves({"CNN": (eps < 2).astype(float)}, eps)
    """
    figure, ax = axes_on(ax)
    x = np.asarray(eps, np.float64)
    with styled():
        if band is not None:
            low, high = (100 * np.asarray(end, np.float64) for end in band)
            ax.fill_between(x, low, high, color=BLACK, alpha=0.25, linewidth=0.8, label="optimal, certified")
        for i, (label, values) in enumerate(curves.items()):
            ax.plot(x, 100 * np.asarray(values, np.float64), color=SERIES[i % len(SERIES)], linewidth=1.3, label=label)
        ax.set(xlim=(x.min(), x.max()), ylim=(-2, 102))
        ax.set_xlabel("ℓ2 of the perturbation (data units)")
        ax.set_ylabel("right and not fooled (%)")
        ax.legend(loc="best", frameon=False)
        if title:
            ax.set_title(title)
    return figure
