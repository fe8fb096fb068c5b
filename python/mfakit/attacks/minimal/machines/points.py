"""Points beyond the boundary of a machine of RBF kernels that are near the sample. They are no part of the proof."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .expansion import Expansion

__all__ = ["cross", "slide"]

Array = NDArray[Any]

# Steps to the boundary, each at most this many kernel widths long; of each, a little more than the linear one.
CROSSINGS, LONGEST, BEYOND = 200, 0.5, 1.01
# Steps along the boundary, until the perturbation is perpendicular to it: 1 - cos below this.
SLIDES, PERPENDICULAR, SMALLEST_TURN = 200, 1e-12, 1e-9
# Newton steps along a ray to the boundary, and the relative length at which it is reached.
RAY_STEPS, ON_BOUNDARY = 60, 1e-13


def cross(f: Expansion, delta: Array) -> Array | None:
    """Beyond the boundary by steps along ∇L from δ [n]; None if it is not reached."""
    longest = LONGEST / np.sqrt(f.gamma)
    for _ in range(CROSSINGS):
        value, gradient = f.log_ratio(delta)
        slope = float(np.linalg.norm(gradient))
        if value <= 0.0:
            return delta
        if not (np.isfinite(value) and 0.0 < slope < np.inf):
            return None
        delta = delta - min(BEYOND * value / slope, longest) * gradient / slope
    return None


def slide(f: Expansion, delta: Array) -> Array:
    """The nearest point of the boundary that is found by turning δ [n], a flip, towards the boundary's normal for as
    long as that makes it shorter.
    """
    length = float(np.linalg.norm(delta))
    if length == 0.0:
        return delta
    way, turn = delta / length, 1.0
    length = _along(f, way, length)
    for _ in range(SLIDES):
        gradient = f.log_ratio(length * way)[1]
        slope = float(np.linalg.norm(gradient))
        if not 0.0 < slope < np.inf:
            break
        normal = -gradient / slope
        if 1.0 - float(normal @ way) < PERPENDICULAR:
            break
        while turn > SMALLEST_TURN:
            turned = way + turn * (normal - way)
            turned /= np.linalg.norm(turned)
            if f.log_ratio(length * turned)[0] <= 0.0:
                shorter = _along(f, turned, length)
                if shorter < length:
                    way, length, turn = turned, shorter, min(1.0, 2.0 * turn)
                    break
            turn *= 0.5
        else:
            break
    return length * way


def _along(f: Expansion, way: Array, length: float) -> float:
    """The first boundary on a ray that Newton's steps back from a flip at `length` find, on the flipped side."""
    low, high, at = 0.0, length, length
    for _ in range(RAY_STEPS):
        value, gradient = f.log_ratio(at * way)
        if value <= 0.0:
            high = min(high, at)
        else:
            low = max(low, at)
        if high - low <= ON_BOUNDARY * high:
            break
        slope = float(gradient @ way)
        step = value / slope if slope < 0.0 and np.isfinite(value) else np.inf
        # A little beyond Newton's point, so that the next one is on the other side.
        step += np.copysign(4e-15 * high, step) if abs(step) < 1e-3 * high else 0.0
        at = at - step
        if not low < at < high:
            at = 0.5 * (low + high)
    return high
