"""Appendix C.2: whether CW-L2 finds what the gradient attack finds, on classifiers that both can attack."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._checks import check_integers, check_numbers
from .._io.arguments import sigma_type, whole
from .._io.report import Table, number, percent
from ..datasets import available_bayes_pairs
from .outcome import Context, Picture
from .pairs import open_pairs
from .study.data import DataSet, SymmetricPair
from .study.learners import CW, CW_AUTO, GRADIENT, Learner, learners
from .study.result import StudyOutcome
from .study.run import run_studies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Result", "run"]

EXAMPLE = "--quick --pair mnist-06"
QUICK = {"n": 20, "n_train": 1_000}
FULL = {"n": 300, "pairs": ()}
NAMES = ("bayes", "linear-svm", "rbf-svm-.04")


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    n, n_train : int
        Test and training samples per pair.
    sigma : float
        Noise of the symmetric pairs.
    seed : int
    """

    pairs: tuple[str, ...] = ("mnist-06",)
    n: int = 100
    n_train: int = 4_000
    sigma: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"n": self.n}, 2)
        check_integers({"n_train": self.n_train}, 10)
        check_integers({"seed": self.seed}, 0)
        check_numbers({"sigma": self.sigma}, positive=True)

    def learners(self) -> list[Learner]:
        """Those with a gradient attack of their own, under CW-L2 too."""
        return [
            learner.given(self.n_train).attacked_by(GRADIENT, *learner.attacks, CW, CW_AUTO)
            for learner in learners(NAMES)
        ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(StudyOutcome):
    """Both attacks on every classifier."""

    title: ClassVar[str] = "CW-L2 and the gradient attack (appendix C.2)"

    config: Config

    def ratios(self) -> dict[tuple[str, str, str], np.ndarray]:
        """By data set, classifier and kind of CW-L2, its ℓ2 over the gradient attack's, of samples that both fool."""
        found = {}
        for s in self.sets:
            for learner in s.learners:
                first = learner.attacks[0]
                for attack in learner.attacks:
                    if attack.attack.startswith(CW):
                        ratio = attack.l2 / first.l2
                        found[s.name, learner.label, attack.attack] = ratio[np.isfinite(ratio)]
        return found

    def tables(self) -> dict[str, Table]:
        """The ratios, and each attack by itself."""
        columns = ("data", "classifier", "attack", "both\nfool", "5%", "median", "95%", "within\n5% (%)")
        rows = []
        for names, ratio in self.ratios().items():
            low, middle, high = np.quantile(ratio, (0.05, 0.5, 0.95)) if ratio.size else [float("nan")] * 3
            close = float((np.abs(ratio - 1) <= 0.05).mean()) if ratio.size else float("nan")
            rows.append((*names, str(ratio.size), number(low, 3), number(middle, 3), number(high, 3), percent(close)))
        return {
            "ℓ2 of CW-L2 over that of the gradient attack": Table(columns, tuple(rows), labels=3),
            **super().tables(),
        }

    def pictures(self) -> dict[str, Picture]:
        """Histograms of the ratios."""
        return {"ratios": partial(_draw, self.ratios())}

    def alt_texts(self) -> dict[str, str]:
        """What the picture shows."""
        return {"ratios": "Histograms of CW-L2's ℓ2 over the gradient attack's, by classifier"}


def _draw(ratios: dict[tuple[str, str, str], np.ndarray]) -> Figure:
    from ..plots import distance_histogram

    own = {
        f"{data}, {label}": values
        for (data, label, attack), values in ratios.items()
        if attack == CW_AUTO and values.size
    }
    return distance_histogram(
        own, marks={"equal": 1.0}, xlabel="ℓ2 of CW-L2 (our defaults) / ℓ2 of the gradient attack"
    )


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    sets: list[DataSet] = [
        SymmetricPair(name, base, sigma=config.sigma, n_train=config.n_train, n_test=config.n, seed=config.seed)
        for name, base in open_pairs(config.pairs).items()
    ]
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="cw_vs_gradient"))


def by_data_set(config: Config) -> list[Config]:
    """Configurations of single pairs, whose parts are those of all."""
    return [replace(config, pairs=(name,)) for name in config.pairs or available_bayes_pairs()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--samples", dest="n", type=whole(2), metavar="N", help=f"test samples (default: {Config.n})")
    parser.add_argument(
        "--training-samples", dest="n_train", type=whole(10), metavar="N", help=f"default: {Config.n_train}"
    )
    parser.add_argument("--sigma", type=sigma_type, help=f"noise of the pairs (default: {Config.sigma})")
