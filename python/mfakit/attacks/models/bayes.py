"""A Bayes classifier under attack: scores of its classes, and directions between components (appendix C.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..._arrays.options import Options
from ..._arrays.rows import as_labels, gather, scatter
from ..._threads.process import errstate
from ...backends import get_arrays, get_backend
from ...backends.operands import Pairs, WeightedPairs
from ...bayes.classifier import BayesClassifier
from ...bayes.decisions import settle
from ...mixture.evaluator import Evaluator
from ..state import Choice

__all__ = ["MixtureVictim"]

Array = Any  # NumPy's; with d columns and on a device, CuPy's


class MixtureVictim:
    """A Bayes classifier, in float64 whatever the data's dtype."""

    def __init__(self, clf: BayesClassifier, rows: int, options: Options, device: str | None = None) -> None:
        ops = get_backend(options.backend, device)
        self.arrays = get_arrays(ops, device)
        options = replace(options, check_finite=False)  # X was checked on entry
        self.clf, self.n_classes, self.n_features = clf, clf.n_classes, clf.n_features
        self.ops, self.threads = ops, options.threads
        self.raise_if_cancelled: Callable[[], None] = lambda: None  # raises if the attack was cancelled
        self._evaluators = [Evaluator(m.factors, ops, np.float64, rows, options) for m in clf.mixtures]
        with errstate(divide="ignore"):
            self._log_priors = np.log(clf.priors)

    def labels(self, y: Any, n: int, name: str = "y") -> Array:
        """Labels as classes 0 .. C - 1, int64 [n]."""
        return as_labels(y, n, self.n_classes, name)

    def resize(self, rows: int) -> None:
        """Change the maximum block height, in samples."""
        for evaluator in self._evaluators:
            evaluator.resize(rows)

    def strict(self) -> MixtureVictim:
        """Itself: its scores are refined, and their size bounds their rounding."""
        return self

    final = strict

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """log prior_c p_c(x) [n, C], and the most likely component of the true class and of any other at x. A constant
        is subtracted from samples so far away that only differences distinguish the classes, as `predict` does.
        """
        rows = np.arange(len(X))
        self.raise_if_cancelled()
        # Of each class log p_c(x), the most likely component and its share; a device is waited for once.
        found = self.arrays.xp.empty((3, self.n_classes, len(X)))
        for c, evaluator in enumerate(self._evaluators):
            log_prob = evaluator(X).log_prob
            self.ops.log_sum_exp(log_prob, found[0, c], self.threads)
            found[1, c] = log_prob.argmax(axis=1)
            log_prob.max(axis=1, out=found[2, c])
        total, components, share = self.arrays.to_host(found)
        joint, height = (np.ascontiguousarray(values.T) + self._log_priors for values in (total, share))
        best = components.T.astype(np.int64)
        settle(joint, self.clf, X)
        height[rows, y] = -np.inf
        choice = Choice(len(X))
        choice.target_class = height.argmax(axis=1)
        choice.source, choice.target = best[rows, y], best[rows, choice.target_class]
        return joint, choice

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """g = ∇ log p_t - ∇ log p_s at each sample, [n, d]."""
        g = self.arrays.xp.zeros_like(X)
        for c, evaluator in enumerate(self._evaluators):
            rows = np.concatenate([np.flatnonzero(y == c), np.flatnonzero(choice.target_class == c)])
            components = np.concatenate([choice.source[y == c], choice.target[choice.target_class == c]])
            signs = np.repeat([-1.0, 1.0], [int((y == c).sum()), int((choice.target_class == c).sum())])
            order = np.argsort(components, kind="stable")
            self._add_gradients(evaluator, X, rows[order], components[order], signs[order], g)
        return g

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """∇ (log p_c - log p_y) of the whole classes, where c is the target's class, [n, d]."""
        g = self.arrays.xp.zeros_like(X)
        for c, evaluator in enumerate(self._evaluators):
            for rows, sign in ((np.flatnonzero(y == c), -1.0), (np.flatnonzero(choice.target_class == c), 1.0)):
                part = self.arrays.xp.empty((len(rows), X.shape[1]))
                evaluator.gradient(evaluator(gather(X, rows)), part)
                scatter(g, rows, gather(g, rows) + sign * part)
        return g

    def _add_gradients(
        self, evaluator: Evaluator, X: Array, rows: Array, components: Array, signs: Array, g: Array
    ) -> None:
        rows, components, signs = map(self.arrays.asarray, (rows, components, signs))
        _, y = evaluator.refine(X, Pairs(rows, components))
        pairs = WeightedPairs(rows, components, signs, y)
        self.ops.accumulate_gradient(X, pairs, evaluator.factors.mixture, g, self.threads)
