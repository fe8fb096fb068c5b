"""The settings of the gradient attack, checked in one place; they are recorded in its results as they are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..._checks import MOST_INT32, check_choice, check_integers, check_numbers
from ..bounds import BoxSetting, as_box

__all__ = ["Direction", "Path", "Settings", "Targets"]

Targets = Literal["rechosen", "frozen"]
Path = Literal["auto", "factor", "features", "closed-form"]
Direction = Literal["gradient", "log-ratio"]


@dataclass(frozen=True)
class Settings:
    """How to walk; see :func:`mfakit.attacks.gradient_attack`. Appendix C.2 states no values, so there is no preset of
    the paper's.

    Raises
    ------
    ValueError
        For a setting out of range, with the values that there are.
    """

    step_size: float = 0.05
    max_steps: int = 5000
    polish: bool = False
    targets: Targets = "rechosen"
    path: Path = "auto"
    direction: Direction = "gradient"
    bounds: BoxSetting = None

    def __post_init__(self) -> None:
        check_numbers({"step_size": self.step_size}, positive=True)
        check_integers({"max_steps": self.max_steps}, 1, MOST_INT32)
        check_choice("targets", self.targets, get_args(Targets))
        check_choice("path", self.path, get_args(Path))
        check_choice("direction", self.direction, get_args(Direction))
        # Python's own numbers: kernels and JSON take no others.
        object.__setattr__(self, "step_size", float(self.step_size))
        object.__setattr__(self, "max_steps", int(self.max_steps))
        object.__setattr__(self, "polish", bool(self.polish))
        object.__setattr__(self, "bounds", as_box(self.bounds))

    @property
    def frozen(self) -> bool:
        """Whether the components of the first step are kept."""
        return self.targets == "frozen"
