"""The readable backend: every operation of the table in a few lines of NumPy.

``__all__`` is the operation table: what it names, every backend has, but for what :data:`ONLY` leaves to one of them.
Their signatures are these; the other backends bind them.

The contract, for all backends: arrays are C-contiguous; ``X`` and products are float32 or float64 (``real``),
everything else float64, indices int64, masks uint8; operations write to what is ``Written`` here, which the caller
allocates, and to nothing else. What arrays belong together, and their shapes, is in :mod:`~mfakit.backends.operands`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .operands import (
    Coarse,
    Coordinates,
    Mixture,
    Pairs,
    Parameters,
    Points,
    Projected,
    Projection,
    Subspaces,
    Sums,
    WalkSettings,
    WeightedPairs,
)

__all__ = [
    "accumulate_gradient",
    "accumulate_statistics",
    "attack_step",
    "bound_components",
    "bracket_pairs",
    "center_rows",
    "factor_walk",
    "list_candidates",
    "log_sum_exp",
    "log_sum_exp_candidates",
    "mark_candidates",
    "mixture_epilogue",
    "pair_distances",
    "point_distances",
    "refine",
    "sample_points",
    "softmax",
    "survivors",
]

# Operations that only some backends have besides this one, which says what they mean.
ONLY = {
    "bracket_pairs": ("native",), "list_candidates": ("cuda",), "log_sum_exp_candidates": ("cuda",),
    "mark_candidates": ("cuda",), "sample_points": ("cuda",),
    "bound_components": ("native", "cuda"), "survivors": ("native", "cuda"),
}  # fmt: skip

T = TypeVar("T")
Array = NDArray[Any]
Written = Annotated[T, "written"]

# Components further than this below the best one carry less than e^-40 = 4e-18 of the density: nothing in float64.
CUTOFF_NATS = 40.0


def center_rows(X: Array, center: Array, out: Written[Array], sq_norms: Written[Array], n_threads: int = 1) -> None:
    """out [n, d] = X [n, d] - center [d]; sq_norms [n] = ‖out‖², summed in float64."""
    np.subtract(X, center, out=out, casting="same_kind")
    for start in range(0, len(X), 256):  # pairwise sums round less than running ones, but need their terms in memory
        rows = slice(start, start + 256)
        np.sum(np.square(out[rows], dtype=np.float64), axis=1, out=sq_norms[rows])


def mixture_epilogue(
    coarse: Coarse, mixture: Mixture, log_prob: Written[Array], keep: Written[Array], n_threads: int = 1
) -> None:
    """From products to log-probabilities, and which of them can still matter.

    log_prob [n, k] = log (weight N(x)); keep [n, k] marks those that a rounding error of `slack` times their cancelling
    terms could lift to within CUTOFF_NATS of the best.
    """
    products, quad, sq_norms, slack = coarse
    n, (k, l) = len(products), mixture.shift.shape
    Y = products.reshape(n, k, l + 1).astype(np.float64)
    q = quad.astype(np.float64) if quad.shape[1] else sq_norms[:, None] * mixture.inv_noise
    maha = q - 2.0 * Y[:, :, l] + mixture.mean_norm - ((Y[:, :, :l] - mixture.shift) ** 2).sum(axis=2)
    log_prob[:] = mixture.log_norm - 0.5 * np.maximum(maha, 0.0)
    error = slack * (q + mixture.mean_norm)
    threshold = (log_prob - error).max(axis=1, keepdims=True) - CUTOFF_NATS
    keep[:] = log_prob + error >= threshold


def mark_candidates(coarse: Coarse, mixture: Mixture, n_threads: int = 1) -> tuple[Any, Any]:
    """What mixture_epilogue keeps, without any [n, k] array of float64: bits uint32 [n, ceil(k / 32)], and offsets
    [n + 1] of each row's among all of them.
    """
    n, k = len(coarse.products), len(mixture.log_norm)
    log_prob, keep = np.empty((n, k)), np.zeros((n, -(-k // 32) * 32), np.uint8)
    kept = np.empty((n, k), np.uint8)
    mixture_epilogue(coarse, mixture, log_prob, kept)
    keep[:, :k] = kept
    marks = np.packbits(keep, axis=1, bitorder="little").view("<u4")
    return marks, np.concatenate([[0], np.cumsum(kept.sum(axis=1, dtype=np.int64))])


def list_candidates(marks: Array, offsets: Array, count: int, k: int, n_threads: int = 1) -> tuple[Any, Any]:
    """Rows and components [count] of the marked ones of k, row by row."""
    keep = np.unpackbits(np.ascontiguousarray(marks).view(np.uint8), axis=1, bitorder="little")[:, :k]
    rows, components = np.nonzero(keep)
    return rows, components


def refine(
    X: Array,
    pairs: Pairs,
    mixture: Mixture,
    log_prob: Written[Array],
    whitened_latent: Written[Array],
    n_threads: int = 1,
) -> None:
    """Log-probabilities of m pairs from their residuals, accumulated in float64.

    With r = x - μ, y = W r, z = Z y: log_prob [m] = log_norm - ½ (‖r - A z‖²_{D⁻¹} + ‖z‖²), where A z = D Wᵀ y; no two
    large terms cancel. whitened_latent [m, l] receives y.
    """
    W, D = mixture.whitened, mixture.noise
    for j, part in _groups(pairs.components):
        R = X[pairs.rows[part]].astype(np.float64) - mixture.means[j]
        y = R @ W[j].T
        z = y @ mixture.latent_map[j].T
        residual = R - (y @ W[j]) * D[j]
        log_prob[part] = mixture.log_norm[j] - 0.5 * ((residual**2 / D[j]).sum(axis=1) + (z**2).sum(axis=1))
        whitened_latent[part] = y


def log_sum_exp(log_prob: Array, out: Written[Array], n_threads: int = 1) -> None:
    """out [n] = log Σ_k exp log_prob [n, k]; a row of -inf gives -inf."""
    top = log_prob.max(axis=1)
    base = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        out[:] = np.log(np.exp(log_prob - base[:, None]).sum(axis=1)) + base


def log_sum_exp_candidates(values: Array, offsets: Array, out: Written[Array], n_threads: int = 1) -> None:
    """out [n] = log Σ exp over each row's candidates, values [m] in the order of :func:`list_candidates`."""
    for i in range(len(out)):
        out[i] = np.logaddexp.reduce(values[offsets[i] : offsets[i + 1]], initial=-np.inf)


