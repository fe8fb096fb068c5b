"""Types of command-line arguments: numbers in a range, refused where they are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["number", "seed_type", "sigma_type", "whole"]

# Samples, steps, components: what passes this would overflow somewhere, after a long time at best.
MOST = 2**31 - 1


def whole(least: int = 1, most: int = MOST) -> Callable[[str], int]:
    """The type of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # no digits, or thousands of them
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {_short(text)}")
        return value

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """The type of numbers from `least` to `most`, not NaN."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, got {_short(text)}")
        return value

    return parse


def seed_type(text: str) -> int:
    """A seed: a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {_short(text)}")
    return int(text)


# A standard deviation of noise: beyond these, samples in float32 or their squares overflow or vanish.
sigma_type = number(1e-18, 1e18)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
