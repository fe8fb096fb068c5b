"""EM on samples with missing features: the E-step takes what is missing as latent variables beside z.

Under the old parameters, component and known features x_O of a sample leave x̂ = x_O, and μ_m + A_m E[z | x_O] where
missing, with

    Cov[z] = C,  Cov[z, x_m] = C A_mᵀ,  Cov[x_m] = A_m C A_mᵀ + D_m,    C = Cov[z | x_O].

The expectations of a complete sample's sums are the sums of x̂ and E[z] plus these, so that the M-step of
:mod:`mfakit.fit.em` is the same: what it maximises is the same bound, with the expectation over x_m inside.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.options import only_on_host
from .._arrays.rows import RowBlocks
from .._threads.process import errstate
from ..mixture.marginals import each_block, groups, known_features, shares
from ..mixture.mfa import MFA
from ..mixture.observed import Posterior, evidence
from .source import Source
from .statistics import DROPPED, WORST_KEPT, Statistics, WorstRows
from .survey import Survey, check_total
from .workers import WORKER_BYTES

__all__ = ["ObservedSource", "observed_expectation"]

Array = NDArray[Any]


class ObservedSource(Source):
    """Rows of which some features are missing, NaN; parameters and attributes as of :class:`Source`. On the host.

    Raises
    ------
    ValueError
        As :class:`Source`; and for a row without any known feature, a feature that no row has, and rows on a device.
    """

    def _survey(self) -> Survey:
        sums: _Moments | None = None
        n_read, n_rows, dtype = 0, 0, np.dtype(np.float64)
        for rows, weights in self.parts():
            only_on_host("EM of samples with missing features", self.options, rows)
            step = self.options.plan_block(rows.shape[1], 4, 8)
            dtype = rows.dtype if sums is None else dtype
            for start, block in rows.walk(0, len(rows), step, np.float64):
                seen = known_features(block, n_read + start)
                w = np.ones(len(block)) if weights is None else weights[start : start + step]
                sums = _Moments(rows.shape[1]) if sums is None else sums
                sums.add(block, seen, w)
                n_rows += int(np.count_nonzero(w))
            n_read += len(rows)
            self._devices.add(None)
        if sums is None:
            raise ValueError("X has no rows; fitting needs at least one sample")
        mean, self._variances = sums.moments()
        variance, mean_square = float(self._variances.mean()), float((self._variances + mean**2).mean())
        if not np.isfinite([variance, mean_square]).all():
            raise ValueError("the variance of X overflows; rescale X")
        return Survey(n_rows, sums.weight, dtype, mean, variance, mean_square)

    def feature_variances(self) -> Array:
        """Weighted variance [d] of each feature over the rows that have it."""
        return self._variances

    def sample(self, rng: np.random.Generator, least: int) -> tuple[Array, Array | None]:
        """As :meth:`Source.sample`, what is missing filled in by the feature's mean."""
        X, weights = super().sample(rng, least)
        return np.where(np.isnan(X), self.survey.mean.astype(X.dtype), X), weights


class _Moments:
    """Sums of each feature over the rows that have it, around the first value that it has anywhere: exactly 0 where no
    row differs.
    """

    def __init__(self, d: int) -> None:
        self.weight = 0.0
        self.found = np.zeros(d, bool)
        self.center, self.counts, self.first, self.second = np.zeros((4, d))

    def add(self, block: Array, seen: Array, weights: Array) -> None:
        new = np.flatnonzero(seen.any(axis=0) & ~self.found)
        self.center[new], self.found[new] = block[seen[:, new].argmax(axis=0), new], True
        with errstate(over="ignore", invalid="ignore"):
            R = np.where(seen, block - self.center, 0.0)
            self.weight += float(weights.sum())
            self.counts += weights @ seen
            self.first += weights @ R
            self.second += weights @ R**2

    def moments(self) -> tuple[Array, Array]:
        """Means and variances [d]."""
        check_total(self.weight)
        nowhere = np.flatnonzero(self.counts == 0)
        if len(nowhere):
            weighed = " with a positive weight" if self.found[nowhere[0]] else ""
            raise ValueError(
                f"feature {nowhere[0]} is missing in every row{weighed}; leave it out ({len(nowhere)} of "
                f"{len(self.counts)} are)"
            )
        with errstate(over="ignore", invalid="ignore"):
            shift = self.first / self.counts
            return self.center + shift, np.maximum(self.second / self.counts - shift**2, 0.0)


