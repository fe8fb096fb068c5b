"""Figure 13: what the outlier components of asymmetric pairs look like."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integers, check_numbers
from .._io.arguments import number as numbers
from .._io.arguments import sigma_type
from .._io.report import NOT_KNOWN, Table, number
from .outcome import Context, Outcome, Picture
from .pairs import open_pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Outliers", "Result", "run"]

Array = NDArray[Any]

EXAMPLE = "--pair mnist-06"
QUICK: dict[str, Any] = {}
FULL: dict[str, Any] = {}
# The length of the paper's steps, √λ₅₀.
PAPER_STEP = {"mnist-06": 0.341, "mnist-27": 0.374, "mnist-45": 0.384}


@dataclass(frozen=True)
class Config:
    """What is shown.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    sigma : float
        Noise of the outliers.
    scale : float
        Length of their step from the global mean, in standard deviations along the direction.
    direction : int
        The principal direction, counted from 1.
    seed : int
        Of their samples.
    """

    pairs: tuple[str, ...] = ()
    sigma: float = 0.5
    scale: float = 1.0
    direction: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"direction": self.direction}, 1)
        check_integers({"seed": self.seed}, 0)
        check_numbers({"sigma": self.sigma}, positive=True)
        check_numbers({"scale": self.scale}, positive=False)


@dataclass(frozen=True, eq=False)
class Outliers:
    """The two outliers of a pair: means and a sample of each, [2, d] each."""

    pair: str
    means: Array
    samples: Array

    @property
    def step(self) -> float:
        """Length of the step from the global mean, half of the distance of the two means."""
        return float(np.linalg.norm(self.means[1] - self.means[0])) / 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """The outliers of each pair."""

    title: ClassVar[str] = "Figure 13: outlier components"

    config: Config
    outliers: list[Outliers]

    def tables(self) -> dict[str, Table]:
        """Lengths of the steps, beside the paper's."""
        rows = tuple(
            (o.pair, number(o.step, 3), number(PAPER_STEP.get(o.pair), 3), number(float(np.linalg.norm(o.means[0])), 2))
            for o in self.outliers
        )
        return {"": Table(("pair", "step\nℓ2", "paper\nℓ2", "‖mean‖"), rows)}

    @property
    def notes(self) -> str:
        """What is shown."""
        return (
            f"Means of the two outliers, the global mean plus and minus {self.config.scale:g} standard deviations "
            f"along the principal direction {self.config.direction} of the training data, and a sample of each (σ = "
            f"{self.config.sigma:g}). {NOT_KNOWN}: not in the paper's files."
        )

    def pictures(self) -> dict[str, Picture]:
        """Means over samples."""
        return {f"{o.pair}-outliers": partial(_draw, o) for o in self.outliers}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        return {
            f"{o.pair}-outliers": f"{o.pair}: means of the outliers, alike by eye, and a sample of each"
            for o in self.outliers
        }


def _draw(o: Outliers) -> Figure:
    from ..plots import show_images

    captions = [f"mean, class {c}" for c in (0, 1)] + [f"sample, class {c}" for c in (0, 1)]
    return show_images(np.concatenate([o.means, o.samples]), columns=2, captions=captions, title=o.pair)


def run(config: Config, context: Context) -> Result:
    """Make the asymmetric pairs."""
    found = []
    for name, base in open_pairs(config.pairs).items():
        clf = base.symmetric().asymmetric(scale=config.scale, sigma=config.sigma, direction=config.direction)
        rng = np.random.default_rng([config.seed, *name.encode()])
        only = [m.replace(weights=np.eye(m.n_components)[-1]) for m in clf.mixtures]
        samples = np.concatenate([m.sample(1, rng=rng)[0] for m in only])
        found.append(Outliers(name, np.stack([m.means[-1] for m in clf.mixtures]), samples))
    return Result(config=config, outliers=found)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--sigma", type=sigma_type, help=f"noise of the outliers (default: {Config.sigma})")
    parser.add_argument(
        "--scale", type=numbers(0, 1e6), help=f"length of the step in deviations (default: {Config.scale})"
    )
