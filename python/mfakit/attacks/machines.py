"""Linear and kernel machines as the gradient attack sees them, ours and scikit-learn's, and who is taken for what."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from .._options import Options
from .._threads import errstate
from ..bayes import BayesClassifier
from .victims import PROBES, Choice, GradientVictim, MixtureVictim

if TYPE_CHECKING:
    from ..classifiers._kernel_products import RBFMachine

__all__ = ["KernelVictim", "LinearVictim", "as_victim"]

Array = Any  # NumPy's

# A machine recognised by its attributes is believed where its own decisions agree this well.
AGREEMENT = 1e-5


class LinearVictim(GradientVictim):
    """f = W x + b, in float64: W [1 or C, d], b [1 or C]. Its nearest boundary is known in closed form."""

    def __init__(self, clf: Any, options: Options, sample: Array, weights: Array, intercept: Array) -> None:
        self.weights, self.intercept = weights.astype(np.float64), intercept.astype(np.float64)
        self.narrow = weights.dtype.itemsize < 8
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


class KernelVictim(GradientVictim):
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
    clf = _nameless(clf)
    if isinstance(clf, BayesClassifier):
        return MixtureVictim(clf, rows, options, device)
    if device is not None or options.backend == "cuda":
        raise ValueError(
            f"a {type(clf).__name__} is attacked on the host, and X is on {device or 'the way to a device'}; pass "
            "X.get() or X.cpu(), and a backend of the host"
        )
    machine = _rbf_machine(clf, sample)
    if machine is not None:
        return KernelVictim(clf, options, sample, machine, log_ratio)
    linear = _linear_parts(clf, sample)
    if linear is not None:
        return LinearVictim(clf, options, sample, *linear)
    if callable(getattr(clf, "decision_function", None)) and callable(getattr(clf, "decision_gradient", None)):
        return GradientVictim(clf, options, sample)
    raise TypeError(
        f"{type(clf).__name__} cannot be attacked by gradient: it has no decision_function and decision_gradient, nor "
        f"is it a fitted linear classifier or RBF SVM of two classes"
    )


def _nameless(clf: Any) -> Any:
    """A classifier that was fitted to named columns as one that never heard of them: scikit-learn's would warn of each
    block of rows, which have none.
    """
    if "feature_names_in_" in getattr(clf, "__dict__", {}):
        clf = copy(clf)
        del clf.feature_names_in_
    return clf


def _rbf_machine(clf: Any, sample: Array) -> RBFMachine | None:
    """The machine of our RBFSVM, or of scikit-learn's fitted SVC(kernel="rbf") of two classes."""
    machine: RBFMachine | None = getattr(clf, "kernel_machine", None)
    if machine is not None or getattr(clf, "kernel", None) != "rbf" or len(getattr(clf, "classes_", ())) != 2:
        return machine
    support, dual, intercept, gamma = (
        getattr(clf, name, None) for name in ("support_vectors_", "dual_coef_", "intercept_", "_gamma")
    )
    if (
        gamma is None or not isinstance(support, np.ndarray) or not isinstance(dual, np.ndarray)
    ):  # not fitted, or sparse
        return None
    from ..classifiers._kernel_products import RBFMachine

    machine = RBFMachine(support, dual, np.asarray(intercept), gamma)
    x = sample[:PROBES].astype(np.float64)
    if not len(x):
        return machine
    return machine if np.allclose(machine.values(x)[:, 0], clf.decision_function(x), AGREEMENT, AGREEMENT) else None


def _linear_parts(clf: Any, sample: Array) -> tuple[Array, Array] | None:
    """W [1 or C, d] and b of whatever has coef_ and intercept_, if its decisions are W x + b."""
    W, b, classes = (getattr(clf, name, None) for name in ("coef_", "intercept_", "classes_"))
    if not isinstance(W, np.ndarray) or W.ndim != 2 or b is None or classes is None:
        return None
    if not callable(getattr(clf, "decision_function", None)) or len(W) != (1 if len(classes) == 2 else len(classes)):
        return None
    if len(classes) > 2 and np.shape(getattr(clf, "dual_coef_", W))[0] != len(W):
        return None  # pairwise machines, of which three classes have three
    b = np.broadcast_to(np.asarray(b, W.dtype), len(W))
    x = sample[:PROBES].astype(np.float64)
    if not len(x):
        return W, b
    with errstate(over="ignore"):
        size = np.linalg.norm(x, axis=1).max(initial=0.0) * np.linalg.norm(W, axis=1).max() + np.abs(b).max()
    decision = np.asarray(clf.decision_function(x)).reshape(len(x), -1)
    if decision.shape != (len(x), len(W)) or not np.allclose(x @ W.T + b, decision, AGREEMENT, AGREEMENT * size):
        return None
    return W, b
