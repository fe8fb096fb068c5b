"""Where arrays live and who multiplies them: the host's part, NumPy. :mod:`~mfakit.backends.cuda` has the device's.

The drivers (density, subspaces, attacks, fit) are written once over this interface: ``xp`` is the array module, and
what differs between host and device beyond the array module is a method here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .._arrays import RowBlocks
    from .._options import Options
    from ..factors import Factors

__all__ = ["HOST", "Host"]


class Host:
    """NumPy arrays, NumPy's products."""

    xp: Any = np
    name = "host"
    is_device = False
    # What running out of memory raises, where a smaller block may help.
    out_of_memory: tuple[type[Exception], ...] = ()

    def asarray(self, array: Any) -> Any:
        """The array here: on the host, itself."""
        return array

    def to_host(self, array: Any) -> Any:
        """The array as NumPy's."""
        return array

    def matmul(self, A: Any, B: Any, out: Any, *, fast: bool = False) -> None:
        """out = A · B; `fast` allows the device a cheaper precision, and means nothing here."""
        np.matmul(A, B, out=out)

    def factors(self, factors: Factors) -> Any:
        """What the kernels read of a mixture, here."""
        return factors

    def plan_block(self, options: Options, n: int, d: int, columns: int, itemsize: int) -> int:
        """Rows per block."""
        return max(1, min(options.plan_block(d, columns, itemsize), n))

    def blocks(self, X: RowBlocks, start: int, rows: int) -> Iterator[tuple[int, Any]]:
        """Blocks of X from row `start`, with the number of their first row."""
        for first in range(start, len(X), rows):
            yield first, X.block(first, min(first + rows, len(X)))

    def store(self, out: Any, part: slice, values: Any) -> None:
        """out[part] = values, wherever either lies."""
        out[part] = values

    def empty_result(self, shape: tuple[int, ...], dtype: Any, X: RowBlocks) -> Any:
        """A new result for X: where X lies."""
        return np.empty(shape, dtype)

    def active(self) -> AbstractContextManager[Any]:
        """Make the device that the arrays lie on the current one."""
        return nullcontext()


HOST = Host()
