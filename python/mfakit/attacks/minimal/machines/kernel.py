"""Machines of RBF kernels: a near point by steps to the boundary and along it, and the largest ball that is proved.

Each class against the true one is a problem of its own; the radius is at least the least of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...._threads.process import single_threaded_products
from ...gradient.settings import Settings
from ...gradient.walk import FeatureWalk
from ...models.kernel import KernelVictim
from .bracket import Bracket
from .expansion import Expansion, Span
from .points import cross, slide
from .regions import Ball, Certified

__all__ = ["KernelBracketer"]

Array = NDArray[Any]

# Searches from flips that a proof ran into, at most.
RESTARTS = 8
# A bracket that is wider than this is searched for shorter points: from the last points at which bounds failed, from
# support vectors of the other class, and by the gradient attack in steps of 2^-k of the length.
OPEN, MOST_SUSPECTS, NEAR_SUPPORT, FINENESS, DETOUR = 1e-3, 8, 6, (3, 4, 5), 4
# A ball without a known flip is larger than what has to be proved by this, which is more than the first gap.
BEYOND = 1.001
# exp of less than minus this loses digits.
UNDERFLOW = 700.0
# Where no direction is uphill, starts are this share of a kernel's width away.
NUDGE = 1e-3


class KernelBracketer:
    """Brackets of a machine of RBF kernels."""

    def __init__(self, victim: KernelVictim, span: Span) -> None:
        self.victim, self.span = victim, span
        self.raise_if_cancelled: Callable[[], None] = lambda: None

    def resize(self, rows: int) -> None:
        """Nothing here depends on the height of a block."""

    def bracket(self, X: Array, y: Array | None) -> Bracket:
        """Brackets of samples X [n, d] of classes y [n], one after the other."""
        found = Bracket(self.victim, X, y)
        with single_threaded_products():  # the same bits with any number of threads
            for i in found.rows():
                self.raise_if_cancelled()
                found.put(int(i), *self._sample(found.here[i].copy(), int(found.state.y[i])))
        return found

    def _sample(self, x: Array, y: int) -> tuple[Array | None, float, int]:
        """A flip [d] or None, the radius that is proved, and the slices examined."""
        others = [c for c in range(self.victim.n_classes) if c != y]
        problems = [Problem(self, x, y, c) for c in others]
        least = min(p.length for p in problems)
        for problem in problems:
            problem.prove(least)
            least = min(least, problem.length)
        best = min(problems, key=lambda p: p.length)
        point = None if best.delta is None else x + best.f.displacement(best.delta)
        return point, min(p.radius for p in problems), sum(p.examined for p in problems)


class Problem:
    """One class against the true one around a sample: `delta` [n] is the nearest flip known, or None; `radius` what is
    proved.
    """

    def __init__(self, owner: KernelBracketer, x: Array, y: int, other: int) -> None:
        self.f = f = owner.span.expansion(x, y, other)
        self.owner, self.x, self.y = owner, x, y
        self.delta: Array | None = None
        self.radius, self.examined = 0.0, 0
        self.never = not (f.share < 0).any() and f.constant >= 0  # nothing pulls
        for start in () if self.never else _starts(f):
            self._try(start)
            if self.delta is not None:
                break

    @property
    def length(self) -> float:
        """Of the nearest flip known; infinite if there is none."""
        return np.inf if self.delta is None else float(np.linalg.norm(self.delta))

    def prove(self, least: float) -> None:
        """Certify as much as possible of the ball that no flip known is in; `least` is the length of the nearest one,
        of any class.
        """
        if self.never:
            self.radius = _seen(self.f)
            return
        found = self._certify(least)
        if self.delta is not None and found.radius < (1.0 - OPEN) * min(least, self.length):
            before = self.length
            for start in (*found.suspects[-MOST_SUSPECTS:], *self._other_starts()):
                self._try(start)
            if self.length < before:
                found = max(found, self._certify(least), key=lambda c: c.radius)
        everywhere = self.f.constant > 0 and found.radius >= _reach(self.f)
        self.radius = min(np.inf if everywhere else found.radius, _seen(self.f))

    def _certify(self, least: float) -> Certified:
        """The ball about the axis to the nearest flip; of flips that are run into the search goes on."""
        for restart in range(RESTARTS + 1):
            axis, length = self.delta, min(least, self.length)
            if axis is None:
                axis, length = _pull(self.f), least if least < np.inf else BEYOND * _reach(self.f)
            if not 0.0 < length < np.inf:
                break
            self.owner.raise_if_cancelled()
            found = Ball(self.f, axis).certify(length, stops=restart < RESTARTS)
            self.examined += found.examined
            if found.shorter is None:
                return found
            self._try(found.shorter)
        return Certified(0.0, None, 0)

    def _try(self, start: Array) -> None:
        """Keep the boundary's point that is found from `start` if it is the nearest."""
        self.owner.raise_if_cancelled()
        with np.errstate(over="ignore", invalid="ignore"):
            there = cross(self.f, start)
            there = None if there is None else slide(self.f, there)
        if there is not None and np.isfinite(there).all() and np.linalg.norm(there) < self.length:
            self.delta = there

    def _other_starts(self) -> Iterator[Array]:
        """The ends of the gradient attack in several step sizes, and support vectors that pull."""
        scale = np.frexp(self.length)[1]
        y = np.array([self.y])
        walk = FeatureWalk(self.owner.victim, self.x[None], y)
        for k in FINENESS:
            walk.restart(self.x[None])
            walk.run(Settings(step_size=float(np.ldexp(1.0, scale - k)), max_steps=DETOUR * 2**k))
            if walk.state.flipped[0]:
                yield self.f.coordinates(walk.here[0] - self.x)
        yield from _pulling(self.f)
        yield from _away(self.f)


