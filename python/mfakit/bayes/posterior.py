"""What log prior_c p_c(x) [n, C] says of the classes: their log-odds and their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.rows import array_module
from .._threads.process import errstate

__all__ = ["log_odds", "log_proba"]

Array = Any  # NumPy's or, on a device, CuPy's


def log_odds(joint: Array) -> Array:
    """Of two classes, [n]; 0 where both are impossible."""
    with errstate(invalid="ignore"):
        return array_module(joint).where(joint[:, 0] == joint[:, 1], 0.0, joint[:, 1] - joint[:, 0])


def log_proba(joint: Array) -> Array:
    """log p(class | x) [n, C]; 1/C for each where all are impossible."""
    xp = array_module(joint)
    with errstate(divide="ignore", invalid="ignore"):
        top = joint.max(axis=1, keepdims=True)
        impossible = xp.isinf(top) & (top < 0)
        shifted = joint - xp.where(impossible, 0.0, top)
        values = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
        return xp.where(impossible, -np.log(joint.shape[1]), values)
