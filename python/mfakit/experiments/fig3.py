"""Figure 3: classes of the plane whose optimal boundary is far from their points, or near; and discrete classes (Lemma
A.2), from smooth tables to one whose points are all a level from the boundary.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from .. import theory
from .._checks import check_choice, check_integers
from .._io import report
from .._io.arguments import whole
from ..attacks import minimal_perturbation
from ..plots.planes import PlaneCase
from ..theory.lemma_a2 import LemmaA2Check, LemmaA2Validation, Metric
from .outcome import Context, Outcome, Picture
from .planes import CASES, Plane, plane_of
from .study.numbers import mean

__all__ = ["Config", "PlaneNumbers", "Result", "run"]

Array = NDArray[Any]

# How concentrated class 0 is in the pictures: not at all, on the way, and as good as in the limit.
SHOWN = (None, 0.9, 0.99999)

EXAMPLE = "--levels 50"
QUICK, FULL = {"n": 5, "points": 50}, {"n": 100}


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    points : int
        Samples per class of each example in the plane.
    levels : int
        Per feature; two features.
    n : int
        Random pairs of tables.
    metric : {"l1", "linf", "single"}
        How changes are counted, see :func:`mfakit.theory.levels_to_boundary`.
    seed : int
    """

    points: int = 100
    levels: int = 100
    n: int = 20
    metric: Metric = "l1"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"points": self.points, "levels": self.levels, "n": self.n}, 1)
        check_integers({"seed": self.seed}, 0)
        check_choice("metric", self.metric, get_args(Metric))


@dataclass(frozen=True, eq=False)
class PlaneNumbers:
    """One example in the plane: accuracy, and the certified radii of class 0's and class 1's samples that are right."""

    case: PlaneCase
    far: bool
    accuracy: float
    radii: tuple[Array, Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """The examples in the plane; the sweep over concentrations, and the pairs of tables that are drawn, by heading."""

    title: ClassVar[str] = "Figure 3: where the optimal boundary is far from the points, and where it is near"

    config: Config
    planes: list[PlaneNumbers]
    sweep: LemmaA2Validation
    cases: dict[str, LemmaA2Check]

    def tables(self) -> dict[str, report.Table]:
        """Each table under its heading."""
        columns = ("example", "boundary", "accuracy\n(%)", "class 0\nmean ℓ2", "class 1\nmean ℓ2")
        rows = tuple(
            (p.case.title, "far" if p.far else "near", report.percent(p.accuracy), *_means(p)) for p in self.planes
        )
        return {
            "Certified radii in the plane": report.Table(columns, rows, labels=2),
            f"Means over {self.config.n} random pairs of tables": self.sweep.table(),
            **{f"One pair, {label}": case.table() for label, case in self.cases.items()},
        }

    @property
    def notes(self) -> str:
        """What the columns mean."""
        return (
            f"In the plane: {self.config.points} samples a class; certified radius, ℓ2: no smaller change alters the "
            f"optimal decision. Discrete: two classes over {' × '.join(map(str, self.sweep.levels))} cells, smooth "
            "random tables with the same floor; class 0 takes level k of feature 0 with probability p₀(f = k). A "
            f"point's levels are the fewest to change ({self.config.metric}) until the optimal decision changes; "
            "shares and means, in the plane too, are over the rightly decided points of a class. The paper does not "
            "print how its tables were made."
        )

    def pictures(self) -> dict[str, Picture]:
        """The tables, and what the sweep found."""
        from .. import plots

        title = "top: far from the points; bottom: near to points of class 0 (blue) or of both"
        return {
            "planes": partial(plots.decision_plot, [p.case for p in self.planes], columns=3, title=title),
            "quantization": partial(plots.quantization_plot, self.cases, rng=self.config.seed),
            "lemma-a2": partial(plots.lemma_a2_plot, self.sweep, title="Lemma A.2 on random tables"),
        }


def run(config: Config, context: Context) -> Result:
    """See Lemma A.2 at work on random tables."""
    sweep = theory.validate_lemma_a2(config.levels, n=config.n, metric=config.metric, rng=config.seed)
    cases = {}
    for concentration in SHOWN:
        tables = theory.random_discrete_classes(config.levels, concentration=concentration, rng=config.seed)
        label = "as drawn" if concentration is None else f"p₀(f = k) = {concentration}"
        cases[label] = theory.check_lemma_a2(*tables, metric=config.metric)
    return Result(config=config, planes=[_plane(case, config) for case in CASES], sweep=sweep, cases=cases)


def _plane(case: Plane, config: Config) -> PlaneNumbers:
    clf = case.classifier()
    X, y = clf.sample(2 * config.points, rng=config.seed, balanced=True, dtype=np.float64)
    r = minimal_perturbation(clf, X, y)
    radii = tuple(r.lower[~r.already_wrong & (y == c)] for c in (0, 1))
    return PlaneNumbers(plane_of(case, clf, X, y), case.far, r.accuracy, (radii[0], radii[1]))


def _means(p: PlaneNumbers) -> list[str]:
    return [report.number(mean(radii), 3) for radii in p.radii]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--points", type=whole(), help=f"per class, in the plane (default: {Config.points})")
    parser.add_argument("--levels", type=whole(), help=f"per feature (default: {Config.levels})")
    parser.add_argument(
        "--samples", dest="n", type=whole(), metavar="N", help=f"random pairs of tables (default: {Config.n})"
    )
    parser.add_argument(
        "--metric", choices=get_args(Metric), help=f"how changes are counted (default: {Config.metric})"
    )