def _starts(f: Expansion) -> Iterator[Array]:
    """Where to look for a flip from: the sample itself, a point beside it, and support vectors that pull."""
    here = np.zeros(f.to.shape[1])
    yield here
    yield NUDGE / np.sqrt(f.gamma) * _pull(f)
    yield from _pulling(f)
    yield from _away(f)


def _pulling(f: Expansion) -> Array:
    """The nearest support vectors that pull the sample out of its class, [., n]."""
    pulling = f.to[f.share < 0]
    return np.asarray(pulling[np.argsort(np.einsum("mn,mn->m", pulling, pulling))[:NEAR_SUPPORT]])


def _away(f: Expansion) -> Array:
    """Far from the nearest support vectors that hold the sample, where a constant that pulls decides, [., n]."""
    holding = f.to[f.share > 0]
    lengths = np.sqrt(np.einsum("mn,mn->m", holding, holding))
    nearest = np.argsort(lengths)[:NEAR_SUPPORT]
    nearest = nearest[(lengths[nearest] > 0) & (f.constant < 0)]
    return np.asarray(-_reach(f) * holding[nearest] / lengths[nearest, None])


def _pull(f: Expansion) -> Array:
    """A unit vector [n]: where L falls, or to a support vector that pulls, or anywhere."""
    ways = [-f.log_ratio(np.zeros(f.to.shape[1]))[1], *_pulling(f), -f.to.mean(axis=0), np.eye(f.to.shape[1])[0]]
    lengths = [float(np.linalg.norm(way)) for way in ways]
    return np.asarray(next(way / length for way, length in zip(ways, lengths, strict=True) if 0 < length < np.inf))


def _seen(f: Expansion) -> float:
    """Without a constant the machine computes 0 where all kernels underflow, and says the first class: a radius within
    which one that holds the sample does not. Infinite with a constant.
    """
    if f.constant or not (f.share > 0).any():
        return np.inf
    lengths = np.sqrt(np.einsum("mn,mn->m", f.to, f.to))
    nats = UNDERFLOW + f.log_size + f.gamma * lengths**2 + np.log(np.maximum(f.share, np.finfo(float).tiny))
    return max(0.0, float((np.sqrt(np.maximum(nats, 0.0) / f.gamma) - lengths).max()))


def _reach(f: Expansion) -> float:
    """A length beyond which there is no flip if the constant holds the sample, and that is worth proving if not."""
    longest = float(np.sqrt(np.einsum("mn,mn->m", f.to, f.to).max()))
    logs = (f.log_size + f.gamma * np.einsum("mn,mn->m", f.to, f.to))[f.share < 0]  # log |a|
    pull = float(np.log(np.exp(logs - logs.max()).sum()) + logs.max()) if len(logs) else -np.inf
    beyond = pull - np.log(f.constant) if f.constant > 0 else 1.0
    return longest + float(np.sqrt(max(beyond, 1.0) / f.gamma))
