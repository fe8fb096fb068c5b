"""Figure 12: how large a perturbation fools classifiers of CIFAR-10's classes i and i + 1."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import ClassVar

from .._checks import check_integers
from .._io.arguments import whole
from .outcome import Context
from .study.images import CIFAR10, cifar10_images, sizes
from .study.learners import Learner, learners, network_parameters
from .study.result import StudyOutcome
from .study.run import run_studies
from .study.settings import add_network, add_sizes, check_settings

__all__ = ["Config", "Result", "run"]

EXAMPLE = "--quick --classes 0 3 --data ROOT"
QUICK = {"n": 50, "n_train": 2_000, "width": 16, "epochs": 3, "classes": (0,)}
FULL = {"n": 500}
PAIRS = tuple(range(len(CIFAR10) - 1))
NAMES = ("cnn", "linear-svm", "rbf-svm")


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    classes : tuple of int
        The first class of each pair, 0 to 8; the other one is the next.
    n, n_train : int
        At most so many test and training images, half of each class.
    width, depth, epochs : int or None
        Of the CNN; None: the class's defaults.
    seed : int
    """

    classes: tuple[int, ...] = PAIRS
    n: int = 200
    n_train: int = 8_000
    width: int | None = None
    depth: int | None = None
    epochs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({f"classes[{i}]": c for i, c in enumerate(self.classes)}, 0, PAIRS[-1])
        check_settings(self)

    def learners(self) -> list[Learner]:
        """The classifiers with their parameters and attacks."""
        return network_parameters(learners(NAMES), self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(StudyOutcome):
    """Every classifier on every pair of classes."""

    title: ClassVar[str] = "Figure 12: CIFAR-10, class i against class i + 1"

    config: Config

    @property
    def notes(self) -> str:
        """What was trained and attacked, and what the columns mean."""
        return (
            f"Real images, as many of either class; there is no certified radius. {super().notes} RBF SVM: C = 1 and "
            "the largest γ that has as many held-out images right as any, the only search. The paper prints bars of "
            "mean ℓ2, and that on average its RBF machine has 7% less accuracy than its CNN and its linear machine "
            "25% less than the RBF."
        )


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    sets = [cifar10_images(first, context.data, **sizes(config)) for first in dict.fromkeys(config.classes)]
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="fig12"))


def by_data_set(config: Config) -> list[Config]:
    """Configurations of single pairs of classes, whose parts are those of all."""
    return [replace(config, classes=(first,)) for first in config.classes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        "--classes",
        nargs="+",
        type=whole(0, PAIRS[-1]),
        metavar="I",
        help="first classes of the pairs (default: 0 to 8)",
    )
    add_sizes(parser, Config)
    add_network(parser, Config)
