"""Mixtures in the plane whose optimal boundaries are far from their samples, or near (Figures 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bayes.classifier import BayesClassifier
from ..mixture.mfa import MFA
from ..plots.planes import PlaneCase, grid_of

__all__ = ["CASES", "Plane", "plane_of"]

Array = NDArray[Any]

GRID = 160
SHOWN = 150


@dataclass(frozen=True)
class Plane:
    """Two classes of the plane: means, directions and lengths of single factors, and noise, by class and component.

    Attributes
    ----------
    title : str
    far : bool
        Whether the optimal boundary is far from the samples.
    means : by class, by component, (x, y)
    factors : by class, by component, (x, y)
        The loading; (0, 0) for none.
    sigmas : by class, by component
    extent : (left, right, bottom, top)
    """

    title: str
    far: bool
    means: tuple[tuple[tuple[float, float], ...], ...]
    factors: tuple[tuple[tuple[float, float], ...], ...]
    sigmas: tuple[tuple[float, ...], tuple[float, ...]]
    extent: tuple[float, float, float, float] = (-2.2, 2.2, -2.2, 2.2)

    def classifier(self) -> BayesClassifier:
        """The optimal classifier."""
        mixtures = []
        for means, factors, sigmas in zip(self.means, self.factors, self.sigmas, strict=True):
            weights = np.full(len(means), 1 / len(means))
            mixtures.append(MFA(weights, np.array(means), np.array(factors)[:, :, None], np.square(sigmas)))
        return BayesClassifier(mixtures)


def _arc(radius: float, start: float, stop: float, n: int, length: float, shift: tuple[float, float]) -> Any:
    """Means and factors of n segments along a circle's arc."""
    angles = np.linspace(start, stop, n)
    means = [(radius * np.cos(a) + shift[0], radius * np.sin(a) + shift[1]) for a in angles]
    factors = [(-length * np.sin(a), length * np.cos(a)) for a in angles]
    return tuple(means), tuple(factors)


_UPPER = _arc(1.0, 0.0, np.pi, 6, 0.22, (-0.5, -0.25))
_LOWER = _arc(1.0, np.pi, 2 * np.pi, 6, 0.22, (0.5, 0.25))
_DOT, _THIN = ((0.0, 0.0),), (0.06,) * 6
CASES = (
    Plane("equal spheres", True, (((-1.0, 0.0),), ((1.0, 0.0),)), (_DOT, _DOT), ((0.15,), (0.15,))),
    Plane("parallel lines", True, (((0.0, -0.7),), ((0.0, 0.7),)), (((0.8, 0.0),), ((0.8, 0.0),)), ((0.08,), (0.08,))),
    Plane("mixtures along two arcs", True, (_UPPER[0], _LOWER[0]), (_UPPER[1], _LOWER[1]), (_THIN, _THIN)),
    Plane("a line inside a sphere", False, (_DOT, _DOT), (((0.8, 0.0),), _DOT), ((0.03,), (0.7,))),
    Plane("a dot inside a sphere", False, (_DOT, _DOT), (_DOT, _DOT), ((0.05,), (0.7,))),
    Plane(
        "arcs, each with a wide outlier", False,
        ((*_UPPER[0], (0.0, 0.4)), (*_LOWER[0], (0.0, -0.4))),
        ((*_UPPER[1], (0.0, 0.0)), (*_LOWER[1], (0.0, 0.0))), ((*_THIN, 0.7), (*_THIN, 0.7)),
    ),
)  # fmt: skip


def plane_of(case: Plane, clf: BayesClassifier, X: Array, y: Array) -> PlaneCase:
    """The optimal decision on a grid, beside a few samples."""
    values = np.asarray(clf.decision_function(grid_of(case.extent, GRID))).reshape(GRID, GRID)
    return PlaneCase(case.title, X[:SHOWN], y[:SHOWN], case.extent, {"optimal": values})
