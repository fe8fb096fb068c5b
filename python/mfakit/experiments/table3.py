"""Table 3: how well networks that learn from samples of a symmetric model do on real images."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, ClassVar

from .._io.progress import open_bar
from .._io.report import NOT_KNOWN, Table, number, percent
from ..datasets import load_bayes_pair
from . import paper
from .outcome import Context, Outcome
from .study.data import SymmetricPair
from .study.fitted import fitted_pair
from .study.images import RealImages, faces_and_digits
from .study.images import by_faces_and_digits as by_data_set
from .study.learners import LEARNERS, Learner, network_parameters
from .study.run import Study, device_for
from .study.settings import add_network, add_sizes, check_settings

__all__ = ["Config", "Result", "Row", "by_data_set", "run"]

EXAMPLE = "--quick --data ROOT"
QUICK = {"n": 500, "n_train": 2_000, "width": 16, "epochs": 3, "attributes": ("Male",)}
FULL: dict[str, Any] = {}


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    attributes : tuple of str
        Of CelebA; the paper's five by default. A pair is fitted to the training images of each.
    digits : bool
        MNIST 06, 27 and 45 as well, with the shipped pairs.
    n, n_train : int
        At most so many real test and training images, half of each class; as many samples of the model as images.
    sigma : float
        Noise of the symmetric pairs.
    width, depth, epochs : int or None
        Of the CNN; None: the class's defaults.
    seed : int
    """

    attributes: tuple[str, ...] = tuple(name.removeprefix("celeba-") for name in paper.TABLE3)
    digits: bool = True
    n: int = 1_000
    n_train: int = 8_000
    sigma: float = 0.01
    width: int | None = None
    depth: int | None = None
    epochs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self)

    def learners(self) -> list[Learner]:
        """The network."""
        return network_parameters([LEARNERS["cnn"]], self)


@dataclass(frozen=True)
class Row:
    """Accuracies on real test images, shares of 1: of the network that learned from real images, of the one that
    learned from samples, and of the symmetric model itself.
    """

    name: str
    n: int
    n_train: int
    real: float
    symmetric: float
    bayes: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """A row for each data set."""

    title: ClassVar[str] = "Table 3: real images, and networks that learned from a symmetric model of them"

    config: Config
    rows: tuple[Row, ...]

    def tables(self) -> dict[str, Table]:
        """Accuracies beside the paper's, with what learning from samples costs."""
        columns = (
            "data", "test\nimages", "real\n(%)", "symmetric\n(%)", "loss", "model\n(%)", "paper\nreal",
            "paper\nsymmetric", "paper\nloss",
        )  # fmt: skip
        rows = []
        for r in self.rows:
            real, symmetric = paper.TABLE3.get(r.name, (None, None))
            loss = None if real is None or symmetric is None else real - symmetric
            rows.append(
                (r.name, str(r.n), percent(r.real), percent(r.symmetric), number(100 * (r.real - r.symmetric), 1),
                 percent(r.bayes), number(real, 1), number(symmetric, 1), number(loss, 1))
            )  # fmt: skip
        return {"": Table(columns, tuple(rows))}

    @property
    def notes(self) -> str:
        """What was trained, and what the columns mean."""
        losses = [100 * (r.real - r.symmetric) for r in self.rows]
        return (
            "Accuracy on real test images of a CNN that learned from real images, of the same CNN that learned from as "
            f"many samples of the symmetric pair (σ = {self.config.sigma:g}), and of that pair's optimal classifier. "
            f"Loss: percentage points; on average {number(sum(losses) / len(losses), 1)} here and 5.0 in the paper "
            f"(its text says 5%). {NOT_KNOWN}: not in the paper."
        )


def run(config: Config, context: Context) -> Result:
    """Train both networks on each data set."""
    sets = faces_and_digits(config, context.data)
    rows = []
    with open_bar(context.progress, total=len(sets), unit="data set", desc="table3") as bar:
        for data in sets:
            rows.append(_row(data, config, context))
            bar.update()
    return Result(config=config, rows=tuple(rows))


def _row(data: RealImages, config: Config, context: Context) -> Row:
    (learner,) = config.learners()
    device = device_for(context.device, [learner])
    X, y = data.test_samples
    base = load_bayes_pair(data.name) if data.name.startswith("mnist") else fitted_pair(data, context, config.seed)
    n_train = len(data.training_samples[0])
    pair = SymmetricPair(
        data.name, base, sigma=config.sigma, n_train=n_train, n_test=config.n, seed=config.seed, classes=data.classes
    )
    real, symmetric = (
        float(Study(samples, context, device).trained(learner).classifier.score(X, y)) for samples in (data, pair)
    )
    return Row(data.name, len(X), n_train, real, symmetric, pair.model.score(X, y))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--attributes", nargs="*", metavar="ATTRIBUTE", help="of CelebA (default: the paper's five)")
    parser.add_argument("--no-digits", dest="digits", action="store_false", help="without MNIST 06, 27 and 45")
    add_sizes(parser, Config)
    add_network(parser, Config)
