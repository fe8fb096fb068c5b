"""Where training batches come from: an array in random orders, or a sampler that draws new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._arrays.rows import RowBlocks
from .._checks import as_classes, check_block, encode_labels, rows_on_host

__all__ = ["Batch", "Stream", "as_rows", "shuffled_batches", "writeable"]

Array = NDArray[Any]
Batch = tuple[Array, Array]


def as_rows(X: Any) -> RowBlocks:
    """X as rows, of which there is at least one, and features."""
    rows = rows_on_host(X)
    if not len(rows):
        raise ValueError(f"X has no samples: 0 sample(s) (shape={rows.shape}) while a minimum of 2 is required")
    if not rows.shape[1]:
        raise ValueError(f"X has no features: 0 feature(s) (shape={rows.shape}) while a minimum of 1 is required.")
    return rows


def shuffled_batches(rows: RowBlocks, codes: Array, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Epochs without end: every row once in a new order, in batches of `size`, the last one of an epoch smaller."""
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(order), size):
            taken = order[start : start + size]
            yield rows.take(taken, np.float32), codes[taken]


class Stream:
    """Fresh batches of a sampler.

    Parameters
    ----------
    sampler : object with ``sample(n, rng=...)``, or callable (n, rng)
        Returns X [n, d] and y [n].
    size : int
        Samples to draw at a time.
    rng : numpy.random.Generator
    classes : array-like of int or None
        All labels there are; None: the sampler's ``classes_``, else those of the first batch, which is drawn here.

    Attributes
    ----------
    n_features : int
        d.
    classes : int64 [C]
    """

    def __init__(self, sampler: Any, size: int, rng: np.random.Generator, classes: Any = None) -> None:
        self._draw, self._size, self._rng = _as_draw(sampler), size, rng
        self._first = self._next(None)
        self.n_features = self._first[0].shape[1]
        if classes is None:
            classes = getattr(sampler, "classes_", None)
        self.classes = as_classes(np.asarray(self._first[1] if classes is None else classes))

    def __iter__(self) -> Iterator[Batch]:
        drawn = self._first
        while True:
            rows, labels = drawn
            block = rows.block(0, len(rows))
            check_block(rows, block, 0)
            codes = encode_labels(labels, len(rows), "sampler", self.classes)[1]
            yield writeable(block.astype(np.float32, copy=False)), codes
            drawn = self._next(self.n_features)

    def _next(self, d: int | None) -> tuple[RowBlocks, Any]:
        drawn = self._draw(self._size, self._rng)
        if not isinstance(drawn, tuple) or len(drawn) != 2:
            raise TypeError(f"sampler must return a tuple of X and y, got {type(drawn).__name__}")
        rows = as_rows(drawn[0]) if d is None else rows_on_host(drawn[0], d)
        if not len(rows):
            raise ValueError("sampler must return at least one sample, got none")
        return rows, drawn[1]


def _as_draw(sampler: Any) -> Callable[[int, np.random.Generator], Any]:
    method = getattr(sampler, "sample", None)
    if callable(method):
        return lambda n, rng: method(n, rng=rng)
    if callable(sampler):
        return lambda n, rng: sampler(n, rng)
    raise TypeError(
        f"sampler must be a callable (n, rng) that returns X and y, or have sample(n, rng=...), got "
        f"{type(sampler).__name__}"
    )


def writeable(block: Array) -> Array:
    """The block or a copy: torch warns of arrays that it could write to but must not."""
    return block if block.flags.writeable else block.copy()
