"""How far a log-density in float64 may be from the exact one of the same parameters. Certificates
allow for all of it.

At any x + δ, with residual r = x - μ_j and m² = rᵀ Σ_j⁻¹ r,

    |computed - exact| log p_j  ≤  ROUNDING (Σ (|r| + |δ|)² / D + size_j) + tilt_j (m² + l),

the sum for the squares that cancel, `size` for the terms of the normaliser, and `tilt` for the singular vectors of
D^-½ A: LAPACK's are those of a matrix that is off by some roundings of its *largest* singular value, which turns short
directions of a component that has long ones. How far they are off is measured in long double.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._threads.process import errstate

if TYPE_CHECKING:
    from ..mixture.mfa import MFA

__all__ = ["ROUNDING", "normaliser_sizes", "tilt"]

Array = NDArray[Any]

# Each term of the sums may be off by a few units in its last place.
ROUNDING = 64.0 * float(np.finfo(np.float64).eps)
LONG_EPS = float(np.finfo(np.longdouble).eps)


def tilt(A: Array, noise: Array, U: Array, S: Array, Vt: Array) -> float:
    """How far U diag(S) Vᵀ [d, l] is from D^-½ A, A [d, l] and noise D [1] or [d], in the metric of 1 + U diag(S²) Uᵀ.

    With E = D^-½ A - U S Vᵀ, m² changes by at most 2 ‖(1 + U S² Uᵀ)^-½ E‖ m² to first order, and log det by √l times
    that. The deviation of U from orthonormal rows counts as a part of E. The result is twice what was
    measured.
    """
    if not len(S):
        return 0.0
    B = A.astype(np.longdouble) / np.sqrt(noise.astype(np.longdouble))[:, None]
    E = (B - (U.astype(np.longdouble) * S) @ Vt.astype(np.longdouble)).astype(np.float64)
    root = 1.0 / np.hypot(1.0, S)
    along = U.T @ E
    inside, beside = np.linalg.norm(root[:, None] * along), np.linalg.norm(E - U @ along)
    turned = np.linalg.norm(root[:, None] * (U.T @ U - np.eye(len(S))) * S)
    return float(2.0 * (np.hypot(inside, beside) + 0.5 * turned + 4.0 * len(S) * LONG_EPS * S[0]))


def normaliser_sizes(mfa: MFA, prior: float) -> Array:
    """Sum of the magnitudes of the terms of log (prior weight / √det 2πΣ), [k]; 0 where a component does not occur."""
    noise = np.asarray(mfa.noise_variance, np.float64).reshape(mfa.n_components, -1)
    k, d = mfa.n_components, mfa.n_features
    with errstate(divide="ignore", over="ignore"):
        weights = np.abs(np.log(prior)) + np.abs(np.log(np.asarray(mfa.weights, np.float64)))
        longest = [
            np.linalg.norm(A.astype(np.float64) / np.sqrt(D)[:, None]) for A, D in zip(mfa.loadings, noise, strict=True)
        ]
    spread = np.abs(np.log(noise)).sum(axis=1) * (d if noise.shape[1] == 1 else 1)
    size = weights + 0.5 * (d * np.log(2 * np.pi) + spread) + mfa.n_factors * np.log1p(np.reshape(longest, k))
    return np.where(np.isfinite(weights), size, 0.0)
