"""What all pictures share: colours told apart with any colour vision, one style, figures without global state."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLACK", "BLUE", "COLORS", "DPI", "GREEN", "PURPLE", "STYLE", "VERMILION", "axes_on", "new_figure", "styled"]

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


def styled() -> AbstractContextManager[None]:
    """Draw within this: our style, and matplotlib's settings as they were afterwards."""
    import matplotlib

    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, with this width and height in inches."""
    try:
        import matplotlib.figure  # noqa: F401 (asked first: what is imported once stays)

        from .figure import NotebookFigure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mfakit[plots]'") from error
    with styled():
        return NotebookFigure(figsize=(width, height), layout="constrained", facecolor="white")


def axes_on(ax: Axes | None, width: float = 4.4, height: float = 3.0) -> tuple[Figure, Axes]:
    """The axes to draw on, in a figure of their own, of this width and height in inches, if none were given."""
    if ax is not None:
        ax.spines[["top", "right"]].set_visible(False)  # axes made elsewhere do not know our style
        return ax.figure, ax  # type: ignore[return-value]
    figure = new_figure(width, height)
    with styled():
        return figure, figure.subplots()
