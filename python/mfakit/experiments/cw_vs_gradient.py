"""Appendix C.2: whether CW-L2 finds what the gradient attack finds, on classifiers that both can attack."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._io.report import Table, number, percent
from .outcome import Context, Picture
from .pairs import by_pair as by_data_set
from .pairs import open_pairs
from .study.data import symmetric_pairs
from .study.learners import CW, CW_AUTO, GRADIENT, Learner, learners
from .study.result import StudyOutcome, classifier_colors
from .study.run import run_studies
from .study.settings import add_sizes, check_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Result", "by_data_set", "run"]

EXAMPLE = "--quick --pair mnist-06"
QUICK = {"n": 50, "n_train": 1_000}
FULL = {"n": 300, "pairs": ()}
NAMES = ("bayes", "linear-svm", "rbf-svm-.04", "rbf-svm-.001")


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
        check_settings(self)

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
        """Histograms of the ratios of each data set."""
        return {f"{s.name}-ratios": partial(_draw, s.name, self.ratios()) for s in self.sets}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        shown = "histograms of CW-L2's ℓ2 over the gradient attack's, by classifier"
        return {f"{s.name}-ratios": f"{s.name}: {shown}" for s in self.sets}


def _draw(name: str, ratios: dict[tuple[str, str, str], np.ndarray]) -> Figure:
    from ..plots import distance_histogram

    own = {
        label: values
        for (data, label, attack), values in ratios.items()
        if (data, attack) == (name, CW_AUTO) and values.size
    }
    return distance_histogram(
        own, marks={"equal": 1.0}, colors=[classifier_colors()[label] for label in own], title=name,
        xlabel="ℓ2 of CW-L2 (our defaults) / ℓ2 of the gradient attack",
    )  # fmt: skip


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    sets = symmetric_pairs(config, open_pairs(config.pairs))
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="cw_vs_gradient"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    add_sizes(parser, Config)
