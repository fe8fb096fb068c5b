"""The loops of the Numba backend, in the shape of the C++ headers (``csrc/include``): what an operation means is in
``numpy_ops.py``, who calls these is in ``numba_ops.py``.

Every kernel is serial and works on [start, stop) of its rows, pairs or features; what it writes for one of them does
not depend on the range it came in, so that any split gives the same bits. All of them are in this one file because
Numba's cache notices changes of the file a kernel stands in, and of no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from ..numpy_ops import CUTOFF_NATS, Array
from ..operands import Coarse, Mixture, Pairs, Subspaces, Sums, WeightedPairs

# Sums stay in the order they are written in: NaN and inf mean what they mean, and bits do not depend on the split.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}
# Samples of one component that share each value of W: four independent sums hide the latency of an addition.
TILE = 4
# Features at a time: residuals of a tile stay in the first-level cache.
LANES = 64
# Pairs of one component that share a chunk of W or of the sums, in operations that are split by features.
RUN = 32


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile on first call and keep the machine code on disk, where there is a directory that can be written to."""
    try:
        compiled: Callable[..., None] = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither beside this file nor in the user's cache directory
        compiled = njit(**OPTIONS)(function)
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of kernels; it is compiled and kept with them."""
    compiled: Callable[..., Any] = njit(**OPTIONS)(function)
    return compiled


@inlined
def not_negative(x: float) -> float:
    """A squared length that rounding may have pushed below zero; NaN stays NaN."""
    return 0.0 if x < 0.0 else x


@inlined
def explained(products: Array, row: int, first: int, shift: Array, j: int) -> float:
    """‖W (x - μ)‖² from W (x - c), which starts at products [row, first], and shift [j] = W (μ - c)."""
    total = 0.0
    for a in range(shift.shape[1]):
        t = products[row, first + a] - shift[j, a]
        total += t * t
    return total


@inlined
def run_length(components: Array, m: int, stop: int, most: int) -> int:
    """How many entries from m on, at most `most`, have the component of m."""
    length = 1
    while length < most and m + length < stop and components[m + length] == components[m]:
        length += 1
    return length


@kernel
def center_rows(start: int, stop: int, X: Array, center: Array, out: Array, sq_norms: Array) -> None:
    d = X.shape[1]
    for i in range(start, stop):
        sq_norms[i] = 0.0
        for first in range(0, d, LANES):  # a sum of short sums: its error does not grow with d
            total = 0.0
            for q in range(first, min(first + LANES, d)):
                out[i, q] = X[i, q] - center[q]
                value = np.float64(out[i, q])
                total += value * value
            sq_norms[i] += total


@kernel
def mixture_epilogue(start: int, stop: int, coarse: Coarse, mixture: Mixture, log_prob: Array, keep: Array) -> None:
    products, quad, sq_norms, slack = coarse
    inv_noise, shift, mean_norm, log_norm = mixture.inv_noise, mixture.shift, mixture.mean_norm, mixture.log_norm
    k, l = shift.shape
    diagonal, error = quad.shape[1] > 0, np.empty(k)
    for i in range(start, stop):
        top = -np.inf
        for j in range(k):
            first = j * (l + 1)
            q = np.float64(quad[i, j]) if diagonal else sq_norms[i] * inv_noise[j]
            maha = q - 2.0 * products[i, first + l] + mean_norm[j] - explained(products, i, first, shift, j)
            log_prob[i, j] = log_norm[j] - 0.5 * not_negative(maha)
            error[j] = slack * (q + mean_norm[j])
            low = log_prob[i, j] - error[j]
            top = max(top, low)
        for j in range(k):
            keep[i, j] = log_prob[i, j] + error[j] >= top - CUTOFF_NATS


@inlined
def load_residuals(
    X: Array, rows: Array, m: int, width: int, means: Array, j: int, first: int, last: int, r: Array
) -> None:
    """r [width, last - first] = x - μ of the pairs m to m + width, features first to last."""
    for t in range(width):
        row = rows[m + t]
        for q in range(last - first):
            r[t, q] = X[row, first + q] - means[j, first + q]


@inlined
def load_variances(noise: Array, j: int, first: int, last: int, variance: Array) -> None:
    """variance [last - first] of component j, whichever noise it has."""
    for q in range(last - first):
        variance[q] = noise[j, first + q] if noise.shape[1] > 1 else noise[j, 0]


@inlined
def back(whitened: Array, j: int, y: Array, t: int, first: int, last: int, g: Array) -> None:
    """g [last - first] = Wᵀ y [t]."""
    for q in range(last - first):
        g[q] = 0.0
    for a in range(whitened.shape[1]):
        y_a = y[t, a]  # by name: g might overlap y for all the compiler knows
        for q in range(last - first):
            g[q] += y_a * whitened[j, a, first + q]


@inlined
def latent_norm(latent_map: Array, j: int, y: Array, t: int) -> float:
    """‖Z y [t]‖² = ‖E[z | x]‖²."""
    total = 0.0
    for a in range(y.shape[1]):
        z = 0.0
        for b in range(y.shape[1]):
            z += latent_map[j, a, b] * y[t, b]
        total += z * z
    return total


@inlined
def project(
    X: Array, rows: Array, m: int, width: int, means: Array, whitened: Array, j: int, r: Array, y: Array
) -> None:
    """y [width, l] = W (x - μ) of the pairs m to m + width; r [TILE, LANES] is scratch."""
    l, d = whitened.shape[1:]
    y[:] = 0.0
    for first in range(0, d, LANES):
        last = min(first + LANES, d)
        load_residuals(X, rows, m, width, means, j, first, last, r)
        for a in range(l):
            s0 = s1 = s2 = s3 = 0.0  # TILE of them; those beyond `width` are not used
            for q in range(last - first):
                w = whitened[j, a, first + q]
                s0 += w * r[0, q]
                s1 += w * r[1, q]
                s2 += w * r[2, q]
                s3 += w * r[3, q]
            y[0, a] += s0
            y[1, a] += s1
            y[2, a] += s2
            y[3, a] += s3


@kernel
def refine(
    start: int, stop: int, X: Array, pairs: Pairs, mixture: Mixture, log_prob: Array, whitened_latent: Array
) -> None:
    rows, components = pairs
    means, whitened, noise = mixture.means, mixture.whitened, mixture.noise
    l, d = whitened.shape[1:]
    r, y, maha = np.zeros((TILE, LANES)), np.empty((TILE, l)), np.empty(TILE)
    g, variance = np.empty(LANES), np.empty(LANES)
    m = start
    while m < stop:
        j, width = components[m], run_length(components, m, stop, TILE)
        project(X, rows, m, width, means, whitened, j, r, y)
        maha[:] = 0.0
        for first in range(0, d, LANES):
            last = min(first + LANES, d)
            load_residuals(X, rows, m, width, means, j, first, last, r)
            load_variances(noise, j, first, last, variance)
            for t in range(width):
                back(whitened, j, y, t, first, last, g)
                total = 0.0
                for q in range(last - first):
                    e = r[t, q] - variance[q] * g[q]
                    total += e * e / variance[q]
                maha[t] += total
        for t in range(width):
            log_prob[m + t] = mixture.log_norm[j] - 0.5 * (maha[t] + latent_norm(mixture.latent_map, j, y, t))
            whitened_latent[m + t] = y[t]
        m += width


@kernel
def log_sum_exp(start: int, stop: int, log_prob: Array, out: Array) -> None:
    k = log_prob.shape[1]
    for i in range(start, stop):
        top = -np.inf
        for j in range(k):
            top = max(top, log_prob[i, j])
        base = top if np.isfinite(top) else 0.0
        total = 0.0
        for j in range(k):
            total += np.exp(log_prob[i, j] - base)
        out[i] = np.log(total) + base


@kernel
def softmax(start: int, stop: int, log_prob: Array, out: Array) -> None:
    k = log_prob.shape[1]
    for i in range(start, stop):
        top = -np.inf
        for j in range(k):
            top = max(top, log_prob[i, j])
        total = 0.0
        for j in range(k):
            impossible = top == -np.inf and log_prob[i, j] == -np.inf  # and not NaN, which is no maximum
            out[i, j] = 1.0 if impossible else np.exp(log_prob[i, j] - top)
            total += out[i, j]
        for j in range(k):
            out[i, j] /= total


@kernel
def accumulate_gradient(start: int, stop: int, X: Array, pairs: WeightedPairs, mixture: Mixture, out: Array) -> None:
    rows, components, weights, latents = pairs
    means, whitened, noise = mixture.means, mixture.whitened, mixture.noise
    r, g, variance = np.empty((1, LANES)), np.empty(LANES), np.empty(LANES)
    run = 0
    while run < len(rows):
        j, length = components[run], run_length(components, run, len(rows), RUN)
        for first in range(start, stop, LANES):
            last = min(first + LANES, stop)
            load_variances(noise, j, first, last, variance)
            for m in range(run, run + length):
                load_residuals(X, rows, m, 1, means, j, first, last, r)
                back(whitened, j, latents, m, first, last, g)
                row, w = rows[m], weights[m]
                for q in range(last - first):
                    out[row, first + q] += w * (g[q] - r[0, q] / variance[q])
        run += length


@kernel
def point_distances(
    start: int, stop: int, coarse: Coarse, mixture: Mixture, tolerance: float, sq_distances: Array, keep: Array
) -> None:
    products, _, sq_norms, slack = coarse
    shift, mean_norm = mixture.shift, mixture.mean_norm
    k, l = shift.shape
    for i in range(start, stop):
        for j in range(k):
            first, size = j * (l + 1), sq_norms[i] + mean_norm[j]
            sq = not_negative(size - 2.0 * products[i, first + l] - explained(products, i, first, shift, j))
            sq_distances[i, j] = sq
            keep[i, j] = slack * size > tolerance * sq


@inlined
def rotate(S: Array, V: Array, p: int, q: int) -> None:
    """The rotation by the smaller angle that zeroes S [p, q] (Golub & Van Loan, section 8.5); V follows."""
    tau = (S[q, q] - S[p, p]) / (2.0 * S[p, q])
    t = (1.0 if tau >= 0.0 else -1.0) / (abs(tau) + np.sqrt(1.0 + tau * tau))
    c = 1.0 / np.sqrt(1.0 + t * t)
    s = t * c
    for i in range(len(S)):
        S[i, p], S[i, q] = c * S[i, p] - s * S[i, q], s * S[i, p] + c * S[i, q]
        V[i, p], V[i, q] = c * V[i, p] - s * V[i, q], s * V[i, p] + c * V[i, q]
    for i in range(len(S)):
        S[p, i], S[q, i] = c * S[p, i] - s * S[q, i], s * S[p, i] + c * S[q, i]


@inlined
def jacobi_eigen(S: Array, V: Array) -> None:
    """Eigenvalues (on the diagonal of S) and eigenvectors (columns of V) of a symmetric S [l, l], by cyclic Jacobi."""
    l = len(S)
    V[:] = 0.0
    for a in range(l):
        V[a, a] = 1.0
    for _ in range(60):
        off = diagonal = 0.0
        for a in range(l):
            diagonal += S[a, a] * S[a, a]
            for b in range(a + 1, l):
                off += S[a, b] * S[a, b]
        if not off > 1e-34 * diagonal:  # NaN ends here, too
            return
        for p in range(l):
            for q in range(p + 1, l):
                if S[p, q] != 0.0:
                    rotate(S, V, p, q)


@inlined
def sines_and_offset(
    products: Array, i: int, j: int, shift0: Array, shift1: Array, u0: Array, v: Array, S: Array
) -> None:
    """u0 = Q0ᵀ Δ, v = u1 - Gᵀ u0 and S = I - Gᵀ G of the pair (i, j)."""
    l0, l1 = len(u0), len(v)
    for a in range(l0):
        u0[a] = shift0[i, a] - products[i, a, j, l1]
    for b in range(l1):
        v[b] = products[i, l0, j, b] - shift1[j, b]
        for a in range(l0):
            v[b] -= products[i, a, j, b] * u0[a]
        for c in range(b + 1):
            dot = 0.0
            for a in range(l0):
                dot += products[i, a, j, b] * products[i, a, j, c]
            S[b, c] = S[c, b] = (1.0 if b == c else 0.0) - dot


@kernel
def pair_distances(
    start: int, stop: int, products: Array, side0: Subspaces, side1: Subspaces, sq_distances: Array, suspect: Array
) -> None:
    shift0, norm0 = side0
    shift1, norm1 = side1
    l0, (k1, l1) = shift0.shape[1], shift1.shape
    u0, v, S, V = np.empty(l0), np.empty(l1), np.empty((l1, l1)), np.empty((l1, l1))
    for i in range(start, stop):
        for j in range(k1):
            sines_and_offset(products, i, j, shift0, shift1, u0, v, S)
            jacobi_eigen(S, V)
            size = norm0[i] + norm1[j]
            sq = size - 2.0 * products[i, l0, j, l1] - np.sum(u0 * u0)
            shared = False
            for b in range(l1):
                if S[b, b] < 1e-4:
                    shared = True
                    continue
                along = 0.0
                for c in range(l1):
                    along += V[c, b] * v[c]
                sq -= along * along / S[b, b]
            sq_distances[i, j] = not_negative(sq)
            suspect[i, j] = shared or not_negative(sq) < 1e-6 * size


@kernel
def attack_step(start: int, stop: int, X: Array, direction: Array, step_size: float) -> None:
    for i in range(start, stop):
        norm = 0.0
        for q in range(X.shape[1]):
            norm += direction[i, q] * direction[i, q]
        norm = np.sqrt(norm)
        if norm > 0.0 and np.isfinite(norm):  # else nowhere to go
            scale = step_size / norm
            for q in range(X.shape[1]):
                X[i, q] += scale * direction[i, q]


@kernel
def accumulate_statistics(start: int, stop: int, X: Array, pairs: WeightedPairs, means: Array, sums: Sums) -> None:
    rows, components, weights, latents = pairs
    sum_x, sum_xz, sum_xx = sums
    l = latents.shape[1]
    r = np.empty((1, LANES))
    run = 0
    while run < len(rows):
        j, length = components[run], run_length(components, run, len(rows), RUN)
        for first in range(start, stop, LANES):
            last = min(first + LANES, stop)
            for m in range(run, run + length):
                load_residuals(X, rows, m, 1, means, j, first, last, r)
                w = weights[m]
                for q in range(last - first):
                    sum_x[j, first + q] += w * r[0, q]
                    sum_xx[j, first + q] += w * r[0, q] * r[0, q]
                for a in range(l):
                    wz = w * latents[m, a]
                    for q in range(last - first):
                        sum_xz[j, a, first + q] += wz * r[0, q]
        run += length
