"""The Numba backend: compiled loops where no C++ extension is installed. Meanings and contract: ``numpy_ops.py``.

An operation is cut into ranges of rows, pairs or features, never into shares of one sum, so that its result has the
same bits whatever `n_threads` is. The threads are Python's own, made for the call (kernels run without the GIL): unlike
the thread pools of ``njit(parallel=True)`` they survive a fork, and several callers at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from threading import Event
from typing import Any

import numpy as np

from .._threads.process import run_together
from . import numpy_ops
from ._numba import kernels
from ._numba import walk as walks
from .binding import bind, operations, written
from .operands import Coarse, Coordinates, Mixture, Pairs, Subspaces, Sums, WeightedPairs

__all__ = operations("numba")

Array = Any

# Steps of a kernel's inner loops that are worth a thread: about 0.2 ms, twice what starting one costs.
WORTH_A_THREAD = 2**18


def _run(kernel: Callable[..., None], size: int, steps: int, n_threads: int, *arguments: Any) -> None:
    """kernel(start, stop, *arguments) over the ranges that `size` is cut into; `steps` is the whole work."""
    parts = max(1, min(n_threads, size, steps // WORTH_A_THREAD))
    if parts == 1:
        _call(kernel, 0, size, *arguments)
        return
    edges = [size * i // parts for i in range(parts + 1)]
    run_together([partial(_call, kernel, start, stop, *arguments) for start, stop in pairwise(edges)], Event())


def _call(kernel: Callable[..., None], *arguments: Any) -> None:
    try:
        kernel(*arguments)
    except OSError:
        # Compiled, but the code could not be written to Numba's cache (a full disk): nothing has run yet.
        kernel(*arguments)


def _frozen(operand: Any) -> Any:
    """Read-only views: no kernel that writes to them compiles, and X has one type whether or not it is writeable."""
    if isinstance(operand, tuple):
        return operand._make(map(_frozen, operand))  # type: ignore[attr-defined]
    if not isinstance(operand, np.ndarray) or not operand.flags.writeable:
        return operand
    view = operand.view()
    view.flags.writeable = False
    return view


def _by(kernel: Callable[..., None]) -> Callable[[Callable[..., tuple[int, int]]], Callable[..., Any]]:
    """The operation of this name by a kernel; the decorated function says of its operands, in their order, how many
    rows, pairs or features they can be cut into, and how many steps of the kernel's inner loops they are.
    """

    def decorate(measure: Callable[..., tuple[int, int]]) -> Callable[..., Any]:
        name = measure.__name__
        parameters, changed = list(inspect.signature(getattr(numpy_ops, name)).parameters), written(name)
        reads = [parameter not in changed for parameter in parameters[:-1]]

        def run(n_threads: int, *operands: Any) -> None:
            size, steps = measure(*operands)
            frozen = (_frozen(value) if read else value for value, read in zip(operands, reads, strict=True))
            _run(kernel, size, steps, n_threads, *frozen)

        return bind(name, run)

    return decorate


@_by(kernels.center_rows)
def center_rows(X: Array, *_: Any) -> tuple[int, int]:
    return len(X), X.size


@_by(kernels.mixture_epilogue)
def mixture_epilogue(coarse: Coarse, *_: Any) -> tuple[int, int]:
    return len(coarse.products), coarse.products.size


@_by(kernels.refine)
def refine(X: Array, pairs: Pairs, mixture: Mixture, *_: Any) -> tuple[int, int]:
    m, (_, l, d) = len(pairs.rows), mixture.whitened.shape
    return m, m * d * (l + 1)


@_by(kernels.log_sum_exp)
def log_sum_exp(log_prob: Array, *_: Any) -> tuple[int, int]:
    return len(log_prob), 8 * log_prob.size


@_by(kernels.softmax)
def softmax(log_prob: Array, *_: Any) -> tuple[int, int]:
    return len(log_prob), 8 * log_prob.size


@_by(kernels.accumulate_gradient)
def accumulate_gradient(X: Array, pairs: WeightedPairs, mixture: Mixture, *_: Any) -> tuple[int, int]:
    m, (_, l, d) = len(pairs.rows), mixture.whitened.shape
    return d, m * d * (l + 1)  # by features: pairs share rows


@_by(kernels.point_distances)
def point_distances(coarse: Coarse, *_: Any) -> tuple[int, int]:
    return len(coarse.products), coarse.products.size


@_by(kernels.pair_distances)
def pair_distances(products: Array, side0: Subspaces, side1: Subspaces, *_: Any) -> tuple[int, int]:
    (k0, l0), (k1, l1) = side0.shift.shape, side1.shift.shape
    return k0, k0 * k1 * (10 * l1**3 + l0 + 1)  # the eigenproblem takes some ten sweeps of l1³ steps


@_by(kernels.attack_step)
def attack_step(X: Array, *_: Any) -> tuple[int, int]:
    return len(X), 2 * X.size


@_by(walks.factor_walk)
def factor_walk(coordinates: Coordinates, y: Array, *_: Any) -> tuple[int, int]:
    columns, factors = len(coordinates.gram), coordinates.gain.shape[1]
    # A step moves the inner products along 2 l + 2 columns, and a walk takes some fifty.
    return len(y), 50 * len(y) * columns * (2 * factors + 2)


@_by(kernels.accumulate_statistics)
def accumulate_statistics(X: Array, pairs: WeightedPairs, means: Array, sums: Sums) -> tuple[int, int]:
    d = X.shape[1]
    return d, len(pairs.rows) * d * (pairs.latents.shape[1] + 2)  # by features: pairs share components