def observed_expectation(mfa: MFA, source: ObservedSource) -> Statistics:
    """The statistics of all rows of the source under `mfa`: one pass, one block in memory. Threads have their own sums
    where memory allows.
    """
    k, l, d = mfa.factors.shape
    options = source.options
    if options.threads * 8 * k * d * (l + 2) > WORKER_BYTES:
        options = replace(options, n_threads=1)
    own: dict[int, Statistics] = {}

    def add(rows: RowBlocks, weights: Array | None, thread: int, start: int, block: Array) -> None:
        if thread not in own:
            own[thread] = Statistics.zeros(mfa)
        seen = known_features(block, start, rows.name)
        w = np.ones(len(block)) if weights is None else weights[start : start + len(block)]
        for some in groups(mfa, seen):
            _add(own[thread], block[some], seen[some], w[some])

    for rows, weights in source.parts():
        each_block(mfa, rows, options, partial(add, rows, weights))
    total, *others = (own[thread] for thread in sorted(own))
    for each in others:
        total += each
    return total


def _add(stats: Statistics, X: Array, seen: Array, w: Array) -> None:
    """Add samples X [n, d] with known features `seen` and weights w [n]."""
    mfa, k = stats.mfa, len(stats.weight)
    found = evidence(mfa, X, seen)
    log_total, resp = shares(mfa, X, seen, found.log_prob)
    resp[np.isneginf(log_total)] = 0.0  # it belongs to none: its squares would leave no sum finite
    best, present = resp.argmax(axis=1), np.flatnonzero(w > 0)
    worst = present[np.argsort(log_total[present], kind="stable")[:WORST_KEPT]]
    filled = np.where(seen[worst], X[worst], mfa.means[best[worst]])
    for posterior in found.posteriors:
        j, rows = posterior.component, posterior.rows
        at = np.flatnonzero(best[worst] == j)
        means = posterior.z[np.searchsorted(rows, worst[at])] @ mfa.loadings[j].T
        filled[at] += np.where(seen[worst[at]], 0.0, means)
        own = np.flatnonzero((resp[rows, j] >= DROPPED / k) & (w[rows] > 0))
        if len(own):
            _add_component(stats, posterior, X, seen, own, (resp[rows, j] * w[rows])[own])
    stats.worst.merge(WorstRows(log_total[worst], filled, best[worst]))
    stats.n_rows += len(X)
    stats.n_pairs += sum(len(posterior.rows) for posterior in found.posteriors)
    stats.log_likelihood += float(w[present] @ log_total[present])
    stats.total_weight += float(w.sum())


def _add_component(
    stats: Statistics, posterior: Posterior, X: Array, seen: Array, own: Array, weight: Array
) -> None:  # fmt: skip
    """Add the samples ``posterior.rows[own]`` with their weights [m] to the sums of its component; see the module."""
    mfa, j, rows = stats.mfa, posterior.component, posterior.rows[own]
    A, Z = mfa.loadings[j].astype(np.float64), mfa.factors.latent_map[j]
    noise, l = np.broadcast_to(mfa.noise_variance[j], mfa.n_features), mfa.n_factors
    z, number = posterior.z[own], posterior.pattern[own]
    r = np.where(seen[rows], X[rows] - mfa.means[j], z @ A.T)
    weighted = weight[:, None] * z
    C = posterior.half @ np.swapaxes(posterior.half, 1, 2)
    mass = np.bincount(number, weight, minlength=len(C))
    missing = (~posterior.patterns).astype(np.float64)
    # Of each feature, C summed over the samples that lack it.
    lacking = ((missing.T * mass) @ C.reshape(len(C), l * l)).reshape(mfa.n_features, l, l)
    spread = np.matmul(lacking, A[:, :, None])[:, :, 0]
    stats.weight[j] += weight.sum()
    stats.sum_x[j] += weight @ r
    stats.sum_xx[j] += weight @ r**2 + (A * spread).sum(axis=1) + noise * (mass @ missing)
    stats.sum_z[j] += weight @ z
    stats.sum_zz[j] += weighted.T @ z + np.tensordot(mass, C, 1) - weight.sum() * (Z @ Z.T)
    stats.sum_xz[j] += weighted.T @ r + spread.T
