"""Table 2: what is robust when it learns from real images and not from samples of a model. Figure 11."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

from . import paper
from .outcome import Context
from .study.images import by_faces_and_digits as by_data_set
from .study.images import faces_and_digits
from .study.learners import Learner, learners, network_parameters
from .study.result import StudyOutcome
from .study.run import run_studies
from .study.settings import add_network, add_sizes, check_settings

__all__ = ["Config", "Result", "by_data_set", "run"]

EXAMPLE = "--quick --digits --attributes Male --data ROOT"
QUICK = {"n": 50, "n_train": 2_000, "width": 8, "epochs": 3, "attributes": ("Male",)}
FULL = {"digits": True}
NAMES = ("cnn", "linear-svm", "rbf-svm")


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    attributes : tuple of str
        Of CelebA; the paper's five by default.
    digits : bool
        MNIST 06, 27 and 45 as well, which the paper has as symmetric data only.
    n, n_train : int
        At most so many test and training images, half of each class.
    width, depth, epochs : int or None
        Of the CNN; None: the class's defaults.
    seed : int
    """

    attributes: tuple[str, ...] = tuple(name.removeprefix("celeba-") for name in paper.TABLE2)
    digits: bool = False
    n: int = 300
    n_train: int = 8_000
    width: int | None = None
    depth: int | None = None
    epochs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self)

    def learners(self) -> list[Learner]:
        """The classifiers with their parameters and attacks."""
        return network_parameters(learners(NAMES), self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(StudyOutcome):
    """Every classifier on every data set."""

    title: ClassVar[str] = "Table 2: what is robust when it learns from real images"
    paper: ClassVar[paper.Accuracies] = paper.TABLE2

    config: Config

    @property
    def notes(self) -> str:
        """What was trained and attacked, and what the columns mean."""
        return (
            "Real images, as many of either class; the optimal classifier of real images is not known, so that there "
            f"is no certified radius to compare with. {super().notes} RBF SVM: C = 1 and the largest γ that has as "
            "many held-out images right as any. The paper does not say how many images of each class it took."
        )


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    sets = faces_and_digits(config, context.data)
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="table2"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--attributes", nargs="+", metavar="ATTRIBUTE", help="of CelebA (default: the paper's five)")
    parser.add_argument("--digits", action="store_true", help="MNIST 06, 27 and 45 as well")
    add_sizes(parser, Config)
    add_network(parser, Config)
