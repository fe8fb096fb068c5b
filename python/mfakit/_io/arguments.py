"""The command line's parser, and types of arguments: numbers in a range, refused where they are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .messages import excerpt, meant, one_line

__all__ = ["Parser", "number", "seed_type", "sigma_type", "whole"]

# Samples, steps, components: what passes this would overflow somewhere, after a long time at best.
MOST = 2**31 - 1


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and where to find help, and name what was probably meant.

    Attributes
    ----------
    fill : callable or None
        Called with the parser when it is first used, to add what is costly to say, such as the options of an experiment
        whose module has to be imported for them.

    The parser of a command must set the default `parser` to itself, because options that a command does not have are
    found only by the outermost parser.
    """

    fill: Callable[[Parser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, of a parser that is filled."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)
        found: Any = super().parse_known_args(args, namespace)
        return found

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message, 400)}\nhelp: {self.prog} --help\n")

    def parse(self, args: Sequence[str] | None) -> argparse.Namespace:
        """As parse_args, with an error of the command's parser for what is left over."""
        parsed: argparse.Namespace
        parsed, rest = self.parse_known_args(args)
        if rest:
            owner: Parser = getattr(parsed, "parser", self)
            option = rest[0].partition("=")[0]
            if not option.startswith("-"):
                owner.error(f"{excerpt(option)} is one argument too many")
            owner.error(f"there is no option {excerpt(option)}{meant(option, owner._option_string_actions)}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise for a value that is none of the choices."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = meant(str(value), known)
        if isinstance(action, argparse._SubParsersAction):
            message = f"there is no {str(action.metavar).lower()} {excerpt(value)}; there are {', '.join(known)}{hint}"
            raise argparse.ArgumentError(None, message)
        raise argparse.ArgumentError(action, f"must be one of {', '.join(known)}, got {excerpt(value)}{hint}")


def whole(least: int = 1, most: int = MOST) -> Callable[[str], int]:
    """The type of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # no digits, or thousands of them
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {excerpt(text)}")
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
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, got {excerpt(text)}")
        return value

    return parse


def seed_type(text: str) -> int:
    """A seed: a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {excerpt(text)}")
    return int(text)


# A standard deviation of noise: beyond these, samples in float32 or their squares overflow or vanish.
sigma_type = number(1e-18, 1e18)
