"""The latent side of a mixture: posterior of z, reconstruction, and imputation of missing features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.frames import is_pandas
from .._arrays.options import Options
from .._arrays.rows import RowBlocks, on_device_of, returned, to_numpy, wrap_like
from ..backends import get_arrays, get_backend
from .density import Filling, each_block, open_rows, per_sample
from .evaluator import Evaluator
from .factors import Factors, factorize
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
    y = xp.full((len(best), scores.whitened_latent.shape[1]), np.nan)
    wins = best[scores.rows] == scores.components
    y[scores.rows[wins]] = scores.whitened_latent[wins]
    return best, y


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

    each_block(rows, [mfa.factors], opts, work)
    latent_map = mfa.factors.latent_map
    covariance = latent_map @ latent_map.transpose(0, 2, 1)
    with on_device_of(mean):
        posterior = returned(mean, rows.like, opts.out), wrap_like(covariance, rows.like)
        return *posterior, returned(component, rows.like)


def reconstruct(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """μ + A E[z | x] under each sample's most likely component, [n, d], in X's dtype and container.

    Parameters and errors as :func:`latent`.
    """

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        arrays, factors = evaluator.arrays, evaluator.factors
        best, y = _best_pairs(evaluator, evaluator(block, first))
        for j in np.unique(arrays.to_host(best)).tolist():
            group = arrays.xp.nonzero(best == j)[0]
            part[group] = factors.means[j] + (y[group] @ factors.whitened[j]) * factors.noise[j]

    return per_sample(mfa, X, options, (mfa.n_features,), fill, features=True)


def impute(mfa: MFA, X: Any, mask: Any, **options: Unpack[ArrayOptions]) -> Any:
    """Fill missing features with their conditional mean under the whole mixture, E[x_missing | x_observed].

    Parameters
    ----------
    mfa : MFA
    X : array-like, [n, d]
        NaN is allowed where `mask` is True.
    mask : bool array-like, [n, d] or [d]
        True = missing; [d] is one mask for all rows.
    **options
        ``backend``, ``check_finite``, ``n_threads``, ``out``; see :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    array, [n, d]
        X with the masked entries replaced; observed entries are X's own.

    Raises
    ------
    ValueError
        A mask of another shape or dtype, NaN or inf in an observed feature.

    Notes
    -----
    Rows with the same mask share one factorization of the observed features: O(k l² d_observed) per distinct mask.
    It is made on the host: samples on a device are brought there and back.
    """
    rows, opts = open_rows(mfa, X, options)
    mask = np.asarray(mask) if is_pandas(mask) else to_numpy(mask, "mask")
    if mask.dtype != bool or mask.shape not in (rows.shape, rows.shape[1:]):
        raise ValueError(
            f"mask must be bool (True = missing) of shape {rows.shape} or {rows.shape[1:]}, "
            f"got {mask.dtype} {mask.shape}"
        )
    out = opts.result(rows.shape, rows.dtype, rows)
    arrays = get_arrays(get_backend(opts.backend, rows.device), rows.device)
    host = replace(opts, backend="auto", out=None) if arrays.is_device else opts
    step = host.plan_block(mfa.n_features, mfa.factors.n_columns, 8)
    for start in range(0, len(rows), step):
        block = to_numpy(rows.block(start, min(start + step, len(rows))))
        part = mask[start : start + step] if mask.ndim == 2 else np.broadcast_to(mask, block.shape)
        filled = _impute_block(mfa, block, part, start, host)
        out[start : start + len(block)] = filled if isinstance(out, np.ndarray) else arrays.asarray(filled)
    return returned(out, rows.like, opts.out, features=True)


def _impute_block(mfa: MFA, X: Array, mask: Array, start: int, opts: Options) -> Array:
    filled = X.copy()
    bad = ~(np.isfinite(X) | mask).all(axis=1)
    if opts.check_finite and bad.any():
        first = start + int(bad.argmax())
        raise ValueError(f"X has NaN or inf in an observed feature, first in row {first}; mark it in the mask")
    packed = np.packbits(mask, axis=1)
    keys, group = np.unique(packed, axis=0, return_inverse=True)
    for g in range(len(keys)):
        rows = np.flatnonzero(group.ravel() == g)
        missing = mask[rows[0]]
        if missing.any():
            filled[np.ix_(rows, missing)] = _conditional_mean(mfa, X[rows], missing, opts)
    return filled


def _conditional_mean(mfa: MFA, X: Array, missing: Array, opts: Options) -> Array:
    """E[x_missing | x_observed] [n, d_missing] for rows that share a mask: Σ_k r_k (μ_m + A_m E[z | x_o]).

    Given z the noise of different features is independent, so the observed features act through z alone.
    """
    seen = ~missing
    if not seen.any():
        return np.tile(mfa.weights @ mfa.means.astype(np.float64), (len(X), 1))
    noise = mfa.noise_variance if mfa.is_isotropic else mfa.noise_variance[:, seen]
    observed: Factors = factorize(mfa.weights, mfa.means[:, seen], mfa.loadings[:, seen], noise)
    rows = RowBlocks(np.ascontiguousarray(X[:, seen], np.float64))
    result = np.zeros((len(X), int(missing.sum())))
    options = Options(backend=opts.backend, n_threads=opts.n_threads, check_finite=opts.check_finite)

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        scores = evaluator(block, first, rows.name)
        resp = evaluator.responsibilities(scores)
        part[np.isnan(resp[:, 0])] = np.nan
        for j in np.unique(scores.components):
            pair = scores.components == j
            z = scores.whitened_latent[pair] @ observed.latent_map[j].T
            guess = mfa.means[j, missing] + z @ mfa.loadings[j][missing].T.astype(np.float64)
            part[scores.rows[pair]] += resp[scores.rows[pair], j][:, None] * guess

    each_block(rows, [observed], options, Filling(fill, result))
    return result
