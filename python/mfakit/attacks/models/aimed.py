"""A victim whose samples are to be decided for a given class, and not only for any other than the true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..state import Choice

__all__ = ["Aimed", "recorded"]

Array = Any  # NumPy's; with d columns and on a device, CuPy's


class Aimed:
    """A victim seen from the classes to reach: these are the `y` of its methods, and directions lead towards them.

    The `target_class` of its choices is the best of the others, with `target` its component, as of any victim.
    """

    def __init__(self, victim: Any) -> None:
        self._victim = self.plain = victim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._victim, name)

    def strict(self) -> Aimed:
        """The same for polish, see :class:`mfakit.attacks.models.differentiable.Strict`."""
        return Aimed(self._victim.strict()).lowered()

    def lowered(self) -> Aimed:
        """The same with the score of the class to reach lowered, where a strict victim would raise that of the class
        to leave.
        """
        lower: Callable[[], Any] | None = getattr(self._victim, "lowered", None)
        return self if lower is None else Aimed(lower())

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """The direction of a step, [n, d]."""
        return -self._victim.direction(X, y, choice)

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """Where the lead of the class to reach grows, [n, d]: over the best of the others, which need not be the one
        with the likeliest component.
        """
        others = self._victim.scores(X, y)[0]
        others[np.arange(len(y)), y] = -np.inf
        best = choice.take(np.arange(len(y)))
        best.target_class = others.argmax(axis=1)
        return -self._victim.margin_gradient(X, y, best)


def recorded(choice: Choice, y: Array, goal: Array) -> Choice:
    """A choice of :class:`Aimed` as results record it: from a component of the true class to one of the class to
    reach; no source where another class than the true one is in the way.
    """
    found = Choice(len(y))
    known = choice.target_class >= 0
    found.target_class = np.where(known, goal, -1)
    found.target = choice.source
    found.source = np.where(known & (choice.target_class == y), choice.target, -1)
    return found
