"""What bounds every component from a few coordinates of a sample, so that most need no product with all features.

Rows B [r, d] are orthonormal, taken from the leading singular directions of all means and loadings in units of the
noise. A :class:`Pruner` holds B and, for each mixture, its tables at a coarse and a fine number of rows; the bounds are
:func:`mfakit.backends.numpy_ops.bound_components`'s, and their proof is in docs/pruning.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.sharing import careful_products
from .._threads.process import keeps_errstate, single_threaded_products
from ..backends.operands import Projected, Projection
from .factors import Factors, Share, alone, component_parts

__all__ = ["Pruner", "nothing_finer", "project"]

Array = NDArray[Any]

# Rows of the coarse and the fine projection, and of the finest that is considered.
COARSE, FINE, FINEST = SIZES = 16, 64, 128
# More directions than are kept, so that the kept ones are accurate.
OVERSAMPLING = 16
# Float32 values of the rows that the directions are found in.
DIRECTION_VALUES = 2**25
# Loadings of d features are known to this many times (√d + l) float64 roundings of their size, after the SVD they come
# from, the projection, and the SVD of what it leaves.
LOADING_ROUNDING = 8.0
# The log-normaliser of a component without weight, which float32 holds.
NOTHING = -1e30


class Pruner:
    """A projection that several mixtures over the same features share, and their tables; made at first use.

    Attributes
    ----------
    center : [d]
        What samples are centred by.
    rows : [r, d]
        B, by falling singular value: any number of the first ones is a projection, too.
    sizes : tuple of int
        Rows of the coarse projection and, where one follows, of the fine one.
    """

    def __init__(self, mixtures: Sequence[Factors], rows: Array, sizes: Sequence[int], kept: dict[Any, Any]) -> None:
        self.mixtures, self.rows, self.sizes = tuple(mixtures), rows, tuple(sizes)
        self.center = mixtures[0].center
        self._kept = kept  # shared by the pruners of other sizes

    @classmethod
    def of(cls, mixtures: Sequence[Factors], sizes: Sequence[int] = (COARSE, FINE)) -> Pruner:
        """The pruner of some mixtures, kept with the first one's factors; the directions are those of all sizes."""
        first, key = mixtures[0], tuple(map(id, mixtures))
        with says_bytes(mixtures, FINEST):
            rows = first.kept(("directions", key), lambda: leading_directions(mixtures, first.center, FINEST))
        sizes = tuple(min(r, len(rows)) for r in sizes)
        tables = first.kept(("tables", key), dict)
        pruner: Pruner = first.kept(("pruner", key, sizes), lambda: cls(mixtures, rows, sizes, tables))
        return pruner  # it holds the mixtures, so that none of another one can get one of their numbers

    def matrix(self, dtype: Any) -> Array:
        """Bᵀ [d, r] of the finest projection, for the product with centred samples."""
        key = np.dtype(dtype), max(self.sizes)
        if key not in self._kept:
            self._kept[key] = np.ascontiguousarray(self.rows[: key[1]].T, dtype=key[0])
        return np.asarray(self._kept[key])

    def columns(self, factors: Factors) -> int:
        """How many columns of a dense product take as much of a block's memory as the bounds do."""
        return max(self.sizes) // 4 + factors.shape[0] // 5

    def tables(self, factors: Factors, dtype: Any, share: Share = alone) -> list[Projection]:
        """Of one of the mixtures, one for each size."""
        real = np.dtype(dtype)
        if any((id(factors), real, r) not in self._kept for r in self.sizes):
            sizes = sorted({min(r, len(self.rows)) for r in (*SIZES, *self.sizes)})
            with says_bytes(self.mixtures, len(self.rows)):
                made = projections_of(factors, self.rows, self.center, real, sizes, share)
            self._kept |= {(id(factors), real, r): table for r, table in zip(sizes, made, strict=True)}
        return [self._kept[id(factors), real, r] for r in self.sizes]

    def prepare(self, dtype: Any, share: Share = alone) -> None:
        """Make what samples in `dtype` read, so that threads which share the pruner find it made; `share` is what
        :meth:`mfakit._threads.rows.Crew.share` is.

        Raises
        ------
        MemoryError
            With what the tables take, and what to do.
        """
        self.matrix(dtype)
        for factors in self.mixtures:
            self.tables(factors, dtype, share)


