"""Whether components are bounded before they are scored, decided from counted candidates and fixed costs, never from a
clock: the same samples and model give the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays.options import Options
from .._arrays.rows import RowBlocks
from .._threads.process import single_threaded_products
from ..backends import get_arrays, get_backend
from .evaluator import Evaluator
from .factors import Factors
from .pruning import SIZES, Pruner

__all__ = ["choose_pruner"]

_logger = logging.getLogger("mfakit")

# Multiplications of a dense product, some 50 ms on two cores, below which it is taken at once: a pilot takes 1 to 2 ms.
LEAST_STEPS = 2**32
# Columns of a dense product below which a projection to 64 of them, and what follows it, cannot cost less.
FEW_COLUMNS = 256
# Rows of the pilot block.
PILOT_ROWS = 32
# Costs in multiplications of a large float32 product, measured on two cores: per value of a bound of all components,
# and of one at a time; per value of a refined pair; per pair that is listed; of the product with few columns; and of
# the one that tables are made by.
BOUND, TIGHTEN, REFINE, LISTED, PROJECT, TABLE = 2.0, 4.0, 6.0, 200.0, 2.0, 8.0
# Of diagonal noise: per group of a bound, and per feature for the lengths in each group.
GROUP, LENGTH = 16.0, 64.0
# Bounds must promise at most this share of the dense product's time to be taken: at .74 they were no faster.
WORTH = 0.5


def choose_pruner(
    X: RowBlocks, mixtures: Sequence[Factors], options: Options, once: int | None = None
) -> Pruner | None:
    """What bounds the components of the mixtures for the rows of X; None for the dense product.

    `once` is how many rows the tables are made for in all, where that is for a single pass; None: they are kept.

    Raises
    ------
    ValueError
        If ``method="pruned"`` was asked for where it does not exist.
    MemoryError
        If it was asked for, and there is no room for its tables; "auto" takes the dense product then.
    """
    method, columns = options.method, sum([f.n_columns for f in mixtures])
    steps = (once or len(X)) * X.shape[1] * columns
    if method in ("dense", "residual") or (method == "auto" and steps < LEAST_STEPS):
        return None
    ops = get_backend(options.backend, X.device)
    if get_arrays(ops, X.device).is_device:
        if method == "pruned" and once is not None:
            raise ValueError(
                'method="pruned" is for fits on the host: the bounds of each step\'s mixture are prepared there; use '
                'method="dense"'
            )
        if method == "auto":
            _logger.info("method auto takes the dense product: on a device its cost has not been compared yet")
            return None
    dtype = np.dtype(options.product or X.dtype)
    if method == "pruned":
        pruner = Pruner.of(mixtures)
        pruner.prepare(dtype)
        return pruner
    if not hasattr(ops, "bound_components"):
        return None
    if columns < FEW_COLUMNS:
        _logger.info("method auto takes the dense product: its %d columns are too few for a projection to pay", columns)
        return None
    rows = np.linspace(0, len(X) - 1, min(PILOT_ROWS, len(X))).astype(np.int64)
    with single_threaded_products():  # the threads of a product would go on spinning beside what follows
        try:
            return _cheapest(X.take(rows), mixtures, options, dtype, once)
        except MemoryError as error:
            _logger.info("method auto takes the dense product: %s", error)
            return None


def _cheapest(
    pilot: Any, mixtures: Sequence[Factors], options: Options, dtype: np.dtype[Any], once: int | None
) -> Pruner | None:
    """The pruner whose counted cost is the least, if that is clearly less than the dense product's."""
    ops, alone = get_backend(options.backend), replace(options, n_threads=1, check_finite=False)
    dense = sum(f.n_columns * f.shape[2] + REFINE * (f.shape[1] + 1) * f.shape[2] for f in mixtures)
    found = []
    for sizes in (SIZES[:1], *((SIZES[0], r) for r in SIZES[1:])):
        pruner = Pruner.of(mixtures, sizes)
        cost, candidates = _cost(pilot, pruner, ops, dtype, alone)
        if once:
            cost += TABLE * sum(f.n_columns * f.shape[2] for f in mixtures) * max(pruner.sizes) / once
        found.append((cost / dense, candidates, pruner))
    cost, candidates, pruner = min(found, key=lambda each: each[0])
    text = f"{' and '.join(map(str, pruner.sizes))} rows, {candidates:.1f} candidates per sample"
    if not cost <= WORTH:
        _logger.info("method auto takes the dense product: bounds would cost %.2f of it (%s)", cost, text)
        return None
    _logger.info("method auto bounds components: %.2f of the dense product's cost (%s)", cost, text)
    pruner.prepare(dtype)
    return pruner


def _cost(pilot: Any, pruner: Pruner, ops: Any, dtype: np.dtype[Any], options: Options) -> tuple[float, float]:
    """Of a row, in multiplications of a large product, and its candidates; inf where rows leave float64."""
    coarse, last = pruner.sizes[0], pruner.sizes[-1]
    d = pruner.mixtures[0].shape[2]
    groups = pruner.directions.n_groups if pruner.directions.n_groups > 1 else 0
    cost, candidates = PROJECT * d * last + (LENGTH * d if groups else 0.0), 0.0
    for factors in pruner.mixtures:
        k, l, _ = factors.shape
        counted = Evaluator(factors, ops, dtype, len(pilot), options, pruner).count(pilot)
        if counted is None:
            return np.inf, np.inf
        finely = counted[0] if len(pruner.sizes) > 1 else 0.0
        cost += (l + 2) * (BOUND * k * coarse + TIGHTEN * finely * last) + GROUP * groups * (k + finely)
        cost += counted[1] * (REFINE * (l + 1) * d + LISTED)
        candidates += counted[1]
    return cost, candidates
