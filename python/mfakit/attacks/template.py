"""A small attack to copy: the straight line from each sample along the gradient there, cut at the decision boundary.

An attack is its settings, a class that moves a block of samples, and a public function. The rest is shared:
:func:`open_task` checks the arguments, and :meth:`Task.run` goes through the samples and verifies and measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import MOST_INT32, as_bounds, check_integers, check_numbers
from .result import AttackResult
from .state import State
from .task import Array, open_task

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._arrays.options import RunOptions

__all__ = ["line_attack"]


@dataclass(frozen=True)
class Settings:
    """See :func:`line_attack`."""

    first: float = 0.05
    max_steps: int = 60
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_numbers({"first": self.first}, positive=True)
        check_integers({"max_steps": self.max_steps}, 1, MOST_INT32)
        object.__setattr__(self, "bounds", as_bounds(self.bounds))


class Line:
    """One block of samples X [n, d]: where they are, `here` [n, d] float64, and what is known of them, `state`."""

    def __init__(self, victim: Any, X: Array, y: Array | None) -> None:
        self.victim, self.here = victim, X.astype(np.float64)
        self.state = State.of(victim, self.here, y)

    def run(self, settings: Settings) -> None:
        """Double the length of the way until the decision flips, then bisect it."""
        state, victim, (low, high) = self.state, self.victim, settings.bounds or (-np.inf, np.inf)
        _, state.choice = victim.scores(self.here, state.y)
        gradient = victim.margin_gradient(self.here, state.y, state.choice)
        norm = np.linalg.norm(gradient, axis=1)
        moves = ~state.already_wrong & (norm > 0) & (norm < np.inf)
        way = np.divide(gradient, norm[:, None], out=np.zeros_like(gradient), where=moves[:, None])
        inside, beyond, ends = np.zeros(len(norm)), np.full(len(norm), np.inf), self.here
        for _ in range(settings.max_steps):
            bracketed = beyond < np.inf
            length = np.where(bracketed, 0.5 * inside + 0.5 * beyond, np.maximum(2.0 * inside, settings.first))
            there = np.clip(self.here + length[:, None] * way, low, high)
            flipped = moves & (victim.scores(there, state.y)[0].argmax(axis=1) != state.y)
            inside, beyond = np.where(flipped, inside, length), np.where(flipped, length, beyond)
            ends = np.where(flipped[:, None], there, ends)
        state.flipped = beyond < np.inf
        state.n_steps[moves] = settings.max_steps
        state.reason[~state.already_wrong & ~moves] = "no gradient"
        state.reason[state.flipped] = "flipped"
        self.here = ends


def line_attack(
    clf: Any,
    X: Any,
    y: Any = None,
    *,
    first: float = Settings.first,
    max_steps: int = Settings.max_steps,
    bounds: tuple[float, float] | None = Settings.bounds,
    progress: bool | None = False,
    **options: Unpack[RunOptions],
) -> AttackResult:
    """Go along the gradient at each sample in lengths that double, until the decision flips.

    Parameters
    ----------
    clf, X, y, bounds, progress, **options
        As of :func:`mfakit.attacks.gradient_attack`, and so are the errors. On the host.
    first : float
        The length that is tried first; ℓ2 in data units.
    max_steps : int
        How often the length is doubled or bisected.

    Returns
    -------
    AttackResult
    """
    settings = Settings(first=first, max_steps=max_steps, bounds=bounds)
    with open_task(line_attack, clf, X, y, options) as task:

        def walk(victim: Any, block: Array, labels: Array | None) -> Line:
            line = Line(victim, block, labels)
            line.run(settings)
            return line

        return task.run("line", settings, settings.bounds, walk, progress)
