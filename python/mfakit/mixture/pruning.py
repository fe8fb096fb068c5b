"""What bounds every component from a few coordinates of a sample, so that most need no product with all features.

The coordinates are along the orthonormal rows B [r, d] of :mod:`mfakit.mixture.directions`. A :class:`Pruner` holds
them and, for each mixture, its tables at a coarse and a fine number of rows; the bounds are
:func:`mfakit.backends.numpy_ops.bound_components`'s, and their proof is in docs/pruning.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads.process import keeps_errstate, single_threaded_products
from ..backends.host_arrays import Host
from ..backends.operands import Projected, Projection
from .directions import DIRECTION_VALUES, Directions, group_noise, leading_directions, loadings_of
from .factors import Factors, Share, alone, component_parts

__all__ = ["Pruner", "nothing_finer", "project", "squared"]

Array = NDArray[Any]

# Rows of the coarse and the fine projection, and of the finest that is considered.
COARSE, FINE, FINEST = SIZES = 16, 64, 128
# Loadings of d features are known to this many times (√d + l) float64 roundings of their size, after the SVD they come
# from, the projection, and the SVD of what it leaves.
LOADING_ROUNDING = 8.0
# The log-normaliser of a component without weight, which float32 holds.
NOTHING = -1e30


class PrunerThere(NamedTuple):
    """What a block of samples reads of a :class:`Pruner`, for one of its mixtures."""

    center: Any  # [d]
    matrix: Any  # [d, r]
    tables: list[Projection]


class Pruner:
    """A projection that several mixtures over the same features share, and their tables; made at first use.

    Attributes
    ----------
    center : [d]
        What samples are centred by.
    directions : Directions
        B.
    sizes : tuple of int
        Rows of the coarse projection and, where one follows, of the fine one.
    """

    def __init__(
        self, mixtures: Sequence[Factors], directions: Directions, sizes: Sequence[int], kept: dict[Any, Any]
    ) -> None:
        self.mixtures, self.directions, self.sizes = tuple(mixtures), directions, tuple(sizes)
        self.center = mixtures[0].center
        self._kept = kept  # shared by the pruners of other sizes

    @classmethod
    def of(cls, mixtures: Sequence[Factors], sizes: Sequence[int] = (COARSE, FINE)) -> Pruner:
        """The pruner of some mixtures, kept with the first one's factors; the directions are those of all sizes."""
        first, key = mixtures[0], tuple(map(id, mixtures))
        with says_bytes(mixtures, FINEST):
            found = first.kept(("directions", key), lambda: leading_directions(mixtures, first.center, FINEST))
        sizes = tuple(min(r, len(found.rows)) for r in sizes)
        tables = first.kept(("tables", key), dict)
        pruner: Pruner = first.kept(("pruner", key, sizes), lambda: cls(mixtures, found, sizes, tables))
        return pruner  # it holds the mixtures, so that none of another one can get one of their numbers

    def matrix(self, dtype: Any) -> Array:
        """Bᵀ [d, r] of the finest projection, for the product with centred samples."""
        key = np.dtype(dtype), max(self.sizes)
        if key not in self._kept:
            self._kept[key] = np.ascontiguousarray(self.directions.rows[: key[1]].T, dtype=key[0])
        return np.asarray(self._kept[key])

    def on(self, arrays: Host, factors: Factors, dtype: Any) -> PrunerThere:
        """What samples in `dtype` read, where they are: on a device copied once, and kept."""
        tables = self.tables(factors, dtype)
        if not arrays.is_device:
            return PrunerThere(self.center, self.matrix(dtype), tables)
        key = arrays.name, id(factors), np.dtype(dtype), self.sizes
        if key not in self._kept:
            copies = [Projection._make(map(arrays.asarray, table)) for table in tables]
            self._kept[key] = PrunerThere(arrays.asarray(self.center), arrays.asarray(self.matrix(dtype)), copies)
            arrays.synchronize()  # other streams may be the next to read them
        there: PrunerThere = self._kept[key]
        return there

    def columns(self, factors: Factors) -> int:
        """How many columns of a dense product take as much of a block's memory as the bounds do."""
        return max(self.sizes) // 4 + factors.shape[0] // 5 + (self.directions.n_groups - 1) // 2

    def tables(self, factors: Factors, dtype: Any, share: Share = alone) -> list[Projection]:
        """Of one of the mixtures, one for each size."""
        real = np.dtype(dtype)
        if any((id(factors), real, r) not in self._kept for r in self.sizes):
            sizes = sorted({min(r, len(self.directions.rows)) for r in (*SIZES, *self.sizes)})
            with says_bytes(self.mixtures, len(self.directions.rows)):
                made = projections_of(factors, self.directions, self.center, real, sizes, share)
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


