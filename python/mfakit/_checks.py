"""Checks of arguments that several rooms share, each with one sentence for what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_bounds"]


def as_bounds(bounds: Any) -> tuple[float, float] | None:
    """Bounds (low, high) as floats, or None."""
    if bounds is None:
        return None
    try:
        low, high = (float(value.item() if hasattr(value, "item") else value) for value in bounds)
    except (TypeError, ValueError, RuntimeError):  # the last one from a tensor of several
        low = high = np.nan
    if not low < high:
        several = any(np.ndim(value) for value in bounds) if isinstance(bounds, tuple | list) else False
        got = "arrays; one pair of numbers holds for all features" if several else repr(bounds)
        raise ValueError(f"bounds must be (low, high) with low < high, or None, got {got}")
    return low, high
