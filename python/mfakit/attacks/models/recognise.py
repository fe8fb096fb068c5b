"""Linear and kernel machines as the gradient attack sees them, and which of its views a classifier is attacked by."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from ..._arrays.options import Options
from ...bayes.classifier import BayesClassifier
from ...classifiers.recognise.forms import KernelForm, LinearForm
from ...classifiers.recognise.recognise import Unrecognised, as_classifier, is_module, machine_form
from ...classifiers.svm.kernel_machine import RBFMachine
from .bayes import Choice, Confirmed, GradientVictim, MixtureVictim, Strict

__all__ = ["KernelVictim", "LinearVictim", "as_victim"]

Array = Any  # NumPy's


class _MachineVictim(GradientVictim):
    """A classifier by the form that was read off it."""

    def final(self) -> Strict:
        """Verified by the form and, of classifiers that are not ours, by their own predict."""
        ours = type(self.clf).__module__.split(".")[0] == "mfakit" or not callable(getattr(self.clf, "predict", None))
        return Strict(self) if ours else Confirmed(self)


class LinearVictim(_MachineVictim):
    """f = W x + b, in float64: W [1 or C, d], b [1 or C]. Its nearest boundary is known in closed form."""

    def __init__(self, clf: Any, options: Options, sample: Array, form: LinearForm) -> None:
        self.weights, self.intercept = form.weights, form.intercept
        self.narrow = form.narrow or (form.stepwise and sample.dtype.itemsize < 8)
        super().__init__(clf, options, sample)

    def differences(self, y: Array) -> tuple[Array, Array]:
        """W_c - W_y [n, C, d] and b_c - b_y [n, C] of every class against the true one."""
        W, b = self.weights, self.intercept
        if len(W) == 1:
            W, b = np.concatenate([np.zeros_like(W), W]), np.concatenate([[0.0], b])
        return W[None] - W[y][:, None], b[None] - b[y][:, None]

    def _decide(self, X: Array) -> Array:
        return np.asarray(X @ self.weights.T + self.intercept)

    def _margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        W, _ = self.differences(y)
        return np.asarray(W[np.arange(len(X)), choice.target_class])

    def _unit(self, sample: Array) -> float:
        return 2.0**-24 if self.narrow else 2.0**-53


class KernelVictim(_MachineVictim):
    """A machine of RBF kernels: scores and gradients by its products in float64, without the checks of its owner.

    With `log_ratio` its direction is the difference of the log-gradients of the two sums that its decision is the
    difference of, Σ_{a>0} a K and Σ_{a<0} |a| K: it points from one class to the other wherever the kernels vanish.
    """

    def __init__(self, clf: Any, options: Options, sample: Array, machine: RBFMachine, log_ratio: bool = False) -> None:
        self.machine, self.log_ratio = machine, log_ratio
        self._last: tuple[Array, Array] | None = None
        super().__init__(clf, options, sample)

    def rounding(self, X: Array, y: Array, joint: Array, choice: Choice) -> Array:
        """How much of a margin may be rounding, [n]."""
        return 2 * self.machine.rounding(X, self._kernel(X))

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """Gradient of the margin, or of its log-ratio, [n, d]."""
        if not self.log_ratio:
            return super().direction(X, y, choice)
        return self.machine.log_ratio_gradient_of(X, self._coefficients(y, choice))

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """Gradient of the margin itself, scaled."""
        return super().direction(X, y, choice)

    def _coefficients(self, y: Array, choice: Choice) -> Array:
        """Of the other class's score minus the true one's, [n, m]."""
        a = self.machine.coefficients
        if len(a) == 1:
            return np.where(y == 0, 1.0, -1.0)[:, None] * a
        return np.asarray(a[choice.target_class] - a[y])

    def _decide(self, X: Array) -> Array:
        return self.machine.values(X, self._kernel(X))

    def _margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        return self.machine.gradient_of(X, self._coefficients(y, choice), self._kernel(X))

    def _kernel(self, X: Array) -> Array:
        """Kernels of a block, kept until the next one: a step asks for scores and then for the direction there."""
        if self._last is None or not np.array_equal(self._last[0], X):
            self._last = X.copy(), self.machine.kernel(X)
        return self._last[1]

    def _unit(self, sample: Array) -> float:
        return 2.0**-53


def as_victim(
    clf: Any, rows: int, options: Options, sample: Array, log_ratio: bool = False, device: str | None = None
) -> MixtureVictim | GradientVictim:
    """The view of a classifier that the attack walks on; blocks of at most `rows` samples, of which `sample` [b, d] are
    some, in the data's dtype. `device`: where they lie, None for the host.
    """
    if isinstance(clf, BayesClassifier):
        return MixtureVictim(clf, rows, options, device)
    if device is not None or options.backend == "cuda":
        raise ValueError(
            f"a {type(clf).__name__} is attacked on the host, and X is on {device or 'the way to a device'}; pass "
            "X.get() or X.cpu(), and a backend of the host"
        )
    try:
        form = machine_form(clf, sample)
    except Unrecognised as error:
        if differentiable(clf):
            return GradientVictim(_nameless(clf), options, sample)
        raise TypeError(f"{error}; or give it decision_gradient beside decision_function") from error
    if isinstance(form, KernelForm):
        return KernelVictim(clf, options, sample, form.machine, log_ratio)
    return LinearVictim(clf, options, sample, form)


def attackable(clf: Any) -> Any:
    """The classifier that the gradient attack is given, or that a fitted search holds.

    Raises
    ------
    TypeError
        For what is no fitted classifier, and for torch modules.
    """
    if is_module(clf):
        raise TypeError(
            f"{type(clf).__name__} is a torch module, and gradient_attack takes classifiers with decision_function; "
            "call carlini_wagner_l2, which takes modules, or pass the classifier that the module was made of"
        )
    return as_classifier(clf)


def differentiable(clf: Any) -> bool:
    """Whether a classifier offers its decisions and their gradients itself."""
    return all(callable(getattr(clf, name, None)) for name in ("decision_function", "decision_gradient"))


def _nameless(clf: Any) -> Any:
    """A classifier that was fitted to named columns as one that never heard of them: scikit-learn's would warn of each
    block of rows, which have none.
    """
    if "feature_names_in_" in getattr(clf, "__dict__", {}):
        clf = copy(clf)
        del clf.feature_names_in_
    return clf
