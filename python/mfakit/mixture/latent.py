"""The latent side of a mixture: posterior of z, reconstruction, and imputation of missing features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.frames import is_pandas
from .._arrays.pages import give_back
from .._arrays.rows import RowBlocks, on_device_of, returned, to_numpy, wrap_like
from .._arrays.streams import streamed
from .._checks import as_bounds
from ..backends.operands import WeightedPairs
from . import marginals
from .density import each_block, open_rows, per_sample
from .evaluator import Evaluator
from .observed import evidence
from .scores import Scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._arrays.options import ArrayOptions
    from .mfa import MFA

__all__ = ["impute", "latent", "reconstruct"]

Array = NDArray[Any]


def _best_pairs(evaluator: Evaluator, scores: Scores) -> tuple[Array, Array]:
    """Of each row, its most likely component [n] and the y [n, l] of that pair (the best is always refined)."""
    xp = evaluator.xp
    best = evaluator.relative(scores).argmax(axis=1)
    wins = best[scores.rows] == scores.components
    place = xp.full(len(best) + 1, len(scores.rows))  # of each row's pair; a device is not asked which they are
    place[xp.where(wins, scores.rows, len(best))] = xp.arange(len(wins))
    y = xp.concatenate([scores.whitened_latent, xp.full((1, scores.whitened_latent.shape[1]), np.nan)])
    return best, y[place[:-1]]


@streamed
def latent(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> tuple[Any, Any, Any]:
    """Posterior of the factors z under each sample's most likely component.

    Parameters
    ----------
    mfa : MFA
    X : array-like, [n, d]
    **options
        See :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    mean : [n, l]
        E[z | x] = M⁻¹ Aᵀ D⁻¹ (x - μ), in X's dtype and container.
    covariance : float64 [k, l, l]
        Cov[z | x] = M⁻¹ of each component, M = I + Aᵀ D⁻¹ A; it does not depend on x.
    component : int64 [n]
        Both in X's container, too.

    A sample that no component explains in its arithmetic (log-densities of -inf: X beyond 1e150, say) has mean NaN.

    Raises
    ------
    ValueError, TypeError
        As :func:`mfakit.mixture.density.log_prob`.
    """
    rows, opts = open_rows(mfa, X, options)
    mean = opts.result((len(rows), mfa.n_factors), rows.dtype, rows)
    component = replace(opts, out=None).result((len(rows),), np.int64, rows)

    def work(evaluator: Evaluator, block: Array, first: int) -> None:
        arrays, part = evaluator.arrays, slice(first, first + len(block))
        best, y = _best_pairs(evaluator, evaluator(block, first, rows.name))
        z = (evaluator.factors.latent_map[best] * y[:, None, :]).sum(axis=2)
        for result, values in ((component, best), (mean, z)):
            target = arrays.target(result, part)
            target[:] = values
            arrays.store(result, part, target)
            give_back(result[part])

    each_block(rows, [mfa.factors], opts, work)
    latent_map = mfa.factors.latent_map
    covariance = latent_map @ latent_map.transpose(0, 2, 1)
    with on_device_of(mean):
        posterior = returned(mean, rows.like, opts.out), wrap_like(covariance, rows.like)
        return *posterior, returned(component, rows.like)


@streamed
def reconstruct(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """μ + A E[z | x] under each sample's most likely component, [n, d], in X's dtype and container.

    Parameters and errors as :func:`latent`.
    """

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        factors, xp = evaluator.factors, evaluator.xp
        best, y = _best_pairs(evaluator, evaluator(block, first))
        # D times the gradient at the mean, which is Wᵀ y there: components are not looped over.
        means, change = factors.means[best].astype(block.dtype), xp.zeros(block.shape, block.dtype)
        order = xp.argsort(best)
        pairs = WeightedPairs(order, best[order], xp.ones(len(best)), y[order])
        evaluator.ops.accumulate_gradient(means, pairs, factors.mixture, change, evaluator.threads)
        part[:] = means + change * factors.noise[best]

    return per_sample(mfa, X, options, (mfa.n_features,), fill, features=True)


@streamed
def impute(mfa: MFA, X: Any, mask: Any = None, *, bounds: Any = None, **options: Unpack[ArrayOptions]) -> Any:
    """Fill missing features with their conditional mean under the whole mixture, E[x_missing | x_observed].

    Parameters
    ----------
    mfa : MFA
    X : array-like, [n, d]
        NaN is allowed where `mask` is True.
    mask : bool array-like, [n, d] or [d], optional
        True = missing; [d] is one mask for all rows. None: what is NaN is missing.
    bounds : (float, float), optional
        Filled values are clipped to this interval.
    **options
        ``backend``, ``block_rows``, ``check_finite``, ``out``; see :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    array, [n, d]
        X with the missing entries replaced; observed entries are X's own.

    Raises
    ------
    ValueError
        A mask of another shape or dtype, NaN or inf in an observed feature, a row without an observed feature.

    Notes
    -----
    For each component and distinct mask an l × l matrix is factorized: see ``mfakit/mixture/observed.py``. It is made
    on the host: samples on a device are brought there and back.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([1.0], [[0.0, 0.0]], np.ones((1, 2, 1)), 0.25)
    >>> mfa.impute(np.array([[1.0, np.nan], [2.0, 3.0]]))
    array([[1. , 0.8],
           [2. , 3. ]])
    >>> mfa.impute(np.array([[1.0, np.nan]]), bounds=(0, 0.5))
    array([[1. , 0.5]])
    """
    limits = as_bounds(bounds)
    check_finite = options.get("check_finite", True)
    mask = None if mask is None else _as_mask(mask, mfa, X)

    def make(start: int, rows: RowBlocks, block: Array) -> Array:
        part = _masked(block, mask, start, check_finite)
        filled: Array = to_numpy(rows.block(start, start + len(block))).copy()
        some = part.any(axis=1)
        if some.any():
            means = _conditional_means(mfa, block[some], part[some])
            filled[part] = (means if limits is None else np.clip(means, *limits))[part[some]]
        return filled

    return marginals.per_sample(mfa, X, options, (mfa.n_features,), make, features=True)


def _as_mask(mask: Any, mfa: MFA, X: Any) -> Array:
    """A mask for samples X, checked."""
    mask = np.asarray(mask) if is_pandas(mask) else to_numpy(mask, "mask")
    shape = RowBlocks(X, mfa.n_features).shape
    if mask.dtype != bool or mask.shape not in (shape, shape[1:]):
        raise ValueError(
            f"mask must be bool (True = missing) of shape {shape} or {shape[1:]}, got {mask.dtype} {mask.shape}"
        )
    return np.asarray(mask)


def _masked(X: Array, mask: Array | None, start: int, check_finite: bool) -> Array:
    """What is missing of a block, bool [n, d], checked."""
    if mask is None:
        return ~marginals.known_features(X, start, "X", check_finite)
    part = mask[start : start + len(X)] if mask.ndim == 2 else np.broadcast_to(mask, X.shape)
    bad = ~(np.isfinite(X) | part).all(axis=1)
    if check_finite and bad.any():
        first = start + int(bad.argmax())
        raise ValueError(f"X has NaN or inf in an observed feature, first in row {first}; mark it in the mask")
    marginals.known_features(np.where(part, np.nan, 0.0), start)
    return part


def _conditional_means(mfa: MFA, X: Array, missing: Array) -> Array:
    """E[x | x_observed] [n, d]: Σ_k r_k (μ_k + A_k E_k[z | x_o]). Given z the noise of different features is
    independent, so the observed features act through z alone.
    """
    result, seen = np.zeros(X.shape), ~missing
    for some in marginals.groups(mfa, seen):
        found, part = evidence(mfa, X[some], seen[some]), np.zeros(X[some].shape)
        resp = marginals.shares(mfa, X[some], seen[some], found.log_prob)[1]
        for posterior in found.posteriors:  # NaN, where no component explains a sample, comes through
            j, rows = posterior.component, posterior.rows
            means = mfa.means[j] + posterior.z @ mfa.loadings[j].T.astype(np.float64)
            part[rows] += resp[rows, j][:, None] * means
        result[some] = part
    return result
