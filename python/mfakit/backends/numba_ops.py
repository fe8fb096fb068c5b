"""The Numba backend: compiled loops where no C++ extension is installed. Meanings and contract: ``numpy_ops.py``.

An operation is cut into ranges of rows, pairs or features, never into shares of one sum, so that its result has the
same bits whatever `n_threads` is. The threads are Python's own, made for the call (kernels run without the GIL): unlike
the thread pools of ``njit(parallel=True)`` they survive a fork, and several callers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from threading import Event
from typing import Any

import numpy as np

from .._threads.process import run_together
from ._numba import kernels
from ._numba import walk as walks
from .numpy_ops import Array
from .table import TABLE

__all__ = list(TABLE)

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


def _read(*arrays: Array) -> list[Array]:
    """Read-only views: no kernel that writes to them compiles, and X has one type whether or not it is writeable."""
    views = [array.view() for array in arrays]
    for view in views:
        view.flags.writeable = False
    return views


def center_rows(X: Array, center: Array, out: Array, sq_norms: Array, n_threads: int = 1) -> None:
    """out [n, d] = X [n, d] - center [d]; sq_norms [n] = ‖out‖², summed in float64."""
    _run(kernels.center_rows, len(X), X.size, n_threads, *_read(X, center), out, sq_norms)


def mixture_epilogue(
    products: Array,
    quad: Array | None,
    sq_norms: Array,
    inv_noise: Array,
    shift: Array,
    mean_norm: Array,
    log_norm: Array,
    slack: float,
    log_prob: Array,
    keep: Array,
    n_threads: int = 1,
) -> None:
    """log_prob [n, k] and keep [n, k] from products [n, k (l+1)]."""
    quad = np.empty((0, 0), products.dtype) if quad is None else quad
    inputs = _read(products, quad, sq_norms, inv_noise, shift, mean_norm, log_norm)
    steps = products.size
    _run(kernels.mixture_epilogue, len(products), steps, n_threads, *inputs, float(slack), log_prob, keep)


def refine(
    X: Array,
    rows: Array,
    components: Array,
    means: Array,
    whitened: Array,
    latent_map: Array,
    noise: Array,
    log_norm: Array,
    log_prob: Array,
    whitened_latent: Array,
    n_threads: int = 1,
) -> None:
    """log_prob [m] and whitened_latent [m, l] of m pairs, from their residuals in float64."""
    inputs = _read(X, rows, components, means, whitened, latent_map, noise, log_norm)
    steps = len(rows) * X.shape[1] * (whitened.shape[1] + 1)
    _run(kernels.refine, len(rows), steps, n_threads, *inputs, log_prob, whitened_latent)


def log_sum_exp(log_prob: Array, out: Array, n_threads: int = 1) -> None:
    """out [n] = log Σ_k exp log_prob [n, k]; a row of -inf gives -inf."""
    _run(kernels.log_sum_exp, len(log_prob), 8 * log_prob.size, n_threads, *_read(log_prob), out)


def softmax(log_prob: Array, out: Array, n_threads: int = 1) -> None:
    """out [n, k] = exp log_prob over its sum in each row; a row of -inf gives 1/k each."""
    _run(kernels.softmax, len(log_prob), 8 * log_prob.size, n_threads, *_read(log_prob), out)


def accumulate_gradient(
    X: Array,
    rows: Array,
    components: Array,
    weights: Array,
    whitened_latent: Array,
    means: Array,
    whitened: Array,
    noise: Array,
    out: Array,
    n_threads: int = 1,
) -> None:
    """out [n, d] += Σ over the m pairs of weights · (Wᵀ y - D⁻¹ (x - μ)); split by features, since pairs share rows."""
    inputs = _read(X, rows, components, weights, whitened_latent, means, whitened, noise)
    steps = len(rows) * X.shape[1] * (whitened.shape[1] + 1)
    _run(kernels.accumulate_gradient, X.shape[1], steps, n_threads, *inputs, out)


def point_distances(
    products: Array,
    sq_norms: Array,
    shift: Array,
    mean_norm: Array,
    slack: float,
    tolerance: float,
    sq_distances: Array,
    keep: Array,
    n_threads: int = 1,
) -> None:
    """sq_distances [n, k] to subspaces from products [n, k (l+1)], and which of them rounding may have spoiled."""
    inputs = _read(products, sq_norms, shift, mean_norm)
    limits = float(slack), float(tolerance)
    _run(kernels.point_distances, len(products), products.size, n_threads, *inputs, *limits, sq_distances, keep)


def pair_distances(
    products: Array,
    shift0: Array,
    norm0: Array,
    shift1: Array,
    norm1: Array,
    sq_distances: Array,
    suspect: Array,
    n_threads: int = 1,
) -> None:
    """sq_distances [k0, k1] between subspaces from products [k0, l0+1, k1, l1+1], and which of them need a QR."""
    inputs = _read(products, shift0, norm0, shift1, norm1)
    # The eigenproblem takes some ten sweeps of l1³ steps.
    steps = sq_distances.size * (10 * shift1.shape[1] ** 3 + shift0.shape[1] + 1)
    _run(kernels.pair_distances, len(norm0), steps, n_threads, *inputs, sq_distances, suspect)


def attack_step(X: Array, direction: Array, step_size: float, n_threads: int = 1) -> None:
    """X [n, d] += step_size · g/‖g‖ in place, float64, g = direction [n, d]; a sample with g = 0 or NaN stays."""
    _run(kernels.attack_step, len(X), 2 * X.size, n_threads, X, *_read(direction), float(step_size))


def factor_walk(
    gram: Array,
    variance: Array,
    gain: Array,
    spread: Array,
    log_const: Array,
    first: Array,
    y: Array,
    step_size: float,
    max_steps: int,
    frozen: bool,
    bisections: int,
    a: Array,
    w: Array,
    alpha: Array,
    sq: Array,
    reports: Array,
    n_threads: int = 1,
) -> None:
    """The whole gradient attack of n samples in factor coordinates; reports [n, 5] say how each walk ended."""
    inputs = _read(gram, variance, gain, spread, log_const, first, y)
    settings = float(step_size), int(max_steps), bool(frozen), int(bisections)
    # A step moves the inner products along 2 l + 2 columns, and a walk takes some fifty.
    steps = 50 * a.size * (2 * gain.shape[1] + 2)
    _run(walks.factor_walk, len(y), steps, n_threads, *inputs, *settings, a, w, alpha, sq, reports)


def accumulate_statistics(
    X: Array,
    rows: Array,
    components: Array,
    weights: Array,
    latents: Array,
    means: Array,
    sum_x: Array,
    sum_xz: Array,
    sum_xx: Array,
    n_threads: int = 1,
) -> None:
    """The M-step's sums over m pairs around the old means; split by features, since pairs share components."""
    inputs = _read(X, rows, components, weights, latents, means)
    steps = len(rows) * X.shape[1] * (latents.shape[1] + 2)
    _run(kernels.accumulate_statistics, X.shape[1], steps, n_threads, *inputs, sum_x, sum_xz, sum_xx)
