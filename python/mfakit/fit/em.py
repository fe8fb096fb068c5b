"""Expectation-maximisation for a mixture of factor analyzers, one M-step for both noise models.

With the responsibilities R of the old parameters, Σ R (log weight_k N(x; θ_k) - log R) is a lower bound of the
log-likelihood that touches it at the old parameters. The M-step raises this bound in two moves, so the log-likelihood
rises too (an alternating EM, as Tipping & Bishop 1999, appendix C, and Meng & van Dyk 1997):

1. weight_k = Σ R / n and μ_k = Σ R x / Σ R maximise it whatever the covariance is;
2. around the new mean, one EM step of the single factor analyzer: with S_xz = Σ R r zᵀ / Σ R and
   S_zz = Σ R zzᵀ / Σ R + M⁻¹ for the posterior z of the old loadings,  A = S_xz S_zz⁻¹  and  D = diag(S_xx - A S_xzᵀ),
   averaged over features for isotropic noise, and not below the floor: as a function of D the bound has a single
   maximum, so stopping at the floor raises it too.

These are Ghahramani & Hinton's (1996) updates of A and D and, for isotropic noise, Tipping & Bishop's
A = S A_old (σ² I + M⁻¹ A_oldᵀ S A_old)⁻¹ written in sums that cost O(d·l); only the mean is the maximiser of the bound
instead of S_xz's intercept, which converges faster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.progress import open_bar
from .._threads.process import keeps_errstate, single_threaded_products
from ..mixture.factors import Share, alone, component_parts
from ..mixture.mfa import MFA
from ..mixture.resident import ResidentMFA
from .bounds import Bounds
from .checkpoint import Checkpoint
from .cluster import ClusterSource, cluster_expectation
from .observed import ObservedSource, observed_expectation
from .resident import on_host, place, resident_maximization
from .result import FitResult
from .source import Source
from .state import State
from .statistics import LOST_SHARE, Statistics
from .workers import expectation, open_helpers

__all__ = ["fit_em", "maximization", "progress_bar"]

Array = NDArray[Any]
_logger = logging.getLogger("mfakit")

# A component that has lost its samples starts again at most this often: where data has fewer groups than the mixture
# has components, some stay empty.
MOST_RESEEDS = 3
# The log-likelihood is a sum of d terms and more per sample; it may fall by this share of their size and mean nothing.
ROUNDING = 1e-9


def fit_em(
    mfa: MFA | None, source: Source, *, floor: float, tol: float, max_iter: int, progress: bool | None,
    checkpoint: Checkpoint | None = None,
) -> FitResult:  # fmt: skip
    """EM from `mfa` until the mean log-likelihood rises by less than `tol` nats per sample.

    Should it fall by more than rounding without a re-seeded component (it cannot, unless the data changes between
    passes), that is logged, the better mixture is kept and the fit ends unconverged. With a `checkpoint` of an earlier
    run it goes on from that, and needs no `mfa`.
    """
    state = _begin(mfa, source, checkpoint, max_iter)
    result = state.result
    with progress_bar(max_iter - result.n_iter, progress, "EM") as bar:
        while result.n_iter < max_iter and not result.converged and not result.problem:
            _step(state, source, floor, tol, bar)
            if checkpoint is not None and not result.problem:
                last = result.converged or result.n_iter == max_iter
                checkpoint.offer(result.n_iter, state.packed, last=last)
    if max_iter and not result.converged and not result.problem:
        result.problem = (
            f"EM has not converged after {result.n_iter} steps: the last one raised the log-likelihood by "
            f"{state.gain:.3g} nats per sample, and tol is {tol:g}; raise max_iter or tol"
        )
    result.mfa = on_host(result.mfa)
    return result


def _begin(mfa: MFA | None, source: Source, checkpoint: Checkpoint | None, max_iter: int) -> State:
    """The state before the first step, or after the last one of an earlier run."""
    saved = None if checkpoint is None else checkpoint.take()
    if checkpoint is not None and saved is not None:
        state = State.unpacked(saved, source, checkpoint.path)
        if state.result.n_iter > max_iter:
            raise ValueError(
                f"{checkpoint.path} is of step {state.result.n_iter}, beyond max_iter={max_iter}; raise max_iter, or "
                "remove the file to start anew"
            )
        _logger.info("EM goes on after step %d, from %s", state.result.n_iter, checkpoint.path)
        return state
    assert mfa is not None
    bounds, mfa = Bounds(source), place(mfa, source.arrays)
    stats = _expectation(mfa, source, bounds)
    result = FitResult(mfa, stats.mean_log_likelihood, [])
    state = State(stats, result, bounds, np.zeros(mfa.n_components, np.int64))
    state.note()
    return state


def _step(state: State, source: Source, floor: float, tol: float, bar: Any) -> None:
    """One step of EM: M, which also re-seeds components that have lost their samples, then E."""
    start, result, bounds = time.perf_counter(), state.result, state.bounds
    iteration = result.n_iter + 1
    with open_helpers(state.stats.mfa, source) as crew:
        new = maximization(state.stats, floor, crew.share)
    new, events = reseed_lost(new, state.stats, state.reseeds, iteration)
    new = place(new, source.arrays) if events else new
    del state.stats  # its sums are as large as the model; the next ones take their place
    stats = state.stats = _expectation(new, source, bounds)
    state.gain = gain = stats.mean_log_likelihood - result.lower_bound
    if not events and not gain >= -ROUNDING * max(abs(result.lower_bound), new.n_features):
        _logger.warning("EM stops: step %d lowered the log-likelihood by %.3g nats per sample", iteration, -gain)
        result.events.append({"iteration": iteration, "event": "fell", "nats": -gain})
        result.problem = f"EM ended unconverged: step {iteration} lowered the log-likelihood by {-gain:.3g} nats"
        return
    result.mfa, result.lower_bound, result.n_iter = new, stats.mean_log_likelihood, iteration
    result.events += events
    result.converged = not events and gain < tol
    state.note()
    seconds = time.perf_counter() - start
    _logger.info(
        "EM step %d: %.6g nats per sample, %.2f candidates per sample (%s), %.3g s",
        iteration, result.lower_bound, stats.candidates, bounds.method, seconds,
    )  # fmt: skip
    bar(result.lower_bound, f"{stats.candidates:.1f} candidates ({bounds.method}), {seconds:.2g} s")


def _expectation(mfa: MFA, source: Source, bounds: Bounds) -> Statistics:
    if isinstance(source, ObservedSource):
        return observed_expectation(mfa, source)
    if isinstance(source, ClusterSource):
        return cluster_expectation(mfa, source, bounds)
    return expectation(mfa, source, bounds)


@keeps_errstate
def maximization(stats: Statistics, floor: float, share: Share = alone) -> MFA:
    """The M-step, with noise variances of at least `floor`; components without samples keep their parameters. On a
    device if the mixture and the sums are there; else `share` may deal parts of the components out to threads.
    """
    if isinstance(stats.mfa, ResidentMFA) and stats.arrays.is_device:
        moments = _latent_moments(stats, stats.present)
        found = resident_maximization(stats, floor, moments, _inverse(moments))
        if found is not None:
            return found
    stats = stats.to_host()
    old = stats.mfa
    means, loadings = old.means.astype(np.float64), old.loadings.astype(np.float64)
    noise = np.maximum(old.noise_variance, floor)
    present = stats.present
    parts = component_parts(len(present), old.n_features * max(old.n_factors, 1))

    def work(_: int, first: int, last: int) -> None:
        for part in parts[first:last]:
            j = present[part]
            shift, loadings[j], residual = _factor_analysis(stats, j)
            means[j] += shift
            noise[j] = np.maximum(residual.mean(axis=1) if old.is_isotropic else residual, floor)

    with single_threaded_products():  # small ones, for which threads that wait for a core are no gain
        share(len(parts), work)
    return MFA(stats.weight / stats.weight.sum(), means, loadings, noise)


def _factor_analysis(stats: Statistics, j: Array) -> tuple[Array, Array, Array]:
    """Shift of the mean [c, d], loadings [c, d, l] and diagonal of S_xx - A S_xzᵀ [c, d] of the components `j` [c]; see
    the module.
    """
    weight = stats.weight[j, None]
    shift, z = stats.sum_x[j] / weight, stats.sum_z[j] / weight
    S_xx = stats.sum_xx[j] / weight - shift**2
    S_zx = stats.sum_xz[j] / weight[:, :, None] - z[:, :, None] * shift[:, None, :]
    A = solve_symmetric(_latent_moments(stats, j), S_zx)
    return shift, np.swapaxes(A, 1, 2), S_xx - (A * S_zx).sum(axis=1)


def _latent_moments(stats: Statistics, j: Array) -> Array:
    """S_zz [c, l, l] of the components `j` [c]: near the identity, because E[zzᵀ] under the posterior is the prior's
    where the model is right.
    """
    weight, latent_map = stats.weight[j, None], stats.mfa.factors.latent_map[j]
    z = stats.sum_z[j] / weight
    moments: Array = stats.sum_zz[j] / weight[:, :, None] - z[:, :, None] * z[:, None, :]
    moments += latent_map @ np.swapaxes(latent_map, 1, 2)
    return moments


def solve_symmetric(S: Array, B: Array) -> Array:
    """S⁻¹ B [c, l, q] of positive definite S [c, l, l] and B [c, l, q], with one step of refinement: many right-hand
    sides at once, which LAPACK's solver would copy one by one.
    """
    inverse = _inverse(S)
    X: Array = inverse @ B
    X += inverse @ (B - S @ X)
    return X


def _inverse(S: Array) -> Array:
    """S⁻¹ of positive definite S [c, l, l] near the identity, by their eigenvalues: all at once."""
    values, V = np.linalg.eigh(S)
    inverse: Array = (V / values[:, None, :]) @ np.swapaxes(V, 1, 2)
    return inverse


def reseed_lost(mfa: MFA, stats: Statistics, reseeds: Array, iteration: int) -> tuple[MFA, list[dict[str, Any]]]:
    """Put components that have lost their samples on those that are explained worst.

    The start is a copy of the component that explains such a sample best, moved onto it, with half its weight.
    `reseeds` [k] counts how often each component was moved, up to MOST_RESEEDS.
    """
    lost = np.flatnonzero((stats.weight <= LOST_SHARE * stats.total_weight) & (reseeds < MOST_RESEEDS))
    if not len(lost) or not len(stats.worst.rows):
        return mfa, []
    weights, means, loadings, noise = (np.array(value) for value in mfa.__getstate__().values())
    events: list[dict[str, Any]] = []
    for j, row, donor in zip(lost, stats.worst.rows, stats.worst.components, strict=False):
        means[j], loadings[j], noise[j] = row, mfa.loadings[donor], mfa.noise_variance[donor]
        weights[j] = weights[donor] = weights[donor] / 2
        reseeds[j] += 1
        events.append({"iteration": iteration, "event": "reseeded", "component": int(j), "donor": int(donor)})
        _logger.warning("EM step %d: component %d has lost its samples and starts again elsewhere", iteration, j)
    return MFA(weights / weights.sum(), means, loadings, noise), events


@contextmanager
def progress_bar(total: int, progress: bool | None, name: str) -> Iterator[Any]:
    """A function that advances a bar by one step and shows a log-likelihood and more; None: only on
    a terminal and in notebooks.
    """
    with open_bar(progress, total=total, desc=name, leave=False) as bar:

        def step(log_likelihood: float, more: str = "") -> None:
            bar.set_postfix_str(f"{log_likelihood:.4f} nats{more and ', '}{more}", refresh=False)
            bar.update()

        yield step