def softmax(log_prob: Array, out: Written[Array], n_threads: int = 1) -> None:
    """out [n, k] = exp log_prob over its sum in each row, of what the row's best component has: the sum is 1 also where
    a log-density is so large that its rounding exceeds log k. A row of -inf, which no component explains, gives 1/k
    each.
    """
    top = log_prob.max(axis=1, keepdims=True)
    impossible = np.isneginf(top)
    np.exp(np.where(impossible, 0.0, log_prob - np.where(impossible, 0.0, top)), out=out)
    out /= out.sum(axis=1, keepdims=True)


def accumulate_gradient(
    X: Array, pairs: WeightedPairs, mixture: Mixture, out: Written[Array], n_threads: int = 1
) -> None:
    """out [n, d] += Σ over the pairs of weights [m] · ∇ log N(x) = weights · (Wᵀ y - D⁻¹ (x - μ)), y the latents."""
    for j, part in _groups(pairs.components):
        rows = pairs.rows[part]
        R = X[rows].astype(np.float64) - mixture.means[j]
        out[rows] += pairs.weights[part, None] * (pairs.latents[part] @ mixture.whitened[j] - R / mixture.noise[j])


def point_distances(
    coarse: Coarse,
    mixture: Mixture,
    tolerance: float,
    sq_distances: Written[Array],
    keep: Written[Array],
    n_threads: int = 1,
) -> None:
    """sq_distances [n, k] = ‖x - μ‖² - ‖Qᵀ (x - μ)‖² from the products with [Q, μ - c]; keep [n, k] marks those that
    rounding (`slack` times the cancelling terms) may have changed by more than `tolerance` relative.
    """
    n, (k, l) = len(coarse.products), mixture.shift.shape
    Y = coarse.products.reshape(n, k, l + 1).astype(np.float64)
    size = coarse.sq_norms[:, None] + mixture.mean_norm
    sq_distances[:] = np.maximum(size - 2.0 * Y[:, :, l] - ((Y[:, :, :l] - mixture.shift) ** 2).sum(axis=2), 0.0)
    keep[:] = coarse.slack * size > tolerance * sq_distances


