"""What the validations share: their arguments checked, samples drawn, shares and quantiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.progress import open_bar
from ..bayes.classifier import BayesClassifier

__all__ = ["as_sigmas", "draw", "per_sigma", "quantiles", "short"]

Array = NDArray[Any]


def as_sigmas(sigmas: Sequence[float]) -> Array:
    """`sigmas` as float64 [s], positive and falling."""
    values = np.asarray(sigmas, np.float64)
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"sigmas must be positive standard deviations, at least one, got {sigmas!r}")
    if (np.diff(values) >= 0).any():
        raise ValueError(f"sigmas must fall towards the limit σ → 0, got {sigmas!r}; sort them from large to small")
    return values


def draw(clf: BayesClassifier, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """`n` samples of each class in float64, shuffled: X [C n, d] and y [C n]."""
    return clf.sample(n * clf.n_classes, rng=rng, balanced=True, dtype=np.float64)


def per_sigma(sigmas: Array, measure: Callable[[float], tuple[Array, ...]], progress: bool | None) -> Iterator[Array]:
    """What `measure` returns at each σ, stacked: an array [s, ...] for each of its results."""
    found = [measure(float(s)) for s in open_bar(progress, sigmas, unit="σ", desc="certify")]
    return (np.stack(values) for values in zip(*found, strict=True))


def quantiles(values: Array, levels: Sequence[float]) -> Array:
    """Quantiles of each row of `values` [s, N] without its NaN: [s, len(levels)]; NaN for a row that has no others."""
    rows = [row[~np.isnan(row)] for row in values]
    return np.array([np.quantile(row, levels) if row.size else np.full(len(levels), np.nan) for row in rows])


def short(value: float) -> str:
    """A σ or another parameter in few digits."""
    return f"{value:.3g}"
