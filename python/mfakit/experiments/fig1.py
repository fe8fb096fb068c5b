"""Figure 1: the same samples, and the smallest changes that fool the optimal classifiers and two that were trained."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._io.report import Table, number, percent
from ..attacks import gradient_attack
from ..attacks.result import PIXEL_THRESHOLD
from .outcome import Context, Outcome, Picture
from .pairs import by_pair as by_data_set
from .pairs import open_pairs
from .study.data import symmetric_pairs
from .study.learners import Learner, learners, network_parameters
from .study.numbers import mean
from .study.run import STEP_SIZE, run_studies
from .study.settings import add_network, add_sizes, check_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "Panel", "Result", "by_data_set", "run"]

Array = NDArray[Any]

EXAMPLE = "--quick --pair mnist-06"
# The sizes of Table 1, so that networks and machines that it has trained are read and not trained again.
QUICK = {"n": 50, "n_train": 2_000, "width": 16, "epochs": 3, "pairs": ("mnist-06",)}
FULL = {"n": 500}
NAMES = ("bayes", "cnn", "rbf-svm-.04")


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    n, n_train : int
        Test and training samples per pair; eight test samples are shown.
    sigma : float
        Noise of the symmetric pairs.
    width, depth, epochs : int or None
        Of the CNN; None: the class's defaults.
    seed : int
    """

    pairs: tuple[str, ...] = ()
    n: int = 200
    n_train: int = 10_000
    sigma: float = 0.01
    width: int | None = None
    depth: int | None = None
    epochs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self)

    def learners(self) -> list[Learner]:
        """Those that are attacked beside the asymmetric pair."""
        return network_parameters(learners(NAMES), self)


@dataclass(frozen=True, eq=False)
class Panel:
    """A few samples of one pair, and where each attack moved them.

    Attributes
    ----------
    pair : str
    labels : list of str
        Whose attack: the columns (b) to (e) of the paper's figure.
    captions : list of str
        What each sample is turned into, as "0 → 6".
    samples : [m, d]
    moved : [c, m, d]
        NaN where the sample was not fooled.
    """

    pair: str
    labels: list[str]
    captions: list[str]
    samples: Array
    moved: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """A panel for each pair."""

    title: ClassVar[str] = "Figure 1: what fools the optimal classifiers, a CNN and an RBF SVM"

    config: Config
    panels: list[Panel]

    def tables(self) -> dict[str, Table]:
        """Mean ℓ2 and visible pixels of what is shown."""
        rows = []
        for p in self.panels:
            for label, moved in zip(p.labels, p.moved, strict=True):
                change = (moved - p.samples)[~np.isnan(moved[:, 0])]
                l2, within = np.linalg.norm(change, axis=1), np.abs(change) <= PIXEL_THRESHOLD
                rows.append((p.pair, label, str(len(change)), number(mean(l2)), percent(mean(within), 0)))
        columns = ("pair", "classifier", "fooled", "mean\nℓ2", "pixels ≤\n5/255 (%)")
        return {f"Of {len(self.panels[0].samples)} samples": Table(columns, tuple(rows), labels=2)}

    @property
    def notes(self) -> str:
        """What is shown."""
        return (
            "Test samples of the symmetric pair, and the adversarial images of the optimal classifier of the "
            "asymmetric and of the symmetric pair (gradient attack), of a CNN (CW-L2) and of an RBF SVM (gradient "
            "attack) that learned from samples of the symmetric pair. ℓ2 in pixel units of [0, 1]."
        )

    def pictures(self) -> dict[str, Picture]:
        """The samples side by side."""
        return {f"{p.pair}-side-by-side": partial(_draw, p) for p in self.panels}

    def alt_texts(self) -> dict[str, str]:
        """What the pictures show."""
        return {
            f"{p.pair}-side-by-side": f"{p.pair}: samples beside what fools {', '.join(p.labels)}" for p in self.panels
        }


def _draw(p: Panel) -> Figure:
    from ..plots import side_by_side

    return side_by_side(p.samples, dict(zip(p.labels, p.moved, strict=True)), captions=p.captions, title=p.pair)


def run(config: Config, context: Context) -> Result:
    """Train and attack."""
    panels = []
    for pair in symmetric_pairs(config, open_pairs(config.pairs)):
        (s,) = run_studies([pair], config.learners(), context, desc="fig1")
        asymmetric = gradient_attack(pair.model.asymmetric(), s.shown, s.shown_y, step_size=STEP_SIZE, polish=True)
        moved = [np.where(asymmetric.success[:, None], asymmetric.x_adv, np.nan)]
        labels = ["Bayes, asymmetric"]
        for learner in s.learners:
            moved.append(learner.attacks[0].moved)
            labels.append("Bayes, symmetric" if learner.kind == "bayes" else learner.label)
        captions = [f"{s.classes[c]} → {s.classes[1 - c]}" for c in s.shown_y]
        panels.append(Panel(pair.name, labels, captions, s.shown, np.stack(moved).astype(np.float32)))
    return Result(config=config, panels=panels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    add_sizes(parser, Config)
    add_network(parser, Config)