def squared(values: Any) -> Any:
    """The squares in float64, on the host or on a device."""
    wide = values.astype(np.float64)
    wide *= wide
    return wide


def project(coordinates: Array, sq_norms: Array, directions: Directions, r: int) -> Projected:
    """Samples with B (x - c) [n, ≥ r] and ‖x - c‖² in each group [n, G] in the first r coordinates, with what rounding
    may have done: a coordinate is a sum of terms of its group's features, off by at most 8 √d u times their sizes, as a
    coarse product is.
    """
    d = len(directions.groups)
    real, unit = coordinates.dtype, float(np.finfo(coordinates.dtype).eps) / 2
    length = np.sqrt(sq_norms)
    error = (8.0 * np.sqrt(d * r) + 4.0) * unit * length
    rest = sq_norms - directions.row_sums(squared(coordinates[:, :r]))
    off = 2.0 * length * error + error**2 + 4.0 * unit * sq_norms
    nearest, farthest = np.sqrt(np.maximum(rest - off, 0.0)), np.sqrt(np.maximum(rest + off, 0.0))
    up, down = 1.0 + 4.0 * unit, 1.0 - 4.0 * unit
    return Projected(
        coordinates, (nearest * down).astype(real), (farthest * up).astype(real), (error * up).astype(real)
    )


@keeps_errstate
def projections_of(
    factors: Factors, directions: Directions, center: Array, dtype: Any, sizes: Sequence[int], share: Share = alone
) -> list[Projection]:
    """The tables of a mixture for the first r directions, for each r of `sizes`; in float64, then rounded so that the
    bound stays one. `share` deals the parts out to threads.
    """
    k, l, d = factors.shape
    parts = component_parts(k, (l + 1) * d)
    made: list[list[Projection]] = [[] for _ in parts]
    columns = np.ascontiguousarray(directions.rows.T)

    def work(_: int, first: int, last: int) -> None:
        for i in range(first, last):
            made[i] = _tables_of(factors, parts[i], directions, columns, center, np.dtype(dtype), sizes)

    with single_threaded_products():  # many small ones
        share(len(parts), work)
    return [
        Projection._make(np.concatenate(found) for found in zip(*(tables[i] for tables in made), strict=True))
        for i in range(len(sizes))
    ]


class _Component(NamedTuple):
    """What the tables of all sizes are made of, of c components: d features in G groups, R directions, l loadings."""

    log_norm: Array  # [c]
    sigma: Array  # [c, G] the largest of each group
    size: Array  # [c] of D^-½ A, as a Frobenius norm
    means: Array  # [c, R] B (μ - c)
    loadings: Array  # [c, l, R] B A as rows
    lengths: Array  # [c, G] ‖μ - c‖ in each group
    sizes: Array  # [c, G] ‖A‖_F in each group
    rest_sq: Array  # [c, G] ‖Π (μ - c)‖² of all R directions
    rest_gram: Array  # [c, G, l, l] and (Π A)ᵀ Π A


