"""Figure 6: two causes of brittleness, in the plane. Either the optimal classifier is brittle, because the classes are
asymmetric; or it is robust, and training from a bad start ends elsewhere. The bad start fits labels drawn at random, as
in Liu et al., Bad Global Minima Exist and SGD Can Reach Them, 2020; the optimiser here is Adam. The control starts from
the same weights and learns none of them.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integers
from .._io.arguments import whole
from .._io.report import Table, number, percent
from ..attacks import minimal_perturbation
from ..plots.planes import PlaneCase, grid_of
from .outcome import Context, Outcome, Picture
from .planes import CASES, GRID, Plane, plane_of

__all__ = ["Case", "Config", "Result", "run"]

Array = NDArray[Any]

EXAMPLE = "--misled 0"
QUICK: dict[str, Any] = {"n": 60}
FULL: dict[str, Any] = {"n": 1_000}
EXAMPLES = {"asymmetric": "a line inside a sphere", "symmetric": "parallel lines"}
# Names of the classifiers in tables: the optimal one, and networks by what they learn first.
OPTIMAL, MISLED, CONTROL = "optimal", "network, misled first", "network, usual start"
HIDDEN, STEPS, RATE, LOSS = 256, 1_500, 0.002, 1e-2
# Points of the grid on which a network's distance is measured, a side: nearest ones of the other decision.
FINE = 500


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    n : int
        Samples per class, to train on and to attack.
    misled : int
        Points all over the plane whose labels, drawn at random, one network learns first; 0: only the control, which
        starts as usual, is trained.
    seed : int
    """

    n: int = 200
    misled: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"n": self.n}, 2)
        check_integers({"misled": self.misled, "seed": self.seed}, 0)


@dataclass(frozen=True, eq=False)
class Case:
    """One pair of classes.

    Attributes
    ----------
    name : str
    case : PlaneCase
    accuracy : dict of classifier to float
        On fresh samples; classifiers as in the case's decisions.
    radii : dict of classifier to array
        Of samples of class 0 that it has right: certified radii of the optimal classifier, distances to a network's
        other decision.
    """

    name: str
    case: PlaneCase
    accuracy: dict[str, float]
    radii: dict[str, Array]

    def nearest(self, classifier: str, share: float = 0.05) -> float:
        """The distance that a share of the samples is nearer than, ℓ2; NaN where none was right, and inf where the
        plane has no other decision.
        """
        radii = self.radii[classifier]
        if not np.isfinite(radii).all():
            return float("inf")
        return float(np.quantile(radii, share)) if radii.size else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """Both pairs of classes."""

    title: ClassVar[str] = "Figure 6: is it the data, or is it the training?"

    config: Config
    cases: list[Case]

    def tables(self) -> dict[str, Table]:
        """Each classifier of each pair."""
        rows = tuple(
            (c.name, label, percent(accuracy), number(c.nearest(label), 3),
             number(c.nearest(label) / c.nearest(OPTIMAL), 2), number(c.nearest(label, 0.5), 3))
            for c in self.cases for label, accuracy in c.accuracy.items()
        )  # fmt: skip
        columns = ("classes", "classifier", "accuracy\n(%)", "class 0\n5% ℓ2", "of the\noptimal", "class 0\nmedian ℓ2")
        return {"": Table(columns, rows, labels=2)}

    @property
    def notes(self) -> str:
        """What was trained."""
        return (
            f"A network with two layers of {HIDDEN} units learns {2 * self.config.n} samples by Adam. Misled first: "
            f"before that it learns the labels of {self.config.misled} points all over the plane, drawn at random; the "
            "usual start has the same weights without that. ℓ2: certified radius of the optimal classifier; distance "
            "to the nearest point of a grid that a network decides otherwise; 5% of the samples are nearer than the "
            "first number. Left, the optimal classifier itself is brittle: class 0 has next to no variance across its "
            "line. Right, it is robust, and what a network ends at depends on its start."
        )

    def pictures(self) -> dict[str, Picture]:
        """Boundaries of both classifiers."""
        return {"boundaries": partial(_draw, [c.case for c in self.cases])}

    def alt_texts(self) -> dict[str, str]:
        """What the picture shows."""
        return {"boundaries": "Samples of two classes, the optimal boundary, and those of networks, one of them misled"}


