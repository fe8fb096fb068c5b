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

__all__ = ["SERIES", "norm_bars", "norm_sweeps", "robustness_curves", "tradeoff_plot"]

Array = NDArray[Any]

# Okabe and Ito's, with grey for their yellow, which is hard to see on white.
SERIES = (BLUE, VERMILION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#999999", BLACK)
DASHES = ((0, (5, 2)), (0, (2, 1.5)), (0, (1, 1)))


def _color(label: str, i: int, colors: Mapping[str, str] | None) -> str:
    return (colors or {}).get(label, SERIES[i % len(SERIES)])


def norm_bars(
    norms: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    *,
    colors: Mapping[str, str] | None = None,
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
    colors : mapping of label to str, optional
        None takes them in the order of the labels.
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
    figure, ax = axes_on(ax, max(4.4, 1.2 + 0.22 * (len(norms) + 1.5) * len(groups)), 3.2)
    width = 0.8 / len(norms)
    places = np.arange(len(groups), dtype=np.float64)
    with styled():
        for i, (label, values) in enumerate(norms.items()):
            heights = np.asarray(values, np.float64)
            left = places + (i - (len(norms) - 1) / 2) * width
            ax.bar(left, np.nan_to_num(heights), width * 0.92, label=label, color=_color(label, i, colors))
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
    colors: Mapping[str, str] | None = None,
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
    colors : mapping of label to str, optional
        None takes them in the order of the labels.
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
            ax.plot(x, 100 * np.asarray(values, np.float64), color=_color(label, i, colors), linewidth=1.3, label=label)
        ax.set(xlim=(x.min(), x.max()), ylim=(-2, 102))
        ax.set_xlabel("ℓ2 of the perturbation (data units)")
        ax.set_ylabel("right and not fooled (%)")
        ax.legend(loc="best", frameon=False)
        if title:
            ax.set_title(title)
    return figure


def norm_sweeps(
    sweeps: Mapping[str, Sequence[tuple[float, float]]],
    lines: Mapping[str, float],
    *,
    colors: Mapping[str, str] | None = None,
    ylabel: str = "mean ℓ2 (data units)",
    title: str | None = None,
) -> Figure:
    """Mean perturbation norms against one setting after the other, with others as dashed lines (Figure 9).

    Parameters
    ----------
    sweeps : mapping of label to sequence of (float, float)
        By what the axis says, values of the setting and mean norms; axes are logarithmic.
    lines : mapping of label to float
        Norms to compare with.
    colors : mapping of label to str, optional
        Of the lines, and of the networks under "CNN"; None takes them in the order of the labels.
    ylabel, title : str

    Raises
    ------
    ValueError
        For no sweeps.

    Examples
    --------
    >>> import mfakit
    >>> figure = mfakit.plots.norm_sweeps({"width": [(8, 1.6), (16, 1.8)]}, {"Bayes": 2.9})
    """
    if not sweeps:
        raise ValueError("sweeps must hold at least one setting, got none")
    figure = new_figure(0.9 + 2.5 * len(sweeps), 3.0)
    with styled():
        row = figure.subplots(1, len(sweeps), squeeze=False, sharey=True)[0]
        for ax, (label, points) in zip(row, sweeps.items(), strict=True):
            x, y = np.array(sorted(points), np.float64).T
            ax.plot(x, y, marker="o", markersize=4, color=_color("CNN", 0, colors), label="networks")
            for i, (name, value) in enumerate(lines.items()):
                dash = DASHES[i % len(DASHES)]
                ax.axhline(value, color=_color(name, i + 1, colors), linestyle=dash, linewidth=1.1, label=name)
            ax.set_xscale("log")
            ax.set_xticks(x, [f"{value:g}" if value < 1e4 else f"{value:.0e}".replace("e+0", "e") for value in x])
            ax.minorticks_off()
            ax.set_xlabel(label)
            ax.set_ylim(bottom=0)
        row[0].set_ylabel(ylabel)
        row[0].legend(loc="lower left", frameon=False)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def _label_points(ax: Axes, points: list[tuple[float, float, str]], side: int) -> None:
    """Names (x, y, text) of points to the left (side -1) or right (1) of each, above one another where they would meet;
    the limits of the axes are final.
    """
    per_point = ax.figure.dpi / 72
    above = -np.inf
    for x, y, text in sorted(points, key=lambda point: point[1]):
        height = float(ax.transData.transform((x, y))[1]) / per_point
        place = max(height + 4, above + 9)
        above = place
        ax.annotate(
            text, (x, y), xytext=(6 * side, place - height), textcoords="offset points", fontsize=7.5,
            ha="left" if side > 0 else "right",
        )  # fmt: skip


def tradeoff_plot(
    points: Mapping[str, tuple[float, float]], *, path: str | None = None, colors: Mapping[str, str] | None = None,
    title: str | None = None, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Accuracy against mean perturbation norm, a point for each classifier (Figure 10).

    Parameters
    ----------
    points : mapping of label to (float, float)
        Accuracy as a share of 1, and mean ℓ2 in data units.
    path : str, optional
        Points whose labels begin with this are joined in their order.
    colors : mapping of label to str, optional
        Of the points, and of those on the path under its own name; None takes them in the order of the labels.
    title : str, optional
    ax : matplotlib Axes, optional
        Draw here; None makes a figure.

    Raises
    ------
    ValueError
        For no points.

    Examples
    --------
    >>> import mfakit
    >>> points = {"Bayes": (1.0, 2.9), "TRADES β 1": (0.99, 2.1), "TRADES β 6": (0.9, 2.6)}
    >>> figure = mfakit.plots.tradeoff_plot(points, path="TRADES")
    """
    if not points:
        raise ValueError("points must hold at least one classifier, got none")
    figure, ax = axes_on(ax)
    labels: dict[int, list[tuple[float, float, str]]] = {}  # by the side of the point that they stand on
    joined = [(100 * a, l2) for label, (a, l2) in points.items() if path and label.startswith(path)]
    with styled():
        if joined:
            ax.plot(*np.array(joined).T, color=_color(path or "", 0, colors), linewidth=0.9, zorder=1)
        for i, (label, (accuracy, l2)) in enumerate(points.items()):
            on_path = bool(path) and label.startswith(path or "")
            color = _color(path or "", 0, colors) if on_path else _color(label, i + 1, colors)
            ax.scatter(100 * accuracy, l2, s=26, color=color, marker="o" if on_path else "s", zorder=2)
            text = label.removeprefix(path or "").strip() if on_path else label
            labels.setdefault(-1 if on_path else 1, []).append((100 * accuracy, l2, text))
        ax.set_xlabel("accuracy (%)")
        ax.set_ylabel("mean ℓ2 that fools (data units)")
        ax.margins(x=0.3, y=0.15)
        ax.set_ylim(bottom=0)
        for side, found in labels.items():
            _label_points(ax, found, side)
        ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= 100])  # the rest is room for labels
        if title:
            ax.set_title(title)
    return figure
