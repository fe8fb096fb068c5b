"""Certified minima in the d features, for any noise.

Scores and verification go by blocks, the searches sample by sample: some tens to hundreds of solves with a diagonal
plus few rows, O(d l²) each, and memory for [K, d] (K components). The searches for multipliers, which take most of the
time, are compiled where the backend is (:mod:`mfakit.attacks.minimal.duals`).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..._threads.process import errstate, single_threaded_products
from ..gradient.walk import FeatureWalk, within_class
from ..state import Choice
from .components import Array, Components
from .points import Bracket, Point
from .search import Search

__all__ = ["NOT_CERTIFIED", "Bracket", "FeatureSearch", "certify", "put_bracket", "put_point", "warn_not_certified"]

# The reason given for a sample without a proof, because numbers left float64's range or an algorithm failed.
NOT_CERTIFIED = "not certified"
_logger = logging.getLogger("mfakit")


def warn_not_certified(sample: int, failure: str) -> None:
    """Say which sample has no certificate, and why."""
    _logger.warning(
        "sample %d is not certified (lower is 0): %s; look for parameters or samples of extreme scales", sample, failure
    )


def certify(components: Components, x: Array, y: int, **options: Any) -> Bracket:
    """The bracket of one sample x [d] that is rightly decided for class y; `options` as of :class:`Search`. Where a
    computation fails, its `failure` says how, and its `point` is the nearest one that was known by then.
    """
    best = Bracket()
    try:
        # A sample too far away for float64 proves nothing.
        with errstate(over="ignore", invalid="ignore", divide="ignore"):
            search = Search(components, x, y, **options)
            best = search.best
            return search.run()
    except (np.linalg.LinAlgError, ArithmeticError) as error:
        best.lower, best.failure = 0.0, f"{type(error).__name__}: {error}"
        return best


class FeatureSearch(FeatureWalk):
    """One block of samples; the base class's state is what the verification reads."""

    def bracket(self, components: Components, start: int, radii: Array | None = None) -> tuple[Array, Array]:
        """Lower bounds [n] and pairs examined [n]; leaves the points beyond the boundary in `here`.

        `start` is the number of the block's first sample, for messages; `radii` as of :class:`Search`.
        """
        state = self.state
        lower, pairs = np.zeros(len(self.here)), np.zeros(len(self.here))
        finite = np.isfinite(self.here).all(axis=1)
        lower[~finite] = np.nan
        with single_threaded_products():  # the same bits with any number of threads, and nothing that spins
            for i in np.flatnonzero(finite & ~state.already_wrong):
                self.victim.raise_if_cancelled()
                found = certify(components, self.here[i], int(state.y[i]), radii=radii)
                lower[i], pairs[i] = found.lower, found.n_pairs
                put_bracket(self, components, int(i), found, start)
        return lower, pairs


def put_bracket(walk: FeatureWalk, components: Components, i: int, found: Bracket, start: int) -> None:
    """Note what was found for the i-th sample of a block, whose first one has the number `start`."""
    state = walk.state
    state.n_steps[i] += found.n_duals
    state.flipped[i], state.reason[i] = False, "no crossing"
    if found.failure:
        state.reason[i] = NOT_CERTIFIED
        warn_not_certified(start + i, found.failure)
    if found.point is not None:
        put_point(walk, components, walk.here[i].copy(), i, found.point)


def put_point(walk: FeatureWalk, components: Components, x: Array, i: int, point: Point) -> None:
    """Note the point that was found for the i-th sample x [d] of a block."""
    state = walk.state
    walk.here[i] = x + point.delta
    state.flipped[i] = True
    if state.reason[i] != NOT_CERTIFIED:  # why there is no bound
        state.reason[i] = "flipped"
    goal = None if state.goal is None else int(state.goal[i])
    state.choice.put(np.array([i]), _chosen(components, point, int(state.y[i]), goal))


def _chosen(components: Components, point: Point, y: int, goal: int | None) -> Choice:
    """The likeliest components of the true class and of any other, or of the class to reach, at the point."""
    own, others = components.owner == y, components.owner != y
    if goal is not None:
        others = components.owner == goal
    source = np.where(own, point.log_prob, -np.inf).argmax()
    target = np.where(others, point.log_prob, -np.inf).argmax()
    chosen = Choice(1)
    chosen.target_class[:] = components.owner[target]
    chosen.source = within_class(np.array([source]), np.array([y]), components.first)
    chosen.target = within_class(np.array([target]), chosen.target_class, components.first)
    return chosen
