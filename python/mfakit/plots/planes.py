"""Classifiers of the plane and mixtures in space (Figures 2, 3 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import BLACK, BLUE, GREEN, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PlaneCase", "decision_plot", "mixture_in_space"]

Array = NDArray[Any]

# Colours and lines of boundaries: the optimal one, and those that were trained.
SOLID: tuple[float, tuple[float, ...]] = (0, ())
BOUNDARIES = ((BLACK, SOLID), ("#E69F00", SOLID), (GREEN, (0, (4, 2))))


@dataclass(frozen=True, eq=False)
class PlaneCase:
    """Samples in the plane, and one to three decision functions on a grid.

    Attributes
    ----------
    title : str
    X, y : float [n, 2], int [n]
        Samples of classes 0 and 1.
    extent : (float, float, float, float)
        Left, right, bottom and top of the grid.
    decisions : dict of label to array [h, w]
        Positive where a classifier decides for class 1; the first one colours the plane.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> x = np.linspace(-1, 1, 50)
    >>> right = {"optimal": x + 0 * x[:, None]}
    >>> case = mfakit.plots.PlaneCase("half", np.array([[0.5, 0.0]]), np.array([1]), (-1, 1, -1, 1), right)
    >>> figure = mfakit.plots.decision_plot([case])
    """

    title: str
    X: Array
    y: Array
    extent: tuple[float, float, float, float]
    decisions: dict[str, Array] = field(default_factory=dict)


def decision_plot(cases: Sequence[PlaneCase], *, columns: int = 4, title: str | None = None) -> Figure:
    """A panel for each case: where its first classifier decides for either class, the boundaries of all its
    classifiers, and samples; both axes on one scale.

    Parameters
    ----------
    cases : sequence of PlaneCase
    columns : int
        Panels in a row.
    title : str, optional

    Raises
    ------
    ValueError
        For no cases, or one with more boundaries than there are colours for.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> grid = np.linspace(-1, 1, 50)[:, None] * np.ones(50)
    >>> case = mfakit.plots.PlaneCase("half", np.zeros((1, 2)), np.zeros(1, int), (-1, 1, -1, 1), {"optimal": grid})
    >>> figure = mfakit.plots.decision_plot([case])
    """
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    if not cases:
        raise ValueError("cases must hold at least one PlaneCase, got none")
    most = max(len(case.decisions) for case in cases)
    if most > len(BOUNDARIES):
        raise ValueError(f"a case must have at most {len(BOUNDARIES)} decisions, got {most}")
    columns = min(columns, len(cases))
    rows = -(-len(cases) // columns)
    labels = list(dict.fromkeys(label for case in cases for label in case.decisions))
    figure = new_figure(2.7 * columns, 2.75 * rows + (0.35 if title else 0.0) + (0.3 if len(labels) > 1 else 0.0))
    shades = np.array([np.array(to_rgb(color)) * 0.25 + 0.75 for color in (BLUE, VERMILION)])
    with styled():
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, case in zip(axes, cases, strict=False):
            left, right, bottom, top = case.extent
            for i, values in enumerate(case.decisions.values()):
                if i == 0:
                    ax.imshow(shades[(values > 0).astype(int)], extent=case.extent, origin="lower", aspect="equal")
                grid = (np.linspace(left, right, values.shape[1]), np.linspace(bottom, top, values.shape[0]))
                if values.min() < 0 < values.max():
                    color, line = BOUNDARIES[i]
                    ax.contour(*grid, values, levels=[0.0], colors=[color], linestyles=[line], linewidths=1.3)
            for c, color in ((0, BLUE), (1, VERMILION)):
                own = case.X[case.y == c]
                ax.scatter(own[:, 0], own[:, 1], s=5, color=color, linewidths=0)
            ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel="x₁", ylabel="x₂")
            ax.set_title(case.title, fontsize=8.5)
        for ax in axes[len(cases) :]:
            ax.axis("off")
        if len(labels) > 1:
            lines = [Line2D([], [], color=color, linestyle=line, linewidth=1.3) for color, line in BOUNDARIES]
            figure.legend(lines[: len(labels)], labels, loc="outside lower center", ncols=len(labels), frameon=False)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def mixture_in_space(points: ArrayLike, means: ArrayLike, loadings: ArrayLike, *, title: str | None = None) -> Figure:
    """Points in R³ beside the planes of a mixture's components, two standard deviations wide (Figure 2).

    Parameters
    ----------
    points : array-like, [n, 3]
    means : array-like, [k, 3]
    loadings : array-like, [k, 3, 2]
    title : str, optional

    Raises
    ------
    ValueError
        For arrays of other shapes.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> figure = mfakit.plots.mixture_in_space(np.eye(3), np.zeros((1, 3)), np.eye(3)[None, :, :2])
    """
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    X, mu, A = (np.asarray(values, np.float64) for values in (points, means, loadings))
    if X.ndim != 2 or X.shape[1] != 3 or mu.shape != (len(mu), 3) or A.shape != (len(mu), 3, 2):
        raise ValueError(
            f"points [n, 3], means [k, 3] and loadings [k, 3, 2] are drawn, got {X.shape}, {mu.shape}, {A.shape}"
        )
    corners = 2.0 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    patches = mu[:, None, :] + np.einsum("ci,kdi->kcd", corners, A)
    figure = new_figure(7.4, 3.6)
    figure.set_layout_engine("none")
    low, high = X.min(axis=0), X.max(axis=0)
    with styled():
        for i, text in enumerate(("samples", "components")):
            ax: Any = figure.add_axes((0.02 + 0.49 * i, 0.06, 0.45, 0.8), projection="3d")
            if i == 0:
                ax.scatter(*X.T, s=3, color=BLUE, linewidths=0, alpha=0.6)
            else:
                ax.add_collection3d(
                    Poly3DCollection(patches, facecolor=VERMILION, edgecolor=BLACK, alpha=0.45, linewidths=0.5)
                )
                ax.scatter(*mu.T, s=8, color=BLACK)
            ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
            ax.set(xlabel="x₁", ylabel="x₂", zlabel="x₃")
            ax.set_box_aspect(np.maximum(high - low, 1e-9), zoom=0.85)
            ax.set_title(text)
            ax.tick_params(labelsize=6)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def grid_of(extent: tuple[float, float, float, float], n: int) -> Array:
    """The points of a grid of n × n, [n², 2], row by row from the bottom."""
    left, right, bottom, top = extent
    x, y = np.meshgrid(np.linspace(left, right, n), np.linspace(bottom, top, n))
    return np.stack([x.ravel(), y.ravel()], axis=1)
