"""Histograms of all distances: what is counted is what :func:`~.pairs.solve_pairs` gives.

Its bounds from products in float32, then in float64, decide the bin of every pair but those at an edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._threads.process import single_threaded_products
from ..factors import Factors
from .kept import Histogram, Solve
from .tiles import Machine, brackets_of, brackets_of_row, rough_tiles, tiles

__all__ = ["count_rough", "count_tiles"]

Array = NDArray[Any]
LeaveOut = Callable[..., None]

# Pairs of a row that are looked at again together: their rows are copied.
ROW_PAIRS = 256


def count_tiles(
    side0: Factors, side1: Factors, machine: Machine, kept: Histogram, solve: Solve, leave_out: LeaveOut, bar: Any
) -> None:
    """By products in float64. ``leave_out(rows, columns, *bounds)`` makes those of components without weight inf."""
    for tile in tiles(side0, side1, machine):
        brackets = brackets_of(tile, side0, side1)
        leave_out(tile.rows, tile.columns, *brackets)
        i, j = np.unravel_index(kept.add(*brackets), tile.sq.shape)
        kept.add_exact(solve(i + tile.rows.start, j + tile.columns.start))
        bar.update(tile.sq.size)


def count_rough(
    side0: Factors, side1: Factors, machine: Machine, kept: Histogram, solve: Solve, leave_out: LeaveOut, bar: Any
) -> None:
    """By products in float32; what these leave open is looked at again, row by row."""
    left: list[tuple[Array, Array]] = []
    start = 0
    for tile in rough_tiles(side0, side1, machine):
        if tile.rows.start != start:
            _count_left(side0, side1, machine, kept, solve, left)
            start = tile.rows.start
        leave_out(tile.rows, tile.columns, tile.lower, tile.upper)
        i, j = np.unravel_index(kept.add(tile.lower, tile.upper), tile.lower.shape)
        left.append((i + tile.rows.start, j + tile.columns.start))
        bar.update(tile.lower.size)
    _count_left(side0, side1, machine, kept, solve, left)


def _count_left(
    side0: Factors, side1: Factors, machine: Machine, kept: Histogram, solve: Solve, left: list[tuple[Array, Array]]
) -> None:
    """Count the pairs that are left, and empty the list of them."""
    if not any(len(i) for i, _ in left):
        left.clear()
        return
    i, j = (np.concatenate(part) for part in zip(*left, strict=True))
    left.clear()
    order = np.argsort(i, kind="stable")
    rows, starts = np.unique(i[order], return_index=True)
    with single_threaded_products():  # small ones
        for row, columns in zip(rows, np.split(j[order], starts[1:]), strict=True):
            for first in range(0, len(columns), ROW_PAIRS):
                some = columns[first : first + ROW_PAIRS]
                again = some[kept.add(*brackets_of_row(side0, int(row), side1, some, machine))]
                kept.add_exact(solve(np.full(len(again), row), again))
