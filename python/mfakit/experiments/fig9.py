"""Figure 9: whether wider, deeper and longer trained networks, or more samples, are more robust."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from .._checks import check_integers
from .._io.arguments import whole
from .._io.report import Table, number, percent
from .outcome import Context, Picture
from .pairs import by_pair as by_data_set
from .pairs import open_pairs
from .study.data import symmetric_pairs
from .study.learners import CW_AUTO, LEARNERS, Learner, network_parameters, unfitted
from .study.numbers import LearnerNumbers, SetNumbers
from .study.result import StudyOutcome, classifier_colors
from .study.run import run_studies
from .study.settings import add_network, add_sizes, check_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Result", "by_data_set", "run"]

EXAMPLE = "--quick --pair mnist-06"
QUICK = {
    "n": 50, "n_train": 2_000, "width": 8, "epochs": 3, "widths": (4, 8), "depths": (2,), "passes": (6,),
    "fresh": (10_000,),
}  # fmt: skip
FULL = {"n": 300}
# What is varied: the configuration's field, and what the axis says.
AXES = {
    "widths": "channels of the first layers", "depths": "convolutions", "passes": "passes over the samples",
    "fresh": "fresh samples",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is run: a network, and for each setting others that differ from it in that alone.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    widths, depths, passes : tuple of int
        Channels of the first layers, convolutions, and passes over the training samples.
    fresh : tuple of int
        Numbers of samples of which each is met once, as they are drawn.
    width, depth, epochs : int
        Of the network where they are not varied.
    n, n_train : int
        Test and training samples per pair.
    sigma : float
        Noise of the symmetric pairs.
    seed : int
    """

    pairs: tuple[str, ...] = ("mnist-06",)
    widths: tuple[int, ...] = (4, 8, 16, 32, 64)
    depths: tuple[int, ...] = (2, 4, 6, 8)
    passes: tuple[int, ...] = (1, 3, 6, 12, 24)
    fresh: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    width: int = 16
    depth: int = 6
    epochs: int = 6
    n: int = 100
    n_train: int = 10_000
    sigma: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({f"{name}[{i}]": v for name in AXES for i, v in enumerate(getattr(self, name))}, 1)
        check_settings(self)

    def learners(self) -> list[Learner]:
        """Bayes and an RBF machine to compare with, and the networks; one that several settings share stands once."""
        usual = [LEARNERS["cnn"].attacked_by(CW_AUTO), LEARNERS["bayes"], LEARNERS["rbf-svm-.04"]]
        cnn, *found = network_parameters(usual, self)
        for field, parameter in (("widths", "width"), ("depths", "depth"), ("passes", "epochs")):
            for value in getattr(self, field):
                found.append(
                    replace(cnn.given(**{parameter: value}), name=f"{field}-{value}", label=f"{parameter} {value}")
                )
        for samples in self.fresh:
            steps = -(-samples // unfitted("cnn", cnn.parameters).batch_size)
            found.append(replace(cnn, name=f"fresh-{samples}", label=f"{samples:,} fresh", n_train=None, n_steps=steps))
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(StudyOutcome):
    """Every network on every pair."""

    title: ClassVar[str] = "Figure 9: wider and deeper networks, longer training, more samples"

    config: Config

    def tables(self) -> dict[str, Table]:
        """Each network's accuracy and mean ℓ2, beside those of the optimal classifier and an RBF machine."""
        columns = ("data", "network", "weights", "acc.\n(%)", "not\nfooled", "mean\nℓ2", "ratio")
        rows = []
        for s in self.sets:
            for learner in s.learners:
                a = learner.strongest
                weights = learner.training.get("n_weights")
                rows.append(
                    (s.name, learner.label, "" if weights is None else f"{weights:,}", percent(learner.accuracy),
                     percent(a.adversarial_accuracy), number(a.mean_l2), number(a.median_ratio))
                )  # fmt: skip
        return {"": Table(columns, tuple(rows), labels=2)}

    @property
    def notes(self) -> str:
        """What was varied, and what was found."""
        c = self.config
        best = max((learner.strongest.median_ratio, learner.label) for s in self.sets for learner in _networks(s))
        return (
            f"Networks differ from one of width {c.width} and depth {c.depth}, {c.epochs} passes over {c.n_train:,} "
            "samples, in one setting each; fresh: every training sample is met once. CW-L2 with our defaults. Ratio: "
            "median of a sample's ℓ2 over its certified Bayes radius. The "
            f"largest ratio of any network is {number(best[0])} ({best[1]})."
        )

    def pictures(self) -> dict[str, Picture]:
        """Mean ℓ2 against each setting."""
        return {f"{s.name}-settings": partial(_sweeps, s) for s in self.sets}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        shown = "mean ℓ2 that fools networks by width, depth, passes and samples, beside the optimal classifier's"
        return {f"{s.name}-settings": f"{s.name}: {shown}" for s in self.sets}


def _networks(s: SetNumbers) -> list[LearnerNumbers]:
    return [learner for learner in s.learners if learner.kind == "cnn"]


def _sweeps(s: SetNumbers) -> Figure:
    from ..plots import norm_sweeps

    by_axis: dict[str, list[tuple[float, float]]] = {label: [] for label in AXES.values()}
    for learner in _networks(s):
        field, _, value = learner.name.rpartition("-")
        by_axis[AXES[field]].append((float(value), learner.strongest.mean_l2))
    lines = {learner.label: learner.strongest.mean_l2 for learner in s.learners if learner.kind != "cnn"}
    varied = {label: points for label, points in by_axis.items() if points}
    return norm_sweeps(varied, lines, colors=classifier_colors(), title=s.name)


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    sets = symmetric_pairs(config, open_pairs(config.pairs))
    return Result(config=config, sets=run_studies(sets, config.learners(), context, desc="fig9"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    for name, text in AXES.items():
        default = " ".join(map(str, getattr(Config, name)))
        parser.add_argument(f"--{name}", nargs="*", type=whole(), metavar="N", help=f"{text} (default: {default})")
    add_sizes(parser, Config)
    add_network(parser, Config)