@keeps_errstate
def _tables_of(
    factors: Factors, part: slice, directions: Directions, columns: Array, center: Array, dtype: Any,
    sizes: Sequence[int],
) -> list[Projection]:  # fmt: skip
    """Those of some components, Bᵀ [d, R] being `columns`."""
    offset, A, rows = factors.means[part] - center, loadings_of(factors, part), directions.rows
    c, l, d = A.shape
    means = offset @ columns
    flat = A.reshape(c * l, d)  # as one matrix: products of stacks go one by one
    coordinates = flat @ columns
    rest = (flat - coordinates @ rows).reshape(A.shape)
    members = directions.members()
    gram = np.stack([rest[:, :, some] @ np.swapaxes(rest[:, :, some], 1, 2) for some in members], axis=1)
    found = _Component(
        factors.log_norm[part], np.sqrt(group_noise(factors, directions.groups, part)),
        np.sqrt((A**2 / factors.noise[part][:, None, :]).sum(axis=(1, 2))), means,
        coordinates.reshape(c, l, len(rows)), np.sqrt(directions.sums(offset**2)),
        np.sqrt(directions.sums((A**2).sum(axis=1))), directions.sums((offset - means @ rows) ** 2), gram,
    )  # fmt: skip
    return [_table(found, directions, r, dtype, d) for r in sizes]


def _table(of: _Component, directions: Directions, r: int, real: Any, d: int) -> Projection:
    """The table of r directions. It is that of a component with a slightly larger covariance: noise is the largest of
    each group, and loadings that are known to e σ only are stretched by (1 + t)^½, and σ by (1 + (1 + 1/t) e²)^½; see
    docs/pruning.md.
    """
    (k, l, _), groups = of.loadings.shape, directions.row_groups[:r]
    unit, eps = float(np.finfo(real).eps) / 2, float(np.finfo(np.float64).eps)
    e = LOADING_ROUNDING * (np.sqrt(d) + l) * eps * of.size
    t = np.clip(e, 1e-300, 1.0)
    wider, stretched = np.sqrt(1.0 + (1.0 + 1.0 / t) * e**2), np.sqrt(1.0 + t)
    sigma = of.sigma * wider[:, None]
    rest_mean = np.sqrt(of.rest_sq + directions.row_sums(of.means[:, r:] ** 2, r))
    a = np.sqrt(np.maximum(_largest_eigenvalue(_rest_gram(of, directions, r)), 0.0)) if l else np.zeros(sigma.shape)
    # What float64 may have done to the norms, far below the rounding of float32 tables.
    a = (a * (1.0 + 1e-10) + 1e-13 * of.sizes) * stretched[:, None]
    whitened, least = np.zeros((k, l, r), real), np.ones(k)
    if l and r:
        scaled = np.swapaxes(of.loadings[:, :, :r] / of.sigma[:, None, groups], 1, 2)
        U, S, _ = np.linalg.svd(scaled, full_matrices=False)
        S = S * (stretched / wider)[:, None]
        whitened[:, : S.shape[1]] = (S / np.hypot(1.0, S))[:, :, None] * np.swapaxes(U, 1, 2)
        if r >= l:
            least = 1.0 + (S[:, -1] * (1.0 - 1e-10)) ** 2
    ratio = ((a / sigma) ** 2).sum(axis=1)
    dead = np.isneginf(of.log_norm)
    up, down = 1.0 + 4.0 * unit, 1.0 - 4.0 * unit
    return Projection(
        means=of.means[:, :r].astype(real),
        scales=np.ascontiguousarray(1.0 / sigma[:, groups]).astype(real),
        whitened=whitened,
        rest_means=rest_mean.astype(real),
        rest_loadings=(a * up).astype(real),
        rest_scales=((1.0 / sigma) * down).astype(real),
        latent_scale=(up / np.sqrt(least)).astype(real),
        stretch=(down / (1.0 + ratio / least)).astype(real),
        steepness=(up / sigma).astype(real),
        offsets=((4.0 * unit + 16.0 * np.sqrt(d) * eps) * of.lengths * up).astype(real),
        log_norm=np.where(dead, NOTHING, of.log_norm).astype(real),
    )


def _rest_gram(of: _Component, directions: Directions, r: int) -> Array:
    """(Π A)ᵀ Π A in each group [k, G, l, l] of the first r directions: what those beyond take of it comes back."""
    gram, beyond = of.rest_gram.copy(), directions.row_groups[r:]
    for g in np.unique(beyond):
        C = of.loadings[:, :, r + np.flatnonzero(beyond == g)]
        gram[:, g] += C @ np.swapaxes(C, 1, 2)
    return gram


def _largest_eigenvalue(S: Array) -> Array:
    return np.asarray(np.linalg.eigvalsh(S)[..., -1])
