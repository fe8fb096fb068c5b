"""libsvm, as scikit-learn has it, on a kernel matrix that is already there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._threads.process import interruptible
from .gram import LIBSVM_BYTES, check_room

__all__ = ["Penalty", "Solution", "solve"]

Array = NDArray[Any]


class Penalty(NamedTuple):
    """C, and when the solver stops: its tolerance, and the most iterations (-1: no limit)."""

    C: float
    tol: float
    max_iter: int


class Solution(NamedTuple):
    """Support vectors as row numbers [m], signed dual coefficients [C, m], intercepts [C] and iterations [C]; C = 1 for
    two classes.
    """

    support: Array
    dual: Array
    intercept: Array
    n_iter: Array


def solve(kernel: Array, codes: Array, n_classes: int, penalty: Penalty) -> Solution:
    """The machine of two classes (positive: 1), or one for each class against all others, of one kernel matrix.

    Parameters
    ----------
    kernel : float64 [n, n]
    codes : int [n]
        Classes 0 .. n_classes - 1, each of which occurs.
    n_classes : int
    penalty : Penalty

    Raises
    ------
    MemoryError
        Without room for libsvm, which would crash.
    """
    check_room(len(codes), LIBSVM_BYTES * len(codes) ** 2)
    return interruptible(_solve, kernel, codes, n_classes, penalty)


def _solve(kernel: Array, codes: Array, n_classes: int, penalty: Penalty) -> Solution:
    if n_classes == 2:
        support, dual, intercept, n_iter = _binary(kernel, codes, penalty)
        return Solution(support, dual[None], np.array([intercept]), np.array([n_iter]))
    machines = [_binary(kernel, (codes == c).astype(np.int64), penalty) for c in range(n_classes)]
    support = np.unique(np.concatenate([rows for rows, *_ in machines]))
    dual = np.zeros((n_classes, len(support)))
    for c, (rows, values, *_) in enumerate(machines):
        dual[c, np.searchsorted(support, rows)] = values
    intercepts, iterations = (np.array([machine[i] for machine in machines]) for i in (2, 3))
    return Solution(support, dual, intercepts, iterations)


def _binary(kernel: Array, y: Array, penalty: Penalty) -> tuple[Array, Array, float, int]:
    from sklearn.svm import SVC

    # libsvm keeps rows of the kernel in float32; with room for all of them it reads each once.
    room = max(200.0, 4.4 * len(y) ** 2 / 2**20)
    # A seed of its own: without one scikit-learn draws it from NumPy's global stream, though nothing here is random.
    svc = SVC(
        C=penalty.C, kernel="precomputed", tol=penalty.tol, max_iter=penalty.max_iter, cache_size=room, random_state=0
    )
    svc.fit(kernel, y)
    return svc.support_.astype(np.int64), svc.dual_coef_[0], float(svc.intercept_[0]), int(svc.n_iter_[0])
