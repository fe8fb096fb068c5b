"""The search for one sample's bracket in d features; the proof is in :mod:`mfakit.attacks.minimal.attack`, the algebra
in :mod:`mfakit.attacks.minimal.lagrangian`.

Pairs (likeliest source, target) first, each only as far as its bound stays below the best point known. Then, from the
smallest bound upwards, what the other components of the target's class can add is bounded within the ball that is known
to hold a flip, and more sources join the dual, while the bound is below that point.

The duals' minimisers are tried as flips (:mod:`mfakit.attacks.minimal.points`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..rounding import ROUNDING
from .box import Box
from .components import Array, Components, Side
from .duals import Problem, duals_of
from .lagrangian import responsibilities
from .majorant import Majorant
from .points import MOST_SOURCES, Bracket, Point, Points, active
from .sample import Sample

__all__ = ["Search"]

# A source joins the dual if its density at the dual's point is at least e^-this of the target's.
WORTH_ADDING = 12.0
# The share that it begins with.
FIRST_SHARE = 1e-2
# Points that a pass descends from, and passes.
MOST_STARTS, PASSES = 4, 3
# Cuts of one target's problem.
MOST_CUTS = 48
# Share of the gap that a cut must be predicted to close.
VISIBLE = 1e-2
# Relative gap below which neither a cut nor a tighter ball is tried.
CLOSED = 1e-4
# Duals of one sample after which no piece is divided; how far below the likeliest target others are set apart, nats;
# and how often the pull of one that is near it is halved.
MOST_DUALS = 200
LEAST_LEAD, MOST_LEAD = 1.0, 30.0
# How far below where the dual does not say it: below this share of the radius that is asked for.
USUAL_LEAD, KNOWN_FROM = 14.0, 0.1
PULLS = 6
# A point decides about a radius that is larger than its length by this, relative: it is still to be rounded.
AT_LEAST = 1e-6
# Sources with at least this share at the best point start in the dual.
ACTIVE = 1e-4
# Relative gap that is not closed further in a box.
BOX_LOOSE = 1e-4
# Nats by which components of the target's class that play no part are to be below the likeliest one.
APART = 14.0


@dataclass
class _Piece:
    """A piece of a target's problem: the radius proved, by which sources and λ, and log p [K] where the dual ends."""

    majorant: Majorant
    bound: float
    sources: list[int]
    lam: Array
    log_prob: Array


