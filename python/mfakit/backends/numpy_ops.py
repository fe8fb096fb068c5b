"""The readable backend: every operation of the table in a few lines of NumPy.

The contract, for all backends: arrays are C-contiguous; ``X`` and products are float32 or float64 (``real``),
everything else float64, indices int64, masks uint8; outputs are allocated by the caller and come last before
``n_threads``; inputs are never written to. ``m`` pairs (row, component) are sorted by component. Where a mixture is
isotropic, ``noise`` is [k, 1] and ``quad`` is None; where it is diagonal, ``noise`` is [k, d].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Components further than this below the best one carry less than e^-40 = 4e-18 of the density: nothing in float64.
CUTOFF_NATS = 40.0


def center_rows(X: Array, center: Array, out: Array, sq_norms: Array, n_threads: int = 1) -> None:
    """out [n, d] = X [n, d] - center [d]; sq_norms [n] = ‖out‖², summed in float64."""
    np.subtract(X, center, out=out, casting="same_kind")
    for start in range(0, len(X), 256):  # pairwise sums round less than running ones, but need their terms in memory
        rows = slice(start, start + 256)
        np.sum(np.square(out[rows], dtype=np.float64), axis=1, out=sq_norms[rows])


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
    """From products to log-probabilities, and which of them can still matter.

    products [n, k (l+1)] are (x - c) · P (on a device with further columns, which pad its rows), quad [n, k] is
    (x - c)² · D⁻¹ (diagonal noise), sq_norms [n], inv_noise [k], shift [k, l], mean_norm [k], log_norm [k].
    log_prob [n, k] = log (weight N(x)); keep [n, k] marks those that a rounding error of `slack` times their cancelling
    terms could lift to within CUTOFF_NATS of the best.
    """
    n, (k, l) = len(products), shift.shape
    Y = products.reshape(n, k, l + 1).astype(np.float64)
    q = sq_norms[:, None] * inv_noise if quad is None else quad.astype(np.float64)
    maha = q - 2.0 * Y[:, :, l] + mean_norm - ((Y[:, :, :l] - shift) ** 2).sum(axis=2)
    log_prob[:] = log_norm - 0.5 * np.maximum(maha, 0.0)
    error = slack * (q + mean_norm)
    threshold = (log_prob - error).max(axis=1, keepdims=True) - CUTOFF_NATS
    keep[:] = log_prob + error >= threshold


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
    """Log-probabilities of m pairs from their residuals, accumulated in float64.

    With r = x - μ, y = W r, z = Z y: log_prob [m] = log_norm - ½ (‖r - A z‖²_{D⁻¹} + ‖z‖²), where A z = D Wᵀ y; no two
    large terms cancel. whitened_latent [m, l] receives y.
    """
    for j, part in _groups(components):
        R = X[rows[part]].astype(np.float64) - means[j]
        y = R @ whitened[j].T
        z = y @ latent_map[j].T
        residual = R - (y @ whitened[j]) * noise[j]
        log_prob[part] = log_norm[j] - 0.5 * ((residual**2 / noise[j]).sum(axis=1) + (z**2).sum(axis=1))
        whitened_latent[part] = y


def log_sum_exp(log_prob: Array, out: Array, n_threads: int = 1) -> None:
    """out [n] = log Σ_k exp log_prob [n, k]; a row of -inf gives -inf."""
    top = log_prob.max(axis=1)
    base = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        out[:] = np.log(np.exp(log_prob - base[:, None]).sum(axis=1)) + base


def softmax(log_prob: Array, out: Array, n_threads: int = 1) -> None:
    """out [n, k] = exp log_prob over its sum in each row, of what the row's best component has: the sum is 1 also where
    a log-density is so large that its rounding exceeds log k. A row of -inf, which no component explains, gives 1/k
    each.
    """
    top = log_prob.max(axis=1, keepdims=True)
    impossible = np.isneginf(top)
    np.exp(np.where(impossible, 0.0, log_prob - np.where(impossible, 0.0, top)), out=out)
    out /= out.sum(axis=1, keepdims=True)


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
    """out [n, d] += Σ over the m pairs of weights [m] · ∇ log N(x) = weights · (Wᵀ y - D⁻¹ (x - μ))."""
    for j, part in _groups(components):
        R = X[rows[part]].astype(np.float64) - means[j]
        out[rows[part]] += weights[part, None] * (whitened_latent[part] @ whitened[j] - R / noise[j])


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
    """sq_distances [n, k] = ‖x - μ‖² - ‖Qᵀ (x - μ)‖² from the products with [Q, μ - c]; keep [n, k] marks those that
    rounding (`slack` times the cancelling terms) may have changed by more than `tolerance` relative.
    """
    n, (k, l) = len(products), shift.shape
    Y = products.reshape(n, k, l + 1).astype(np.float64)
    size = sq_norms[:, None] + mean_norm
    sq_distances[:] = np.maximum(size - 2.0 * Y[:, :, l] - ((Y[:, :, :l] - shift) ** 2).sum(axis=2), 0.0)
    keep[:] = slack * size > tolerance * sq_distances


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
    """Squared distances [k0, k1] between affine subspaces from products [k0, l0+1, k1, l1+1] of their rows [Qᵀ; μ].

    shift [k, l] = Qᵀ μ and norm [k] = ‖μ‖² of either side. With Δ = μ0 - μ1, u = Qᵀ Δ and G = Q0ᵀ Q1:
    d² = ‖Δ‖² - ‖u0‖² - vᵀ S⁻¹ v, where v = u1 - Gᵀ u0 and S = I - Gᵀ G, whose eigenvalues are the squared sines of the
    principal angles. suspect [k0, k1] marks pairs to be recomputed by QR: the smallest sine below 1e-2, or d below
    1e-3 of what cancels.
    """
    l0, l1 = shift0.shape[1], shift1.shape[1]
    C = products.transpose(0, 2, 1, 3)
    G, cross = C[:, :, :l0, :l1], C[:, :, l0, l1]
    size = norm0[:, None] + norm1
    delta = size - 2.0 * cross
    u0 = shift0[:, None, :] - C[:, :, :l0, l1]
    u1 = C[:, :, l0, :l1] - shift1[None]
    v = u1 - np.einsum("ijab,ija->ijb", G, u0)
    sines, vectors = np.linalg.eigh(np.eye(l1) - np.swapaxes(G, 2, 3) @ G)
    along = np.einsum("ijba,ijb->ija", vectors, v)
    shared = sines < 1e-4
    gone = np.where(shared, 0.0, along**2 / np.where(shared, 1.0, sines)).sum(axis=2)
    sq_distances[:] = np.maximum(delta - (u0**2).sum(axis=2) - gone, 0.0)
    suspect[:] = shared.any(axis=2) | (sq_distances < 1e-6 * size)


def attack_step(X: Array, direction: Array, step_size: float, n_threads: int = 1) -> None:
    """X [n, d] += step_size · g/‖g‖ in place, float64, g = direction [n, d]; a sample with g = 0 or NaN stays."""
    norm = np.sqrt(np.einsum("nd,nd->n", direction, direction))
    moves = (norm > 0) & np.isfinite(norm)
    X[moves] += (step_size / norm[moves])[:, None] * direction[moves]


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
    """The whole gradient attack of n samples in factor coordinates (see attacks/coordinates.py for the first six).

    In: a [n, C] inner products of v = x - c with the columns, w [n, C] = 0, alpha [n] = 1, sq [n] = ‖v‖², y [n]. Out:
    the same at the end of the walk, v = alpha v₀ + w · columns, and reports int64 [n, 5]: how it ended (0 max_steps, 1
    flipped, 2 no gradient, 3 already wrong), steps, source, target (components over all classes), target's class.
    """
    from .numpy_walk import Walker

    walker = Walker(gram, variance, gain, spread, log_const, first)
    for i in range(len(y)):
        alpha[i], sq[i], reports[i] = walker.walk(a[i], w[i], sq[i], y[i], step_size, max_steps, frozen, bisections)


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
    """The M-step's sums over m pairs with weights [m] and latents z [m, l], around the old means, r = x - μ_k:
    sum_x [k, d] += w r, sum_xz [k, l, d] += w z rᵀ, sum_xx [k, d] += w r².
    """
    for j, part in _groups(components):
        R = X[rows[part]].astype(np.float64) - means[j]
        w = weights[part]
        sum_x[j] += w @ R
        sum_xz[j] += (w[:, None] * latents[part]).T @ R
        sum_xx[j] += w @ R**2


def _groups(components: Array, most: int = 256) -> Iterator[tuple[int, slice]]:
    """Runs of equal values in a sorted index, cut to at most `most` entries so that temporaries stay small."""
    edges = np.flatnonzero(np.diff(components)) + 1
    for start, stop in zip([0, *edges], [*edges, len(components)], strict=True):
        for first in range(start, stop, most):
            yield int(components[first]), slice(first, min(first + most, stop))
