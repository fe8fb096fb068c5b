"""The box that perturbed samples stay in: bounds (low, high), for all features or for each of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays.rows import array_module, to_numpy
from .._checks import as_bounds

__all__ = ["BoxSetting", "Limits", "as_box", "as_limits", "inside_bounds", "moved_inside"]

Array = Any  # NumPy's; with d columns and on a device, CuPy's

# As settings record it, and as attacks compute with it: a number for all features, or one for each.
BoxSetting = tuple[float | tuple[float, ...], float | tuple[float, ...]] | None
Limits = tuple[Any, Any] | None


def as_box(bounds: Any) -> BoxSetting:
    """Bounds (low, high) that are two numbers, or two numbers per feature; None, which infinite ones are, too."""
    if bounds is None:
        return None
    try:
        low, high = (np.asarray(to_numpy(b) if hasattr(b, "__array__") else b, np.float64) for b in bounds)
    except (TypeError, ValueError, RuntimeError):
        return as_bounds(bounds)  # whose sentence says what bounds are
    if low.ndim == high.ndim == 0:
        box = as_bounds((float(low), float(high)))
        return None if box == (-math.inf, math.inf) else box
    if max(low.ndim, high.ndim) > 1 or len({b.shape for b in (low, high) if b.ndim}) > 1:
        raise ValueError(
            "bounds must be (low, high), numbers or arrays [d] with a number per feature, got arrays of shapes "
            f"{low.shape} and {high.shape}"
        )
    low, high = np.broadcast_arrays(low, high)
    wrong = ~(low < high)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"bounds must be (low, high) with low < high, got {low[i]:g} and {high[i]:g} for feature {i}")
    return tuple(low.tolist()), tuple(high.tolist())


def as_limits(box: BoxSetting, d: int, dtype: Any) -> Limits:
    """A box for d features, as two numbers or as arrays [d], rounded to the samples' dtype as points are."""
    if box is None:
        return None
    if not isinstance(box[0], tuple):
        return float(np.asarray(box[0], dtype)), float(np.asarray(box[1], dtype))
    if len(box[0]) != d:
        raise ValueError(f"bounds must be two numbers or arrays [{d}], one number per feature, got [{len(box[0])}]")
    low, high = (np.array(b, dtype) for b in box)
    return low, high


def moved_inside(X: Array, limits: Limits) -> Array:
    """The nearest points [n, d] inside."""
    if limits is None:
        return X
    xp = array_module(X)
    return xp.clip(X, *(b if np.ndim(b) == 0 else xp.asarray(b) for b in limits))


def inside_bounds(X: Array, limits: Limits, start: int, name: str = "X") -> None:
    """Raise for samples outside the bounds, with the first such row."""
    if limits is None:
        return
    xp = array_module(X)
    low, high = (b if np.ndim(b) == 0 else xp.asarray(b) for b in limits)
    outside = (low > X) | (high < X)
    rows = to_numpy(outside.any(axis=1))
    if not rows.any():
        return
    row = int(rows.argmax())
    found, where, what = to_numpy(X[row]), to_numpy(outside[row]), ""
    if np.ndim(limits[0]):  # of the first feature that is outside
        i = int(where.argmax())
        low, high, found, what = limits[0][i], limits[1][i], found[i : i + 1], f" of feature {i}"
    got = f"{found[0]:g}" if len(found) == 1 else f"values from {found.min():g} to {found.max():g}"
    raise ValueError(
        f"{name} must lie within bounds [{low:g}, {high:g}]{what}, got {got} in row {start + row}; clip {name} or "
        "widen bounds"
    )