class Search:
    """The search of one sample: `bounds` [K] of the targets rise, and `best` shrinks.

    x [d] is rightly decided for class `y`; with a `goal` only points that are decided for that class count, and in a
    `box` only points inside it. `known` is a radius within which nothing flips, x + `guess` may be close to a flip, and
    `radii` are those of which it is asked whether there is a flip within them: None asks for the bracket itself.
    """

    def __init__(
        self, components: Components, x: Array, y: int, goal: int | None = None, box: Box | None = None,
        known: float = 0.0, radii: Array | None = None, guess: Array | None = None,
    ) -> None:  # fmt: skip
        self.q, self.box, self.radii, self.guess = components, box, radii, guess
        self.farthest = np.inf if box is None else box.farthest
        # In a box every evaluation costs several times more.
        self.loose = BOX_LOOSE if box is not None and radii is None else 0.0
        self.sample = Sample(components, x)
        self.duals = duals_of(self.sample, box)
        classes = range(len(components.first) - 1)
        members = [components.members(c) for c in classes]
        self.side = Side(y) if goal is None else Side(goal, -1.0)
        inside = [members[c] for c in classes if (c == y if goal is None else c != goal)]
        beyond = [members[c] for c in classes if (c != y if goal is None else c == goal)]
        self.own, self.targets = np.concatenate(inside), np.concatenate(beyond)
        self.bounds = np.full(len(components.means), np.inf)
        self.best = Bracket(known)
        order = np.argsort(-self.sample.log_prob[self.own], kind="stable")
        self.own = self.own[order]  # the likeliest first
        self.bounds[self.targets] = 0.0
        self.points = Points(self.sample, self.duals, self.side, self.own, self.targets, box, self.best)

    @property
    def enough(self) -> float:
        """The radius that bounds have to reach: that of the best point or, where radii are asked for, the largest of
        them below it; 0 where nothing is left to prove.
        """
        if self.radii is None:
            return self.best.upper
        return float(self.radii[self.radii < self.best.upper * (1.0 + AT_LEAST)].max(initial=0.0))

    def run(self) -> Bracket:
        """The bracket of the sample, as far as it can be closed."""
        best = self.best
        if not np.isfinite(self.sample.log_prob[self.own].max(initial=-np.inf)):
            best.failure = "its log-densities are beyond float64"
            return best
        nearby = self.sample.log_prob
        if self.guess is not None:
            self.points.push(self.guess)
            nearby = self.sample.log_prob_at(self.guess[None])[0]
        if best.lower >= self.enough:
            return best
        self._screen(self.targets[np.argsort(-nearby[self.targets], kind="stable")])
        if best.upper == np.inf and len(self.targets) and self.bounds.min() < self.enough:
            self.points.walk_across(float(self.bounds[self.targets].min()))
        if best.upper == np.inf and self.box is not None:
            self.points.cross_to(self.targets[self.bounds[self.targets] < np.inf])
        self.points.polish()
        for _ in range(PASSES):
            radius = min(self.enough, self.farthest)
            self._refine_all(radius * (1.0 + 1e-9))
            proved = min(float(self.bounds.min()), radius if radius < self.farthest else np.inf)
            best.lower = max(best.lower, min(proved, best.upper))  # up to rounding
            missing = self.enough - best.lower
            if missing > CLOSED * best.upper:
                self.points.polish(MOST_STARTS)
            if missing <= CLOSED * best.upper or not self.enough < 0.98 * radius:
                break
        return best

    def descend(self, delta: Array, lower: float) -> Point | None:
        """The nearest point that a descent along the boundary from x + δ finds; nothing flips below `lower`."""
        self.best.lower = lower
        self.points.push(delta)
        self.points.polish(MOST_STARTS)
        return self.best.point

    def _screen(self, targets: Array) -> None:
        """Bounds of the targets against the likeliest source, with c_t = log|T|; the nearest pairs give points. In a
        box most pairs are out of reach already without it.
        """
        source, guess = self.own[0], None
        sizes = np.array([len(self.q.members(c)) for c in range(len(self.q.first) - 1)])
        offsets = np.log(sizes[self.q.owner[targets]])
        self.bounds[targets] = self._least_distances(source, targets, offsets)
        for t, offset in zip(targets, offsets, strict=True):
            if self.bounds[t] >= self.enough:
                continue
            self.best.n_pairs += 1
            problem = Problem([t], np.ones(1), offset, [source], boxed=False)
            end = self.duals.nearest(problem, np.ones(1), guess, self.enough)
            if self.box is not None and end.radius < self.enough:
                guess = None if end.lam is None else float(end.lam[0])
                end = self.duals.nearest(problem._replace(boxed=True), np.ones(1), guess, self.enough)
            self.bounds[t] = max(self.bounds[t], end.radius)
            if end.lam is not None and end.radius < self.enough:
                guess = float(end.lam[0])
                self.points.try_end(end)

    def _least_distances(self, s: int, targets: Array, offset: Array | float) -> Array:
        """Bounds in O(1) each: roots of Mahalanobis distances change by at most √max 1/D along a unit vector."""
        q, x = self.q, self.sample
        # A flip at distance r needs (m_t - a_t r)² ≤ lead + (m_s + a_s r)².
        lead = 2.0 * (q.log_const[targets] + offset - q.log_const[s] + x.rounding[s] + x.rounding[targets])
        room = x.farthest[s] + np.sqrt(np.maximum(lead, 0.0))  # √(lead + v²) ≤ √lead + v for lead ≥ 0, and ≤ v for less
        slope = q.steepness[targets] + q.steepness[s]
        return np.asarray(np.maximum(0.0, (x.nearest[targets] - room) / slope * (1.0 - 1e-9)))

    def _refine_all(self, radius: float) -> None:
        """The targets in the order of their bounds, while they can still beat the best point."""
        open_targets = list(self.targets)
        while open_targets:
            t = min(open_targets, key=lambda j: float(self.bounds[j]))
            if not self._is_open(self.bounds[t]):
                return
            open_targets.remove(t)
            self._refine(t, radius)

    def _is_open(self, bound: float) -> bool:
        """Whether a higher bound is worth its cost."""
        return bound < (1.0 - self.loose) * self.enough

    def _refine(self, t: int, radius: float) -> None:
        """Tighten the bound of one target: more sources, and what t's class adds to it on ever smaller pieces."""
        others = np.array([j for j in self.q.members(self.q.owner[t]) if j != t], np.int64)
        low = np.zeros(len(others))
        if self.box is None:  # there a bound on each of them costs little
            low = -self._largest_log_ratios(others, t, radius)
        whole, floor = self._solve(Majorant.whole(t, others, low), None), np.inf
        if self.box is not None and len(others) and self._is_open(whole.bound):
            low, floor = self._apart(whole)
            near = low == 0.0
            low[near] = -self._largest_log_ratios(others[near], t, radius)
            whole = self._solve(Majorant.whole(t, others, low), whole)
        pieces = [whole]
        for _ in range(MOST_CUTS):
            worst = min(pieces, key=lambda p: p.bound)
            self.bounds[t] = max(self.bounds[t], min(floor, worst.bound))
            parts = None if self._is_closed(worst) else self._parts(worst)
            if parts is None:
                return
            pieces = [p for p in pieces if p is not worst] + parts
        self.bounds[t] = max(self.bounds[t], min(floor, *(p.bound for p in pieces)))

    def _apart(self, whole: _Piece) -> tuple[Array, float]:
        """How far the other components j are below t at every flip nearer than is asked for, [m], APART or 0; and the
        least length of the flips where they are not, as far as that was bounded. In a box one evaluation for each is
        cheaper than parts.

        Where j is less far below, log p_t ≤ log p_j + APART is one more constraint: with a share of j in the target the
        bound is high enough. Components are taken one after the other, each beside what is known of those before it.
        """
        t, others, goal = whole.majorant.t, whole.majorant.others, (1.0 - self.loose) * self.enough
        low, floor, total = np.zeros(len(others)), np.inf, float(whole.lam.sum())
        if not (0.0 < total < np.inf and goal < np.inf):
            return low, floor
        missing = 0.5 * (goal**2 - whole.bound**2) / total  # nats
        lead = whole.log_prob[t] - whole.log_prob[others]
        for i in np.flatnonzero(lead > APART + 1.0):
            share = min(0.5, 2.0 * missing / (lead[i] - APART))
            offset = float(np.log1p(np.exp(-low).sum())) + share * APART
            problem = Problem([t, int(others[i])], np.array([1.0 - share, share]), offset, whole.sources)
            bound = self.duals.nearest(problem, whole.lam / total, total, goal).radius
            if bound >= goal:
                low[i], floor = APART, min(floor, bound)
        return low, floor

    def _is_closed(self, piece: _Piece) -> bool:
        if self.radii is not None:
            return piece.bound >= self.enough
        return self.best.upper - piece.bound <= CLOSED * self.best.upper

    def _parts(self, piece: _Piece) -> list[_Piece] | None:
        """The parts of a piece, unless they could not raise its bound visibly: where all others are well below t, and
        where each of them is near it; or two halves.
        """
        if self.best.n_duals >= MOST_DUALS:
            return None
        m = piece.majorant
        lead = self._lead(piece)
        free = m.free(lead)
        if len(free):
            apart = self._solve(m.apart(lead), piece)
            enough = min(apart.bound, self.enough if self.radii is not None else (1.0 - CLOSED) * self.best.upper)
            return [apart, *(self._solve_near(m.near(int(i), lead), piece, enough) for i in free)]
        halves = self._cut(piece)
        return None if halves is None else [self._solve(half, piece) for half in halves]

    def _lead(self, piece: _Piece) -> float:
        """How far below t others must be for what they add to cost half of what may stay open: c nats less of p_T / p_t
        raise D by Λ c.
        """
        if not self._says_how(piece):
            return USUAL_LEAD
        nats = 0.5 * CLOSED * self.enough * piece.bound / float(piece.lam.sum())
        ratio = (len(piece.majorant.others) + 1) / nats
        return float(np.clip(np.log(ratio), LEAST_LEAD, MOST_LEAD))

    def _says_how(self, piece: _Piece) -> bool:
        """Whether Λ says how D rises with log p_T's bound: where D is nearly 0, it does not."""
        return bool(piece.lam.sum() > 0.0 and KNOWN_FROM * self.enough < piece.bound and self.enough < np.inf)

    def _solve_near(self, majorant: Majorant, parent: _Piece, enough: float) -> _Piece:
        """The piece where another component is close to t, which is mostly far away: no more than `enough`."""
        j, lead, source = int(majorant.others[majorant.pulled]), float(majorant.high[majorant.pulled]), int(self.own[0])
        piece = replace(parent, majorant=majorant)
        offset = majorant.mixture()[2] + lead  # log p_T is at most this above log p_j
        piece.bound = max(piece.bound, float(self._least_distances(source, np.array([j]), offset)[0]))
        if piece.bound < enough:
            problem = Problem([j], np.ones(1), offset, [source], boxed=False)
            piece.bound = max(piece.bound, self.duals.nearest(problem, np.ones(1), None, enough).radius)
        low, high = 0.0, 1.0
        for _ in range(PULLS):
            if piece.bound >= enough or self.best.n_duals >= MOST_DUALS:
                break
            pull = 0.5 * (low + high)
            piece = self._solve(replace(majorant, pull=pull), piece)
            u = piece.log_prob[majorant.t] - piece.log_prob[j]
            low, high = (low, pull) if u <= lead else (pull, high)
        return replace(piece, majorant=majorant)

    def _cut(self, piece: _Piece) -> tuple[Majorant, Majorant] | None:
        """The halves of a piece, unless its bound is good enough or a cut could not raise it visibly."""
        missing = self.enough - piece.bound
        if missing <= CLOSED * self.best.upper:
            return None
        visible = 0.0
        if self._says_how(piece):  # c nats less of p_T / p_t raise D by Λ c
            visible = VISIBLE * missing * piece.bound / float(piece.lam.sum())
        return piece.majorant.cut(piece.log_prob, visible)

    def _largest_log_ratios(self, others: Array, t: int, radius: float) -> Array:
        """Bounds on log p_j / p_t within `radius` for the components j, at most 0 since t is the likeliest."""
        q, x = self.q, self.sample
        if radius == np.inf:
            return np.zeros(len(others))
        near = np.maximum(0.0, x.nearest[others] - q.steepness[others] * radius)
        far = x.farthest[t] + q.steepness[t] * radius
        error = x.rounding[others] + x.rounding[t] + ROUNDING * (near**2 + far**2)
        bounds = q.log_const[others] - q.log_const[t] - 0.5 * (near - far) * (near + far) + error
        for i in np.flatnonzero(bounds > -40.0):
            problem = Problem([int(others[i])], np.ones(1), 0.0, [t])
            bounds[i] = min(bounds[i], self.duals.highest_within(problem, radius))
        return np.asarray(np.minimum(bounds, 0.0))

    def _solve(self, majorant: Majorant, parent: _Piece | None) -> _Piece:
        """The dual of one piece, with as many sources as it needs; its primal points are tried as flips."""
        targets, phi, offset = majorant.mixture()
        piece = _Piece(majorant, 0.0, [], np.zeros(0), self.sample.log_prob) if parent is None else replace(parent)
        piece.majorant = majorant
        sources, theta, guess = self._first_sources(float(phi @ self.sample.log_prob[targets]) + offset), None, None
        if len(piece.lam):
            sources, theta, guess = piece.sources, piece.lam / piece.lam.sum(), float(piece.lam.sum())
        elif self.box is not None and self.best.point is not None:  # a good start saves most of the minimisations
            sources, theta = active(self.best.point.log_prob, self.own, MOST_SOURCES, ACTIVE)
        while True:
            theta = responsibilities(self.sample.log_prob[sources]) if theta is None else theta / theta.sum()
            problem = Problem(targets, phi, offset, sources)
            end = self.duals.maximise(problem, theta, guess, (1.0 - self.loose) * self.enough)
            self.best.n_duals += 1
            piece.bound = max(piece.bound, end.radius)
            self.points.try_end(end)
            if end.lam is None or end.delta is None:
                return piece
            piece.sources, piece.lam = sources, end.lam
            piece.log_prob = self.sample.log_prob_at(end.delta[None])[0]
            lead = piece.log_prob[self.own] - (float(phi @ piece.log_prob[targets]) + offset)
            lead[np.isin(self.own, sources)] = -np.inf
            if not self._is_open(piece.bound) or len(sources) >= MOST_SOURCES or not lead.max() > -WORTH_ADDING:
                return piece
            sources = [*sources, int(self.own[lead.argmax()])]
            guess = float(end.lam.sum())
            theta = np.append(end.lam / guess, FIRST_SHARE)

    def _first_sources(self, log_target: float) -> list[int]:
        """The likeliest source or, where that one alone is not above the target, all that are likely."""
        height = self.sample.log_prob[self.own]
        alone = height[0] > log_target
        return [int(j) for j in self.own[height >= height[0] - WORTH_ADDING][: 1 if alone else MOST_SOURCES]]