@contextmanager
def says_bytes(mixtures: Sequence[Factors], r: int) -> Iterator[None]:
    """Around the making of directions and tables of r rows: a MemoryError says what they take, about."""
    try:
        yield
    except MemoryError as error:
        shapes = [factors.shape for factors in mixtures]
        directions = 8 * min(sum(k * (l + 1) * d for k, l, d in shapes), DIRECTION_VALUES)
        tables = sum(k * (l + 2) * r for k, l, _ in shapes) * 24  # coordinates in float64, and tables of two sizes
        raise MemoryError(
            f"bounds of {sum(k for k, _, _ in shapes):,} components take about {(directions + tables) / 2**20:,.0f} "
            f'MiB beside the model, for which there is no room; use method="dense"'
        ) from error


def nothing_finer(table: Projection) -> Projection:
    """The table without its coordinates: it tightens no bound."""
    return table._replace(means=table.means[:, :0], scales=table.scales[:, :0], whitened=table.whitened[:, :, :0])


def project(coordinates: Array, sq_norms: Array, r: int, d: int) -> Projected:
    """Samples with B (x - c) [n, ≥ r] and ‖x - c‖² [n] in the first r coordinates, with what rounding may have done: a
    coordinate is a sum of d terms, off by at most 8 √d u times their sizes, as a coarse product is.
    """
    real, unit = coordinates.dtype, float(np.finfo(coordinates.dtype).eps) / 2
    length = np.sqrt(sq_norms)
    error = (8.0 * np.sqrt(d * r) + 4.0) * unit * length
    rest = sq_norms - np.square(coordinates[:, :r], dtype=np.float64).sum(axis=1)
    off = 2.0 * length * error + error**2 + 4.0 * unit * sq_norms
    nearest, farthest = np.sqrt(np.maximum(rest - off, 0.0)), np.sqrt(np.maximum(rest + off, 0.0))
    up, down = 1.0 + 4.0 * unit, 1.0 - 4.0 * unit
    return Projected(
        coordinates, (nearest * down).astype(real)[:, None], (farthest * up).astype(real)[:, None],
        (error * up).astype(real),
    )  # fmt: skip


def loadings_of(factors: Factors, part: slice | Array) -> Array:
    """Loadings as rows [c, l, d], rotated so that they are orthogonal in the metric of the noise: with the SVD
    D^-½ A = U S Vᵀ these are D^½ U S, and D Wᵀ has them over (1 + S²)^½, the inverse length of a column of Z.
    """
    lengths = np.linalg.norm(factors.latent_map[part], axis=1)
    noise: Array = factors.noise[part][:, None, :] / lengths[:, :, None]
    return np.asarray(factors.whitened[part] * noise)


def _some_rows(mixtures: Sequence[Factors], center: Array, rng: np.random.Generator) -> Array:
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
            sigma = np.sqrt(factors.noise[part].mean(axis=1))[:, None, None]
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


@keeps_errstate
def leading_directions(mixtures: Sequence[Factors], center: Array, r: int) -> Array:
    """Orthonormal rows [r, d] near the leading right singular vectors of all means and loadings, by subspace iteration
    from a seeded random start (Halko, Martinsson & Tropp 2011, algorithm 4.4). The proof needs rows that are
    orthonormal, and no more.
    """
    d, rng = len(center), np.random.default_rng(0)
    rows = _some_rows(mixtures, center, rng)
    r = min(r, d)
    s = min(r + OVERSAMPLING, d)
    start = rng.standard_normal((s, len(rows)), dtype=np.float32)
    with careful_products(s * rows.size):
        total = start @ rows
        for _ in range(
            2
        ):  # orthonormal in the shorter dimension: components are fewer than features where that matters
            total = _orthonormal(rows @ total.T)[0].T @ rows
    Q, R = _orthonormal(total.T.astype(np.float64))
    with single_threaded_products():
        return np.ascontiguousarray((Q @ np.linalg.svd(R)[0])[:, :r].T)


def _orthonormal(A: Array) -> tuple[Array, Array]:
    """Q and R of a tall matrix, in one thread: see :func:`~mfakit.mixture.factors.thin_svd`."""
    with single_threaded_products():
        Q, R = np.linalg.qr(A)
    return Q, R


@keeps_errstate
def projections_of(
    factors: Factors, rows: Array, center: Array, dtype: Any, sizes: Sequence[int], share: Share = alone
) -> list[Projection]:
    """The tables of a mixture for the first r rows of B [r_max, d], for each r of `sizes`; in float64, then rounded so
    that the bound stays one. `share` deals the parts out to threads.
    """
    k, l, d = factors.shape
    parts = component_parts(k, (l + 1) * d)
    made: list[list[Projection]] = [[] for _ in parts]
    columns = np.ascontiguousarray(rows.T)

    def work(_: int, first: int, last: int) -> None:
        for i in range(first, last):
            made[i] = _tables_of(factors, parts[i], rows, columns, center, np.dtype(dtype), sizes)

    with single_threaded_products():  # many small ones
        share(len(parts), work)
    return [
        Projection._make(np.concatenate(found) for found in zip(*(tables[i] for tables in made), strict=True))
        for i in range(len(sizes))
    ]


