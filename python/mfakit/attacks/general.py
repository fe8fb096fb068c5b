"""Certified minima for any noise, in NumPy: what :func:`minimal_perturbation` does where compiled code cannot.

Scores and verification go by blocks, the searches sample by sample: some tens to hundreds of solves with a diagonal
plus few rows, O(d l²) each, and memory for [K, d] (K components).
"""

from __future__ import annotations

import numpy as np

from .._threads import errstate
from ._general_model import Array, Components
from ._general_roots import RootSearchError
from ._general_search import Bracket, Point, Search
from .victims import Choice
from .walk import DirectWalk, within_class

__all__ = ["Bracket", "GeneralSearch", "RootSearchError", "certify"]


def certify(components: Components, x: Array, y: int, name: str = "the sample") -> Bracket:
    """The bracket of one sample x [d] that is rightly decided for class y.

    Raises
    ------
    RootSearchError
        When a root search does not close its bracket.
    """
    try:
        with errstate(over="ignore", invalid="ignore"):  # a sample too far away for float64 proves nothing
            return Search(components, x, y).run()
    except RootSearchError as error:
        raise RootSearchError(f"{name}: {error}") from error


class GeneralSearch(DirectWalk):
    """One block of samples; the base class's state is what the verification reads."""

    def bracket(self, components: Components, start: int) -> tuple[Array, Array]:
        """Lower bounds [n] and pairs examined [n]; leaves the points beyond the boundary in `here`.

        `start` is the number of the block's first sample, for messages.
        """
        state = self.state
        lower, pairs = np.zeros(len(self.here)), np.zeros(len(self.here))
        finite = np.isfinite(self.here).all(axis=1)
        lower[~finite] = np.nan
        for i in np.flatnonzero(finite & ~state.already_wrong):
            found = certify(components, self.here[i], int(state.y[i]), f"sample {start + i}")
            lower[i], pairs[i], state.n_steps[i] = found.lower, found.n_pairs, found.n_duals
            state.flipped[i] = found.point is not None
            state.reason[i] = "no crossing" if found.point is None else "flipped"
            if found.point is not None:
                self.here[i] += found.point.delta
                state.choice.put(np.array([i]), _chosen(components, found.point, int(state.y[i])))
        return lower, pairs


def _chosen(components: Components, point: Point, y: int) -> Choice:
    """The likeliest components of the true class and of any other at the point."""
    own = components.owner == y
    source = np.where(own, point.log_prob, -np.inf).argmax()
    target = np.where(own, -np.inf, point.log_prob).argmax()
    chosen = Choice(1)
    chosen.target_class[:] = components.owner[target]
    chosen.source = within_class(np.array([source]), np.array([y]), components.first)
    chosen.target = within_class(np.array([target]), chosen.target_class, components.first)
    return chosen
