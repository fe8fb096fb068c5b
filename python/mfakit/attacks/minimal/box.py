"""The nearest flip inside a box, low ≤ δ ≤ high: the Lagrangian with the box's multipliers.

Inside the box (δ_i - low_i)(δ_i - high_i) ≤ 0, so that with μ ≥ 0, ν⁺, ν⁻ ≥ 0 and ν = ν⁺ - ν⁻ what is minimised may be
changed by Σ μ_i (δ_i - low_i)(δ_i - high_i) - ν⁺·(high - δ) - ν⁻·(δ - low). It becomes

    ½ δᵀ P_μ δ - (b + μ (low + high) - ν)ᵀ δ + Σ μ_i low_i high_i - ν⁺·high + ν⁻·low,    P_μ = P + 2 diag(μ),

and where P_μ is positive definite its minimum over all δ is a bound, whatever the multipliers are. The best ones
balance the forces b - P δ at the minimiser δ in the box: where one presses δ against a bound, μ is the force over the
box's width. The bound is then exact, and P need not be positive definite itself.

The minimiser is found by Newton steps in the coordinates that are not pressed against a bound, projected to the box.
Between these coordinates P is again a diagonal plus few rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rounding import ROUNDING
from .components import Array
from .lagrangian import FreeCurvature, Lagrangian, Quadratic
from .sample import Sample

__all__ = ["Box", "BoxLagrangian"]

# Steps of one minimisation and halvings of one step; where they do not suffice the bound is looser.
MOST_STEPS, HALVINGS = 30, 20
# Relative gain below which a step counts as the last one.
LEAST_GAIN = 1e-15
# Relative gain at which the searches for λ end, because every evaluation is a minimisation.
TOLERANCE = 1e-6


class Box:
    """The displacements low ≤ δ ≤ high, [d] each, of a sample x [d] inside the bounds; infinite where there is none."""

    def __init__(self, x: Array, low: Array, high: Array) -> None:
        self.low, self.high = low - x, high - x
        widest = np.maximum(-self.low, self.high)
        self.farthest = float(np.linalg.norm(widest)) * (1.0 + 1e-9)
        self._finite = np.isfinite(widest) & (self.high > self.low)
        start, end = np.where(self._finite, self.low, 0.0), np.where(self._finite, self.high, 0.0)
        self._width = np.where(self._finite, end - start, 1.0)
        # Of (δ - low)(δ - high) = δ² - `total` δ + `product`, which is rounded by at most an ε of `size`.
        self.total, self.product, self.size = start + end, start * end, np.maximum(-start, end) ** 2

    def clip(self, delta: Array) -> Array:
        """The nearest δ inside."""
        return np.asarray(np.clip(delta, self.low, self.high))

    def holds(self, delta: Array) -> bool:
        """Whether δ is inside."""
        return bool(((delta >= self.low) & (delta <= self.high)).all())

    def limit(self, delta: Array) -> float:
        """The largest τ for which τ δ is inside."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ends = np.where(delta > 0.0, self.high / delta, np.where(delta < 0.0, self.low / delta, np.inf))
        return float(ends.min(initial=np.inf))

    def pressed(self, delta: Array, way: Array) -> Array:
        """Which coordinates [d] of δ are at a bound that `way` [d] points out of."""
        return np.asarray(((delta <= self.low) & (way < 0.0)) | ((delta >= self.high) & (way > 0.0)))

    def multipliers(self, delta: Array, force: Array) -> tuple[Array, Array]:
        """μ ≥ 0 and ν [d] for which the forces [d] that press δ against its bounds are balanced: by μ where there are
        two bounds.
        """
        pressing = np.where(self.pressed(delta, force), force, 0.0)
        mu = np.where(self._finite, np.abs(pressing) / self._width, 0.0)
        return mu, np.where(self._finite, 0.0, pressing)


class BoxLagrangian(Lagrangian):
    """The same within a box. Each minimisation starts where the last one ended."""

    tolerance = TOLERANCE

    def __init__(
        self, x: Sample, targets: Sequence[int], phi: Array, offset: float, sources: Sequence[int], box: Box,
        safe: bool = True, start: Array | None = None,
    ) -> None:  # fmt: skip
        super().__init__(x, targets, phi, offset, sources, safe)
        self._box, self.farthest = box, box.farthest
        self._start = np.zeros_like(x.x) if start is None else start

    def _least(self, quadratic: Quadratic, b: Array) -> tuple[Array, float, FreeCurvature] | None:
        """The minimiser of ½ δᵀ P δ - bᵀ δ in the box, a bound from above on -2 times the minimum, and P between the
        free coordinates; None where the multipliers do not prove that it is the minimum.
        """
        found = minimise(quadratic, b, self._box, self._start)
        if found is None:
            return None
        delta, free = found
        force = b - quadratic.apply(delta)
        mu, nu = self._box.multipliers(delta, force)
        convex = quadratic.plus(2.0 * mu)
        P = convex.factor()
        if P is None:
            return None
        self._start = delta
        b = b - nu + mu * self._box.total
        left = b - convex.apply(delta)
        # As without a box; δ is at the bound where ν is not 0. What is rounded is given away.
        lost = 2.0 * float(nu @ delta) - 2.0 * float(mu @ self._box.product)
        rounded = ROUNDING * float((np.abs(b) + np.abs(nu)) @ np.abs(delta) + mu @ self._box.size)
        return delta, float((b + left) @ delta) + 2.0 * abs(float(left @ P.solve(left)[0])) + lost + rounded, free


def minimise(P: Quadratic, b: Array, box: Box, start: Array) -> tuple[Array, FreeCurvature] | None:
    """A minimiser of ½ δᵀ P δ - bᵀ δ in a box, and P between the coordinates that are free there; None where P is not
    positive definite between them on the way.
    """
    delta, pressed, whole = box.clip(start), None, False
    force = b - P.apply(delta)
    value = -0.5 * float((b + force) @ delta)
    free: FreeCurvature | None = None
    for _ in range(MOST_STEPS):
        now = box.pressed(delta, force)
        if pressed is None or not np.array_equal(now, pressed):
            free, pressed = P.on(~now), now
        elif whole:
            break
        if free is None:
            return None
        step, share = free.solve(force)[0], 1.0
        for _ in range(HALVINGS):
            aim = delta + share * step
            trial = box.clip(aim)
            its = b - P.apply(trial)
            after = -0.5 * float((b + its) @ trial)
            if after <= value:
                break
            share *= 0.5
        else:
            break
        whole = share == 1.0 and bool((trial == aim).all())
        last = whole and value - after <= LEAST_GAIN * abs(value)
        delta, force, value = trial, its, after
        if last:
            break
    return None if free is None else (delta, free)
