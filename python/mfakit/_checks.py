"""Checks of arguments that several rooms share, each with one sentence for what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "MOST_INT32",
    "as_bounds",
    "as_generator",
    "check_choice",
    "check_integers",
    "check_model",
    "check_numbers",
    "check_switches",
]

# Compiled code counts in 32 bits.
MOST_INT32 = 2**31 - 1


def check_integers(parameters: dict[str, Any], least: int, most: int | None = None, also: str = "") -> None:
    """Raise for a parameter that is not an integer from `least` to `most`; `also` says what else is allowed."""
    other = f", {also}" if also else ""
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}{other}, got {value!r}")
        if most is not None and value > most:
            raise ValueError(f"{name} must be an integer of at most {most}{other}, got {value!r}")


def check_numbers(parameters: dict[str, Any], *, positive: bool, below: float = math.inf, also: str = "") -> None:
    """Raise for a parameter that is not a finite number of at least 0 (above 0 if `positive`) and below `below`; `also`
    says what else is allowed.
    """
    for name, value in parameters.items():
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not number or not 0 <= value < below or (positive and value == 0):
            kind = "positive" if positive else "non-negative"
            limit = "finite" if below == math.inf else f"below {below:g}"
            other = f", {also}" if also else ""
            raise ValueError(f"{name} must be a {kind} number, {limit}{other}, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str], also: str = "") -> None:
    """Raise for a value that is none of the words `choices`; `also` says what else is allowed."""
    if not isinstance(value, str) or value not in choices:
        other = f", {also}" if also else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}{other}, got {value!r}")


def check_switches(parameters: dict[str, Any]) -> None:
    """Raise for a parameter that is neither True nor False."""
    for name, value in parameters.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def check_model(name: str, value: Any, kind: type) -> None:
    """Raise TypeError for a value that is no MFA or no BayesClassifier, whichever `kind` is."""
    if isinstance(value, kind):
        return
    got = type(value).__name__
    if kind.__name__ == "MFA":
        raise TypeError(f"{name} must be an MFA, got {got}; a fitted estimator has one in its mfa_")
    raise TypeError(f"{name} must be a {kind.__name__}, got {got}; an MFAClassifier has one in its bayes_")


def as_generator(value: Any, name: str = "random_state") -> np.random.Generator:
    """A generator from a seed, a generator, an old RandomState, or None for fresh entropy."""
    if isinstance(value, np.random.RandomState):
        return np.random.default_rng(value.randint(0, 2**32, size=4, dtype=np.uint32))
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name} must be a non-negative integer, a numpy.random.Generator, RandomState or SeedSequence, or None, "
            f"got {value!r}"
        ) from None


def as_bounds(bounds: Any) -> tuple[float, float] | None:
    """Bounds (low, high) as floats, or None."""
    if bounds is None:
        return None
    try:
        low, high = (float(value.item() if hasattr(value, "item") else value) for value in bounds)
    except (TypeError, ValueError, RuntimeError):  # the last one from a tensor of several
        low = high = np.nan
    if not low < high:
        several = any(np.ndim(value) for value in bounds) if isinstance(bounds, tuple | list) else False
        got = "arrays; one pair of numbers holds for all features" if several else repr(bounds)
        raise ValueError(f"bounds must be (low, high) with low < high, or None, got {got}")
    return low, high
