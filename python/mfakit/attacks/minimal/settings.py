"""The settings of the certified minima, checked in one place; they are recorded in results as they are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..._arrays.options import RunOptions
from ..._checks import check_choice
from ..bounds import BoxSetting, as_box

__all__ = ["MinimalOptions", "Path", "Settings"]

Path = Literal["auto", "factor", "features"]


@dataclass(frozen=True)
class Settings:
    """How to search; see :func:`mfakit.attacks.minimal_perturbation`. The search has no other settings: its result is a
    proof, and does not depend on how it was found.

    Raises
    ------
    ValueError
        For another path, with those that there are, and for bounds that are none.
    """

    path: Path = "auto"
    bounds: BoxSetting = None

    def __post_init__(self) -> None:
        check_choice("path", self.path, get_args(Path))
        object.__setattr__(self, "bounds", as_box(self.bounds))


class MinimalOptions(RunOptions, total=False):
    """What functions hand on to :func:`mfakit.attacks.minimal_perturbation`, for type checkers."""

    path: Path
    bounds: Any
    target: Any
