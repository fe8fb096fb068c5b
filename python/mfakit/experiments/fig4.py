"""Figure 4: Theorem 1 in R^49,152. Two noisy images, whose optimal classifier is robust and whose CNN is not."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integers
from .._io.arguments import whole
from .._io.report import Table, number, percent
from ..attacks import minimal_perturbation
from ..bayes.classifier import BayesClassifier
from ..mixture.mfa import MFA
from .outcome import Context, Picture
from .study.data import SymmetricPair
from .study.learners import CW_AUTO, LEARNERS, Learner, network_parameters
from .study.numbers import mean
from .study.result import StudyOutcome
from .study.run import run_studies
from .study.settings import add_network, add_sizes, check_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Result", "drawn_faces", "run"]

Array = NDArray[Any]

EXAMPLE = "--quick --images A.png B.png"
QUICK: dict[str, Any] = {"n": 6, "n_train": 200, "n_certified": 100}
FULL: dict[str, Any] = {"n": 100, "n_train": 2_000, "n_certified": 1_000}


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    images : tuple of path
        Two images of one size; none: two faces that are drawn here, in colour.
    side : int
        Height and width of the drawn faces; images keep their own.
    sigma : float
        Noise of both classes.
    n, n_train : int
        Samples to attack, and to train on.
    n_certified : int
        Samples whose certified radii are averaged; these cost next to nothing beside an attack on the CNN.
    width, depth, epochs : int
        Of the CNN.
    seed : int
    """

    images: tuple[Path, ...] = ()
    side: int = 128
    sigma: float = 0.1
    n: int = 40
    n_train: int = 1_000
    n_certified: int = 200
    width: int = 8
    depth: int = 6
    epochs: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.images) not in (0, 2):
            raise ValueError(f"images must be two files or none, got {len(self.images)}")
        check_integers({"side": self.side}, 8)
        check_integers({"n_certified": self.n_certified}, 2)
        check_settings(self)

    def learners(self) -> list[Learner]:
        """Bayes and the CNN."""
        return network_parameters([LEARNERS["bayes"], LEARNERS["cnn"].attacked_by(CW_AUTO)], self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(StudyOutcome):
    """Both classifiers; half of the distance of the two images, which is the radius of Theorem 1; and certified radii
    of fresh samples that the optimal classifier has right, ℓ2 in data units.
    """

    title: ClassVar[str] = "Figure 4: two noisy images, Theorem 1 and a CNN"

    config: Config
    half_distance: float
    radii: Array
    shape: tuple[int, ...]

    def tables(self) -> dict[str, Table]:
        """Mean ℓ2 of both against Theorem 1."""
        (s,) = self.sets
        rows = [("Theorem 1: ‖d‖/2", "", "", "", number(self.half_distance, 3), "", "1.0000")]
        rows.append(("certified", str(self.config.n_certified), "", "", *self._mean(self.radii)))
        for learner in s.learners:
            a = learner.attacks[0]
            said = str(s.n), percent(learner.accuracy), percent(a.adversarial_accuracy)
            rows.append((learner.label, *said, *self._mean(a.l2[np.isfinite(a.l2)])))
        columns = ("", "samples", "acc.\n(%)", "not\nfooled", "mean\nℓ2", "standard\nerror", "of\n‖d‖/2")
        return {"": Table(columns, tuple(rows))}

    def _mean(self, l2: Array) -> tuple[str, str, str]:
        """The mean, its standard error, and the mean as a share of Theorem 1's radius."""
        return number(mean(l2), 3), number(standard_error(l2), 3), number(mean(l2) / self.half_distance, 4)

    @property
    def notes(self) -> str:
        """What was trained and attacked."""
        d = int(np.prod(self.shape))
        return (
            f"Two images of {d:,} numbers with noise σ = {self.config.sigma:g}; a CNN of width {self.config.width} "
            f"trained on {self.config.n_train:,} samples and attacked by CW-L2. Theorem 1 says that almost every "
            "sample is at a distance of ‖d‖/2 from the optimal boundary, in any dimension. A sample's own distance "
            "differs by its noise along d, of standard deviation σ: a mean over n samples has a standard error of σ/√n."
        )

    def pictures(self) -> dict[str, Picture]:
        """Samples, and what fools both classifiers."""
        return {"two-images": partial(_draw, self)}

    def alt_texts(self) -> dict[str, str]:
        """What the picture shows."""
        return {"two-images": "Noisy images of two classes: what fools the optimal classifier is plain to see"}


def _draw(r: Result) -> Figure:
    from ..plots import side_by_side

    (s,) = r.sets
    rows = [0, len(s.shown) // 2] if len(s.shown) > 1 else [0]
    moved = {learner.label: learner.attacks[0].moved[rows] for learner in s.learners}
    return side_by_side(s.shown[rows], moved, shape=r.shape)


def standard_error(values: Array) -> float:
    """Of the mean of independent values; NaN for fewer than two."""
    return float(values.std(ddof=1) / values.size**0.5) if values.size > 1 else float("nan")


def drawn_faces(side: int) -> tuple[Array, Array]:
    """Two schematic faces [side, side, 3] in [0, 1], of nobody: ellipses that differ in shape, hair and mouth."""
    v, u = np.mgrid[0:side, 0:side] / (side - 1) * 2 - 1

    def soft(inside: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-np.clip(25 * inside, -50, 50))))[:, :, None]

    faces = []
    for wide, hair, smile, tone, back in (
        (0.55, 0.25, 0.25, (0.87, 0.68, 0.55), (0.35, 0.45, 0.6)),
        (0.66, 0.6, -0.18, (0.72, 0.52, 0.4), (0.6, 0.5, 0.35)),
    ):
        image = np.ones((side, side, 3)) * back
        for inside, color in (
            (1 - (u / (wide + 0.12)) ** 2 - ((v + 0.12) / (0.75 + 0.1 * hair)) ** 2, (0.2 * hair, 0.12, 0.08)),
            (1 - (u / wide) ** 2 - ((v - 0.08) / 0.72) ** 2, tone),
            *((1 - ((u - x) / 0.11) ** 2 - ((v + 0.08) / 0.06) ** 2, (0.1, 0.1, 0.12)) for x in (-0.24, 0.24)),
            (
                0.05 - np.abs(v - 0.42 + smile * (u / 0.3) ** 2 * 0.3) - 0.2 * np.maximum(np.abs(u) - 0.26, 0),
                (0.6, 0.2, 0.2),
            ),
        ):
            weight = soft(inside)
            image = (1 - weight) * image + weight * np.asarray(color)
        faces.append(image)
    return faces[0], faces[1]


