"""Gradients of RBFSVM by products against a loop over samples; fits and decisions are in benchmarks/peers.

Goal at n = 5,000, d = 12,288, of 1,000 samples: at least 20 times faster. That size is slow: its fit takes a while.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfakit.bench import Case, Machine, Timed, Work
from mfakit.classifiers import RBFSVM

Array = NDArray[Any]

# γ in units of 1/(d var X), as accuracy allows.
GAMMA = 4.0
SMALL, LARGE = {"n": 1000, "d": 3072}, {"n": 5000, "d": 12_288}


def samples(n: int, d: int) -> tuple[Array, Array]:
    """Two classes of low rank plus noise, as images are: float32 [n, d]."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    bases = rng.standard_normal((2, 10, d), dtype=np.float32) / np.float32(np.sqrt(d))
    X = np.float32(0.01) * rng.standard_normal((n, d), dtype=np.float32)
    for c in range(2):
        rows = y == c
        X[rows] += 0.3 + 3 * rng.standard_normal((int(rows.sum()), 10), dtype=np.float32) @ bases[c]
    return X, y


class Fitted:
    """Samples, and a machine fitted to them."""

    def __init__(self, n: int, d: int) -> None:
        self.X, self.y = samples(n, d)
        self.gamma = GAMMA / (d * float(self.X.var(dtype=np.float64)))
        self.svm = RBFSVM(gamma=self.gamma).fit(self.X, self.y)


def fitted(case: Case, machine: Machine) -> Fitted:
    made: Fitted = machine.kept(("svm", *case.size.values()), lambda: Fitted(**case.size))
    return made


def gradient_loop(svm: RBFSVM, X: Array) -> Array:
    """∇f sample by sample, as one writes it down."""
    result = np.empty(X.shape)
    for i, x in enumerate(X.astype(np.float64)):
        difference = x - svm.support_vectors_
        weights = svm.dual_coef_[0] * np.exp(-svm.gamma_ * np.einsum("md,md->m", difference, difference))
        result[i] = -2 * svm.gamma_ * weights @ difference
    return result


def gradients(case: Case, machine: Machine) -> Work:
    """The loop takes a twentieth of the samples."""
    svm = fitted(case, machine).svm
    X = samples(2000, case.size["d"])[0][1000:].astype(np.float64)
    part = X[::20]
    expected = gradient_loop(svm, part)
    error = np.abs(svm.decision_gradient(part) - expected).max() / np.abs(expected).max()
    loop = Timed(lambda: gradient_loop(svm, part), work=len(part) / len(X))
    return Work(Timed(lambda: svm.decision_gradient(X)), float(error), len(X), "samples", beside={"loop": loop})


GRADIENTS = {"against": "the loop in float64, relative to the largest value", "allowed": 1e-7, "rounds": 3}
CASES = (
    Case("RBFSVM.decision_gradient", gradients, SMALL, dtype="float64", **GRADIENTS),
    Case("RBFSVM.decision_gradient", gradients, LARGE, dtype="float64", slow=True, **GRADIENTS),
)
