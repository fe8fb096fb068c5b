"""What the gradient attack needs of a classifier: scores of the classes, and a direction to walk in.

:class:`MixtureVictim` walks between components of a Bayes classifier (appendix C.2); :class:`GradientVictim` takes
anything with ``decision_function`` and ``decision_gradient``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._options import Options
from ..backends import get_backend
from ..bayes import BayesClassifier
from ..density import Evaluator

__all__ = ["Choice", "GradientVictim", "MixtureVictim", "as_victim"]

Array = NDArray[Any]


class Choice:
    """Which components each of n samples walks between: source [n] of its own class, target [n] of target_class [n]."""

    def __init__(self, n: int) -> None:
        self.source, self.target, self.target_class = (np.full(n, -1, np.int64) for _ in range(3))

    def take(self, rows: Array) -> Choice:
        """The choices of some samples."""
        part = Choice(0)
        part.source, part.target, part.target_class = self.source[rows], self.target[rows], self.target_class[rows]
        return part

    def put(self, rows: Array, part: Choice) -> None:
        """Set the choices of some samples."""
        self.source[rows], self.target[rows], self.target_class[rows] = part.source, part.target, part.target_class


class MixtureVictim:
    """A Bayes classifier, in float64 whatever the data's dtype."""

    def __init__(self, clf: BayesClassifier, rows: int, options: Options) -> None:
        ops = get_backend(options.backend)
        options = replace(options, check_finite=False)  # the door has checked X
        self.n_classes, self.n_features = clf.n_classes, clf.n_features
        self.ops, self.threads = ops, options.threads
        self._evaluators = [Evaluator(m.factors, ops, np.float64, rows, options) for m in clf.mixtures]
        with np.errstate(divide="ignore"):
            self._log_priors = np.log(clf.priors)

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """log prior_c p_c(x) [n, C], and the most likely component of the true class and of any other at x."""
        joint = np.empty((len(X), self.n_classes))
        best = np.empty((len(X), self.n_classes), np.int64)
        height = np.empty_like(joint)
        rows = np.arange(len(X))
        for c, evaluator in enumerate(self._evaluators):
            log_prob = evaluator(X).log_prob
            total = np.empty(len(X))
            self.ops.log_sum_exp(log_prob, total, self.threads)
            joint[:, c] = total + self._log_priors[c]
            best[:, c] = log_prob.argmax(axis=1)
            height[:, c] = log_prob[rows, best[:, c]] + self._log_priors[c]
        height[rows, y] = -np.inf
        choice = Choice(len(X))
        choice.target_class = height.argmax(axis=1)
        choice.source, choice.target = best[rows, y], best[rows, choice.target_class]
        return joint, choice

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """g = ∇ log p_t - ∇ log p_s at each sample, [n, d]."""
        g = np.zeros_like(X)
        for c, evaluator in enumerate(self._evaluators):
            rows = np.concatenate([np.flatnonzero(y == c), np.flatnonzero(choice.target_class == c)])
            components = np.concatenate([choice.source[y == c], choice.target[choice.target_class == c]])
            signs = np.repeat([-1.0, 1.0], [int((y == c).sum()), int((choice.target_class == c).sum())])
            order = np.argsort(components, kind="stable")
            self._add_gradients(evaluator, X, rows[order], components[order], signs[order], g)
        return g

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """∇ of log p_c - log p_y of the whole classes, c the target's, [n, d]."""
        g = np.zeros_like(X)
        for c, evaluator in enumerate(self._evaluators):
            for rows, sign in ((np.flatnonzero(y == c), -1.0), (np.flatnonzero(choice.target_class == c), 1.0)):
                part = np.empty((len(rows), X.shape[1]))
                evaluator.gradient(evaluator(X[rows]), part)
                g[rows] += sign * part
        return g

    def _add_gradients(
        self, evaluator: Evaluator, X: Array, rows: Array, components: Array, signs: Array, g: Array
    ) -> None:
        f = evaluator.factors
        log_prob, y = np.empty(len(rows)), np.empty((len(rows), f.shape[1]))
        self.ops.refine(
            X, rows, components, f.means, f.whitened, f.latent_map, f.noise, f.log_norm, log_prob, y, self.threads
        )
        self.ops.accumulate_gradient(X, rows, components, signs, y, f.means, f.whitened, f.noise, g, self.threads)


class GradientVictim:
    """Anything with ``decision_function`` ([n] log-odds of class 1, or [n, C]) and ``decision_gradient``."""

    def __init__(self, clf: Any, options: Options) -> None:
        self.clf, self.ops, self.threads = clf, get_backend(options.backend), options.threads
        self.n_features = getattr(clf, "n_features", None) or getattr(clf, "n_features_in_", None)
        classes = getattr(clf, "classes_", None)
        self.n_classes = 2 if classes is None else len(classes)

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """Decision values as scores [n, C], and the best other class at x."""
        decision = np.asarray(self.clf.decision_function(X), np.float64)
        joint = np.stack([np.zeros(len(X)), decision], axis=1) if decision.ndim == 1 else decision
        others = joint.copy()
        others[np.arange(len(X)), y] = -np.inf
        choice = Choice(len(X))
        choice.target_class = others.argmax(axis=1)
        return joint, choice

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """Gradient of the other class's score minus the true one's, [n, d]."""
        gradient = np.asarray(self.clf.decision_gradient(X), np.float64)
        if gradient.ndim == 2:
            return np.where(y == 0, 1.0, -1.0)[:, None] * gradient
        rows = np.arange(len(X))
        return np.asarray(gradient[rows, choice.target_class] - gradient[rows, y])

    margin_gradient = direction


def as_victim(clf: Any, rows: int, options: Options) -> MixtureVictim | GradientVictim:
    """The view of a classifier that the attack walks on; blocks of at most `rows` samples."""
    if isinstance(clf, BayesClassifier):
        return MixtureVictim(clf, rows, options)
    if callable(getattr(clf, "decision_function", None)) and callable(getattr(clf, "decision_gradient", None)):
        return GradientVictim(clf, options)
    raise TypeError(
        f"{type(clf).__name__} cannot be attacked by gradient: it has no decision_function and decision_gradient"
    )
