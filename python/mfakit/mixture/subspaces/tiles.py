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
    "Machine", "Rough", "Tile", "brackets_of", "brackets_of_row", "can_be_rough", "distances_of", "one_row",
    "open_machine", "pair_products", "product_rounding", "rough_tiles", "rounding", "side_rows", "tiles",
]  # fmt: skip

Array = NDArray[Any]

# A product of fewer multiplications takes some milliseconds, and Ctrl-C can wait for it.
QUICK_STEPS = 2**28
# As in csrc/include/mfakit/subspace.hpp; and features below which float32 saves nothing.
LEAST_ROUGH_SQ_SINE, FEW_FEATURES = 1e-2, 128
# Of squared distances, where lengths are about 1 and numbers below 1e-38 are lost.
UNDERFLOW = 1e-32
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
    """Squared distances of some rows of side 0 and some of side 1, where they were computed."""

    rows: slice
    columns: slice
    sq: Array  # [t0, t1]
    suspect: Array  # [t0, t1] True: to be solved by itself
    norm0: Array  # [t0] ‖μ - c‖²
    norm1: Array  # [t1]


class Rough(NamedTuple):
    """Bounds of the distances of some rows of side 0 and some of side 1; 0 and inf where nothing is known."""

    rows: slice
    columns: slice
    lower: Array  # [t0, t1]
    upper: Array  # [t0, t1]


def rounding(l0: int, l1: int, d: int) -> float:
    """How far the square of a distance that is not `suspect` may be off, over ‖μ0 - c‖² + ‖μ1 - c‖²; the proof is in
    docs/subspaces.md.
    """
    return AMPLIFICATION * math.sqrt(max(l0, 1) * max(l1, 1)) * product_rounding(d)


def product_rounding(d: int) -> float:
    """That of an inner product of float64 vectors [d], over their lengths."""
    return 8.0 * math.sqrt(d) * float(np.finfo(np.float64).eps) / 2


def tiles(
    side0: Factors, side1: Factors, machine: Machine, tile_bytes: int | None = None, most_rows: int | None = None
) -> Iterator[Tile]:
    """All pairs, by rows and then columns; Ctrl-C is answered between and within tiles. `tile_bytes` are those of a
    tile's products.
    """
    for rows, columns, left, right in _panels(side0, side1, machine, tile_bytes, most_rows):
        yield Tile(rows, columns, *pair_products(left, right, machine))


def rough_tiles(side0: Factors, side1: Factors, machine: Machine) -> Iterator[Rough]:
    """All pairs from products in float32, on the host by an operation of the compiled backend."""
    (_, l0, d), (_, l1, _) = side0.shape, side1.shape
    slack = rough_slack(d)
    for rows, columns, left, right in _panels(side0, side1, machine):
        # In a unit in which no square leaves float32.
        longest = math.sqrt(max(float(side.norm.max(initial=0.0)) for _, side in (left, right)))
        unit = 2.0 ** -math.frexp(longest)[1] if longest else 1.0
        (rows0, one), (rows1, other) = _rough_rows(left, l0, unit), _rough_rows(right, l1, unit)
        products = np.empty((len(rows0), len(rows1)), np.float32)
        interruptible(machine.arrays.matmul, rows0, rows1.T, products)
        (k0, _), (k1, _) = one.sizes, other.sizes
        lower, upper = np.empty((k0, k1)), np.empty((k0, k1))
        machine.ops.bracket_pairs(
            products.reshape(k0, l0 + 1, k1, l1 + 1), one, other, slack, rounding(l0, l1, d), lower, upper,
            machine.threads,
        )  # fmt: skip
        # What is below float32's smallest number in this unit was taken for less.
        lower, upper = np.maximum(lower - UNDERFLOW, 0.0), upper + UNDERFLOW
        yield Rough(rows, columns, np.sqrt(lower) / unit, np.sqrt(upper) / unit)


def rough_slack(d: int) -> float:
    """How far an inner product of float32 vectors [d] may be off, over their lengths, with the rounding of both."""
    return (8.0 * math.sqrt(d) + 2.0) * float(np.finfo(np.float32).eps) / 2


