"""The settings of Carlini and Wagner's attack, checked in one place; they are recorded in its results as they are here.

Without torch, so that a wrong argument is reported before that is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from ..._checks import MOST_INT32, as_bounds, check_integers, check_numbers, check_switches

__all__ = ["Bounds", "Settings"]

Bounds = Literal["data"] | tuple[float, float] | None


@dataclass(frozen=True)
class Settings:
    """How to search; see :func:`mfakit.attacks.carlini_wagner_l2`.

    Raises
    ------
    ValueError
        For a setting out of range, with the values that there are.
    """

    max_iterations: int = 500
    binary_search_steps: int = 3
    learning_rate: float | Literal["auto"] = "auto"
    initial_const: float | Literal["auto"] = "auto"
    confidence: float = 0.0
    bounds: Bounds = None
    rescue_searches: int = 8
    polish: bool = True
    preset: Literal["paper"] | None = None
    abort_early: bool = True

    def __post_init__(self) -> None:
        check_integers({"max_iterations": self.max_iterations}, 1, MOST_INT32)
        check_integers({"binary_search_steps": self.binary_search_steps}, 1, MOST_INT32)
        check_integers({"rescue_searches": self.rescue_searches}, 0, MOST_INT32)
        check_switches({"polish": self.polish, "abort_early": self.abort_early})
        check_numbers({"confidence": self.confidence}, positive=False)
        if self.preset not in (None, "paper"):
            raise ValueError(f"preset must be None or 'paper', got {self.preset!r}")
        object.__setattr__(self, "learning_rate", _number_or_auto("learning_rate", self.learning_rate))
        object.__setattr__(self, "initial_const", _number_or_auto("initial_const", self.initial_const))
        object.__setattr__(self, "bounds", _bounds(self.bounds))

    @classmethod
    def paper(cls, *, bounds: Bounds = None, abort_early: bool = True) -> Settings:
        """The attack as the paper ran it: 500 iterations, three searches, learning rate 0.01 (section 2.4); first
        constant 0.01 and confidence 0, which are the defaults of the library that it names; no rescue and no polish.
        """
        return cls(
            max_iterations=500, binary_search_steps=3, learning_rate=0.01, initial_const=0.01, confidence=0.0,
            bounds=bounds, rescue_searches=0, polish=False, preset="paper", abort_early=abort_early,
        )  # fmt: skip

    def with_preset(self) -> Settings:
        """The preset's values in place of the defaults, if there is a preset.

        Raises
        ------
        ValueError
            For a setting that is neither its default nor the preset's.
        """
        if self.preset is None:
            return self
        paper = Settings.paper(bounds=self.bounds, abort_early=self.abort_early)
        for setting in fields(self):
            given, fixed = getattr(self, setting.name), getattr(paper, setting.name)
            if given not in (setting.default, fixed):
                raise ValueError(
                    f"preset='paper' fixes {setting.name} at {fixed}, got {given!r}; leave one of the two out"
                )
        return paper

    @property
    def rate(self) -> float | None:
        """The learning rate, None for "auto"."""
        return None if isinstance(self.learning_rate, str) else self.learning_rate

    @property
    def first_const(self) -> float | None:
        """The first constant, None for "auto"."""
        return None if isinstance(self.initial_const, str) else self.initial_const

    @property
    def box(self) -> tuple[float, float] | None:
        """The bounds as numbers; those of the data have to be put in first."""
        if isinstance(self.bounds, str):
            raise TypeError("the bounds of the data are not known yet")
        return self.bounds

    @property
    def shrink(self) -> float:
        """What a constant is divided by while no smaller one is known to fail."""
        return 10.0 if self.preset is None else 2.0


def _number_or_auto(name: str, value: float | Literal["auto"]) -> float | Literal["auto"]:
    if isinstance(value, str) and value == "auto":
        return value
    check_numbers({name: value}, positive=True, also='or "auto"')
    return float(value)


def _bounds(bounds: Bounds) -> Bounds:
    """Bounds as two floats, "data", or None, which is also what infinite ones are."""
    if isinstance(bounds, str):
        if bounds != "data":
            raise ValueError(f'bounds must be (low, high), None or "data", got {bounds!r}')
        return bounds
    box = as_bounds(bounds)
    return None if box == (-math.inf, math.inf) else box
