"""Scores of a block of rows on a device, which is waited for once or not at all: its candidates are listed there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backends.operands import Pairs
from .scores import Scores

if TYPE_CHECKING:
    from .evaluator import Evaluator

__all__ = ["MOST_CANDIDATES", "Begun", "begin", "end", "totals", "unasked"]

Array = Any  # CuPy's

# Where TF32 leaves more components of a row than this, they cost more than it saves; so many have room where it is not
# known how many there are.
MOST_CANDIDATES = 8


class Begun(NamedTuple):
    """A block after its coarse step."""

    marks: Array
    offsets: Array
    found: Array  # [3] of Evaluator.measured
    norms: Array
    dtype: np.dtype[Any]


def begin(evaluator: Evaluator, X: Array, dtype: np.dtype[Any] | None = None) -> Begun:
    """The coarse step, by a product in `dtype`; the device is not waited for."""
    dtype = dtype or (np.dtype(np.float32) if evaluator.tf32 else evaluator.dtype)
    centered, norms = evaluator.subtract(X, evaluator.factors.center, dtype)
    coarse = evaluator.coarse(centered, norms, every=False)
    marks, offsets = evaluator.ops.mark_candidates(coarse, evaluator.factors.mixture)
    return Begun(marks, offsets, evaluator.measured(norms, offsets[-1]), norms, dtype)


def end(evaluator: Evaluator, X: Array, start: int, name: str, begun: Begun, numbers: Array) -> Scores | None:
    """The scores of a block that was begun and looked at: `numbers` are on the host what it has found. None where a row
    has no squared length.
    """
    xp, n = evaluator.xp, len(X)
    while True:
        count = evaluator.note(X, start, name, begun.norms, numbers)
        if evaluator.some_beyond:
            return None
        if evaluator.fits(begun.dtype) and not evaluator.too_many(count, n):
            break
        begun = begin(evaluator, X, evaluator.dtype if evaluator.fits(begun.dtype) else np.dtype(np.float64))
        numbers = evaluator.arrays.to_host(begun.found)
    pairs, order = _listed(evaluator, begun, count)
    back = xp.empty(count, np.int64)
    back[order] = xp.arange(count)
    found = evaluator.refine(X, pairs)
    return Scores(X, *pairs, *found, evaluator.factors.shape[0], by_row=(back, begun.offsets))


def _listed(evaluator: Evaluator, begun: Begun, count: int) -> tuple[Pairs, Array]:
    """The first `count` candidates by component, and their order [count] among those by row. Where there are fewer, the
    last ones are of component k, and none.
    """
    n, k = len(begun.norms), evaluator.factors.shape[0]
    rows, components = evaluator.ops.list_candidates(begun.marks, begun.offsets, count, k)
    order = evaluator.xp.argsort(components * n + rows)
    return Pairs(rows[order], components[order]), order


def totals(evaluator: Evaluator, scores: Scores) -> tuple[Array, Array]:
    """log p(x) [n] and the pairs' shares in it [m]."""
    xp, n = evaluator.xp, len(scores.X)
    if scores.by_row is None:
        order = xp.argsort(scores.rows * scores.n_components + scores.components)
        offsets = xp.searchsorted(scores.rows[order], xp.arange(n + 1, dtype=np.int64)).astype(np.int64)
        scores.by_row = order, offsets
    order, offsets = scores.by_row
    total = xp.empty(n)
    evaluator.ops.log_sum_exp_candidates(scores.values[order], offsets, total)
    of_pairs = total[scores.rows]
    return total, xp.where(xp.isfinite(of_pairs), xp.exp(scores.values - of_pairs), 0.0)


def unasked(evaluator: Evaluator, X: Array) -> tuple[Array, Array]:
    """log (weight N(x)) [n, k], -inf off the candidates, and a number [] that says whether to believe it: 0 unless a
    row has too many candidates, a length that leaves its type, or NaN. The device is not waited for.
    """
    xp, n, k = evaluator.xp, len(X), evaluator.factors.shape[0]
    begun = begin(evaluator, X)
    most = min(MOST_CANDIDATES, k) * n
    pairs, _ = _listed(evaluator, begun, most)
    values, _ = evaluator.refine(X, pairs)
    log_prob = evaluator.buffer("log_prob", (n + 1, k), np.float64)  # the last row is for places without a pair
    log_prob[:] = -np.inf
    some = pairs.components < k
    log_prob[xp.where(some, pairs.rows, n), xp.where(some, pairs.components, 0)] = values
    largest, all_finite, count = begun.found
    doubt = (count > most) | (all_finite == 0) | ~(largest < evaluator.safe_square(begun.dtype))
    return log_prob[:n], doubt
