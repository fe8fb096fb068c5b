"""The settings of the certified minima, checked in one place; they are recorded in results as they are here."""

from __future__ import annotations

from dataclasses import dataclass

from ..._checks import check_choice

__all__ = ["Settings"]

PATHS = ("auto", "factor", "features")


@dataclass(frozen=True)
class Settings:
    """How to search; see :func:`mfakit.attacks.minimal_perturbation`. The search has no other settings: its result is a
    proof, and does not depend on how it was found.

    Raises
    ------
    ValueError
        For another path, with those that there are.
    """

    path: str = "auto"

    def __post_init__(self) -> None:
        check_choice("path", self.path, PATHS)
