"""Walks of the gradient attack, a block of samples at a time: in d dimensions, or in factor coordinates."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._arrays.rows import array_module, gather, scatter, to_numpy
from ..._threads.process import interruptible
from ...backends.operands import Coordinates, Points, WalkSettings
from ...backends.walk_ends import ENDS
from ..bounds import Limits, moved_inside
from ..coordinates import FactorCoordinates
from ..models.aimed import Aimed, recorded
from ..models.bayes import MixtureVictim
from ..models.differentiable import GradientVictim
from ..state import Choice, State
from .settings import Settings

__all__ = ["FactorWalk", "FeatureWalk", "in_parts", "may_take_long", "within_class"]

Array = NDArray[Any]

# Halvings of the last step: 0.05 · 2^-40 is 5e-14, below the rounding of a float64 pixel sum.
BISECTIONS = 40
# A walk in factor coordinates whose parts are this many times longer than their sum can be, as where components have
# loadings in all directions and tiny noise, has lost its digits, and is walked again in the d features.
CANCELLING = 1e3
# Time that a call of the kernel should take; the longest time of a step, used until the first call is timed.
PART_SECONDS, STEP_SECONDS = 0.1, 4e-6


class FeatureWalk:
    """The walk of a block of samples, which are at `here` [n, d] float64 and were at `before` [n, d] a step earlier.

    It ends where the decision is not y [n] or, with a `goal` [n], where it is that class, and stays within the limits.
    """

    def __init__(
        self, victim: MixtureVictim | GradientVictim, X: Array, y: Array | None, goal: Array | None = None,
        limits: Limits = None,
    ) -> None:  # fmt: skip
        self.victim: Any = victim if goal is None else Aimed(victim)
        self.limits = limits
        self.here = X.astype(np.float64)
        self.before = self.here.copy()
        self.state = State.of(victim, self.here, y, goal)

    def restart(self, X: Array) -> None:
        """Back to the samples X [n, d] that it was made with, for another run."""
        self.here, self.before, state = X.astype(np.float64), X.astype(np.float64), self.state
        state.flipped[:], state.n_steps[:] = False, 0
        state.reason[~state.already_wrong] = "max_steps"

    def run(self, settings: Settings) -> None:
        """Step until every sample has flipped, cannot move, or has used up its steps; finished samples are dropped."""
        self._run_rows(settings, np.flatnonzero(~self.state.already_wrong))

    def _run_rows(self, settings: Settings, rows: Array) -> None:
        """The same for some samples that are still at their start."""
        state, active = self.state, rows
        for step in range(settings.max_steps + 1):
            if not len(active):
                break
            X, y = gather(self.here, active), state.aim[active]
            joint, choice = self.victim.scores(X, y)
            undecided = np.isnan(joint).any(axis=1)
            crossed = state.reached(joint.argmax(axis=1), active) & ~undecided
            state.flipped[active[crossed]] = True
            state.reason[active[crossed]], state.reason[active[undecided]] = "flipped", "NaN logits"
            done = crossed | undecided
            if step == settings.max_steps:
                break
            active, X, y, choice = active[~done], gather(X, ~done), y[~done], choice.take(~done)
            if settings.frozen and step > 0:
                choice = state.choice.take(active)
            state.choice.put(active, choice)
            moved = self._step(active, X, y, choice, settings)
            state.reason[active[~moved]] = "no gradient"
            active = active[moved]
            state.n_steps[active] += 1
        if state.goal is not None:
            state.choice.put(rows, recorded(state.choice.take(rows), state.y[rows], state.goal[rows]))
        if settings.polish:
            self.polish(rows)

    def _step(self, active: Array, X: Array, y: Array, choice: Choice, settings: Settings) -> Array:
        """One step of the active samples, which are at X; returns which of them moved."""
        direction = self.victim.direction(X, y, choice)
        new = X.copy()
        self.victim.ops.attack_step(new, direction, settings.step_size, self.victim.threads)
        new = moved_inside(new, self.limits)
        moved = to_numpy((new != X).any(axis=1))
        scatter(self.before, active, X)
        scatter(self.here, active, new)
        return moved

    def polish(self, rows: Array) -> None:
        """Bisect the last step of those that flipped: `before` stays inside the true class, `here` outside."""
        rows = rows[self.state.flipped[rows] & (self.state.n_steps[rows] > 0)]
        if not len(rows):
            return
        y, low, high, victim = (
            self.state.aim[rows],
            gather(self.before, rows),
            gather(self.here, rows),
            self.victim.strict(),
        )
        xp = array_module(low)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            joint = victim.scores(middle, y)[0]
            reached = self.state.reached(joint.argmax(axis=1), rows) & ~np.isnan(joint).any(axis=1)
            crossed = xp.asarray(reached)[:, None]
            low, high = xp.where(crossed, low, middle), xp.where(crossed, middle, high)
        scatter(self.before, rows, low)
        scatter(self.here, rows, high)


class FactorWalk(FeatureWalk):
    """The same walk without anything of length d, for isotropic mixtures; float64 state."""

    victim: MixtureVictim

    def __init__(
        self, victim: MixtureVictim, X: Array, y: Array | None, coordinates: FactorCoordinates,
        goal: Array | None = None,
    ) -> None:  # fmt: skip
        super().__init__(victim, X, y, goal)
        self.coordinates = coordinates

    def run(self, settings: Settings) -> None:
        """Walk every sample to its end, one after the other."""
        state, arrays = self.state, self.victim.arrays
        q, xp = self.coordinates.on(arrays), arrays.xp
        active = np.flatnonzero(~state.already_wrong)
        a, sq = q.project(gather(self.here, active))
        w, alpha, start = xp.zeros_like(a), xp.ones(len(active)), xp.sqrt(sq)
        reports = xp.empty((len(active), 5), np.int64)
        self._walk(q, settings, (arrays.asarray(state.y[active]), a, w, alpha, sq, reports))
        reports = arrays.to_host(reports)
        ends = np.array(ENDS)[reports[:, 0]]
        state.flipped[active], state.reason[active] = ends == "flipped", ends
        state.n_steps[active] = reports[:, 1]
        chosen = Choice(len(active))
        chosen.target_class = reports[:, 4]
        first = self.coordinates.first
        chosen.source = within_class(reports[:, 2], state.y[active], first)
        chosen.target = within_class(reports[:, 3], chosen.target_class, first)
        state.choice.put(active, chosen)
        # Right in the d features but wrong by inner products, or without digits in these.
        parts = arrays.to_host(xp.abs(alpha) * start + xp.abs(w) @ xp.sqrt(xp.diagonal(q.gram)))
        within = parts <= CANCELLING * (arrays.to_host(start) + state.n_steps[active] * settings.step_size)
        astray = (ends == "already wrong") | (ends == "no gradient") | ~within
        kept, again = np.flatnonzero(~astray), active[astray]
        moved = q.points(gather(self.here, active), alpha, w)
        scatter(self.here, active[kept], gather(moved, kept))
        if len(again):
            state.flipped[again], state.n_steps[again], state.reason[again] = False, 0, "max_steps"
            self._run_rows(settings, again)

    def _walk(self, q: FactorCoordinates, settings: Settings, arrays: tuple[Array, ...]) -> None:
        """Run the kernel. On the host a call takes few enough samples that Ctrl-C is answered between two calls, and
        is abandoned on Ctrl-C if a single sample may take long; the steps of a sample are known only afterwards.
        `arrays` [n, ...] are y and the arrays that the kernel changes.
        """
        threads, on_device = self.victim.threads, self.victim.arrays.is_device
        long = not on_device and may_take_long(settings)
        coordinates = Coordinates(*q.kernel_arguments)
        bisections = BISECTIONS if settings.polish else 0
        steps = WalkSettings(settings.step_size, settings.max_steps, settings.frozen, bisections)

        def part(y: Array, a: Array, w: Array, alpha: Array, sq: Array, reports: Array) -> None:
            args: tuple[Any, ...] = coordinates, y, steps, Points(a, w, alpha, sq), reports, threads
            walk = self.victim.ops.factor_walk
            interruptible(walk, *args) if long else walk(*args)

        rows = int(threads * PART_SECONDS / (STEP_SECONDS * max(settings.max_steps, 1)))
        in_parts(self.victim, part, arrays, len(arrays[0]) if on_device else max(threads, rows))


def in_parts(victim: MixtureVictim, work: Callable[..., None], arrays: tuple[Array, ...], rows: int) -> None:
    """Call ``work(*parts)`` for some rows of the arrays [n, ...] at a time, so that Ctrl-C is answered in between:
    `rows` of them at first, then as many as take PART_SECONDS.
    """
    start = 0
    while start < len(arrays[0]):
        victim.raise_if_cancelled()
        began = time.perf_counter()
        work(*(array[start : start + rows] for array in arrays))
        start += rows
        seconds = max(time.perf_counter() - began, 1e-6)
        rows = max(victim.threads, int(rows * min(4.0, PART_SECONDS / seconds)))


def may_take_long(settings: Settings) -> bool:
    """Whether a single sample's walk in factor coordinates, which is one call of the kernel, may take long."""
    return STEP_SECONDS * settings.max_steps > 2 * PART_SECONDS


def within_class(component: Array, cls: Array, first: Array) -> Array:
    """Component numbers within their class, from numbers over all classes; -1 stays."""
    return np.where(component < 0, -1, component - first[np.maximum(cls, 0)])
