"""Points beyond the boundary of one sample, ever nearer ones: the upper bounds of its bracket.

They come from the duals' minimisers, by their lines to the mixture's boundary. They are improved on that boundary by
majorisation: with φ the shares of the target class's components at the point, Σ φ_t log p_t + H(φ) is a lower bound on
log p_T that touches it there, so the nearest flip by that bound is a flip, and no farther away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .box import Box
from .components import Array, Side
from .duals import Duals, End, Problem
from .lagrangian import entropy, responsibilities
from .sample import Sample

__all__ = ["MOST_SOURCES", "Bracket", "Point", "Points", "active"]

# Sources of one dual, and targets of one majorant.
MOST_SOURCES, MOST_TARGETS = 6, 6
POLISH_ROUNDS = 30
# Steps along the boundary.
SLIDES = 40
# By how much a displacement is lengthened, relative, to cross the boundary inside a box.
BEYOND = np.geomspace(1e-8, 3.0, 12)


@dataclass(frozen=True)
class Point:
    """x + `delta` on the boundary or a rounding beyond, of length `length`, and log p of the components there [K]."""

    length: float
    delta: Array
    log_prob: Array


@dataclass
class Bracket:
    """What is known of one sample: no flip below `lower`, and the nearest `point` beyond the boundary, if any; and why
    the search ended early, if it did.
    """

    lower: float = 0.0
    point: Point | None = None
    n_pairs: int = 0
    n_duals: int = 0
    failure: str = ""

    @property
    def upper(self) -> float:
        """Its length; infinite if there is none."""
        return np.inf if self.point is None else self.point.length


class Points:
    """The points of a sample that count as flips by `side`, within `box` if there is one: the nearest is in `best`.

    `own` are the components of the classes that a flip leaves, `targets` those that it can reach.
    """

    def __init__(
        self, sample: Sample, duals: Duals, side: Side, own: Array, targets: Array, box: Box | None, best: Bracket
    ) -> None:
        self.sample, self.duals, self.side, self.own, self.targets = sample, duals, side, own, targets
        self.box, self.best, self.q = box, best, sample.components
        self.starts: list[Point] = []  # of descents

    def try_end(self, end: End) -> Point | None:
        """A dual's minimiser, pushed to the boundary; in the hard case also what completes it. The nearest point."""
        if end.delta is None:
            return None
        points = [p for p in map(self.push, (end.delta, *end.aside)) if p is not None]
        return min(points, key=lambda p: p.length, default=None)

    def push(self, delta: Array) -> Point | None:
        """The point where the line through δ crosses the mixture's boundary, kept as the best if it is the nearest."""
        if self.box is not None:
            delta = self.box.clip(delta)
        line = self.sample.line(delta)
        if not 0.0 < line.length < np.inf:
            return None
        limit = np.inf if self.box is None else self.box.limit(delta)
        tau = line.crossing(self.side, self.best.lower / line.length, 1.0, limit)
        if tau < np.inf:
            return self._keep(Point(tau * line.length, tau * delta, line.log_prob(tau)))
        return None if self.box is None else self._push_along(delta, self.box)

    def _push_along(self, delta: Array, box: Box) -> Point | None:
        """The same where the line leaves the box first: from δ towards longer ones, each moved into the box."""
        ways = box.clip((1.0 + BEYOND)[:, None] * delta) - delta
        lead = self.side.lead(self.q.class_totals(self.sample.log_prob_at(delta + ways)))
        for way in ways[lead > 0.0]:
            line = self.sample.line(way, delta)
            share = line.crossing(self.side, 0.0, 1.0, 1.0)
            if share < np.inf:
                there = delta + share * way
                return self._keep(Point(float(np.linalg.norm(there)), there, line.log_prob(share)))
        return None

    def _keep(self, point: Point) -> Point:
        """Note a point as a start of descents, and as the best one if it is."""
        self.starts.append(point)
        if point.length < self.best.upper:
            self.best.point = point
        return point

    def walk_across(self, least: float) -> None:
        """A first point by the gradient attack in steps of an eighth of a length below which nothing flips, where no
        pair has given one.
        """
        if not 0.0 < least < np.inf:
            return
        delta, height, both = np.zeros_like(self.sample.x), self.sample.log_prob, np.array([1.0, -1.0])
        for _ in range(200):
            t, s = (numbers[np.argmax(height[numbers])] for numbers in (self.targets, self.own))
            g = self.sample.gradient_at(delta, np.array([t, s]), both)
            length = float(np.linalg.norm(g))
            if not 0.0 < length < np.inf:
                return
            delta = delta + least / 8.0 * g / length
            delta = delta if self.box is None else self.box.clip(delta)
            height = self.sample.log_prob_at(delta[None])[0]
            if self.side.lead(self.q.class_totals(height)) > 0.0:
                self.push(delta)
                return

    def cross_to(self, targets: Array) -> None:
        """Points on the way to the means of some targets, moved into the box."""
        for t in targets:
            self.push(self.q.means[t] - self.sample.x)

    def polish(self, most: int = 1) -> None:
        """Descend from the nearest points found since the last descent, at most `most` of them."""
        starts, self.starts = sorted(self.starts, key=lambda p: p.length)[:most], []
        for point in starts:
            for _ in range(POLISH_ROUNDS):
                nearer = self._majorise(point)
                if nearer is None or not nearer.length < point.length * (1.0 - 1e-9):
                    break
                point = nearer
        if most > 1:
            self._slide()

    def _slide(self) -> None:
        """Where sources tie on a ridge the dual may not end there: slide along the boundary towards x."""
        share = 1.0
        for _ in range(SLIDES):
            point = self.best.point
            if point is None or share < 1e-6:
                return
            g = self.sample.margin_gradient(point.delta, point.log_prob, self.side)
            if self.box is not None:  # what is pressed against a bound cannot slide
                g = np.where(self.box.pressed(point.delta, g), 0.0, g)
            aside = point.delta - g * float(point.delta @ g / max(g @ g, 1e-300))
            nearer = self.push(point.delta - share * aside)
            share = 2.0 * share if nearer is self.best.point else 0.25 * share

    def _majorise(self, point: Point) -> Point | None:
        """The nearest flip by the bounds on log p that touch at a point, on the boundary."""
        rival = self.q.members(self.side.winner(self.q.class_totals(point.log_prob)))
        targets, phi = active(point.log_prob, rival, MOST_TARGETS)
        sources, theta = active(point.log_prob, self.own, MOST_SOURCES)
        problem = Problem(targets, phi, entropy(phi), sources, safe=False)
        # At a nearest point δ = Λ ∇(log p_T - log p_S), and the shares there are θ.
        slope = self.duals.slope(problem, theta, point.delta)
        return self.try_end(self.duals.maximise(problem, theta, point.length / slope)) if slope > 0.0 else None


def active(log_prob: Array, members: Array, most: int, least: float = 1e-9) -> tuple[list[int], Array]:
    """The components among `members` that matter at a point, at most `most` with shares above `least`, and their
    shares, which sum to 1.
    """
    order = members[np.argsort(-log_prob[members], kind="stable")][:most]
    shares = responsibilities(log_prob[order])
    keep = shares > least
    return [int(j) for j in order[keep]], shares[keep] / shares[keep].sum()
