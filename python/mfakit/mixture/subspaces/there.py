"""Distances of all pairs on a device: the matrix, or what is left of each tile when it has been reduced there.

What comes to the host of a tile are the pairs that may be among the nearest or whose bin is open, with their bounds,
and a few numbers for each of its rows; never the tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.host_arrays import HOST
from ..factors import Factors
from .kept import Histogram, Nearest, Solve
from .tiles import Machine, Tile, rounding, tiles

__all__ = ["count_there", "fill_there", "nearest_there"]

Array = Any  # NumPy's or, on the device, CuPy's
Gone = tuple[NDArray[Any], NDArray[Any]]  # bool [k0], [k1]: components without weight, at a distance of inf

# Of a strip of rows of the matrix, on its way to the host.
STRIP_BYTES = 2**28


def fill_there(
    side0: Factors, side1: Factors, machine: Machine, gone: Gone, found: Array, solve: Solve, bar: Any
) -> None:
    """All distances into `found` [k0, k1], on the device or on the host: strips of rows come there beside the
    computation of the next one.
    """
    arrays, k1 = machine.arrays, side1.shape[0]
    strip: Array = None
    alone = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    with arrays.active(), arrays.results(found) as results:
        for tile in tiles(side0, side1, machine, most_rows=max(1, STRIP_BYTES // (8 * max(k1, 1)))):
            strip = results.target(tile.rows) if tile.columns.start == 0 else strip
            strip[:, tile.columns] = arrays.xp.sqrt(tile.sq)
            i, j = (arrays.to_host(index) for index in arrays.xp.nonzero(tile.suspect))
            alone.append((i + tile.rows.start, j + tile.columns.start))
            if tile.columns.stop == k1:
                results.store(tile.rows, strip)
            bar.update(tile.sq.size)
    i, j = (np.concatenate(part) for part in zip(*alone, strict=True))
    with arrays.active():
        place = HOST if isinstance(found, np.ndarray) else arrays
        if len(i):
            found[place.asarray(i), place.asarray(j)] = place.asarray(solve(i, j))
        if gone[0].any():
            found[place.asarray(np.flatnonzero(gone[0]))] = np.inf
        if gone[1].any():
            found[:, place.asarray(np.flatnonzero(gone[1]))] = np.inf


def nearest_there(side0: Factors, side1: Factors, machine: Machine, gone: Gone, kept: Nearest, bar: Any) -> None:
    """Every pair to `kept`, but those that a row's least upper bounds exclude."""
    arrays = machine.arrays
    for tile in tiles(side0, side1, machine):
        lower, upper = _brackets(tile, side0, side1, machine, gone)
        limits = arrays.asarray(kept.limits_of(tile.rows, arrays.to_host(upper.min(axis=1))))
        _add(kept, tile, machine, lower, upper, (lower <= limits[:, None]) & (lower < np.inf))
        bar.update(tile.sq.size)


def _add(kept: Nearest, tile: Tile, machine: Machine, lower: Array, upper: Array, chosen: Array) -> None:
    """The chosen pairs [t0, t1] to what is kept; suspects are solved."""
    i, j = machine.arrays.xp.nonzero(chosen)
    found = machine.arrays.all_to_host((i, j, lower[i, j], upper[i, j], tile.suspect[i, j]))
    rows, columns, low, high, suspect = found
    rows, columns, alone = rows + tile.rows.start, columns + tile.columns.start, np.flatnonzero(suspect)
    low[alone] = high[alone] = kept.solve(rows[alone], columns[alone])
    kept.add(rows, columns, low, high)


def count_there(
    side0: Factors, side1: Factors, machine: Machine, gone: Gone, kept: Histogram, solve: Solve, bar: Any
) -> None:  # fmt: skip
    """Every pair's distance to the counts; those whose bin its bounds leave open are solved."""
    arrays, xp = machine.arrays, machine.arrays.xp
    with arrays.active():
        edges = arrays.asarray(kept.edges)
    for tile in tiles(side0, side1, machine):
        brackets = _brackets(tile, side0, side1, machine, gone)
        # Numbers of bins from 1; 0 and b + 1 are below and beyond.
        low, high = (xp.searchsorted(edges, values, side="right") - (values == edges[-1]) for values in brackets)
        closed = xp.where(low == high, low, 0).ravel()
        kept.counts += arrays.to_host(xp.bincount(closed, minlength=len(kept.edges) + 1))[1:-1]
        i, j = arrays.all_to_host(xp.nonzero(low != high))
        kept.add_exact(solve(i + tile.rows.start, j + tile.columns.start))
        bar.update(tile.sq.size)


def _brackets(tile: Tile, side0: Factors, side1: Factors, machine: Machine, gone: Gone) -> tuple[Array, Array]:
    """Bounds [t0, t1] of the distances of a tile, on the device: 0 and inf of suspects, inf of what is gone."""
    arrays, xp = machine.arrays, machine.arrays.xp
    error = rounding(side0.shape[1], side1.shape[1], side0.shape[2]) * (tile.norm0[:, None] + tile.norm1)
    lower = xp.where(tile.suspect, 0.0, xp.sqrt(xp.maximum(tile.sq - error, 0.0)))
    upper = xp.where(tile.suspect, np.inf, xp.sqrt(tile.sq + error))
    if gone[0][tile.rows].any() or gone[1][tile.columns].any():
        left_out = arrays.asarray(gone[0][tile.rows])[:, None] | arrays.asarray(gone[1][tile.columns])
        lower, upper = xp.where(left_out, np.inf, lower), xp.where(left_out, np.inf, upper)
    return lower, upper
