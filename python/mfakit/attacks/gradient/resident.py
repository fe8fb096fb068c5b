"""The walk of the gradient attack on a device, where the points and what is known of them stay from step to step.

The host looks every few steps: it takes down who has ended, and these are dropped. What a step would have to ask the
device for is answered there: lists of candidates have room for the usual number, and samples that have ended are led by
pairs that are none. Where that may be wrong (many candidates, samples far away), the block is done again step by step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..._arrays.rows import gather, scatter
from ..bounds import moved_inside
from ..models.aimed import recorded
from ..models.bayes import MixtureVictim, ThereChoice
from ..state import Choice
from .settings import Settings
from .walk import BISECTIONS, FeatureWalk

__all__ = ["ResidentWalk"]

Array = Any  # CuPy's

# Steps between two looks of the host: samples that end are carried on for half of them, on average.
LOOK_STEPS = 16
# How a sample has ended, by number; the first one has not.
REASONS = np.array(["max_steps", "flipped", "no gradient"])
WALKING, FLIPPED, STUCK = range(3)


@dataclass(frozen=True)
class _Samples:
    """Samples on their way, n of them, on the device."""

    here: Array  # [n, d]
    before: Array  # [n, d]
    y: Array  # [n] classes that decide on success
    choice: ThereChoice
    end: Array  # [n]
    n_steps: Array  # [n]
    doubt: Array  # []

    def take(self, rows: Array) -> _Samples:
        """Some of them."""
        arrays = (self.here, self.before, self.y, self.end, self.n_steps)
        here, before, y, end, n_steps = (array[rows] for array in arrays)
        choice = ThereChoice._make(part[rows] for part in self.choice)
        return _Samples(here, before, y, choice, end, n_steps, self.doubt)


class ResidentWalk(FeatureWalk):
    """A :class:`FeatureWalk` of a Bayes classifier's samples that are on a device."""

    def _run_rows(self, settings: Settings, rows: np.ndarray[Any, Any]) -> None:
        victim: MixtureVictim = getattr(self.victim, "plain", self.victim)
        start = gather(self.here, rows), self.state.n_steps[rows]
        if not self._walk(victim, settings, rows) or (settings.polish and not self._bisect(victim, rows)):
            scatter(self.here, rows, start[0])
            scatter(self.before, rows, start[0])
            self.state.flipped[rows], self.state.reason[rows], self.state.n_steps[rows] = False, "max_steps", start[1]
            super()._run_rows(settings, rows)
            return
        state = self.state
        if state.goal is not None:
            state.choice.put(rows, recorded(state.choice.take(rows), state.y[rows], state.goal[rows]))

    def _walk(self, victim: MixtureVictim, settings: Settings, rows: np.ndarray[Any, Any]) -> bool:
        """Step until every sample has ended; returns whether that can be believed."""
        xp, asarray = victim.arrays.xp, victim.arrays.asarray
        none = xp.full(len(rows), -1)
        here = gather(self.here, rows)
        samples = _Samples(
            here, here, asarray(self.state.aim[rows]), ThereChoice(none, none, none), xp.zeros(len(rows), np.int64),
            xp.zeros(len(rows), np.int64), xp.zeros((), bool),
        )  # fmt: skip
        for step in range(settings.max_steps + 1):
            samples = self._step_there(victim, samples, settings, step)
            last = step == settings.max_steps
            if last or (step + 1) % LOOK_STEPS == 0:
                victim.raise_if_cancelled()
                left = self._take_down(victim, samples, rows, last)
                if left is None:
                    return False
                if not len(left):
                    break
                rows, samples = rows[left], samples.take(asarray(left))
        return True

    def _step_there(self, victim: MixtureVictim, samples: _Samples, settings: Settings, step: int) -> _Samples:
        """Who has flipped, and a step of the others unless it was the last one."""
        xp, here, end = victim.arrays.xp, samples.here, samples.end
        joint, choice, doubt = victim.scores_there(here, samples.y)
        end = xp.where((end == WALKING) & self._reached(joint, samples.y), FLIPPED, end)
        walking, doubt = end == WALKING, samples.doubt | doubt
        if step == settings.max_steps:
            return replace(samples, end=end, doubt=doubt)
        if not (settings.frozen and step > 0):
            choice = ThereChoice._make(
                xp.where(walking, new, old) for new, old in zip(choice, samples.choice, strict=True)
            )
        else:
            choice = samples.choice
        direction = victim.direction_there(here, samples.y, choice, walking)
        new = here.copy()
        victim.ops.attack_step(new, -direction if self.state.goal is not None else direction, settings.step_size)
        new = moved_inside(new, self.limits)
        moved = walking & (new != here).any(axis=1)
        end = xp.where(walking & ~moved, STUCK, end)
        before = xp.where(moved[:, None], here, samples.before) if settings.polish else samples.before
        return _Samples(new, before, samples.y, choice, end, samples.n_steps + moved, doubt)

    def _reached(self, joint: Array, y: Array) -> Array:
        """Which samples are led astray, or to their goals, by their scores [n, C]."""
        decision = joint.argmax(axis=1)
        return decision != y if self.state.goal is None else decision == y

    def _take_down(
        self, victim: MixtureVictim, samples: _Samples, rows: np.ndarray[Any, Any], last: bool
    ) -> np.ndarray[Any, Any] | None:
        """Note which of the samples, those of `rows`, have ended; returns the indices of those that have not, or None
        where there is doubt. The device is waited for.
        """
        xp, state, n = victim.arrays.xp, self.state, len(rows)
        known = [samples.end, samples.n_steps, *samples.choice, xp.zeros(n, np.int64) + samples.doubt]
        end, n_steps, source, target, target_class, doubt = victim.arrays.to_host(xp.stack(known))
        if doubt.any():
            return None
        ended = np.flatnonzero((end != WALKING) | last)
        which, there = rows[ended], victim.arrays.asarray(ended)
        state.flipped[which], state.reason[which] = end[ended] == FLIPPED, REASONS[end[ended]]
        state.n_steps[which] = n_steps[ended]
        chosen = Choice(len(ended))
        chosen.source, chosen.target, chosen.target_class = source[ended], target[ended], target_class[ended]
        state.choice.put(which, chosen)
        scatter(self.here, which, samples.here[there])
        scatter(self.before, which, samples.before[there])
        return np.flatnonzero((end == WALKING) & (not last))

    def _bisect(self, victim: MixtureVictim, rows: np.ndarray[Any, Any]) -> bool:
        """:meth:`polish` without asking the device; returns whether that can be believed."""
        rows = rows[self.state.flipped[rows] & (self.state.n_steps[rows] > 0)]
        if not len(rows):
            return True
        xp, y = victim.arrays.xp, victim.arrays.asarray(self.state.aim[rows])
        low, high, doubt = gather(self.before, rows), gather(self.here, rows), xp.zeros((), bool)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            joint, _, doubtful = victim.scores_there(middle, y)
            crossed, doubt = self._reached(joint, y)[:, None], doubt | doubtful
            low, high = xp.where(crossed, low, middle), xp.where(crossed, middle, high)
        scatter(self.before, rows, low)
        scatter(self.here, rows, high)
        return not bool(doubt)