def _draw(cases: list[PlaneCase]) -> Any:
    from ..plots import decision_plot

    return decision_plot(cases)


def run(config: Config, context: Context) -> Result:
    """Train a network on both pairs of classes, and attack it."""
    named = {case.title: case for case in CASES}
    return Result(config=config, cases=[_case(name, named[title], config) for name, title in EXAMPLES.items()])


def _case(name: str, plane: Plane, config: Config) -> Case:
    clf = plane.classifier()
    rng = np.random.default_rng([config.seed, *name.encode()])
    (X, y), (X_test, y_test) = (clf.sample(2 * config.n, rng=rng, balanced=True, dtype=np.float64) for _ in range(2))
    optimal = minimal_perturbation(clf, X_test, y_test)
    case = plane_of(plane, clf, X, y)
    found = Case(name, case, {OPTIMAL: optimal.accuracy}, {})
    found.radii[OPTIMAL] = optimal.lower[~optimal.already_wrong & (y_test == 0)]
    fine = grid_of(plane.extent, FINE)
    starts = {MISLED: config.misled, CONTROL: 0} if config.misled else {CONTROL: 0}
    for label, misled in starts.items():
        # A copy: both networks start from the same weights.
        decide = _trained(X, y, plane.extent, misled, copy.deepcopy(rng))
        right = (decide(X_test) > 0) == (y_test == 1)
        other = fine[decide(fine) > 0]
        found.accuracy[label] = float(right.mean())
        found.radii[label] = _distances(X_test[right & (y_test == 0)], other)
        case.decisions[label] = decide(grid_of(plane.extent, GRID)).reshape(GRID, GRID)
    return found


def _distances(X: Array, other: Array) -> Array:
    """From each row of X to the nearest of the others, which lie in the plane; inf where there are none."""
    return np.array([float(np.linalg.norm(other - x, axis=1).min(initial=np.inf)) for x in X])


def _trained(
    X: Array, y: Array, extent: tuple[float, float, float, float], misled: int, rng: np.random.Generator
) -> Callable[[Array], Array]:
    """The decision function of a network of the plane that has learned from X and y."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("the network needs torch: pip install 'mfakit[torch]'") from error
    sizes, layers = (2, HIDDEN, HIDDEN, 2), list[Any]()
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu"), torch.nn.ReLU()]
        with torch.no_grad():  # torch's own generator is the user's
            layers[-2].weight.copy_(torch.from_numpy(rng.normal(size=(n_out, n_in)) * (2 / n_in) ** 0.5))
            layers[-2].bias.copy_(torch.from_numpy(rng.normal(size=n_out) * 0.1))
    network = torch.nn.Sequential(*layers[:-1])

    def learn(points: Array, labels: Array) -> None:
        optimizer = torch.optim.Adam(network.parameters(), RATE)
        inputs, targets = torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs), targets)
            torch.autograd.backward(loss)
            optimizer.step()
            if loss.item() < LOSS:
                return

    def decide(points: Array) -> Array:
        with torch.no_grad():
            logits = network(torch.from_numpy(points.astype(np.float32)))
        return np.asarray((logits[:, 1] - logits[:, 0]).numpy(), np.float64)

    if misled:
        left, right, bottom, top = extent
        learn(rng.uniform((left, bottom), (right, top), (misled, 2)), rng.integers(0, 2, misled))
    learn(X, y)
    return decide


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        "--samples", dest="n", type=whole(2), metavar="N", help=f"samples per class (default: {Config.n})"
    )
    parser.add_argument(
        "--misled", type=whole(0), metavar="N", help=f"random labels that one learns first (default: {Config.misled})"
    )
