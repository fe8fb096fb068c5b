"""Brackets of flips that a box or a class to reach allows, where the bracket of any flip does not settle it.

Whatever is allowed is a flip, so the lower bound of any flip holds; and if the point that was found for that is
allowed, nothing is left to do. Other samples are searched one by one in the d features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..._threads.process import single_threaded_products
from ...bayes.classifier import BayesClassifier
from ..bounds import Limits, moved_inside
from ..gradient.settings import Settings
from ..gradient.walk import FeatureWalk
from ..models.aimed import Aimed
from .box import Box
from .components import Array, Components
from .feature_path import certify, put_bracket, put_point
from .points import Point
from .search import Search

__all__ = ["Constraint", "undecided"]

# Relative gap above which the gradient attack is tried, and its steps: 2^-k of the best length known.
OPEN, FINENESS = 1e-3, (3, 5)
# A walk may be this many times longer than the best length known.
DETOUR = 4
# Nats by which a point may fall short of a flip and still counts as one.
NEARLY = 1e-3
# Samples of each class that are tried where nothing else finds a point.
DRAWN = 256


def undecided(lower: Array | float, upper: Array | float, radii: Array | None) -> Array:
    """For which brackets [...] it is open whether there is a flip within one of the radii [m]; None: the brackets
    themselves are asked for.
    """
    if radii is None:
        return np.ones(np.shape(lower), bool)
    return np.asarray(((radii > np.expand_dims(lower, -1)) & (radii < np.expand_dims(upper, -1))).any(axis=-1))


@dataclass(frozen=True, eq=False)
class Constraint:
    """Which flips count: those within limits, and those to the classes `goals` [n] of all samples.

    Attributes
    ----------
    clf : BayesClassifier
    components : callable
        Makes its :class:`Components`, or returns those that it made.
    limits : (low, high) or None
        In the samples' dtype, also where they are two numbers.
    goals : int64 [n] or None
    radii : float64 [m] or None
        If only flips within these are asked for.
    """

    clf: BayesClassifier
    components: Callable[[], Components]
    limits: Limits
    goals: Array | None
    radii: Array | None

    def apply(self, walk: FeatureWalk, first: int) -> None:
        """Make a walk of samples from number `first` on one that only counts the flips allowed."""
        walk.limits = self.limits
        if self.goals is not None:
            walk.state.goal = self.goals[first : first + len(walk.here)]
            walk.victim = Aimed(walk.victim)

    def unsettled(self, walk: FeatureWalk) -> Array:
        """Which of the samples, bool [n], have no point that is allowed."""
        state = walk.state
        allowed = state.flipped & (moved_inside(walk.here, self.limits) == walk.here).all(axis=1)
        rows = np.flatnonzero(allowed)
        if len(rows):
            aim, each = state.aim[rows], np.arange(len(rows))
            joint = walk.victim.scores(walk.here[rows], aim)[0]
            others = joint.copy()
            others[each, aim] = -np.inf
            lead = (others.max(axis=1) - joint[each, aim]) * (1.0 if state.goal is None else -1.0)
            allowed[rows] = lead > -NEARLY  # what is short by rounding is pushed on before it is verified
        return np.asarray(~state.already_wrong & ~allowed & np.isfinite(walk.here).all(axis=1))

    def close(self, walk: FeatureWalk, X: Array, lower: Array, pairs: Array, rows: Array, first: int) -> None:
        """Search the samples `rows` of X [n, d]: `lower` [n] is known of any flip and rises, `pairs` [n] counts."""
        with single_threaded_products():  # the same bits with any number of threads
            for i in rows:
                walk.victim.raise_if_cancelled()
                guess = walk.here[i] - X[i] if walk.state.flipped[i] else None
                walk.here[i] = X[i]
                options = self._options(walk, walk.here[i], int(i))
                found = certify(self.components(), walk.here[i], int(walk.state.y[i]), **options, guess=guess,
                                known=float(lower[i]), radii=self.radii)  # fmt: skip
                put_bracket(walk, self.components(), int(i), found, first)
                lower[i], pairs[i] = found.lower, pairs[i] + found.n_pairs

    def shorten(self, walk: FeatureWalk, X: Array, lower: Array, rows: Array) -> None:
        """Nearer points by the gradient attack where the brackets of the samples `rows` are open."""
        state = walk.state
        with single_threaded_products():
            for i in rows:
                upper = float(np.linalg.norm(walk.here[i] - X[i])) if state.flipped[i] else np.inf
                if not lower[i] < (1.0 - OPEN) * upper or not undecided(lower[i], upper, self.radii):
                    continue
                starts = self._attacks(walk, X[i : i + 1], int(i), upper if upper < np.inf else float(lower[i]))
                for delta in starts if starts or upper < np.inf else self._drawn(walk, X[i], int(i)):
                    point = self._descend(walk, X[i].astype(np.float64), int(i), delta, float(lower[i]))
                    if point is not None and point.length < upper:
                        upper = point.length
                        put_point(walk, self.components(), X[i], int(i), point)

    def _descend(self, walk: FeatureWalk, x: Array, i: int, delta: Array, lower: float) -> Point | None:
        """The nearest point that a descent from x + δ finds, if any."""
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                search = Search(self.components(), x, int(walk.state.y[i]), **self._options(walk, x, i))
                return search.descend(delta, lower)
        except (ArithmeticError, np.linalg.LinAlgError):  # at extreme scales a search may not end
            return None

    def _attacks(self, walk: FeatureWalk, x: Array, i: int, length: float) -> list[Array]:
        """The perturbations [d] that the gradient attack finds in steps that are a fraction of a length."""
        goal = None if walk.state.goal is None else walk.state.goal[i : i + 1]
        victim = walk.victim if goal is None else walk.victim.plain
        attack = FeatureWalk(victim, x, walk.state.y[i : i + 1], goal, self.limits)
        found, scale = [], float(2.0 ** np.frexp(length)[1])
        for k in FINENESS:
            attack.restart(x)
            step = scale * 2.0**-k if length > 0.0 else Settings.step_size
            attack.run(Settings(step_size=step, max_steps=DETOUR * 2**k, polish=True))
            if attack.state.flipped[0]:
                found.append(attack.here[0] - x[0])
        return found

    def _drawn(self, walk: FeatureWalk, x: Array, i: int) -> list[Array]:
        """The perturbation [d] to the nearest drawn point that is a flip, if there is any."""
        points, decided = self._points
        flips = np.flatnonzero(walk.state.reached(decided, np.full(len(decided), i)))
        if not len(flips):
            return []
        return [(points[flips] - x)[np.linalg.norm(points[flips] - x, axis=1).argmin()]]

    @cached_property
    def _points(self) -> tuple[Array, Array]:
        """Means and samples of all classes, moved into the limits, and their decisions."""
        means = [m.means[m.live].astype(np.float64) for m in self.clf.mixtures]
        samples = [m.sample(DRAWN, rng=0, dtype=np.float64)[0] for m in self.clf.mixtures]
        points = moved_inside(np.concatenate([*means, *samples]), self.limits)
        return points, self.clf.predict(points)

    def _options(self, walk: FeatureWalk, x: Array, i: int) -> dict[str, Any]:
        """The goal and the box of a sample x [d], float64."""
        goal = None if walk.state.goal is None else int(walk.state.goal[i])
        if self.limits is None:
            return {"goal": goal, "box": None}
        low, high = (np.broadcast_to(b, x.shape).astype(np.float64) for b in self.limits)
        return {"goal": goal, "box": Box(x, low, high)}
