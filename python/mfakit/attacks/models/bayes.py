"""A Bayes classifier under attack: scores of its classes, and directions between components (appendix C.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.options import Options
from ..._arrays.rows import as_labels, gather, scatter
from ..._threads.process import errstate
from ...backends import get_arrays, get_backend
from ...backends.operands import Pairs, WeightedPairs
from ...bayes.classifier import BayesClassifier
from ...bayes.decisions import FAR_NATS, settle
from ...mixture.evaluator import Evaluator
from ...mixture.listing import unasked
from ..state import Choice

__all__ = ["MixtureVictim", "ThereChoice"]

Array = Any  # NumPy's; with d columns and on a device, CuPy's


class ThereChoice(NamedTuple):
    """What :class:`~mfakit.attacks.state.Choice` says, of n samples on a device."""

    source: Array
    target: Array
    target_class: Array


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
        # Of each class log p_c(x), the most likely component and its share; a device is waited for twice.
        found = self.arrays.xp.empty((3, self.n_classes, len(X)))
        for c, (_, scores) in enumerate(self._evaluators[0].of_classes(self._evaluators, X)):
            self._summarize(scores.log_prob, found[:, c])
        total, components, share = self.arrays.to_host(found)
        joint, height = (np.ascontiguousarray(values.T) + self._log_priors for values in (total, share))
        best = components.T.astype(np.int64)
        settle(joint, self.clf, X)
        height[rows, y] = -np.inf
        choice = Choice(len(X))
        choice.target_class = height.argmax(axis=1)
        choice.source, choice.target = best[rows, y], best[rows, choice.target_class]
        return joint, choice

    def _summarize(self, log_prob: Array, found: Array) -> None:
        """found [3, n] = log sum exp of each row of log_prob [n, k], its argmax and its max."""
        self.ops.log_sum_exp(log_prob, found[0], self.threads)
        found[1] = log_prob.argmax(axis=1)
        log_prob.max(axis=1, out=found[2])

    def scores_there(self, X: Array, y: Array) -> tuple[Array, ThereChoice, Array]:
        """:meth:`scores` on a device, which is not waited for, with y [n] there; and whether samples are so unusual
        that these may be wrong, bool [].
        """
        xp, n = self.arrays.xp, len(X)
        found, doubt = xp.empty((3, self.n_classes, n)), xp.zeros((), bool)
        for c, evaluator in enumerate(self._evaluators):
            log_prob, doubtful = unasked(evaluator, X)
            self._summarize(log_prob, found[:, c])
            doubt = doubt | doubtful
        log_priors = self.arrays.asarray(self._log_priors[:, None])
        joint, height, best = found[0] + log_priors, found[2] + log_priors, found[1].astype(np.int64)
        rows = xp.arange(n)
        height[y, rows] = -np.inf
        rival = height.argmax(axis=0)
        doubt = doubt | ~(xp.abs(joint.max(axis=0)) < FAR_NATS).all()
        return joint.T, ThereChoice(best[y, rows], best[rival, rows], rival), doubt

    def direction_there(self, X: Array, y: Array, choice: ThereChoice, walking: Array) -> Array:
        """:meth:`direction` on a device, which is not waited for; 0 for samples that are not `walking` [n]."""
        xp, n = self.arrays.xp, len(X)
        g, rows = xp.zeros_like(X), xp.concatenate([xp.arange(n)] * 2)
        signs = xp.concatenate([xp.full(n, -1.0), xp.ones(n)])
        for c, evaluator in enumerate(self._evaluators):
            none = evaluator.factors.shape[0]  # a component that is no pair
            sources = xp.where(walking & (y == c), choice.source, none)
            targets = xp.where(walking & (choice.target_class == c), choice.target, none)
            components = xp.concatenate([sources, targets])
            order = xp.argsort(components)
            self._add_gradients(evaluator, X, rows[order], components[order], signs[order], g)
        return g

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
