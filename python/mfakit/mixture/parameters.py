"""The parameters of a mixture, checked and copied: what :class:`mfakit.MFA` keeps."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays.containers import sum_tolerance, to_numpy

__all__ = ["PARAMETERS", "Parameters", "checked_parameters", "checked_weights"]

Array = NDArray[Any]


class Parameters(TypedDict, total=False):
    """The arguments of :class:`mfakit.MFA`, or some of them."""

    weights: ArrayLike
    means: ArrayLike
    loadings: ArrayLike
    noise_variance: ArrayLike | float


PARAMETERS = tuple(Parameters.__annotations__)


def checked_parameters(weights: Any, means: Any, loadings: Any, noise_variance: Any) -> dict[str, Array]:
    """Private contiguous copies by name: weights [k], means [k, d], loadings [k, d, l], noise variances [k] or [k, d];
    errors as :class:`mfakit.MFA`.
    """
    means_ = _parameter(means, "means", 2, np.float32)
    loadings_ = _parameter(loadings, "loadings", 3, np.float32)
    k, d = means_.shape
    if k < 1 or d < 1:
        raise ValueError(f"means must be [k, d] with at least one component and one feature, got {means_.shape}")
    if loadings_.shape[:2] != (k, d):
        raise ValueError(f"loadings must be [k, d, l] = [{k}, {d}, l] to match means, got {loadings_.shape}")
    values = (checked_weights(weights, k), means_, loadings_, _noise(noise_variance, k, d))
    return dict(zip(PARAMETERS, values, strict=True))


def _parameter(value: Any, name: str, rank: int, smallest: Any = np.float64) -> Array:
    """A contiguous private copy of a parameter, float64 or (where allowed and given) float32."""
    array = to_numpy(value, name)  # frozen copies: a parameter that requires grad is detached
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    keep_single = smallest == np.float32 and array.dtype.kind == "f" and array.dtype.itemsize <= 4
    array = np.array(array, dtype=np.float32 if keep_single else np.float64, order="C", copy=True)
    if array.ndim != rank:
        raise ValueError(f"{name} must have {rank} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or inf")
    return array


def checked_weights(value: Any, k: int) -> Array:
    """Private weights [k] that sum to 1; errors as :class:`mfakit.MFA`."""
    weights = _parameter(value, "weights", 1)
    if weights.shape != (k,):
        raise ValueError(f"weights must be [{k}], one per component of means, got shape {weights.shape}")
    total = float(weights.sum())
    if (weights < 0).any() or not abs(total - 1.0) <= sum_tolerance(value):
        raise ValueError(
            f"weights must be non-negative and sum to 1, got smallest {weights.min():.3g}, sum {total:.6g}"
        )
    # Only a sum that is visibly off is divided out: what is saved comes back bit for bit.
    return weights if abs(total - 1.0) <= 1e-14 * k else weights / total


def _noise(value: Any, k: int, d: int) -> Array:
    noise = to_numpy(value, "noise_variance")
    noise = np.full(k, noise) if noise.ndim == 0 else noise
    noise = _parameter(noise, "noise_variance", noise.ndim)
    if noise.shape not in ((k,), (k, d)):
        raise ValueError(f"noise_variance must be a number, [{k}] or [{k}, {d}], got shape {noise.shape}")
    if not (noise >= np.finfo(np.float64).tiny).all():
        raise ValueError(
            f"noise_variance must be positive (2.3e-308 or more), got {noise.min():.3g}; the limit σ → 0, where "
            "Theorem 2 bounds the radius by half the distance between subspaces, is what subspace_distances computes"
        )
    return noise
