"""Support vector machines: training and decisions beside scikit-learn's SVC."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from mfakit._lazy import lazy
from mfakit.bench import Timed
from mfakit.classifiers import RBFSVM, LinearSVM

from ..svm import GAMMA, samples
from .comparison import Bound, Checked, Comparison, Side
from .libraries import SKLEARN

Array = NDArray[Any]

# New samples whose decisions are compared.
CHECKED = 200
# Where both solvers stop, in units of the decision. Of the linear kernel ours is that of centred samples: the steps are
# others, and the solutions as near each other as this.
TOL = {"rbf": 1e-3, "linear": 1e-6}


class Inputs:
    """Two classes in float32, the same in float64, which SVC asks for, and new samples."""

    def __init__(self, n: int, d: int) -> None:
        X, y = samples(n + CHECKED, d)
        self.X, self.y, self.new = X[:n], y[:n], X[n:].astype(float)
        self.wide = self.X.astype(float)
        self.gamma = GAMMA / (d * float(self.X.var(dtype=np.float64)))

    @lazy
    def kernels(self) -> dict[str, Array]:
        """[n, n] by differences, float64."""
        X = self.wide - self.wide.mean(axis=0)
        return {"rbf": np.exp(-self.gamma * cdist(X, X, "sqeuclidean")), "linear": X @ X.T}

    def violation(self, svm: Any, kernel: str) -> float:
        """By how much a solution of the dual misses its optimality conditions, in units of the decision (the gap of the
        maximal violating pair, which solvers bring below tol).
        """
        signs = np.where(self.y == 1, 1.0, -1.0)
        dual = np.zeros(len(signs))
        dual[svm.support_] = svm.dual_coef_[0]
        slope = signs - self.kernels[kernel] @ dual
        rises = np.where(signs > 0, dual < 1, dual < 0)
        falls = np.where(signs > 0, dual > 0, dual > -1)
        return float(slope[rises].max() - slope[falls].min())


def ours(inputs: Inputs, kernel: str) -> Side:
    """A fit to float32 samples."""
    svm = RBFSVM(gamma=inputs.gamma, tol=TOL["rbf"]) if kernel == "rbf" else LinearSVM(tol=TOL["linear"])
    return Side(Timed(lambda: svm.fit(inputs.X, inputs.y)), type(svm)(**svm.get_params()).fit(inputs.X, inputs.y))


def theirs(inputs: Inputs, sklearn: Any, kernel: str) -> Side:
    """A fit to the same samples in float64. SVC computes those rows of the kernel matrix that its steps ask for, and
    ours is computed whole.
    """
    from sklearn.svm import SVC

    def made() -> Any:
        return SVC(kernel=kernel, gamma=inputs.gamma, tol=TOL[kernel])

    return Side(Timed(lambda: made().fit(inputs.wide, inputs.y)), made().fit(inputs.wide, inputs.y))


def check_fit(inputs: Inputs, ours: Any, theirs: Any, kernel: str) -> Checked:
    """Decisions on new samples; the errors are how far each misses the optimality conditions."""
    values = [svm.decision_function(inputs.new) for svm in (ours, theirs)]
    same = bool(np.array_equal(ours.support_, theirs.support_))
    return Checked(
        float(np.abs(values[0] - values[1]).max()), inputs.violation(ours, kernel), inputs.violation(theirs, kernel),
        {"gamma": inputs.gamma, "n_support": len(ours.support_), "same_support_vectors": same},
    )  # fmt: skip


class Fitted(Inputs):
    """And a fitted machine of ours."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__(n, d)
        self.svm = RBFSVM(gamma=self.gamma).fit(self.X, self.y)

    @lazy
    def values(self) -> Array:
        """Σ dual exp(-γ ‖x - s‖²) + b by differences, float64 [n checked]."""
        svm = self.svm
        kernel = np.exp(-svm.gamma_ * cdist(self.new, svm.support_vectors_.astype(float), "sqeuclidean"))
        return np.asarray(kernel @ svm.dual_coef_[0] + svm.intercept_[0])


def ours_decision(inputs: Fitted) -> Side:
    """Of all samples."""
    svm = inputs.svm
    return Side(Timed(lambda: svm.decision_function(inputs.wide)), svm.decision_function(inputs.new))


def theirs_decision(inputs: Fitted, sklearn: Any) -> Side:
    """By SVC's own fit, whose support vectors are the same."""
    svc = theirs(inputs, sklearn, "rbf").result
    return Side(Timed(lambda: svc.decision_function(inputs.wide)), svc.decision_function(inputs.new))


def check_decision(inputs: Fitted, ours: Array, theirs: Array) -> Checked:
    """On new samples."""
    apart = partial(_apart, inputs.values)
    return Checked(_apart(ours, theirs), apart(ours), apart(theirs))


def _apart(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max())


SMALL, LARGE = {"n": 1000, "d": 3072}, {"n": 5000, "d": 12_288}
FIT = "optimality conditions of the dual"
KERNELS = (
    ("RBFSVM.fit", "rbf", Bound(1e-6, "the same steps of libsvm on the same kernel matrix, which it holds in float32"),
     Bound(1.01e-3, "libsvm stops at 1e-3")),
    ("LinearSVM.fit", "linear", Bound(1e-4, "libsvm stops at 1e-6, after other steps, and holds kernels in float32"),
     Bound(1e-4, "libsvm stops at 1e-6, and holds kernels in float32")),
)  # fmt: skip
COMPARISONS = tuple(
    comparison
    for size in (SMALL, LARGE)
    for slow in (size is LARGE,)
    for comparison in (
        *[
            Comparison(name, SKLEARN, size, Inputs, partial(ours, kernel=kernel), partial(theirs, kernel=kernel),
                       partial(check_fit, kernel=kernel), FIT, equal, right, rounds=3, slow=slow)
            for name, kernel, equal, right in KERNELS
        ],
        Comparison("RBFSVM.decision_function", SKLEARN, size, Fitted, ours_decision, theirs_decision, check_decision,
                   "decisions", Bound(1e-6, "solutions that agree to that"),
                   Bound(1e-9, "float64: distances by a product"), dtype="float64", rounds=3, slow=slow),
    )
)  # fmt: skip
