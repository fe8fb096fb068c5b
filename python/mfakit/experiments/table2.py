"""Table 2: what is robust when it learns from real images and not from samples of a model. Figure 11."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import ClassVar

from . import paper
from .outcome import Context
from .study.data import DataSet
from .study.images import DIGITS, celeba_images, mnist_images
from .study.learners import Learner, learners, network_parameters
from .study.result import StudyOutcome
from .study.run import run_studies
from .study.settings import add_network, add_sizes, check_settings

__all__ = ["Config", "Result", "run"]

EXAMPLE = "--quick --digits --attributes Male --data ROOT"
QUICK = {"n": 50, "n_train": 1_000, "width": 16, "epochs": 3, "attributes": ("Male",)}
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
        if not self.attributes and not self.digits:
            raise ValueError("attributes must name at least one attribute, or digits be True; got nothing to train on")
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
    sizes = {"n_train": config.n_train, "n_test": config.n, "seed": config.seed}
    sets: list[DataSet] = [celeba_images(name, context.data, **sizes) for name in config.attributes]
    if config.digits:
        sets += [mnist_images(pair, context.data, **sizes) for pair in DIGITS]
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="table2"))


def by_data_set(config: Config) -> list[Config]:
    """Configurations of single data sets, whose parts are those of all."""
    found = [replace(config, attributes=(name,), digits=False) for name in config.attributes]
    return [*found, replace(config, attributes=())] if config.digits else found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--attributes", nargs="+", metavar="ATTRIBUTE", help="of CelebA (default: the paper's five)")
    parser.add_argument("--digits", action="store_true", help="MNIST 06, 27 and 45 as well")
    add_sizes(parser, Config)
    add_network(parser, Config)
