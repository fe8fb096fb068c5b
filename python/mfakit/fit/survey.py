"""What fitting finds out first: how many rows there are, where they are and how far apart, in sums that add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.options import Options
from .._arrays.rows import RowBlocks, array_module, on_device_of, to_numpy
from .._threads.process import errstate
from ..backends import get_arrays, get_backend

__all__ = ["MOST_WEIGHT", "Survey", "SurveySums", "VarianceSums", "check_total", "rough_center"]

Array = NDArray[Any]

# The provisional centre of the survey is the mean of this many rows.
CENTER_ROWS = 1024
# No weight is above this and no sum of weights below its inverse: weights times rows stay within float32.
MOST_WEIGHT = 1e15


@dataclass(frozen=True)
class Survey:
    """What the first pass over the data found; rows of weight zero count as absent.

    Attributes
    ----------
    n_rows : int
        Rows with a positive weight.
    total_weight : float
    dtype : numpy.dtype
        What the first block is computed in.
    mean : [d]
    variance : float
        Weighted mean over features of the variance.
    mean_square : float
        Weighted mean over features of x².
    """

    n_rows: int
    total_weight: float
    dtype: np.dtype[Any]
    mean: Array
    variance: float
    mean_square: float

    @property
    def n_features(self) -> int:
        """d."""
        return len(self.mean)

    @property
    def scale(self) -> float:
        """The variance that "small" is measured by: the data's or, where all rows are equal, their mean square."""
        if self.variance > (64 * np.finfo(np.float64).eps) ** 2 * self.mean_square:
            return self.variance
        return self.mean_square or 1.0


class VarianceSums:
    """Sums around one of the rows: Σ w (x - o) and Σ w (x - o)², [d], float64."""

    def __init__(self, origin: Array) -> None:
        self.origin = origin
        self.first, self.second = np.zeros((2, len(origin)))

    def add(self, rows: RowBlocks, weights: Array | None, options: Options) -> None:
        """Add rows, a block of memory at a time."""
        step = options.plan_block(rows.shape[1], 1, 8)
        for start, block in rows.walk(0, len(rows), step, np.float64):
            with on_device_of(block):
                xp = array_module(block)
                w = xp.asarray(np.ones(len(block)) if weights is None else weights[start : start + step])
                R = block - xp.asarray(self.origin)
                self.first += to_numpy(w @ R)
                self.second += to_numpy(w @ R**2)

    def variances(self, total_weight: float) -> Array:
        """Of each feature, [d]; exactly 0 where no row differs."""
        first, second = self.first / total_weight, self.second / total_weight
        return np.asarray(np.maximum(second - first**2, 0.0))

    def __iadd__(self, other: VarianceSums) -> VarianceSums:
        self.first += other.first
        self.second += other.second
        return self

    def __add__(self, other: VarianceSums) -> VarianceSums:
        total = VarianceSums(self.origin)
        total += self
        total += other
        return total


def rough_center(rows: RowBlocks, weights: Array | None) -> Array:
    """The mean [d] of the first rows that have weight, float64; NaN as 0: it is met again, and named, by the survey."""
    first = to_numpy(rows.block(0, min(CENTER_ROWS, len(rows)))).astype(np.float64)
    if weights is not None and weights[: len(first)].any():
        first = first[weights[: len(first)] > 0]
    return np.asarray(np.nan_to_num(first.mean(axis=0), nan=0.0, posinf=0.0, neginf=0.0))


class SurveySums:
    """Sums around a provisional centre, in float64: count, weight, Σ w (x - c), Σ w ‖x - c‖²; `start` is the number of
    the first row that is added.
    """

    def __init__(self, center: Array, dtype: np.dtype[Any], start: int = 0) -> None:
        self.center, self.dtype = center, dtype
        self.n_read, self.n_rows = start, 0
        self.weight = self.square = 0.0
        self.first_moment = np.zeros(len(center))

    def add(self, rows: RowBlocks, weights: Array | None, options: Options) -> None:
        """Add rows; NaN or inf in them is an error that names the row."""
        # Rows on the host are summed there: that is one look at each, and a copy to a device costs more.
        on_host = rows.device is None and options.backend == "cuda"
        ops = get_backend("auto" if on_host else options.backend, rows.device)
        arrays = get_arrays(ops, rows.device)
        with arrays.active():
            step, center = options.plan_block(rows.shape[1], 1, rows.dtype.itemsize), arrays.asarray(self.center)
            for start, block in rows.walk(0, len(rows), step):
                w = np.ones(len(block)) if weights is None else weights[start : start + step]
                centered, norms = arrays.xp.empty_like(block), arrays.xp.empty(len(block))
                moment = arrays.xp.empty((1, block.shape[1]), block.dtype)
                with errstate(over="ignore", invalid="ignore"):
                    ops.center_rows(block, center, centered, norms, options.threads)
                sq = arrays.to_host(norms)
                self._check_finite(block, sq)
                self.n_read += len(block)
                self.n_rows += int(np.count_nonzero(w))
                self.weight += float(w.sum())
                with errstate(over="ignore", invalid="ignore"):
                    self.square += float(w @ sq)
                    arrays.matmul(arrays.asarray(w.astype(block.dtype)[None]), centered, moment)
                    self.first_moment += arrays.to_host(moment)[0]

    def __iadd__(self, other: SurveySums) -> SurveySums:
        self.n_rows += other.n_rows
        self.weight += other.weight
        self.first_moment += other.first_moment
        with errstate(over="ignore", invalid="ignore"):
            self.square += other.square
        return self

    def __add__(self, other: SurveySums) -> SurveySums:
        total = SurveySums(self.center, self.dtype)
        total += self
        total += other
        return total

    def _check_finite(self, block: Array, norms: Array) -> None:
        for row in np.flatnonzero(~np.isfinite(norms)).tolist():
            if not np.isfinite(to_numpy(block[row])).all():
                raise ValueError(
                    f"X has NaN or inf, first in row {self.n_read + row}; drop such rows, fill them before fitting, "
                    'or pass missing="marginal", which takes NaN as features that are not known'
                )

    def survey(self) -> Survey:
        """What the sums say."""
        check_total(self.weight)
        d = len(self.center)
        with errstate(over="ignore", invalid="ignore"):
            shift = self.first_moment / self.weight
            variance = (self.square / self.weight - shift @ shift) / d
            mean = self.center + shift
            mean_square = variance + mean @ mean / d
        if not np.isfinite([variance, mean_square]).all():
            raise ValueError("the variance of X overflows; rescale X")
        return Survey(self.n_rows, self.weight, self.dtype, mean, max(float(variance), 0.0), float(mean_square))


def check_total(weight: float) -> None:
    """Raise for a sum of sample weights that is zero or too small."""
    if not weight > 0:
        raise ValueError("sample_weight is zero for every row; at least one must be positive")
    if weight < 1 / MOST_WEIGHT:
        raise ValueError(
            f"sample_weight must sum to {1 / MOST_WEIGHT:g} or more, got {weight:g}; only ratios of weights matter, so "
            f"divide them by their mean"
        )
