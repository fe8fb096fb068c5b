"""The rows that components are bounded along, and the groups of features that each of them keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.rows import array_module, is_cupy
from .._arrays.sharing import careful_products
from .._threads.process import keeps_errstate, single_threaded_products
from .factors import Factors, component_parts

__all__ = ["DIRECTION_VALUES", "Directions", "group_noise", "leading_directions", "leading_rows", "loadings_of"]

Array = Any  # NumPy's; of samples on a device, CuPy's

# More directions than are kept, so that the kept ones are accurate.
OVERSAMPLING = 16
# Float32 values of the rows that the directions are found in.
DIRECTION_VALUES = 2**25
# Groups of features of alike noise, of which the largest variance stands for all; coordinates and steps of k-means that
# find them. Any groups make a bound (docs/pruning.md): these decide how tight it is.
GROUPS, NOISE_COORDINATES, STEPS = 256, 64, 10


class Directions(NamedTuple):
    """Orthonormal rows, each zero outside one group of features.

    Attributes
    ----------
    rows : [r, d]
        B, by falling strength: any number of the first ones is a projection, too.
    row_groups : int [r]
        The group of each.
    groups : int [d]
        The group of each feature, from 0; all 0 where noise is isotropic.
    """

    rows: Array
    row_groups: Array
    groups: Array

    @property
    def n_groups(self) -> int:
        """G."""
        return int(self.groups.max(initial=0)) + 1

    def first(self, r: int) -> Directions:
        """The first r of them."""
        return Directions(self.rows[:r], self.row_groups[:r], self.groups)

    def members(self) -> list[Any]:
        """The features of each group: indices, or a slice of all."""
        if self.n_groups == 1:
            return [slice(None)]
        return [np.flatnonzero(self.groups == g) for g in range(self.n_groups)]

    def sums(self, values: Array) -> Array:
        """Values [n, d] of features summed over each group [n, G], in float64; on the device of the values."""
        if self.n_groups == 1:
            return values.sum(axis=1, dtype=np.float64)[:, None]
        if is_cupy(values):
            return values.astype(np.float64) @ self._members_there(self.groups, values)
        order = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[order], np.arange(self.n_groups))
        return np.asarray(np.add.reduceat(values[:, order], starts, axis=1, dtype=np.float64))

    def row_sums(self, values: Array, start: int = 0) -> Array:
        """Values [n, m] of the rows from `start` on summed over each group [n, G]; on the device of the values."""
        return values @ self._members_there(self.row_groups[start : start + values.shape[1]], values)

    def _members_there(self, of: Array, values: Array) -> Array:
        """1 where a feature or a row is in a group [m, G], where the values are, in their dtype or float64."""
        dtype = np.float64 if is_cupy(values) else values.dtype
        return array_module(values).asarray((of[:, None] == np.arange(self.n_groups)).astype(dtype))


def group_noise(factors: Factors, groups: Array, part: slice | Array = slice(None)) -> Array:
    """The largest noise variance of each group [c, G] of some components."""
    noise = factors.noise[part]
    count = int(groups.max(initial=0)) + 1
    if count == 1 or noise.shape[1] == 1:
        return np.asarray(np.repeat(noise.max(axis=1)[:, None], count, axis=1))
    largest = np.zeros((count, len(noise)))
    np.maximum.at(largest, groups, noise.T)
    return np.ascontiguousarray(largest.T)


def loadings_of(factors: Factors, part: slice | Array) -> Array:
    """Loadings as rows [c, l, d], rotated so that they are orthogonal in the metric of the noise: with the SVD
    D^-½ A = U S Vᵀ these are D^½ U S, and D Wᵀ has them over (1 + S²)^½, the inverse length of a column of Z.
    """
    lengths = np.linalg.norm(factors.latent_map[part], axis=1)
    noise: Array = factors.noise[part][:, None, :] / lengths[:, :, None]
    return np.asarray(factors.whitened[part] * noise)


@keeps_errstate
def leading_directions(mixtures: Sequence[Factors], center: Array, r: int) -> Directions:
    """Rows near the leading right singular vectors of all means and loadings in units of the noise, at most r of them:
    those of all features or, for diagonal noise, of each group of features, of which the strongest are kept.
    """
    rng = np.random.default_rng(0)
    groups = _feature_groups(mixtures, rng)
    rows = _some_rows(mixtures, center, groups, rng)
    found = Directions(np.zeros((0, len(center))), np.zeros(0, np.int64), groups)
    members = found.members()
    if len(members) == 1:
        B = leading_rows(rows, r, rng)[0]
        return found._replace(rows=B, row_groups=np.zeros(len(B), np.int64))
    parts = [leading_rows(np.ascontiguousarray(rows[:, some]), r, rng) for some in members]
    strengths = np.concatenate([strength for _, strength in parts])
    of = np.repeat(np.arange(len(parts)), [len(B) for B, _ in parts])
    number = np.concatenate([np.arange(len(B)) for B, _ in parts])
    chosen = np.argsort(-strengths, kind="stable")[:r]
    kept = np.zeros((len(chosen), len(center)))
    for row, i in enumerate(chosen):
        kept[row, members[of[i]]] = parts[of[i]][0][number[i]]
    return Directions(kept, of[chosen], groups)


def _feature_groups(mixtures: Sequence[Factors], rng: np.random.Generator) -> Array:
    """Groups of features whose noise is alike in every component, int [d]: by k-means of its logarithms."""
    diagonal = [f for f in mixtures if not f.is_isotropic]
    d = mixtures[0].shape[2]
    if not diagonal:
        return np.zeros(d, np.int64)
    logs = np.log(np.concatenate([f.noise[~np.isneginf(f.log_norm)] for f in diagonal])).T
    if logs.shape[1] > NOISE_COORDINATES:
        logs = logs @ rng.standard_normal((logs.shape[1], NOISE_COORDINATES))
    points = np.unique(logs, axis=0)
    centers = _spread(points, min(GROUPS, len(points)), rng)
    for _ in range(STEPS):
        labels = _nearest(logs, centers)
        counts = np.bincount(labels, minlength=len(centers))
        sums = np.zeros_like(centers)
        np.add.at(sums, labels, logs)
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
    return np.asarray(np.unique(_nearest(logs, centers), return_inverse=True)[1], np.int64).ravel()


def _spread(points: Array, count: int, rng: np.random.Generator) -> Array:
    """Distinct points, each drawn by its squared distance from those before it (Arthur & Vassilvitskii 2007)."""
    chosen = [int(rng.integers(len(points)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and distance.sum() > 0:
        chosen.append(int(rng.choice(len(points), p=distance / distance.sum())))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return np.asarray(points[chosen])


def _nearest(points: Array, centers: Array) -> Array:
    middle = centers.mean(axis=0)
    P, C = points - middle, centers - middle
    return np.asarray(((C**2).sum(axis=1) - 2.0 * P @ C.T).argmin(axis=1))


def _some_rows(mixtures: Sequence[Factors], center: Array, groups: Array, rng: np.random.Generator) -> Array:
    """Means and loadings in units of the noise, float32 rows [m, d]; of a random part of the components where all of
    them would be more than DIRECTION_VALUES.
    """
    rows, largest = [], max(_largest_length(factors, center) for factors in mixtures)
    values = sum(f.shape[0] * (f.shape[1] + 1) * f.shape[2] for f in mixtures)
    for factors in mixtures:
        _, l, d = factors.shape
        live = np.flatnonzero(~np.isneginf(factors.log_norm))
        if values > DIRECTION_VALUES:
            live = np.sort(rng.choice(live, max(1, len(live) * DIRECTION_VALUES // values), replace=False))
        for part in (live[p] for p in component_parts(len(live), (l + 1) * d)):
            sigma = np.sqrt(group_noise(factors, groups, part))
            sigma = sigma[:, None, groups] if sigma.shape[1] > 1 else sigma[:, None, :]
            found = np.concatenate([(factors.means[part] - center)[:, None], loadings_of(factors, part)], axis=1)
            scaled = found / sigma / largest
            if not np.isfinite(largest):  # which directions they are makes no bound wrong
                np.nan_to_num(scaled, copy=False, posinf=1.0, neginf=-1.0)
            rows.append(scaled.astype(np.float32).reshape(-1, d))
    return np.concatenate(rows)


def _largest_length(factors: Factors, center: Array) -> float:
    """Of means and loadings in units of the noise: divided by it, no product of rows leaves float32."""
    means = np.linalg.norm(factors.means - center, axis=1) / np.sqrt(factors.noise.min(axis=1))
    lengths = np.linalg.norm(factors.latent_map, axis=1)  # (1 + S²)^-½
    return float(max(means.max(), 1.0 / lengths.min(initial=1.0)))


def leading_rows(rows: Array, r: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Orthonormal rows [r, d] near the leading right singular vectors of float32 rows [m, d], and the lengths of their
    products with these [r], by subspace iteration from a random start (Halko, Martinsson & Tropp 2011, algorithm 4.4),
    or from the Gram matrix of few features. The proof needs rows that are orthonormal, and no more.
    """
    d = rows.shape[1]
    r = min(r, d)
    s = r + OVERSAMPLING
    if s >= d:
        with single_threaded_products():
            squares, V = np.linalg.eigh((rows.T @ rows).astype(np.float64))
        return np.ascontiguousarray(V.T[::-1][:r]), np.sqrt(np.maximum(squares[::-1][:r], 0.0))
    start = rng.standard_normal((s, len(rows)), dtype=np.float32)
    with careful_products(s * rows.size):
        total = start @ rows
        for _ in range(2):  # orthonormal in the shorter dimension: components are mostly fewer than features
            total = _orthonormal(rows @ total.T)[0].T @ rows
    Q, R = _orthonormal(total.T.astype(np.float64))
    with single_threaded_products():
        U, S, _ = np.linalg.svd(R)
        return np.ascontiguousarray((Q @ U)[:, :r].T), S[:r]


def _orthonormal(A: Array) -> tuple[Array, Array]:
    """Q and R of a tall matrix, in one thread: see :func:`~mfakit.mixture.factors.thin_svd`."""
    with single_threaded_products():
        Q, R = np.linalg.qr(A)
    return Q, R