def bound_components(
    projected: Projected, projection: Projection, above: Written[Array], best: Written[Array], n_threads: int = 1
) -> None:
    """above [n, k], real, which no component's log-probability exceeds (see docs/pruning.md); best [n, b], b ≤ k, the
    components whose bounds are the highest, in falling order.
    """
    for j in range(len(projection.log_norm)):
        above[:, j] = _bound(projected, projection, j)
    best[:] = np.argsort(-above, axis=1, kind="stable")[:, : best.shape[1]]  # NaN comes last


def survivors(
    projected: Projected, projection: Projection, threshold: Array, above: Written[Array], n_threads: int = 1
) -> Pairs:
    """Tightens above [n, k] with a finer projection where it is at least threshold [n], and lists what still is; a
    projection without coordinates tightens nothing.
    """
    open_ = ~(above < threshold[:, None])
    if projection.means.shape[1]:
        for j in np.flatnonzero(open_.any(axis=0)):
            rows = np.flatnonzero(open_[:, j])
            part = Projected._make(array[rows] for array in projected)
            above[rows, j] = np.fmin(above[rows, j], _bound(part, projection, int(j)))
        open_ &= ~(above < threshold[:, None])
    components, rows = np.nonzero(open_.T)
    return Pairs(rows.astype(np.int64), components.astype(np.int64))


def _bound(x: Projected, p: Projection, j: int) -> Array:
    """Of each sample [n] and component j: log_norm - ½ (red + Σ_g q² / (1 + Σ_g (a/σ)²/λ)), with what rounding may do
    to each term taken off.
    """
    l, r = p.whitened.shape[1:]
    real = p.means.dtype
    unit = real.type(np.finfo(real).eps / 2)
    rounding = real.type(4 * (r + l + 8) * (1 + np.sqrt(l))) * unit
    u = (x.coordinates[:, :r] - p.means[j]) * p.scales[j]
    size, explained = (u**2).sum(axis=1), ((u @ p.whitened[j].T) ** 2).sum(axis=1)
    length = np.sqrt(size)
    off = np.sqrt(((p.steepness[j] * (x.errors + p.offsets[j])) ** 2).sum(axis=1)) + 8 * unit * length
    root = np.maximum(np.sqrt(np.maximum(size - explained - rounding * size, 0)) - off, 0)
    loading = p.rest_loadings[j] * ((np.sqrt(explained) + rounding * length + off) * p.latent_scale[j])[:, None]
    gap = np.maximum(x.nearest - p.rest_means[j], p.rest_means[j] - x.farthest)
    rounded = 16 * unit * (x.farthest + p.rest_means[j] + loading) + p.offsets[j]
    q = np.maximum(gap - loading - rounded, 0) * p.rest_scales[j]
    maha = (root**2 + (q**2).sum(axis=1) * p.stretch[j]) * (1 - 32 * unit * real.type(q.shape[1]))
    maha = np.minimum(maha, real.type(1e37 if real == np.float32 else 1e307))  # what overflows is at least this
    return np.asarray(p.log_norm[j] - maha / 2 + 4 * unit * (np.abs(p.log_norm[j]) + maha))


