"""What the tests of CNN share: a small network's parameters, images, and the bytes of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TINY: dict[str, Any] = {"width": 2, "depth": 2, "epochs": 2, "batch_size": 16, "device": "cpu"}


def images(n: int = 120, classes: int = 2, shape: tuple[int, int, int] = (6, 6, 1), seed: int = 0) -> tuple[Any, Any]:
    """Noise with a bright row, whose place is the class."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, *shape)).astype(np.float32)
    y = np.arange(n) % classes
    X[np.arange(n), y] += 2.0
    return X.reshape(n, -1), y


def weights(cnn: Any) -> bytes:
    return b"".join(p.numpy().tobytes() for p in cnn.module_.state_dict().values())
