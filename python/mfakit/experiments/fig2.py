"""Figure 2: a mixture of factor analyzers follows a curved surface, and what the models of images draw."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integers, check_numbers
from .._io.arguments import whole
from .._io.report import Table, number
from .outcome import Context, Outcome, Picture
from .pairs import captions_of, open_pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Result", "run"]

Array = NDArray[Any]

EXAMPLE = "--components 12"
QUICK: dict[str, Any] = {"n": 1_000}
FULL: dict[str, Any] = {"n": 20_000}
SHOWN_PER_CLASS = 8
TURNS, WIDTH = 1.5, 0.6


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    pairs : tuple of str
        Whose samples are shown: shipped pairs by name, others by file; none: all that are shipped.
    n : int
        Points on the helical surface.
    components : int
        Of the mixture that is fitted to them, each with two factors.
    noise : float
        Standard deviation of the points off the surface.
    seed : int
    """

    pairs: tuple[str, ...] = ()
    n: int = 5_000
    components: int = 12
    noise: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"components": self.components}, 1)
        check_integers({"n": self.n}, self.components)
        check_integers({"seed": self.seed}, 0)
        check_numbers({"noise": self.noise}, positive=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """The points, the mixture, and samples of image models, [m, d] by pair, half of each class.

    `log_likelihood` and `of_one` are held-out nats per sample of the mixture and of a single Gaussian; `noise` is each
    component's standard deviation off its plane.
    """

    title: ClassVar[str] = "Figure 2: mixtures of factor analyzers"

    config: Config
    points: Array
    means: Array
    loadings: Array
    noise: Array
    log_likelihood: float
    of_one: float
    samples: dict[str, Array]

    def tables(self) -> dict[str, Table]:
        """How well the mixture follows the surface."""
        rows = (
            ("one Gaussian", number(self.of_one, 3), ""),
            (f"{len(self.means)} components", number(self.log_likelihood, 3), number(float(np.median(self.noise)), 4)),
        )
        return {"": Table(("model", "log-likelihood\n(nats)", "noise"), rows)}

    @property
    def notes(self) -> str:
        """What was fitted."""
        return (
            f"{self.config.n:,} points of a helical surface in R³ with noise {self.config.noise:g} off it; a "
            "mixture of planes fitted by EM. Log-likelihood: per held-out sample; noise: median of the components'. "
            "Samples of the image models are shown with their noise."
        )

    def pictures(self) -> dict[str, Picture]:
        """The surface and its planes, and samples of each pair."""
        drawn: dict[str, Picture] = {"helix": partial(_draw_helix, self)}
        return {**drawn, **{f"{name}-samples": partial(_draw_samples, name, X) for name, X in self.samples.items()}}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        own = {f"{name}-samples": f"Samples of both classes of {name}" for name in self.samples}
        return {"helix": "Points of a helical surface, and the planes of the components that follow it", **own}


def _draw_helix(r: Result) -> Figure:
    from ..plots import mixture_in_space

    return mixture_in_space(r.points[:2_000], r.means, r.loadings)


def _draw_samples(name: str, X: Array) -> Figure:
    from ..plots import show_images

    return show_images(X, columns=SHOWN_PER_CLASS, title=f"{name}: samples of {' and '.join(captions_of(name))}")


def helical_surface(n: int, noise: float, rng: np.random.Generator) -> Array:
    """n points [n, 3] of a ribbon that winds around the z axis, with noise."""
    angle, across = 2 * np.pi * TURNS * rng.uniform(size=n), WIDTH * (rng.uniform(size=n) - 0.5)
    points = np.stack([(1 + across) * np.cos(angle), (1 + across) * np.sin(angle), angle / np.pi], axis=1)
    return np.asarray(points + noise * rng.normal(size=(n, 3)))


def run(config: Config, context: Context) -> Result:
    """Fit the mixture, and draw from the image models."""
    from ..fit.estimator import MixtureOfFactorAnalyzers

    rng = np.random.default_rng(config.seed)
    points, held_out = (helical_surface(config.n, config.noise, rng) for _ in range(2))
    fitted = MixtureOfFactorAnalyzers(
        config.components, 2, n_init=4, max_iter=300, random_state=config.seed, progress=False
    ).fit(points)
    one = MixtureOfFactorAnalyzers(1, 2, random_state=config.seed, progress=False).fit(points)
    samples = {}
    for name, base in open_pairs(config.pairs).items():
        draw = np.random.default_rng([config.seed, *name.encode()])
        samples[name] = np.concatenate([m.sample(SHOWN_PER_CLASS, rng=draw)[0] for m in base.symmetric().mixtures])
    mfa = fitted.mfa_
    return Result(
        config=config, points=points, means=mfa.means, loadings=mfa.loadings,
        noise=np.sqrt(np.asarray(mfa.noise_variance)).reshape(len(mfa.means), -1).mean(axis=1),
        log_likelihood=float(fitted.score(held_out)), of_one=float(one.score(held_out)), samples=samples,
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--samples", dest="n", type=whole(), metavar="N", help=f"points (default: {Config.n})")
    parser.add_argument("--components", type=whole(), help=f"default: {Config.components}")
