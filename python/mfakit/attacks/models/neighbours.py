"""Classifiers by the nearest neighbour under attack."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._arrays.options import Options
from ...classifiers.recognise.neighbours import NeighbourForm
from ..state import Choice
from .differentiable import Confirmed, GradientVictim, Strict

__all__ = ["EPS", "NeighbourVictim"]

Array = Any  # NumPy's

EPS = float(np.finfo(np.float64).eps)


def _shared(form: NeighbourForm) -> Array:
    """Which prototypes are those of several classes, bool [m]."""
    keys = [row.tobytes() for row in form.prototypes + 0.0]  # -0.0 is 0.0
    classes: dict[bytes, set[int]] = {}
    for key, code in zip(keys, form.codes.tolist(), strict=True):
        classes.setdefault(key, set()).add(code)
    return np.array([len(classes[key]) > 1 for key in keys], bool)


class NeighbourVictim(GradientVictim):
    """The score of a class is minus half the squared distance to its nearest prototype. `source` and `target` are
    prototypes: the nearest ones of the true class and of the best other one.
    """

    def __init__(self, clf: Any, options: Options, sample: Array, form: NeighbourForm) -> None:
        self.form, self.shared = form, _shared(form)
        order = np.argsort(form.codes, kind="stable")
        self.order, self.first = order, np.searchsorted(form.codes[order], np.arange(len(form.classes) + 1))
        self.center = form.prototypes.mean(axis=0, dtype=np.float64)
        self.prototypes = form.prototypes[order].astype(np.float64)
        self.centered = self.prototypes - self.center
        self.squares = np.einsum("md,md->m", self.centered, self.centered)
        super().__init__(clf, options, sample)

    def final(self) -> Strict:
        """Verified by the distances and by the classifier's own predict."""
        return Confirmed(self)

    def nearest(self, X: Array) -> tuple[Array, Array]:
        """Squared distances to the nearest prototype of each class [n, C], and which it is, in `order` [n, C]."""
        centered = X - self.center
        own = np.einsum("nd,nd->n", centered, centered)[:, None]
        rough = centered @ self.centered.T
        rough *= -2.0
        rough += self.squares
        rough += own
        # Those that rounding could make the nearest are measured again from the differences.
        doubt = 16.0 * np.sqrt(X.shape[1]) * EPS * (own + self.squares.max())
        square = np.full((len(X), self.n_classes), np.inf)
        which = np.full(square.shape, -1, np.int64)
        for c, (a, b) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            part = rough[:, a:b]
            rows, columns = np.nonzero(part <= part.min(axis=1, keepdims=True) + doubt)
            apart = X[rows] - self.prototypes[a + columns]
            exact = np.einsum("nd,nd->n", apart, apart)
            for k in np.lexsort((-columns, -exact)):  # the nearest is written last, the first of equal ones
                square[rows[k], c], which[rows[k], c] = exact[k], a + columns[k]
            square[np.isnan(part).any(axis=1), c] = np.nan
        return square, which

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """Scores [n, C], the best other class, and the nearest prototypes of both."""
        square, which = self.nearest(X)
        joint, rows = -0.5 * square, np.arange(len(X))
        others = joint.copy()
        others[rows, y] = -np.inf
        choice = Choice(len(X))
        choice.target_class = others.argmax(axis=1)
        choice.source = self.order[which[rows, y]]
        choice.target = self.order[which[rows, choice.target_class]]
        return joint, choice

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """To the nearest prototype of the other class, [n, d]: straight into its cell, whatever its planes are. Not to
        one that another class has, too, which leads nowhere, but to the next.
        """
        other = self.form.prototypes[choice.target].astype(np.float64)
        for i in np.flatnonzero(self.shared[choice.target]):
            c = choice.target_class[i]
            part = slice(self.first[c], self.first[c + 1])
            sole = self.prototypes[part][~self.shared[self.order[part]]]
            if len(sole):
                other[i] = sole[np.linalg.norm(sole - X[i], axis=1).argmin()]
        return np.asarray(other - X)

    direction = margin_gradient

    def rounding(self, X: Array, y: Array, joint: Array, choice: Choice) -> Array:
        """The largest possible rounding of a margin, [n], also where distances are computed from inner products."""
        size = np.einsum("nd,nd->n", X, X) + np.einsum("md,md->m", self.form.prototypes, self.form.prototypes).max()
        return np.asarray(4.0 * np.sqrt(X.shape[1]) * EPS * size)

    def _count(self, sample: Array) -> int:
        return len(self.form.classes)

    def _unit(self, sample: Array) -> float:
        return 2.0**-53
