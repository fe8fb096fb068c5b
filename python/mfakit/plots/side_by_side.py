"""Samples beside what fools several classifiers (Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .common import new_figure, styled
from .images import as_images, draw_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["side_by_side"]

Array = NDArray[Any]


def side_by_side(
    X: ArrayLike,
    moved: Mapping[str, ArrayLike],
    *,
    shape: Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """A column for the samples and one for each classifier's adversarial images, all on one scale, with ℓ2 below each.

    Parameters
    ----------
    X : array-like, [m, d]
    moved : mapping of label to array-like, [m, d]
        NaN in rows that were not fooled.
    shape : tuple of int, optional
        (h, w) or (h, w, 3); None takes square images.
    captions : sequence of str, optional
        Beside each row.
    title : str, optional
    value_range : (low, high)
        Black and white of the images.

    Raises
    ------
    ValueError
        For no columns, other numbers of rows, or features that are no image.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> X, y = clf.sample(3, rng=0)
    >>> r = mfakit.attacks.gradient_attack(clf, X, y)
    >>> figure = mfakit.plots.side_by_side(X, {"Bayes": r.x_adv})
    """
    originals = as_images(X, shape)
    columns = {label: np.asarray(points, np.float64) for label, points in moved.items()}
    if not columns or any(points.shape != (len(originals), originals[0].size) for points in columns.values()):
        raise ValueError(f"moved must hold at least one array, each of the {len(originals)} samples' shape")
    flat = originals.reshape(len(originals), -1)
    cell = 0.95
    figure = new_figure(0.7 + cell * 1.08 * (1 + len(columns)), 0.55 + (cell + 0.2) * len(originals))
    with styled():
        axes = figure.subplots(len(originals), 1 + len(columns), squeeze=False)
        for i, row in enumerate(axes):
            draw_image(row[0], originals[i], value_range)
            if captions:
                row[0].set_ylabel(captions[i], rotation=0, ha="right", va="center", labelpad=6)
            for ax, points in zip(row[1:], columns.values(), strict=True):
                fooled = not np.isnan(points[i]).any()
                image = (
                    points[i].reshape(originals.shape[1:]) if fooled else np.full(originals.shape[1:], value_range[1])
                )
                draw_image(ax, image, value_range)
                l2 = float(np.linalg.norm(points[i] - flat[i]))
                ax.set_xlabel(f"ℓ2 {l2:.2f}" if fooled else "not fooled", labelpad=2, fontsize=8)
        for ax, label in zip(axes[0], ("original", *columns), strict=True):
            ax.set_title(label.replace(", ", ",\n"), fontsize=8.5, pad=4)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure
