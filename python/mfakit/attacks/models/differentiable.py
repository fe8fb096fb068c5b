"""Classifiers under attack that have methods for their decisions and gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._arrays.options import Options
from ..._arrays.rows import class_indices, is_torch
from ..._threads.process import errstate
from ...backends import get_backend
from ..state import Choice

__all__ = ["PROBES", "Confirmed", "GradientVictim", "MachineVictim", "Strict"]

Array = Any  # NumPy's

# Number of samples used to probe a classifier before an attack.
PROBES = 8


class GradientVictim:
    """Anything with ``decision_function`` ([n], positive for the second class, or [n, C]) and ``decision_gradient``.

    It is called with samples in X's dtype, because its user will call it with the points that the attack returns.
    """

    def __init__(self, clf: Any, options: Options, sample: Array) -> None:
        # Steps run in one thread: after a product in several threads they would wait for BLAS's, which spin on.
        self.clf, self.ops, self.threads = clf, get_backend(options.backend), 1
        self.dtype, self.all_finite = sample.dtype, options.check_finite
        classes = getattr(clf, "classes_", None)
        self.classes = None if classes is None else np.asarray(classes)
        self.n_classes = self._count(sample)
        self.unit = self._unit(sample)

    def labels(self, y: Any, n: int, name: str = "y") -> Array:
        """Labels as indices, int64 [n]; they are values of ``classes_`` if the classifier has it."""
        return class_indices(y, self.classes, n, self.n_classes, name)

    def resize(self, rows: int) -> None:
        """Change the maximum block height, in samples; nothing here depends on it."""

    def strict(self) -> Strict:
        """The same with the true class's score raised by the largest possible rounding."""
        return Strict(self)

    def final(self) -> Strict:
        """The victim that verifies the returned points."""
        return Strict(self)

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """Decision values as scores [n, C], and the best other class at x."""
        decision = self._decide(X)
        joint = np.stack([np.zeros(len(X)), decision[:, 0]], axis=1) if decision.shape[1] == 1 else decision
        others = joint.copy()
        others[np.arange(len(X)), y] = -np.inf
        choice = Choice(len(X))
        choice.target_class = others.argmax(axis=1)
        return joint, choice

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """Gradient of the other class's score minus the true one's, [n, d], scaled by a power of two so that its
        largest entry is about 1: squares of entries such as 1e-200 would underflow.
        """
        g = self._margin_gradient(X, y, choice)
        with errstate(invalid="ignore"):
            exponent = np.frexp(np.abs(g).max(axis=1, initial=0.0))[1]
        return np.asarray(np.ldexp(g, -exponent[:, None]))

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """The same direction: where the margin grows, [n, d]."""
        return self.direction(X, y, choice)

    def rounding(self, X: Array, y: Array, joint: Array, choice: Choice) -> Array:
        """The largest possible rounding of a margin, [n], by the rounding of x and the sizes of the scores."""
        slope = np.linalg.norm(self._margin_gradient(X, y, choice), axis=1)
        size = slope * np.linalg.norm(X, axis=1) + np.abs(joint).max(axis=1)
        return np.asarray(4 * np.sqrt(X.shape[1]) * self.unit * size)

    def _decide(self, X: Array) -> Array:
        """float64 [n, C], or [n, 1] for two classes."""
        return self._asked(X, lambda x: self._checked(self.clf.decision_function(x), len(x)))

    def _margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        gradient = self._asked(X, lambda x: _numpy(self.clf.decision_gradient(x)))
        if gradient.ndim == 2:
            return np.where(y == 0, 1.0, -1.0)[:, None] * gradient
        rows = np.arange(len(X))
        return np.asarray(gradient[rows, choice.target_class] - gradient[rows, y])

    def _asked(self, X: Array, ask: Callable[[Array], Array]) -> Array:
        """The result of a method of the classifier for samples [n, d]. Samples with NaN or inf, which the classifier
        may refuse, are not passed to it and give NaN.
        """
        X = X.astype(self.dtype, copy=False)
        sound = np.ones(len(X), bool) if self.all_finite else np.isfinite(X).all(axis=1)
        if sound.all():
            return ask(X)
        answer = ask(X[sound] if sound.any() else np.zeros_like(X[:1]))
        result = np.full((len(X), *answer.shape[1:]), np.nan)
        result[sound] = answer[: int(sound.sum())]
        return result

    def _checked(self, decision: Any, n: int) -> Array:
        values = _numpy(decision)
        if values.shape == (n,) and self.n_classes == 2:
            return values[:, None]
        if values.shape != (n, self.n_classes) or self.n_classes < 2:
            raise ValueError(
                f"decision_function must return [{n}, {self.n_classes}], or [{n}] for two classes, got {values.shape}"
            )
        return values

    def _count(self, sample: Array) -> int:
        """C, from ``classes_`` or else from the shape of the decisions."""
        if self.classes is not None:
            return len(self.classes)
        shape = _numpy(self.clf.decision_function(sample[:1])).shape if len(sample) else (0,)
        return int(shape[-1]) if len(shape) == 2 else 2

    def _unit(self, sample: Array) -> float:
        """Half a unit in the last place of the precision that the model computes in. For float64 samples it is detected
        by a change that float32 cannot represent.
        """
        if self.dtype == np.float32:
            return 2.0**-24
        x = sample[:PROBES].astype(np.float32).astype(np.float64)
        if not len(x) or not np.isfinite(x).all():
            return 2.0**-53
        with errstate(over="ignore"):
            same = np.array_equal(self._decide(x), self._decide(x * (1 + 2.0**-40)))
        return 2.0**-24 if same and (x != 0).any() else 2.0**-53


class Strict:
    """A victim for polish and verification: samples are rounded to X's dtype, and the true class's score is raised by
    the largest possible rounding of the margin, because scores in another batch may differ in their last bits. The
    score of a class to reach is lowered.
    """

    def __init__(self, victim: GradientVictim, lower: bool = False) -> None:
        self.victim, self.margin_gradient, self.lower = victim, victim.margin_gradient, lower

    def lowered(self) -> Strict:
        """The same for classes to reach."""
        return type(self)(self.victim, True)

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """Scores [n, C] and choices."""
        X = X.astype(self.victim.dtype).astype(np.float64)
        joint, choice = self.victim.scores(X, y)
        rounding = self.victim.rounding(X, y, joint, choice)
        joint[np.arange(len(y)), y] += -rounding if self.lower else rounding
        return joint, choice


class Confirmed(Strict):
    """The same, but a sample that the classifier's own predict calls right counts as right, and one that it does not
    decide for the class to reach has not reached it: the weights read from another library's classifier are exact, but
    that library may round more, in float32 or in sums over support vectors.
    """

    def scores(self, X: Array, y: Array) -> tuple[Array, Choice]:
        """Scores [n, C] and choices."""
        joint, choice = super().scores(X, y)
        victim, rows = self.victim, np.arange(len(y))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about column names, which arrays do not have
            labels = np.asarray(victim.clf.predict(X.astype(victim.dtype)))
        said = (labels[:, None] == np.asarray(victim.clf.classes_)).argmax(axis=1)
        if self.lower:
            joint[rows[said != y], y[said != y]] = -np.inf
        else:  # the two may differ where classes tie
            joint[rows, said] = np.nextafter(joint.max(axis=1), np.inf)
        return joint, choice


class MachineVictim(GradientVictim):
    """A classifier represented by the linear or kernel form that was read from it."""

    def final(self) -> Strict:
        """Verified by the form and, for classifiers of other libraries, also by their own predict."""
        ours = type(self.clf).__module__.split(".")[0] == "mfakit" or not callable(getattr(self.clf, "predict", None))
        return Strict(self) if ours else Confirmed(self)


def _numpy(values: Any) -> Array:
    return np.asarray(values.detach().cpu() if is_torch(values) else values, np.float64)