@keeps_errstate
def _tables_of(
    factors: Factors, part: slice, rows: Array, columns: Array, center: Array, dtype: Any, sizes: Sequence[int]
) -> list[Projection]:
    """Those of some components, Bᵀ [d, r_max] being `columns`."""
    offset, A = factors.means[part] - center, loadings_of(factors, part)
    c, l, d = A.shape
    means = offset @ columns
    rest_mean = ((offset - means @ rows) ** 2).sum(axis=1)
    flat = A.reshape(c * l, d)  # as one matrix: products of stacks go one by one
    coordinates = flat @ columns
    rest = (flat - coordinates @ rows).reshape(A.shape)
    rest_gram = rest @ np.swapaxes(rest, 1, 2)
    loadings, lengths = coordinates.reshape(c, l, len(rows)), np.linalg.norm(offset, axis=1)
    sigma, log_norm = np.sqrt(factors.noise[part, 0]), factors.log_norm[part]
    return [
        _table(sigma, log_norm, means[:, :r], loadings[:, :, :r], dtype, lengths, d,
               rest_mean + (means[:, r:] ** 2).sum(axis=1),
               rest_gram + loadings[:, :, r:] @ np.swapaxes(loadings[:, :, r:], 1, 2))
        for r in sizes
    ]  # fmt: skip


def _table(
    sigma: Array, log_norm: Array, means: Array, loadings: Array, real: Any, lengths: Array, d: int, rest_sq: Array,
    rest_gram: Array,
) -> Projection:  # fmt: skip
    """From σ [k], log-normalisers [k], B (μ - c) [k, r], B A as rows [k, l, r], ‖μ - c‖ [k], ‖Π (μ - c)‖² [k] and
    (Π A)ᵀ Π A [k, l, l], of d features.

    The table is that of a component with a slightly larger covariance: loadings that are known to e σ only are
    stretched by (1 + t)^½, and σ by (1 + (1 + 1/t) e²)^½; see docs/pruning.md.
    """
    k, l, r = loadings.shape
    unit, eps = float(np.finfo(real).eps) / 2, float(np.finfo(np.float64).eps)
    rest_mean = np.sqrt(rest_sq)
    size = np.sqrt((loadings**2).sum(axis=(1, 2)) + np.trace(rest_gram, axis1=1, axis2=2)) if l else np.zeros(k)
    e = LOADING_ROUNDING * (np.sqrt(d) + l) * eps * size / sigma
    t = np.clip(e, 1e-300, 1.0)
    sigma_up, stretched = sigma * np.sqrt(1.0 + (1.0 + 1.0 / t) * e**2), np.sqrt(1.0 + t)
    a = np.sqrt(np.maximum(np.linalg.eigvalsh(rest_gram)[:, -1], 0.0)) if l else np.zeros(k)
    # What float64 may have done to the norms, far below the rounding of float32 tables.
    a = (a * (1.0 + 1e-10) + 1e-13 * size) * stretched
    whitened, least = np.zeros((k, l, r), real), np.ones(k)
    if l and r:
        U, S, _ = np.linalg.svd(np.swapaxes(loadings, 1, 2) / sigma[:, None, None], full_matrices=False)
        S = S * (stretched * sigma / sigma_up)[:, None]
        whitened[:, : S.shape[1]] = (S / np.hypot(1.0, S))[:, :, None] * np.swapaxes(U, 1, 2)
        if r >= l:
            least = 1.0 + (S[:, -1] * (1.0 - 1e-10)) ** 2
    ratio = (a / sigma_up) ** 2
    dead = np.isneginf(log_norm)
    up, down = 1.0 + 4.0 * unit, 1.0 - 4.0 * unit
    return Projection(
        means=means.astype(real),
        scales=np.ascontiguousarray(np.broadcast_to((1.0 / sigma_up)[:, None], (k, r))).astype(real),
        whitened=whitened,
        rest_means=rest_mean.astype(real)[:, None],
        rest_loadings=(a * up).astype(real)[:, None],
        rest_scales=((1.0 / sigma_up) * down).astype(real)[:, None],
        latent_scale=(up / np.sqrt(least)).astype(real),
        stretch=(down / (1.0 + ratio / least)).astype(real),
        steepness=(up / sigma_up).astype(real),
        offsets=((4.0 * unit + 16.0 * np.sqrt(d) * eps) * lengths * up).astype(real),
        log_norm=np.where(dead, NOTHING, log_norm).astype(real),
    )
