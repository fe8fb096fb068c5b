"""The state of samples during an attack, and the components between which they walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Choice", "State"]

Array = NDArray[Any]


class Choice:
    """Which components each of n samples walks between: source [n] of its own class, target [n] of target_class [n]."""

    def __init__(self, n: int) -> None:
        self.source, self.target, self.target_class = (np.full(n, -1, np.int64) for _ in range(3))

    def take(self, rows: Array) -> Choice:
        """The choices of some samples."""
        part = Choice(0)
        part.source, part.target, part.target_class = self.source[rows], self.target[rows], self.target_class[rows]
        return part

    def put(self, rows: Array, part: Choice) -> None:
        """Set the choices of some samples."""
        self.source[rows], self.target[rows], self.target_class[rows] = part.source, part.target, part.target_class


@dataclass
class State:
    """What is known about each of n samples so far; `goal` are the classes that a targeted attack is to reach."""

    y: Array
    y_adv: Array
    already_wrong: Array
    flipped: Array
    n_steps: Array
    reason: Array
    choice: Choice = field(default_factory=lambda: Choice(0))
    goal: Array | None = None

    @property
    def aim(self) -> Array:
        """The classes [n] that decide on success: those to reach, or those to leave."""
        return self.y if self.goal is None else self.goal

    def reached(self, decision: Array, rows: Array) -> Array:
        """Which of some samples have been led astray, or to their goals, by their decisions."""
        return np.asarray(decision != self.y[rows] if self.goal is None else decision == self.goal[rows])

    @classmethod
    def of(cls, victim: Any, X: Array, y: Array | None, goal: Array | None = None) -> State:
        """The state before an attack, by the victim's scores of samples X [n, d] float64: samples whose class is
        not y [n] (None: the predicted one) or whose scores are NaN count as already wrong.
        """
        n = len(X)
        joint, _ = victim.scores(X, np.zeros(n, np.int64) if y is None else y)
        predicted, undecided = joint.argmax(axis=1), np.isnan(joint).any(axis=1)
        labels = predicted if y is None else y
        wrong = (predicted != labels) | undecided
        reason = np.where(wrong, "already wrong", "max_steps").astype("<U16")
        reason[undecided] = "NaN logits"
        return cls(labels, predicted.copy(), wrong, np.zeros(n, bool), np.zeros(n, np.int64), reason, Choice(n),
                   goal)  # fmt: skip