def pair_distances(
    products: Array,
    side0: Subspaces,
    side1: Subspaces,
    sq_distances: Written[Array],
    suspect: Written[Array],
    n_threads: int = 1,
) -> None:
    """Squared distances [k0, k1] between affine subspaces from products [k0, l0+1, k1, l1+1] of their rows [Qᵀ; μ].

    With Δ = μ0 - μ1, u = Qᵀ Δ and G = Q0ᵀ Q1:
    d² = ‖Δ‖² - ‖u0‖² - vᵀ S⁻¹ v, where v = u1 - Gᵀ u0 and S = I - Gᵀ G, whose eigenvalues are the squared sines of the
    principal angles. suspect [k0, k1] marks pairs to be recomputed by QR: the smallest sine below 1e-2, or d below
    1e-3 of what cancels.
    """
    size, sq, _, v, S, _ = _reduced(products, side0, side1)
    sines, vectors = np.linalg.eigh(S)
    along = np.einsum("ijba,ijb->ija", vectors, v)
    shared = sines < 1e-4
    gone = np.where(shared, 0.0, along**2 / np.where(shared, 1.0, sines)).sum(axis=2)
    sq_distances[:] = np.maximum(sq - gone, 0.0)
    suspect[:] = shared.any(axis=2) | (sq_distances < 1e-6 * size)


def bracket_pairs(
    products: Array,
    side0: Subspaces,
    side1: Subspaces,
    slack: float,
    rounding: float,
    lower: Written[Array],
    upper: Written[Array],
    n_threads: int = 1,
) -> None:
    """Bounds [k0, k1] of the squared distances of :func:`pair_distances`, from real products that are off by at most
    `slack` of their vectors' lengths; `rounding`, of ‖μ0‖² + ‖μ1‖², is added.

    With b = S⁻¹ v and a = G b - u0, the coordinates of the closest points, ℓ = max(l0, l1), A = ‖μ0‖ + ‖a‖₁ and
    B = ‖μ1‖ + ‖b‖₁, a squared distance is off by at most 2 slack A B + 4 slack² ℓ (A + B)² / 1e-2 where the eigenvalues
    of S are at least 1e-2, for slack ≤ 1e-2 / 8ℓ (docs/subspaces.md). Where 1 / trace(S⁻¹) does not prove that, the
    bounds are 0 and inf.
    """
    size, sq, u0, v, S, G = _reduced(products.astype(np.float64), side0, side1)
    sines, vectors = np.linalg.eigh(S)
    known = (sines > 0).all(axis=2) & (np.where(sines > 0, 1e-2 / np.where(sines > 0, sines, 1.0), 1.0).sum(axis=2) < 1)
    inverse = 1.0 / np.where(known[:, :, None], sines, 1.0)
    b = np.einsum("ijba,ija,ijca,ijc->ijb", vectors, inverse, vectors, v)
    a = np.einsum("ijab,ijb->ija", G, b) - u0
    A = np.sqrt(side0.norm)[:, None] + np.abs(a).sum(axis=2)
    B = np.sqrt(side1.norm) + np.abs(b).sum(axis=2)
    most = max(a.shape[2], b.shape[2])
    error = 2 * slack * A * B + 4 * slack**2 * most / 1e-2 * (A + B) ** 2 + rounding * size
    sq = sq - np.einsum("ijb,ijb->ij", b, v)
    lower[:] = np.where(known, np.maximum(sq - error, 0.0), 0.0)
    upper[:] = np.where(known, np.maximum(sq + error, 0.0), np.inf)


