"""What the tests of the density share: its functions, the shapes of their results, and samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfakit

Array = NDArray[Any]

FUNCTIONS = ("log_prob", "component_log_prob", "responsibilities", "grad_log_prob")
REAL_DTYPES = ["float32", "float64"]


def result_shape(function: str, n: int, mfa: mfakit.MFA) -> tuple[int, ...]:
    width = {"log_prob": (), "grad_log_prob": (mfa.n_features,)}.get(function, (mfa.n_components,))
    return (n, *width)


def samples(mfa: mfakit.MFA, n: int = 12, dtype: Any = np.float64) -> Array:
    """Samples of the model, and as many points between and beside its components."""
    rng = np.random.default_rng(9)
    between = rng.dirichlet(np.ones(mfa.n_components), n) @ mfa.means
    beside = between + rng.normal(scale=0.5, size=(n, mfa.n_features))
    return np.concatenate([mfa.sample(n, rng=rng, dtype=np.float64)[0], beside]).astype(dtype)
