"""Where arrays live and who multiplies them: the host's part, NumPy. :mod:`.cuda_arrays` has the device's.

The drivers (density, subspaces, attacks, fit) are written once over this interface: ``xp`` is the array module, and
what differs between host and device beyond the array module is a method here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .._threads.process import errstate

if TYPE_CHECKING:
    from .._arrays.options import Options
    from .._arrays.rows import RowBlocks
    from ..mixture.factors import Factors

__all__ = ["HOST", "Host", "Results"]


class Results:
    """A result `out` [n, ...] that is computed block by block: each is stored before the next one has a target. All of
    them are there after the ``with`` block.
    """

    def __init__(self, arrays: Host, out: Any) -> None:
        self.arrays, self.out = arrays, out

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        pass

    def target(self, part: slice) -> Any:
        """Where the rows `part` are computed."""
        return self.arrays.target(self.out, part)

    def store(self, part: slice, target: Any) -> None:
        """Those rows are in `target`, or will be when the device has done what it was given so far."""
        self.arrays.store(self.out, part, target)


class Host:
    """NumPy arrays, NumPy's products."""

    xp: Any = np
    name = "host"
    is_device = has_tf32 = False
    # Of one tile's product [k0, l0+1, k1, l1+1] of pairs of subspaces.
    tile_bytes = 64 * 2**20
    # Of one side's panel for a tile, which is made anew for each: some tenths of a second.
    panel_bytes = 2**28

    def asarray(self, array: Any) -> Any:
        """The array here: on the host, itself."""
        return array

    def to_host(self, array: Any) -> Any:
        """The array as NumPy's."""
        return array

    def all_to_host(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arrays, of integers below 2^53 or float64, as NumPy's; a device is waited for once."""
        return arrays

    def matmul(self, A: Any, B: Any, out: Any, *, tf32: bool = False) -> None:
        """out = A · B; `tf32` is a device's."""
        np.matmul(A, B, out=out)

    def room_for(self, wanted: int) -> int:
        """How many of these bytes an array of a tile may have; on a device what is free counts."""
        return wanted

    def side(self, factors: Factors) -> Any:
        """Subspaces whose panels are made here: on a device only where all of them fit."""
        return factors

    def factors(self, factors: Factors) -> Any:
        """What the kernels read of a mixture, here."""
        return factors

    def plan_block(self, options: Options, X: RowBlocks, columns: int, itemsize: int, copies: int = 0) -> int:
        """Rows per block of X for this many columns of the product. `copies` counts the float64 arrays as large as the
        block that the caller holds besides; on the host they are not counted.
        """
        return max(1, min(options.plan_block(X.shape[1], columns, itemsize), len(X)))

    def blocks(self, X: RowBlocks, start: int, rows: int, end: int | None = None) -> Iterator[tuple[int, Any]]:
        """Blocks of X from row `start` to `end` (None: the last), with the number of their first row."""
        yield from X.walk(start, len(X) if end is None else end, rows)

    def each_block(
        self, X: RowBlocks, rows: int, work: Callable[[Any, int], None], resize: Callable[[int], None],
        start: int = 0, end: int | None = None,
    ) -> None:  # fmt: skip
        """``work(block, number of its first row)`` for the blocks of X from row `start` to `end`.

        A device that is out of memory calls ``resize`` with half the height and goes on from the block at which it
        happened: by then `work` must not have kept anything of it.
        """
        for first, block in self.blocks(X, start, rows, end):
            work(block, first)
            del block  # before the next one is made

    def results(self, out: Any) -> Results:
        """Where the results of blocks are computed that belong into `out`."""
        return Results(self, out)

    def target(self, out: Any, part: slice) -> Any:
        """Where a block's results are computed: out[part] itself if it is here."""
        return out[part]

    def store(self, out: Any, part: slice, target: Any) -> None:
        """Bring a block's results home."""

    @contextmanager
    def sums_into(self, totals: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """Arrays to add to, whose sums are in the float64 host arrays `totals` at the end: here, those themselves."""
        yield totals

    def synchronize(self) -> None:
        """Wait for what a device was given so far."""

    def release(self) -> None:
        """Give memory back that is kept for later."""

    def empty_result(self, shape: tuple[int, ...], dtype: Any, X: RowBlocks) -> Any:
        """A new result for X: where X is."""
        return np.empty(shape, dtype)

    def active(self) -> AbstractContextManager[Any]:
        """Make the device that the arrays are on the current one. Here: let what underflows be 0, which is ordinary
        for probabilities and no error, even where the caller has asked NumPy to raise it.
        """
        quiet: AbstractContextManager[Any] = errstate(under="ignore")
        return quiet


HOST = Host()