def _images(paths: tuple[Path, ...], side: int) -> tuple[Array, Array]:
    if not paths:
        return drawn_faces(side)
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'mfakit[plots]'") from error
    found = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no image at {path}")
        try:
            with Image.open(path) as image:
                found.append(np.asarray(image.convert("RGB"), np.float64) / 255)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a readable image: {error}") from None
    if found[0].shape != found[1].shape:
        raise ValueError(f"the two images must have one size, got {found[0].shape[:2]} and {found[1].shape[:2]}")
    return found[0], found[1]


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    first, second = _images(config.images, config.side)
    d = first.size
    mixtures = [MFA([1.0], image.reshape(1, d), np.zeros((1, d, 0)), config.sigma**2) for image in (first, second)]
    pair = SymmetricPair(
        "two-images", BayesClassifier(mixtures), sigma=config.sigma, n_train=config.n_train, n_test=config.n,
        seed=config.seed, classes=("A", "B"),
    )  # fmt: skip
    learners = [
        learner.given(image_shape=first.shape) if learner.kind == "cnn" else learner for learner in config.learners()
    ]
    # Steps are of the images' own scale, whose distance is some forty.
    sets = run_studies([pair], learners, context, step_size=float(np.linalg.norm(first - second)) / 200, desc="fig4")
    half = float(np.linalg.norm(first - second)) / 2
    radii = _certified(pair.model, config, context)
    return Result(config=config, sets=sets, half_distance=half, radii=radii, shape=first.shape)


def _certified(clf: BayesClassifier, config: Config, context: Context) -> Array:
    """Certified radii of fresh samples that are right, [m]."""
    X, y = clf.sample(config.n_certified, rng=[config.seed, config.n_certified], balanced=True)
    r = minimal_perturbation(clf, X, y, progress=context.progress)
    return np.asarray(r.lower[~r.already_wrong])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        "--images", nargs=2, type=Path, metavar="FILE", help="two images of one size (default: drawn faces)"
    )
    parser.add_argument("--side", type=whole(8), help=f"height and width of the drawn faces (default: {Config.side})")
    parser.add_argument(
        "--certified-samples", dest="n_certified", type=whole(2), metavar="N",
        help=f"whose certified radii are averaged (default: {Config.n_certified})",
    )  # fmt: skip
    add_sizes(parser, Config)
    add_network(parser, Config)
