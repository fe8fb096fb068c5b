"""Figure 10: accuracy against robustness of networks trained by TRADES, beside classifiers that have both."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._checks import check_numbers
from .._io.arguments import number as numbers
from .._io.report import Table, number, percent
from .outcome import Context, Picture
from .pairs import by_pair as by_data_set
from .pairs import open_pairs
from .study.data import symmetric_pairs
from .study.learners import CW, CW_AUTO, LEARNERS, Learner, network_parameters
from .study.numbers import LearnerNumbers
from .study.result import StudyOutcome, classifier_colors
from .study.run import run_studies
from .study.settings import add_network, add_sizes, check_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Result", "by_data_set", "run"]

EXAMPLE = "--quick --betas 1 6"
QUICK = {"n": 50, "n_train": 2_000, "width": 8, "epochs": 3, "betas": (1.0, 30.0), "pairs": ("mnist-06",)}
FULL = {"n": 300}


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    betas : tuple of float
        TRADES' β, what robustness is worth against accuracy; 0 is a plain network.
    epsilon : float
        Largest ℓ2 of the perturbations that it trains on; the paper does not state its.
    width, depth, epochs : int
        Of the networks.
    n, n_train : int
        Test and training samples per pair.
    sigma : float
        Noise of the symmetric pairs.
    seed : int
    """

    pairs: tuple[str, ...] = ()
    betas: tuple[float, ...] = (0.0, 1.0, 6.0, 30.0, 100.0)
    epsilon: float = 2.0
    width: int = 16
    depth: int = 6
    epochs: int = 6
    n: int = 100
    n_train: int = 4_000
    sigma: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers({f"betas[{i}]": beta for i, beta in enumerate(self.betas)}, positive=False)
        check_numbers({"epsilon": self.epsilon}, positive=True)
        check_settings(self)

    def learners(self) -> list[Learner]:
        """Bayes, an RBF machine, and a network for each β."""
        trades = Learner("trades", "TRADES", "trades", (CW, CW_AUTO), parameters={"epsilon": self.epsilon})
        each = [
            replace(trades.given(beta=beta), name=f"trades-{beta:g}", label=f"TRADES β {beta:g}") for beta in self.betas
        ]
        return network_parameters([LEARNERS["bayes"], LEARNERS["rbf-svm-.04"], *each], self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(StudyOutcome):
    """Every network on every pair."""

    title: ClassVar[str] = "Figure 10: accuracy against robustness of TRADES"

    config: Config

    def means(self) -> dict[str, tuple[float, float, float]]:
        """By classifier, the means over the data sets of accuracy, mean ℓ2 and median ratio, under the attack that
        fools most samples.
        """
        found: dict[str, list[LearnerNumbers]] = {}
        for s in self.sets:
            for learner in s.learners:
                found.setdefault(learner.label, []).append(learner)
        return {
            label: (
                float(np.mean([u.accuracy for u in each])),
                float(np.mean([u.strongest.mean_l2 for u in each])),
                float(np.mean([u.strongest.median_ratio for u in each])),
            )
            for label, each in found.items()
        }

    def tables(self) -> dict[str, Table]:
        """Means over the data sets, as the paper draws them, and each by itself."""
        rows = tuple((label, percent(a), number(l2), number(r)) for label, (a, l2, r) in self.means().items())
        means = Table(("classifier", "accuracy\n(%)", "mean\nℓ2", "ratio"), rows)
        own = super().tables()
        return {f"Means over {len(self.sets)} data sets": means, "Each": own[""]}

    @property
    def notes(self) -> str:
        """What was trained, and what the columns mean."""
        return (
            f"TRADES maximises over ‖x′ - x‖ ≤ {self.config.epsilon:g} (ℓ2, data units), which the paper does not "
            f"state. {super().notes}"
        )

    def pictures(self) -> dict[str, Picture]:
        """Accuracy against mean ℓ2."""
        return {"tradeoff": partial(_draw, self.means())}

    def alt_texts(self) -> dict[str, str]:
        """What the picture shows."""
        said = "; ".join(f"{label} {percent(a)}% at ℓ2 {number(l2)}" for label, (a, l2, _) in self.means().items())
        return {"tradeoff": f"Accuracy against mean ℓ2: {said}"}


def _draw(means: dict[str, tuple[float, float, float]]) -> Figure:
    from ..plots import tradeoff_plot

    colors = classifier_colors()
    points = {label: (accuracy, l2) for label, (accuracy, l2, _) in means.items()}
    return tradeoff_plot(points, path="TRADES", colors={**colors, "TRADES": colors["CNN"]})


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    sets = symmetric_pairs(config, open_pairs(config.pairs))
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="fig10"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    default = " ".join(f"{beta:g}" for beta in Config.betas)
    parser.add_argument("--betas", nargs="+", type=numbers(0, 1e6), metavar="BETA", help=f"default: {default}")
    parser.add_argument("--epsilon", type=float, help=f"ℓ2 that it trains on (default: {Config.epsilon})")
    add_sizes(parser, Config)
    add_network(parser, Config)