def can_be_rough(side0: Factors, side1: Factors, machine: Machine) -> bool:
    """Whether :func:`rough_tiles` is for these sides and this backend."""
    (_, l0, d), (_, l1, _) = side0.shape, side1.shape
    # The condition of bracket_pairs; and short products are no slower in float64.
    fits = rough_slack(d) * max(l0, l1) * 8 <= LEAST_ROUGH_SQ_SINE and d >= FEW_FEATURES
    return fits and not machine.arrays.is_device and hasattr(machine.ops, "bracket_pairs")


def _rough_rows(side: tuple[Array, Subspaces], l: int, unit: float) -> tuple[Array, Subspaces]:
    """Rows in float32, with means in another unit."""
    (rows, (shift, norm)), d = side, side[0].shape[1]
    rough = np.empty((len(norm), l + 1, d), np.float32)
    rough[:, :l] = rows.reshape(rough.shape)[:, :l]
    np.multiply(rows.reshape(rough.shape)[:, l], unit, out=rough[:, l], casting="same_kind")
    return rough.reshape(-1, d), Subspaces(shift * unit, norm * unit**2)


def _panels(
    side0: Factors, side1: Factors, machine: Machine, tile_bytes: int | None = None, most_rows: int | None = None
) -> Iterator[tuple[slice, slice, tuple[Array, Subspaces], tuple[Array, Subspaces]]]:
    """Of every tile its rows, its columns, and what :func:`side_rows` makes of them."""
    arrays = machine.arrays
    (k0, l0, d), (k1, l1, _) = side0.shape, side1.shape
    # One centre for both sides, so that ‖μ‖² is as small as it can be before it cancels.
    center = (side0.center + side1.center) / 2
    with arrays.active():
        panel, tile = (arrays.room_for(wanted) / 8 for wanted in (arrays.panel_bytes, tile_bytes or arrays.tile_bytes))
        edge = max(1, int(min(panel / (d * (max(l0, l1) + 1)), (tile / ((l0 + 1) * (l1 + 1))) ** 0.5)))
        # The device makes panels of what it holds; the host makes them tile by tile.
        there0, there1 = arrays.side(side0), arrays.side(side1)
        height = min(edge, most_rows or edge)
        for i in range(0, k0, height):
            rows = slice(i, min(i + height, k0))
            left = side_rows(there0, rows, center, arrays)
            for j in range(0, k1, edge):
                columns = slice(j, min(j + edge, k1))
                yield rows, columns, left, side_rows(there1, columns, center, arrays)


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
    return sq, suspect.astype(bool), one.norm, other.norm


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


def brackets_of_row(side0: Factors, i: int, side1: Factors, j: Array, machine: Machine) -> tuple[Array, Array]:
    """:func:`brackets_of` [m] of component i of side 0 and components j [m] of side 1."""
    left, right = _some(side0, [i]), _some(side1, j)
    lower, upper = brackets_of(one_row(left, right, machine), left, right)
    return lower[0], upper[0]


def one_row(side0: Factors, side1: Factors, machine: Machine) -> Tile:
    """The tile of one component and some."""
    center = (side0.center + side1.center) / 2
    part = slice(0, side1.shape[0])
    left, right = (side_rows(side, slice(None), center, machine.arrays) for side in (side0, side1))
    return Tile(slice(0, 1), part, *pair_products(left, right, machine._replace(threads=1)))


def _some(side: Factors, which: Any) -> Factors:
    k = len(which)
    return Factors(
        side.center, side.means[which], side.whitened[which], np.empty((k, 0, 0)), np.ones((k, 1)), np.zeros(k)
    )


def _solve_suspects(tile: Tile, side0: Factors, side1: Factors, *distances: Array) -> None:
    i, j = np.nonzero(tile.suspect)
    if len(i):
        found = solve_pairs(side0, i + tile.rows.start, side1, j + tile.columns.start)
        for values in distances:
            values[i, j] = found
