"""What is known of samples on their way through an attack, how they walk, and between which components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Choice", "State", "Steps"]

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


class Steps(NamedTuple):
    """How to walk."""

    size: float
    most: int
    frozen: bool
    polish: bool
    bounds: tuple[float, float] | None


@dataclass
class State:
    """What is known of each of n samples so far."""

    y: Array
    y_adv: Array
    already_wrong: Array
    flipped: Array
    n_steps: Array
    reason: Array
    choice: Choice = field(default_factory=lambda: Choice(0))
