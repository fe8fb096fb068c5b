"""Proof that no perturbation of length up to R flips a machine of RBF kernels, part by part of the ball.

The ball is cut in slices across an axis, the way to the nearest flip known, and those slices, where they are wide,
across a second axis: the way to the point at which their bound fails. Each part is proved by a quadratic
(:mod:`.quadratic`) and weak duality (:mod:`.duality`). Parts that fail when they are narrow make R smaller; what was
proved for a larger R stays proved.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .duality import is_positive_within
from .expansion import Expansion
from .quadratic import MARGIN, Box, Frame, Quadratic

__all__ = ["Ball", "Certified"]

Array = NDArray[Any]

# Edges of the slices to begin with, in units of the radius.
EDGES = (-1.0, -0.3, 0.3, 0.7, 0.9, 1.0)
# A part that is narrower than this share of the radius, and than twice the gap, is not cut.
NARROWEST = 1.0 / 64.0
# How often parts are cut: as often as takes so many multiplications, within limits; and how many cuts more a smaller
# radius has, for the parts that are still wide when it is taken.
CUT_STEPS, FEWEST_CUTS, MOST_CUTS, MORE_CUTS = 2e9, 40, 400, 10
# Where a bound fails farther away than this many radii, the slice is cut before a second axis is chosen by that point.
ASTRAY = 1.2
# The first gap that is tried, the factor by which it then grows up to a half, and the share of the length down to which
# the radius halves after that.
FIRST_GAP, WIDER, LEAST_SHARE = 2e-4, 1.6, 1e-9
# A flip that a part runs into is worth a new search if it is shorter than the best one by this share.
SHORTER = 1e-6


@dataclass(frozen=True)
class Certified:
    """What was proved: no flip within `radius`. `shorter` is a flip [n] below the length that was known, and then
    nothing was proved yet. `examined` counts parts, and `suspects` [., n] are points at which bounds failed for good.
    """

    radius: float
    shorter: Array | None
    examined: int
    suspects: tuple[Array, ...] = ()


class Ball:
    """An expansion with an axis [n] along which the ball is cut."""

    def __init__(self, f: Expansion, axis: Array) -> None:
        self.f, self.frame = f, Frame.of(f).with_axis(axis)
        m, n = self.frame.exponents.shape
        self.most_cuts = int(np.clip(CUT_STEPS / (m * n**2), FEWEST_CUTS, MOST_CUTS))

    def certify(self, length: float, stops: bool = True) -> Certified:
        """The largest radius below a flip's `length` that is proved, found by ever shorter ones; `stops`: return the
        first shorter flip that a part runs into.
        """
        gap, radius, multiplier, examined, cuts = FIRST_GAP, (1.0 - FIRST_GAP) * length, None, 0, self.most_cuts
        suspects: list[Array] = []
        parts = [(self.frame, Box(np.array([a]), np.array([b]))) for a, b in pairwise(np.multiply(EDGES, length))]
        while parts:
            frame, box = parts.pop()
            if box.near >= radius:
                continue
            examined += 1
            q = frame.below(box, radius)
            worst = None
            if q is not None:
                proved, multiplier, worst = is_positive_within(q, multiplier)
                if proved:
                    continue
            point = None if worst is None else radius * frame.back(worst)
            if stops and point is not None and self._is_shorter(point, length):
                return Certified(0.0, point, examined)
            narrow = max(NARROWEST, 2.0 * gap) * length
            pieces = _cut(frame, box, q, worst, radius, narrow) if cuts else []
            if pieces:
                cuts -= 1
                parts += pieces
                continue
            suspects += [] if point is None else [point]
            gap, cuts = WIDER * gap, cuts + MORE_CUTS
            radius = (1.0 - gap) * length if gap <= 0.5 else 0.5 * radius
            if radius < LEAST_SHARE * length:
                return Certified(0.0, None, examined, tuple(suspects))
            parts.append((frame, box))
        return Certified((1.0 - MARGIN) * radius, None, examined, tuple(suspects))

    def _is_shorter(self, delta: Array, length: float) -> bool:
        return bool(np.linalg.norm(delta) < (1.0 - SHORTER) * length and self.f.log_ratio(delta)[0] <= 0.0)


def _cut(
    frame: Frame, box: Box, q: Quadratic | None, worst: Array | None, radius: float, narrow: float
) -> list[tuple[Frame, Box]]:
    """The halves of a part across the axis along which exponents vary most, which may be a second one; none of a part
    that is narrow.
    """
    widths = np.minimum(box.high, radius) - np.maximum(box.low, -radius)
    k, n, beside = frame.n_axes, frame.exponents.shape[1], 2.0 * box.beside(radius)
    rows = frame.exponents if q is None else np.sqrt(q.weights)[:, None] * q.rows
    change = np.linalg.norm(rows[:, -k:], axis=0) * widths
    # The second axis leads to where the bound fails, or where exponents vary most if there is none.
    across = np.zeros(n)
    across[:-k] = (rows[np.linalg.norm(rows[:, :-k], axis=1).argmax()] if worst is None else worst)[:-k]
    length = float(np.linalg.norm(across))
    astray = worst is not None and float(np.linalg.norm(worst)) > ASTRAY and widths[0] > narrow
    if k == 1 and length > 0.0 and beside > narrow and not astray:
        varies = float(np.linalg.norm(rows @ across)) / length * beside
        if varies > change[0] or widths[0] <= narrow:
            whole = Box(np.append(-0.5 * beside, box.low), np.append(0.5 * beside, box.high))
            return [(frame.with_axis(across), half) for half in whole.halves(0)]
    change[widths <= narrow] = 0.0
    axis = int(change.argmax())
    return [(frame, half) for half in box.halves(axis)] if change[axis] > 0.0 else []
