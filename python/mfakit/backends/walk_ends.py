"""How a walk can end, by the numbers that ``factor_walk`` reports."""

from __future__ import annotations

__all__ = ["ENDS"]

ENDS = ("max_steps", "flipped", "no gradient", "already wrong")
