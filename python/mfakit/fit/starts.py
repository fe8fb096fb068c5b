"""Starts of one's own: a mixture, or means and weights around which the rest is found in the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.containers import as_host_array, sum_tolerance
from ..mixture.mfa import MFA
from .initialize import initial_mfa
from .source import Source

__all__ = ["new_start", "own_start"]

Array = NDArray[Any]


def own_start(estimator: Any, d: int, floor: float) -> MFA | None:
    """The mixture that a fit goes on from, if there is one: the last fit's, or the one passed as ``init``."""
    shape = (estimator.n_components, d, estimator.n_factors)
    if estimator.warm_start and hasattr(estimator, "mfa_"):
        return _as_start(estimator.mfa_, shape, estimator.noise, floor, "warm_start")
    if isinstance(estimator.init, MFA):
        return _as_start(estimator.init, shape, estimator.noise, floor, "init")
    return None


def new_start(estimator: Any, source: Source, floor: float, rng: np.random.Generator) -> MFA:
    """A mixture to start from that is found in the data, around ``means_init`` and with ``weights_init`` if given."""
    k, l, isotropic = estimator.n_components, estimator.n_factors, estimator.noise == "isotropic"
    means = _as_means(estimator.means_init, k, source.survey.n_features)
    weights = _as_weights(estimator.weights_init, k)
    if means is None:
        start = initial_mfa(source, k, l, isotropic=isotropic, method=estimator.init, floor=floor, rng=rng)
    else:
        start = _start_around(source, means, l, isotropic=isotropic, floor=floor, rng=rng)
    return start if weights is None else start.replace(weights=weights)


def _as_start(mfa: MFA, shape: tuple[int, int, int], noise: str, floor: float, name: str) -> MFA:
    """A mixture to go on from, on the host, with its noise at `floor` or above.

    Parameters
    ----------
    shape : (k, d, l)
        What is asked for, together with the kind of `noise`.
    name : str
        The argument that says to start there, for the error.

    Raises
    ------
    ValueError
        For a mixture of another shape or kind.
    """
    k, d, l = shape
    if mfa.loadings.shape != shape or mfa.is_isotropic != (noise == "isotropic"):
        remedy = "set warm_start=False" if name == "warm_start" else "pass a mixture of that shape"
        raise ValueError(f"{name} goes on from {mfa}, but k={k}, d={d}, l={l}, {noise} noise is asked for; {remedy}")
    last = mfa.to("cpu")  # the samples decide where it computes
    return last.replace(noise_variance=np.maximum(last.noise_variance, floor))


def _as_means(means: Any, k: int, d: int) -> Array | None:
    """``means_init`` as float64 [k, d], checked; None stays None."""
    if means is None:
        return None
    array = as_host_array(means, "means_init")
    if array.shape != (k, d) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"means_init must be numbers [{k}, {d}], one row per component, got {array.dtype} {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("means_init has NaN or inf")
    return array.astype(np.float64)


def _as_weights(weights: Any, k: int) -> Array | None:
    """``weights_init`` as float64 [k] of sum 1, checked; None stays None."""
    if weights is None:
        return None
    array = as_host_array(weights, "weights_init")
    if array.shape != (k,) or array.dtype.kind not in "fiu":
        raise ValueError(f"weights_init must be numbers [{k}], one per component, got {array.dtype} {array.shape}")
    total = float(array.sum(dtype=np.float64))
    if not ((array > 0).all() and abs(total - 1.0) <= sum_tolerance(array)):
        raise ValueError(
            f"weights_init must be positive with sum 1, got smallest {array.min():.3g}, sum {total:.6g}; a component "
            "without weight would keep none"
        )
    return array.astype(np.float64) / total


def _start_around(
    source: Source, means: Array, l: int, *, isotropic: bool, floor: float, rng: np.random.Generator
) -> MFA:
    """A mixture with these means [k, d]; loadings, noise and weights are those of the groups of a random sample of the
    rows that are nearest to each mean.

    A group of fewer than two rows has the loadings and noise of all rows, and the weight of one row.
    """
    k, d = means.shape
    X, weights = source.sample(rng, least=4 * k * (l + 1))
    w = np.ones(len(X)) if weights is None else weights
    labels = _nearest(X, means)
    of_all: MFA | None = None
    loadings, noise = np.empty((k, d, l)), np.empty((k,) if isotropic else (k, d))
    for j in range(k):
        rows = np.flatnonzero(labels == j)
        if len(rows) > 1:
            group = initial_mfa(
                Source.from_array(X[rows], w[rows], source.options), 1, l,
                isotropic=isotropic, method="random", floor=floor, rng=rng,
            )  # fmt: skip
        else:
            of_all = of_all or initial_mfa(source, 1, l, isotropic=isotropic, method="random", floor=floor, rng=rng)
            group = of_all
        loadings[j], noise[j] = group.loadings[0], group.noise_variance[0]
    mass = np.maximum(np.bincount(labels, w, minlength=k), w.sum() / len(w))
    return MFA(mass / mass.sum(), means, loadings, noise)


def _nearest(X: Array, means: Array) -> Array:
    """Index [m] of the mean that is nearest to each row, by blocks of rows; float64, centred."""
    center = means.mean(axis=0)
    M = means - center
    norms = (M**2).sum(axis=1)
    step = max(16, 2**22 // X.shape[1])
    parts = [(norms - 2.0 * (X[i : i + step] - center) @ M.T).argmin(axis=1) for i in range(0, len(X), step)]
    return np.concatenate(parts)