def _reduced(products: Array, side0: Subspaces, side1: Subspaces) -> tuple[Array, ...]:
    """‖μ0‖² + ‖μ1‖² and ‖Δ‖² - ‖u0‖² [k0, k1], u0 [k0, k1, l0], v [k0, k1, l1], S [k0, k1, l1, l1], G."""
    (shift0, norm0), (shift1, norm1) = side0, side1
    l0, l1 = shift0.shape[1], shift1.shape[1]
    C = products.transpose(0, 2, 1, 3)
    G, cross = C[:, :, :l0, :l1], C[:, :, l0, l1]
    size = norm0[:, None] + norm1
    u0 = shift0[:, None, :] - C[:, :, :l0, l1]
    u1 = C[:, :, l0, :l1] - shift1[None]
    v = u1 - np.einsum("ijab,ija->ijb", G, u0)
    S = np.eye(l1) - np.swapaxes(G, 2, 3) @ G
    return size, size - 2.0 * cross - (u0**2).sum(axis=2), u0, v, S, G


def attack_step(X: Written[Array], direction: Array, step_size: float, n_threads: int = 1) -> None:
    """X [n, d] += step_size · g/‖g‖ in place, float64, g = direction [n, d]; a sample with g = 0 or NaN stays."""
    norm = np.sqrt(np.einsum("nd,nd->n", direction, direction))
    moves = (norm > 0) & np.isfinite(norm)
    X[moves] += (step_size / norm[moves])[:, None] * direction[moves]


def factor_walk(
    coordinates: Coordinates,
    y: Array,
    settings: WalkSettings,
    points: Written[Points],
    reports: Written[Array],
    n_threads: int = 1,
) -> None:
    """The whole gradient attack of n samples in factor coordinates (see attacks/coordinates.py), labels y [n].

    The points begin with w = 0 and alpha = 1 and are moved to the end of the walk; reports int64 [n, 5] say how it
    ended (0 max_steps, 1 flipped, 2 no gradient, 3 already wrong), steps, source, target (components over all classes),
    target's class.
    """
    from .numpy_walk import Walker

    walker, (a, w, alpha, sq) = Walker(coordinates), points
    for i in range(len(y)):
        alpha[i], sq[i], reports[i] = walker.walk(a[i], w[i], sq[i], y[i], settings)


def accumulate_statistics(
    X: Array, pairs: WeightedPairs, means: Array, sums: Written[Sums], n_threads: int = 1
) -> None:
    """The M-step's sums over the pairs with weights [m] and latents z [m, l], around the old means [k, d], r = x - μ_k:
    sums.x [k, d] += w r, sums.xz [k, l, d] += w z rᵀ, sums.xx [k, d] += w r².
    """
    for j, part in _groups(pairs.components):
        R = X[pairs.rows[part]].astype(np.float64) - means[j]
        w = pairs.weights[part]
        sums.x[j] += w @ R
        sums.xz[j] += (w[:, None] * pairs.latents[part]).T @ R
        sums.xx[j] += w @ R**2


def sample_points(
    component: Array,
    z: Array,
    parameters: Parameters,
    key: int,
    with_noise: bool,
    out: Written[Array],
    n_threads: int = 1,
) -> None:
    """out [n, d] = μ + A z + √D η, of each row's component [n] and factors z [n, l]; two values of η [d] at a time from
    the counter-based stream `key`, none without noise.
    """
    from .numpy_random import normal_pairs

    means, loadings, noise = parameters
    d = out.shape[1]
    halves = np.arange((d + 1) // 2)
    for i, j in enumerate(component):
        eta = normal_pairs(key, i * len(halves) + halves).ravel()[:d] if with_noise else 0.0
        out[i] = means[j] + loadings[j] @ z[i] + np.sqrt(noise[j]) * eta


def _groups(components: Array, most: int = 256) -> Iterator[tuple[int, slice]]:
    """Runs of equal values in a sorted index, cut to at most `most` entries so that temporaries stay small."""
    edges = np.flatnonzero(np.diff(components)) + 1
    for start, stop in zip([0, *edges], [*edges, len(components)], strict=True):
        for first in range(start, stop, most):
            yield int(components[first]), slice(first, min(first + most, stop))
