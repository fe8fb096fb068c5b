"""The nearest pairs of subspaces without looking at all pairs: most are skipped by a proven lower bound.

B [r, d] with orthonormal rows shortens every vector, so that the distance of two subspaces is at least that of their
projections, affine subspaces of r dimensions: the same problem, at r/d of the cost. What is left is bounded once more
by the first 4r rows, and then measured. docs/subspaces.md proves it, with what rounding may do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._threads.process import keeps_errstate, single_threaded_products
from ..._threads.rows import open_crew
from ..directions import leading_rows
from ..factors import Factors, component_parts, thin_svd
from .kept import Nearest, RowMinima, Smallest
from .pairs import solve_pairs
from .sides import Side
from .tiles import Machine, Tile, brackets_of_row, one_row, product_rounding, rounding, tiles

__all__ = ["Pruning", "choose_pruning", "search_pruned"]

Array = NDArray[Any]

# Fewer pairs are all looked at sooner than a projection is made.
FEW_PAIRS = 2**20
# Rows that the pilot counts survivors of.
PILOT_ROWS = 16
# Pruning must cost at most this share of all pairs. Costs are counted in multiplications: the small problem of a pair
# takes as many for each of its inner products, and a pair that is measured by itself for each value of its rows.
WORTHWHILE, SOLVE_STEPS, GATHER_STEPS = 0.7, 64, 48
# Values of the means and bases that the directions are found in.
DIRECTION_VALUES = 2**22
# Of a tile of bounds: they stay in a processor's cache.
TILE_BYTES = 2**22
# Bounds [rows, k1] that are held at a time.
STRIP_BYTES = 2**26
# Of the pairs of a row that are left, those that are measured before the others.
FIRST = 4
# A component with a direction that the projection shortens more than this is not bounded.
LEAST_SEEN = 1e-2


class Projected(NamedTuple):
    """The subspaces of one side in r coordinates."""

    factors: Factors
    offsets: Array  # [k] how much shorter than computed a distance may be for this component's part
    blind: Array  # [k] True: not bounded

    def take(self, rows: Array) -> Projected:
        """Those of some components."""
        f = self.factors
        part = Factors(f.center, f.means[rows], f.whitened[rows], f.latent_map[rows], f.noise[rows], f.log_norm[rows])
        return Projected(part, self.offsets[rows], self.blind[rows])


@keeps_errstate
def project(side: Factors, B: Array, center: Array) -> Projected:
    """The subspaces of a side as B [r, d] sees them from `center`."""
    (k, l, d), r = side.shape, len(B)
    means, bases, blind, lengths = np.empty((k, r)), np.zeros((k, l, r)), np.zeros(k, bool), np.empty(k)
    for part in component_parts(k, (l + 1) * d):
        moved, rows = side.means[part] - center, side.whitened[part]
        means[part], lengths[part] = moved @ B.T, np.linalg.norm(moved, axis=1)
        if not l:
            continue
        seen, rank = rows @ B.T, (rows != 0).any(axis=2).sum(axis=1)
        U, S, _ = thin_svd(seen.swapaxes(1, 2))
        S = np.concatenate([np.ones((len(S), 1)), S], axis=1)  # without directions there is nothing to be short of
        shown = np.minimum(rank, S.shape[1] - 1)
        blind[part] = (np.take_along_axis(S, shown[:, None], axis=1)[:, 0] < LEAST_SEEN) | (shown < rank)
        bases[part, : U.shape[2]] = U.swapaxes(1, 2) * (np.arange(U.shape[2]) < shown[:, None])[:, :, None]
    factors = Factors(means.mean(axis=0), means, bases, np.zeros((k, l, 0)), np.ones((k, 1)), np.zeros(k))
    product = product_rounding(d)
    turned = math.sqrt(max(l, 1) * r) * product / LEAST_SEEN
    return Projected(factors, (math.sqrt(r) * product + 600.0 * turned) * lengths, blind)


def _lower(tile: Tile, side0: Projected, side1: Projected) -> Array:
    """Lower bounds [t0, t1] of the distances of the pairs of a tile of projections."""
    error = rounding(side0.factors.shape[1], side1.factors.shape[1], side0.factors.shape[2])
    lower = np.sqrt(np.maximum(tile.sq - error * (tile.norm0[:, None] + tile.norm1), 0.0))
    lower -= side0.offsets[tile.rows][:, None] + side1.offsets[tile.columns]
    lower *= 1.0 - 1e-13
    np.maximum(lower, 0.0, out=lower)
    lower[tile.suspect] = 0.0
    lower[side0.blind[tile.rows]] = 0.0
    lower[:, side1.blind[tile.columns]] = 0.0
    return lower


@dataclass
class Pruning:
    """Two sides of pairs, and their projections; which components have no weight [k].

    Attributes
    ----------
    n_second, n_measured : int
        Pairs that the first and the second projection left.
    """

    sides: tuple[Factors, Factors]
    gone: tuple[Array, Array]
    machine: Machine
    coarse: tuple[Projected, Projected]
    fine: tuple[Projected, Projected] | None
    n_second: int = 0
    n_measured: int = 0

    def bounds(self, rows: Array) -> Array:
        """Lower bounds [rows, k1] by the first projection; inf for what has no weight. Threads share the rows, because
        products and kernels of tiles that are small are no quicker in several.
        """
        right, alone = self.coarse[1], self.machine._replace(threads=1)
        lower = np.empty((len(rows), len(right.blind)))

        def bound(_: int, first: int, last: int) -> None:
            left, own = self.coarse[0].take(rows[first:last]), lower[first:last]
            for tile in tiles(left.factors, right.factors, alone, TILE_BYTES):
                crew.raise_if_cancelled()
                own[tile.rows, tile.columns] = _lower(tile, left, right)

        with open_crew(min(self.machine.threads, len(rows))) as crew, single_threaded_products():
            crew.share(len(rows), bound)
        lower[self.gone[0][rows]], lower[:, self.gone[1]] = np.inf, np.inf
        return lower

    def search(self, rows: Array, lower: Array, kept: Nearest) -> None:
        """Give `kept` the pairs of these rows that may be among the nearest; `lower` is used up."""
        with single_threaded_products():  # small ones
            first, columns = kept.seeds(rows, lower)
            for row in np.unique(first):
                self._measure(kept, rows[row], columns[first == row])
            lower[first, columns] = np.inf
            for row in np.argsort(lower.min(axis=1), kind="stable"):
                self._search_row(kept, int(rows[row]), lower[row])

    def _search_row(self, kept: Nearest, i: int, lower: Array) -> None:
        j = np.flatnonzero((lower <= kept.limits(i)) & (lower < np.inf))
        if len(j) and self.fine is not None:
            self.n_second += len(j)
            left, right = self.fine[0].take(np.array([i])), self.fine[1].take(j)
            least = _lower(one_row(left.factors, right.factors, self.machine), left, right)[0]
            order = np.argsort(least, kind="stable")
            j, least = j[order], least[order]
            self._measure(kept, i, j[:FIRST][least[:FIRST] <= kept.limits(i)])
            j = j[FIRST:][least[FIRST:] <= kept.limits(i)]
        self._measure(kept, i, j)

    def _measure(self, kept: Nearest, i: int, j: Array) -> None:
        """Give `kept` brackets of the distances of row i and columns j."""
        if not len(j):
            return
        self.n_measured += len(j)
        kept.add(np.full(len(j), i), j, *brackets_of_row(self.sides[0], i, self.sides[1], j, self.machine))


def choose_pruning(
    side0: Side, side1: Side, machine: Machine, reduce: str, count: int, *, forced: bool
) -> Pruning | None:
    """Projections of two sides where they pay, by counted pairs of a pilot, or where they are `forced`."""
    sides, gone = (side0.factors, side1.factors), (side0.gone, side1.gone)
    (k0, l0, d), (k1, l1, _) = sides[0].shape, sides[1].shape
    r = 16 * (max(l0, l1) // 8 + 1) + 16  # 2 l of the coordinates are taken up by the loadings
    if not forced and (k0 * k1 < FEW_PAIRS or 8 * r > d):
        return None
    pruning = _project_sides(sides, gone, machine, min(r, d))
    if forced:
        return pruning
    live = np.flatnonzero(~gone[0])
    rows = live[np.linspace(0, len(live) - 1, min(PILOT_ROWS, len(live))).astype(int)]
    kept = _pilot(sides, reduce, count, k0)
    pruning.search(rows, pruning.bounds(rows), kept)
    share_second, share_measured = (n / (len(rows) * k1) for n in (pruning.n_second, pruning.n_measured))
    entries = (l0 + 1) * (l1 + 1)
    cost = entries * (r + SOLVE_STEPS) + GATHER_STEPS * (l1 + 1) * (4 * r * share_second + d * share_measured)
    return pruning if cost <= WORTHWHILE * entries * (d + SOLVE_STEPS) else None


def _pilot(sides: tuple[Factors, Factors], reduce: str, count: int, k0: int) -> Nearest:
    def solve(i: Array, j: Array) -> Array:
        return solve_pairs(sides[0], i, sides[1], j)

    return RowMinima(solve, k0) if reduce == "row_min" else Smallest(solve, count)


def _project_sides(sides: tuple[Factors, Factors], gone: tuple[Array, Array], machine: Machine, r: int) -> Pruning:
    d = sides[0].shape[2]
    center = (sides[0].center + sides[1].center) / 2
    B = _directions(sides, gone, center, min(4 * r, d))
    coarse, fine = ((project(sides[0], B[:n], center), project(sides[1], B[:n], center)) for n in (r, 4 * r))
    return Pruning(sides, gone, machine, coarse, fine if len(B) > r else None)


def _directions(sides: tuple[Factors, Factors], gone: tuple[Array, Array], center: Array, r: int) -> Array:
    """Orthonormal rows near the leading right singular vectors of means and bases, of some components where all are
    too many. How good they are is a question of time alone.
    """
    rng = np.random.default_rng(0)
    values = sum(k * (l + 1) * d for k, l, d in (side.shape for side in sides))
    rows = []
    for side, dead in zip(sides, gone, strict=True):
        live = np.flatnonzero(~dead)
        if values > DIRECTION_VALUES:
            live = np.sort(rng.choice(live, max(1, len(live) * DIRECTION_VALUES // values), replace=False))
        means = side.means[live] - center
        # In the unit of the bases, as long as a component's directions together.
        length = float(np.sqrt(np.mean(np.sum(means**2, axis=1)))) or 1.0
        rows += [(means * ((side.shape[1] + 1) / length)).astype(np.float32)]
        rows += [side.whitened[live].reshape(-1, len(center)).astype(np.float32)]
    return np.asarray(leading_rows(np.concatenate(rows), r, rng)[0])


def search_pruned(pruning: Pruning, kept: Nearest, bar: Any) -> None:
    """Give `kept` all pairs that may be among the nearest, a strip of rows at a time."""
    k0, k1 = (len(gone) for gone in pruning.gone)
    step = max(1, STRIP_BYTES // (8 * k1))
    for start in range(0, k0, step):
        rows = np.arange(start, min(start + step, k0))
        pruning.search(rows, pruning.bounds(rows), kept)
        bar.update(len(rows) * k1)
