"""Differences of log-densities where the log-densities themselves are too large to tell.

A log-density is rounded at eps times its size, and from some 1e7 σ on that is more than equally distant components
differ by. For two of them, a and b, with r = x - μ_a, δ = μ_a - μ_b, y = W_a r and y' = W_b (x - μ_b) - y
= (W_b - W_a) r + W_b δ, the difference of their squared Mahalanobis lengths is

    m_b - m_a = Σ r² (1/D_b - 1/D_a) + Σ δ (2 r + δ) / D_b - y'·(2 y + y'),

in which what they have in common (noise, loadings, the sample's own length) is gone before anything is rounded. It is
homogeneous in the unit of the data: samples whose squares leave float64 are brought into it by a power of two.

Such samples are rare, so this is NumPy on the host, whatever the backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads.process import errstate
from ..backends.numpy_ops import CUTOFF_NATS

__all__ = ["UNCERTAIN_NATS", "Gaussian", "RoundedPairs", "relative_log_prob", "rounding"]

Array = NDArray[Any]

# A log-density whose rounding may exceed this is compared with its neighbours by their difference, by the dtype of X.
UNCERTAIN_NATS = {"float32": 1e-7, "float64": 1e-9}
# Bits that a length in units of the noise may have before its square leaves float64.
MOST_BITS = 480
# Rows at a time, so that temporaries stay small.
CHUNK_VALUES = 2**22


class Gaussian(NamedTuple):
    """What the difference reads of one component: mean [d], whitened [l, d], noise [1] or [d]."""

    mean: Array
    whitened: Array
    noise: Array


@dataclass
class RoundedPairs:
    """m pairs of a sample and a component: rows, components int64 [m], log_prob [m] and its rounding [m], nats."""

    rows: Array
    components: Array
    log_prob: Array
    error: Array

    def take(self, chosen: Array) -> RoundedPairs:
        """Some of the pairs."""
        return RoundedPairs(self.rows[chosen], self.components[chosen], self.log_prob[chosen], self.error[chosen])

    def live(self, log_norm: Array, groups: Array) -> tuple[Array, Array]:
        """Which pairs may have a share of their group, and of each group the least that its best pair has."""
        with errstate(invalid="ignore"):
            least = self.log_prob - self.error
            best = np.full(groups.max(initial=-1) + 1, -np.inf)
            np.maximum.at(best, groups, np.where(np.isnan(least), -np.inf, least))
            # What has no weight has no part in it; where a log-density is -inf by overflow, nothing rules it out.
            below = self.log_prob + self.error < best[groups] - CUTOFF_NATS
        return ~below & (log_norm[self.components] > -np.inf), best

    def undecided(self, n: int, log_norm: Array, tolerance: float) -> RoundedPairs:
        """Of those of n samples whose shares log_prob leaves open by more than `tolerance`, the live pairs."""
        live, best = self.live(log_norm, self.rows)
        unsettled = np.zeros(n, bool)
        unsettled[self.rows[live & (self.error > tolerance)]] = True
        unsettled[: len(best)] &= (np.bincount(self.rows[live], minlength=len(best)) > 1) | np.isneginf(best)
        return self.take(live & unsettled[self.rows])


def rounding(log_prob: Array, log_norm: Array, explained: Array) -> Array:
    """How far log_prob [m] = log_norm - ½ ‖r - A z‖²_{D⁻¹} - ½ ‖z‖² may be rounded, explained [m] being ‖W r‖²: r - A z
    is rounded as r is.
    """
    maha = np.abs(2.0 * (log_norm - log_prob))
    return np.asarray(np.finfo(np.float64).eps * np.sqrt(maha) * np.sqrt(maha + explained))


def relative_log_prob(X: Array, pairs: RoundedPairs, log_norm: Array, component: Callable[[int], Gaussian]) -> Array:
    """log_prob [m] of pairs less a number for each of their samples X [n, d], by differences where those are sharper.

    `pairs` are what :meth:`RoundedPairs.undecided` left, log_norm [k] their constants and `component` their parameters.
    """
    reference = _best(len(X), pairs.rows, pairs.log_prob)
    scale = _scales(X, [component(j) for j in np.unique(pairs.components).tolist()])
    scale[np.isfinite(pairs.log_prob[reference])] = 1.0
    with errstate(over="ignore", under="ignore", invalid="ignore"):
        difference, size = _against(X, pairs, reference, scale, component)
        far = scale[pairs.rows] < 1  # their log-densities are -inf and say nothing of who is nearest
        if far.any():
            nearest = _best(len(X), pairs.rows[far], -difference[far])
            reference = np.where(scale < 1, np.flatnonzero(far)[nearest], reference)
            difference, size = _against(X, pairs, reference, scale, component)
            least = np.zeros(len(X))
            np.minimum.at(least, pairs.rows[far], difference[far])
            difference = difference - least[pairs.rows]
        other = reference[pairs.rows]
        nats = difference / scale[pairs.rows] / scale[pairs.rows]
        constants = log_norm[pairs.components] - log_norm[pairs.components[other]]
        direct = pairs.log_prob - pairs.log_prob[other]
        sharper = pairs.error + pairs.error[other] < np.finfo(np.float64).eps * size
    return np.where(sharper & ~far, direct, constants - 0.5 * nats)


def _best(n: int, rows: Array, values: Array) -> Array:
    """[n]: which pair of a row has the largest value, the first of several; 0 for a row without pairs."""
    order = np.lexsort((-np.arange(len(rows)), np.nan_to_num(values, nan=-np.inf), rows))
    best = np.zeros(n, np.int64)
    best[rows[order]] = order  # the last one written stays
    return best


def _scales(X: Array, components: list[Gaussian]) -> Array:
    """Powers of two [n], 1 for all but samples whose squared length in units of the noise leaves float64."""
    reach = max(float(np.abs(c.mean).max()) for c in components)
    unit = min(float(c.noise.min()) for c in components) ** 0.5
    bits = np.frexp(np.abs(X).max(axis=1, initial=0.0))[1] + 1
    bits = np.maximum(bits, np.frexp(reach)[1] + 1) + np.frexp(X.shape[1] ** 0.5)[1] - np.frexp(unit)[1] + 1
    return np.asarray(np.ldexp(1.0, -np.maximum(bits - MOST_BITS, 0)))


def _against(
    X: Array, pairs: RoundedPairs, reference: Array, scale: Array, component: Callable[[int], Gaussian]
) -> tuple[Array, Array]:
    """Of each pair, its squared Mahalanobis length less that of its row's reference (the pair `reference` [n]), times
    scale², and the sum of the sizes of its terms.
    """
    difference, size = np.zeros(len(pairs.rows)), np.zeros(len(pairs.rows))
    others = pairs.components[reference[pairs.rows]]
    step = max(1, CHUNK_VALUES // X.shape[1])
    for a, b in np.unique(np.stack([others, pairs.components], axis=1), axis=0).tolist():
        if a == b:
            continue
        group = np.flatnonzero((others == a) & (pairs.components == b))
        for start in range(0, len(group), step):
            part = group[start : start + step]
            rows = pairs.rows[part]
            difference[part], size[part] = _difference(X[rows], scale[rows], component(a), component(b))
    return difference, size


def _difference(X: Array, scale: Array, a: Gaussian, b: Gaussian) -> tuple[Array, Array]:
    """scale² (m_b - m_a) of samples X [m, d], and the sum of the sizes of its terms; see the module."""
    delta = a.mean - b.mean
    r = (X.astype(np.float64) - a.mean) * scale[:, None]
    noise = np.broadcast_to((a.noise - b.noise) / a.noise / b.noise, delta.shape)
    linear = (2.0 * r + scale[:, None] * delta) * (scale[:, None] * delta / b.noise)
    wide = max(len(a.whitened), len(b.whitened))
    first, second = (np.pad(c.whitened, ((0, wide - len(c.whitened)), (0, 0))) for c in (a, b))
    y = r @ first.T
    change = r @ (second - first).T + scale[:, None] * (second @ delta)
    terms = change * (2.0 * y + change)
    square = r * r
    return (
        square @ noise + linear.sum(axis=1) - terms.sum(axis=1),
        square @ np.abs(noise) + np.abs(linear).sum(axis=1) + np.abs(terms).sum(axis=1),
    )
