"""Distances of all pairs, tile by tile: one matrix product for the pairs of a tile, and a small problem for each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._arrays.rows import array_module
from ..._threads.process import interruptible
from ...backends import get_arrays
from ...backends.host_arrays import Host
from ...backends.operands import Subspaces
from ..factors import Factors
from .pairs import solve_pairs

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "Machine", "Tile", "brackets_of", "distances_of", "open_machine", "pair_products",
    "product_rounding", "rounding", "side_rows", "tiles",
]  # fmt: skip

Array = NDArray[Any]

# A product of fewer multiplications takes some milliseconds, and Ctrl-C can wait for it.
QUICK_STEPS = 2**28
# Of a squared distance that the kernels settle, by an inner product's rounding: see `rounding`.
AMPLIFICATION = 1e5


class Machine(NamedTuple):
    """What computes: operations, where their arrays are, and the kernels' threads."""

    ops: ModuleType
    arrays: Host
    threads: int = 1


def open_machine(ops: ModuleType, threads: int = 1, device: str | None = None) -> Machine:
    """The machine of a backend's operations."""
    return Machine(ops, get_arrays(ops, device), threads)


class Tile(NamedTuple):
    """Squared distances of some rows of side 0 and some of side 1, on the host."""

    rows: slice
    columns: slice
    sq: Array  # [t0, t1]
    suspect: Array  # [t0, t1] True: to be solved by itself
    norm0: Array  # [t0] ‖μ - c‖²
    norm1: Array  # [t1]


def rounding(l0: int, l1: int, d: int) -> float:
    """How far the square of a distance that is not `suspect` may be off, over ‖μ0 - c‖² + ‖μ1 - c‖²; the proof is in
    docs/subspaces.md.
    """
    return AMPLIFICATION * math.sqrt(max(l0, 1) * max(l1, 1)) * product_rounding(d)


def product_rounding(d: int) -> float:
    """That of an inner product of float64 vectors [d], over their lengths."""
    return 8.0 * math.sqrt(d) * float(np.finfo(np.float64).eps) / 2


def tiles(side0: Factors, side1: Factors, machine: Machine, tile_bytes: int | None = None) -> Iterator[Tile]:
    """All pairs; Ctrl-C is answered between and within tiles. `tile_bytes` are those of a tile's products."""
    arrays = machine.arrays
    (k0, l0, d), (k1, l1, _) = side0.shape, side1.shape
    # One centre for both sides, so that ‖μ‖² is as small as it can be before it cancels.
    center = (side0.center + side1.center) / 2
    most = arrays.panel_bytes / 8 / (d * (max(l0, l1) + 1))
    edge = max(1, int(min(most, ((tile_bytes or arrays.tile_bytes) / 8 / ((l0 + 1) * (l1 + 1))) ** 0.5)))
    with arrays.active():
        # The device makes panels of what it holds; the host makes them tile by tile.
        there0, there1 = arrays.side(side0), arrays.side(side1)
        for i in range(0, k0, edge):
            rows = slice(i, min(i + edge, k0))
            left = side_rows(there0, rows, center, arrays)
            for j in range(0, k1, edge):
                columns = slice(j, min(j + edge, k1))
                right = side_rows(there1, columns, center, arrays)
                yield Tile(rows, columns, *pair_products(left, right, machine))


def pair_products(left: tuple[Array, Subspaces], right: tuple[Array, Subspaces], machine: Machine) -> tuple[Array, ...]:
    """What a tile has beside its place, of the rows that :func:`side_rows` made of either side."""
    (rows0, one), (rows1, other), arrays = left, right, machine.arrays
    xp = arrays.xp
    products = xp.empty((len(rows0), len(rows1)))
    if arrays.is_device or products.size * rows0.shape[1] < QUICK_STEPS:
        arrays.matmul(rows0, rows1.T, products)
    else:  # it may take seconds
        interruptible(arrays.matmul, rows0, rows1.T, products)
    (k0, l0), (k1, l1) = one.sizes, other.sizes
    sq, suspect = xp.empty((k0, k1)), xp.empty((k0, k1), np.uint8)
    machine.ops.pair_distances(products.reshape(k0, l0 + 1, k1, l1 + 1), one, other, sq, suspect, machine.threads)
    found = (sq, suspect, one.norm, other.norm)
    sq, suspect, norm0, norm1 = (arrays.to_host(part) for part in found)
    return sq, suspect.astype(bool), norm0, norm1


def side_rows(factors: Any, part: slice | Array, center: Array, arrays: Host) -> tuple[Array, Subspaces]:
    """Rows [Qᵀ; μ - c] of the components in `part` [k (l+1), d], and what pair_distances reads of them."""
    bases = factors.whitened[part]
    xp = array_module(bases)
    means = factors.means[part] - xp.asarray(center)
    rows = xp.concatenate([bases, means[:, None]], axis=1).reshape(-1, means.shape[1])
    shift = xp.ascontiguousarray(xp.matmul(bases, means[:, :, None])[:, :, 0])
    norm = xp.einsum("kd,kd->k", means, means)
    return arrays.asarray(rows), Subspaces(arrays.asarray(shift), arrays.asarray(norm))


def distances_of(tile: Tile, side0: Factors, side1: Factors) -> Array:
    """Distances [t0, t1] of a tile, suspects solved."""
    distances: Array = np.sqrt(tile.sq)
    _solve_suspects(tile, side0, side1, distances)
    return distances


def brackets_of(tile: Tile, side0: Factors, side1: Factors) -> tuple[Array, Array]:
    """Bounds [t0, t1] of what :func:`~.pairs.solve_pairs` gives for the pairs of a tile; equal where it has."""
    error = rounding(side0.shape[1], side1.shape[1], side0.shape[2]) * (tile.norm0[:, None] + tile.norm1)
    lower, upper = np.sqrt(np.maximum(tile.sq - error, 0.0)), np.sqrt(tile.sq + error)
    _solve_suspects(tile, side0, side1, lower, upper)
    return lower, upper


def _solve_suspects(tile: Tile, side0: Factors, side1: Factors, *distances: Array) -> None:
    i, j = np.nonzero(tile.suspect)
    if len(i):
        found = solve_pairs(side0, i + tile.rows.start, side1, j + tile.columns.start)
        for values in distances:
            values[i, j] = found
