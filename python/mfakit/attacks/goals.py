"""The classes that a targeted attack is to reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import to_numpy
from .state import State

__all__ = ["as_goals", "check_goals"]

Array = NDArray[Any]


def as_goals(target: Any, n: int, labels: Callable[[Any, int, str], Array]) -> Array | None:
    """One class for all of n samples, or one per sample, as indices, int64 [n]; None stays. `labels` makes indices of
    values of ``classes_``.
    """
    if target is None:
        return None
    values = to_numpy(target, "target") if hasattr(target, "__array__") else target
    single = isinstance(values, str) or np.ndim(values) == 0
    if not single:
        return labels(target, n, "target")
    return np.repeat(labels(np.array([values]), 1, "target"), n)


def check_goals(state: State, start: int) -> None:
    """Raise for a sample whose class to reach is its true one; the first of them has the number `start`."""
    if state.goal is None:
        return
    same = (state.goal == state.y) & (state.reason != "NaN logits")
    if same.any():
        row = int(same.argmax())
        raise ValueError(
            f"target must differ from the true classes, but both are {state.y[row]} in row {start + row}; pass one "
            "class per sample"
        )
