"""The duals of one sample: which quadrics to maximise over λ, in NumPy or by compiled code.

Both do the same, to rounding: :mod:`mfakit.attacks.minimal.lagrangian`, :mod:`mfakit.attacks.minimal.box` and
:mod:`mfakit.attacks.minimal.roots` are the readable version of ``csrc/include/mfakit/feature_ascent.hpp`` and of the
headers that it includes. Compiled searches hold no GIL, so that samples share the cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...backends.duals import FeatureBox, FeatureProblem, Found, HowFar, highest_in_ball, search_dual, slope_at
from .box import Box, BoxLagrangian
from .components import Array
from .lagrangian import Lagrangian
from .roots import Root, highest_within, maximise, nearest_on_quadric, with_top_direction
from .sample import Sample

__all__ = ["CompiledDuals", "Duals", "End", "Problem", "duals_of"]


class Problem(NamedTuple):
    """Flips need Σ_t φ_t log p_t + offset ≥ log Σ_i p_{s_i}.

    Without `safe` what rounding may do is not allowed for, and without `boxed` the box counts as all of space.
    """

    targets: Sequence[int]
    phi: Array
    offset: float
    sources: Sequence[int]
    safe: bool = True
    boxed: bool = True


@dataclass(frozen=True)
class End:
    """Where a search ended: the radius proved; with a dual its λ [m], δ [d] and, in the hard case, `aside` of it the
    points that complete it, [d] each.
    """

    radius: float
    lam: Array | None = None
    delta: Array | None = None
    aside: list[Array] = field(default_factory=list)


class Duals:
    """The searches of :mod:`mfakit.attacks.minimal.roots` at one sample, within `box` if there is one."""

    def __init__(self, sample: Sample, box: Box | None) -> None:
        self.sample, self.box = sample, box

    def nearest(self, problem: Problem, theta: Array, guess: float | None = None, enough: float = np.inf) -> End:
        """Over Λ = Σ λ alone, the sources' shares being θ [m]; ends once `enough` is proved."""
        L = self._lagrangian(problem)
        return self._end(L, nearest_on_quadric(L, theta, guess, enough))

    def maximise(self, problem: Problem, theta: Array, guess: float | None = None, enough: float = np.inf) -> End:
        """Over all λ, from the shares θ [m] on."""
        L = self._lagrangian(problem)
        return self._end(L, maximise(L, theta, guess, enough))

    def highest_within(self, problem: Problem, radius: float) -> float:
        """A bound on the constraint over ‖δ‖ ≤ radius, for one source; at most 0."""
        return highest_within(self._lagrangian(problem), radius)

    def slope(self, problem: Problem, theta: Array, delta: Array) -> float:
        """The length of the constraint's gradient at x + δ."""
        L = self._lagrangian(problem)
        return float(np.linalg.norm(theta @ (L.b + L.bend(delta))))

    def _lagrangian(self, problem: Problem) -> Lagrangian:
        targets, phi, offset, sources, safe, boxed = problem
        if self.box is None or not boxed:
            return Lagrangian(self.sample, targets, phi, offset, sources, safe)
        return BoxLagrangian(self.sample, targets, phi, offset, sources, self.box, safe)

    @staticmethod
    def _end(L: Lagrangian, root: Root) -> End:
        if root.dual is None:
            return End(root.radius)
        aside = with_top_direction(L, root.dual) if root.at_pole else []
        return End(root.radius, root.dual.lam, root.dual.delta, aside)


class CompiledDuals(Duals):
    """The same by compiled code."""

    def nearest(self, problem: Problem, theta: Array, guess: float | None = None, enough: float = np.inf) -> End:
        """As :meth:`Duals.nearest`."""
        return self._search(problem, theta, guess, enough, False)

    def maximise(self, problem: Problem, theta: Array, guess: float | None = None, enough: float = np.inf) -> End:
        """As :meth:`Duals.maximise`."""
        return self._search(problem, theta, guess, enough, True)

    def highest_within(self, problem: Problem, radius: float) -> float:
        """As :meth:`Duals.highest_within`."""
        return highest_in_ball(self.sample.operand, self._operand(problem), self._limits(problem), radius, -40.0)

    def slope(self, problem: Problem, theta: Array, delta: Array) -> float:
        """As :meth:`Duals.slope`."""
        return slope_at(self.sample.operand, self._operand(problem), theta, delta)

    def _search(self, problem: Problem, theta: Array, guess: float | None, enough: float, every: bool) -> End:
        found, limits = Found.empty(len(theta), len(self.sample.x)), self._limits(problem)
        box = None if limits is None else self.box
        farthest, tolerance = (np.inf, 0.0) if box is None else (box.farthest, BoxLagrangian.tolerance)
        how = HowFar(guess or 0.0, enough, farthest, tolerance, every)
        radius, has_dual, has_aside = search_dual(
            self.sample.operand, self._operand(problem), limits, np.ascontiguousarray(theta), how, found
        )
        return End(radius, found.lam, found.delta, list(found.aside) if has_aside else []) if has_dual else End(radius)

    def _limits(self, problem: Problem) -> FeatureBox | None:
        return None if self.box is None or not problem.boxed else FeatureBox(self.box.low, self.box.high)

    def _operand(self, problem: Problem) -> FeatureProblem:
        targets, sources = (np.asarray(numbers, np.int64) for numbers in (problem.targets, problem.sources))
        q = self.sample.components
        equal = len(targets) == len(sources) == 1 and q.same_density(int(sources[0]), int(targets[0]))
        return FeatureProblem(targets, problem.phi, float(problem.offset), sources, problem.safe, equal)


def duals_of(sample: Sample, box: Box | None) -> Duals:
    """Those of a sample, compiled where its components say so."""
    return (CompiledDuals if sample.components.compiled else Duals)(sample, box)
