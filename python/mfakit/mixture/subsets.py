"""Mixtures of some of the features: the marginal, and the conditional given the others. Both are mixtures again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays.containers import to_numpy
from .._threads.process import keeps_errstate

if TYPE_CHECKING:
    from .mfa import MFA

__all__ = ["as_features", "conditional", "marginal"]

Array = NDArray[Any]


def as_features(features: Any, d: int) -> Array:
    """Distinct indices, int64 [m] in the caller's order, of features given as indices or as a mask.

    Parameters
    ----------
    features : int or array-like
        Integers of -d to d - 1, negative ones counted from the end, or a bool mask [d].
    d : int

    Raises
    ------
    ValueError
        For no features, indices out of range or given twice, a mask of another length, or anything else.
    """
    array = np.atleast_1d(to_numpy(features, "features"))
    if array.dtype == bool:
        if array.shape != (d,):
            raise ValueError(f"features as a mask must be bool [{d}], one per feature, got shape {array.shape}")
        array = np.flatnonzero(array)
    if array.size == 0:
        raise ValueError("features must name at least one feature, got none")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"features must be integers [m] or a bool mask [{d}], got {array.dtype} {array.shape}")
    wrong = (array < -d) | (array >= d)
    if wrong.any():
        raise ValueError(f"features must be from {-d} to {d - 1} (this model has d={d}), got {array[wrong][0]}")
    indices = np.where(array < 0, array + d, array).astype(np.int64)
    values, counts = np.unique(indices, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"features must be distinct, but {values[counts > 1][0]} is given more than once")
    return indices


def marginal(mfa: MFA, features: Any) -> MFA:
    """The density of some features: p(x_S) = Σ_k weight_k N(x_S; μ_S, A_S A_Sᵀ + D_S), exact.

    Parameters
    ----------
    mfa : MFA
    features : array-like of int [m], or bool [d]
        S, the features to keep, in the order that the new mixture has them in.

    Returns
    -------
    MFA
        Over m features, with the same components, on the same device.

    Raises
    ------
    ValueError
        For no features, indices out of range or given twice, a mask of another length, or anything else.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([0.5, 0.5], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], np.ones((2, 3, 1)), 0.1)
    >>> mfa.marginal([2, 0]).means
    array([[2., 0.],
           [5., 3.]])
    """
    return _of_features(mfa, as_features(features, mfa.n_features))


def _of_features(mfa: MFA, kept: Array) -> MFA:
    noise = mfa.noise_variance if mfa.is_isotropic else mfa.noise_variance[:, kept]
    return mfa.replace(means=mfa.means[:, kept], loadings=mfa.loadings[:, kept], noise_variance=noise)


@keeps_errstate
def conditional(mfa: MFA, features: Any, values: ArrayLike) -> MFA:
    """The density of the other features, given the values of some: p(x_T | x_S = v), exact.

    With z | x_S ~ N(m_k, C_k) under component k, the others are N(μ_T + A_T m_k, A_T C_k A_Tᵀ + D_T), and the weight of
    the component is p(k | x_S = v).

    Parameters
    ----------
    mfa : MFA
    features : array-like of int [m], or bool [d]
        S, the features whose values are known.
    values : array-like of float [m]
        v, in the order of `features` (of the mask's features: ascending).

    Returns
    -------
    MFA
        Over the d - m features that are not in `features`, in ascending order, float64, on the same device.

    Raises
    ------
    ValueError
        For no features or all of them, values of another number, NaN or inf among them, or values so far away
        that no log-density is finite in float64.

    See Also
    --------
    mfakit.MFA.impute : the mean of this density, for many samples.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([0.5, 0.5], [[0.0, 0.0], [3.0, 3.0]], np.ones((2, 2, 1)), 0.1)
    >>> given = mfa.conditional([0], [3.0])
    >>> given
    MFA(k=2, d=1, l=1, isotropic noise)
    >>> given.weights.round(3)
    array([0.016, 0.984])
    """
    from .factors import factorize

    seen = as_features(features, mfa.n_features)
    rest = np.setdiff1d(np.arange(mfa.n_features), seen)
    if not len(rest):
        raise ValueError(
            f"features must leave at least one feature out, got all {mfa.n_features}; the density at a point is "
            "log_prob(x[None, :])"
        )
    v = _as_values(values, len(seen))
    known, other = _of_features(mfa.to("cpu"), seen), _of_features(mfa, rest)
    # Factors of their own: with weights, a component that has none would lose its numbers.
    factors = factorize(np.full(mfa.n_components, 1.0 / mfa.n_components), known.means, known.loadings,
                        known.noise_variance)  # fmt: skip
    y = np.einsum("kld,kd->kl", factors.whitened, v - factors.means)
    z = np.einsum("kab,kb->ka", factors.latent_map, y)
    if not np.isfinite(known.log_prob(v[None, :])[0]):
        raise ValueError("values are so far from every component that log-densities leave float64; check their units")
    weights = known.responsibilities(v[None, :])[0]
    A = other.loadings.astype(np.float64)
    means = other.means + np.einsum("kda,ka->kd", A, z)
    return other.replace(weights=weights / weights.sum(), means=means, loadings=A @ factors.latent_map)


def _as_values(values: Any, m: int) -> Array:
    v = to_numpy(values, "values")
    if v.dtype.kind not in "fiub":
        raise TypeError(f"values must be real numbers, got dtype {v.dtype}")
    v = np.atleast_1d(v).astype(np.float64)
    if v.shape != (m,):
        raise ValueError(f"values must be [{m}], one per feature in features, got shape {v.shape}")
    if not np.isfinite(v).all():
        raise ValueError("values has NaN or inf; leave what is not known out of features")
    return v
