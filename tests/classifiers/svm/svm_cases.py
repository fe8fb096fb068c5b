"""What the tests of the support vector machines share: one machine of each kind, and samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfakit.classifiers import RBFSVM, LinearSVM

Array = NDArray[Any]

# To be cloned before they are fitted.
BOTH = [LinearSVM(), RBFSVM(gamma="scale")]
BOTH_IDS = ["linear", "rbf"]


def data(n: int = 300, d: int = 20, n_classes: int = 2, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Overlapping shells: neither machine is perfect, so that some coefficients are at C and some are not."""
    rng = np.random.default_rng(5)
    y = rng.integers(n_classes, size=n)
    X = rng.normal(size=(n, d)) * (1 + 0.3 * y[:, None]) + 0.3 * y[:, None]
    return X.astype(dtype), y
