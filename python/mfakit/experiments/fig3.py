"""Discrete classes (Figure 3 c and g, Lemma A.2): from smooth tables to one whose points are all a level from the
boundary.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from .. import theory
from .._checks import check_choice, check_integers
from .._io import report
from .._io.arguments import whole
from ..theory.lemma_a2 import LemmaA2Check, LemmaA2Validation
from .outcome import Context, Outcome, Picture

__all__ = ["Config", "Result", "run"]

# How concentrated class 0 is in the pictures: not at all, on the way, and as good as in the limit.
SHOWN = (None, 0.9, 0.99999)
METRICS = ("l1", "linf", "single")

EXAMPLE = "--levels 50"
QUICK, FULL = {"n": 5}, {"n": 100}


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    levels : int
        Per feature; two features.
    n : int
        Random pairs of tables.
    metric : {"l1", "linf", "single"}
        How changes are counted, see :func:`mfakit.theory.levels_to_boundary`.
    seed : int
    """

    levels: int = 100
    n: int = 20
    metric: str = "l1"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"levels": self.levels, "n": self.n}, 1)
        check_integers({"seed": self.seed}, 0)
        check_choice("metric", self.metric, METRICS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """The sweep over concentrations, and the pairs of tables that are drawn, under their headings."""

    title: ClassVar[str] = "Discrete classes and Lemma A.2"

    config: Config
    sweep: LemmaA2Validation
    cases: dict[str, LemmaA2Check]

    def tables(self) -> dict[str, report.Table]:
        """Each table under its heading."""
        return {
            f"Means over {self.config.n} random pairs of tables": self.sweep.table(),
            **{f"One pair, {label}": case.table() for label, case in self.cases.items()},
        }

    @property
    def notes(self) -> str:
        """What the columns mean."""
        return (
            f"Two classes over {' × '.join(map(str, self.sweep.levels))} cells, smooth random tables with the same "
            "floor; class 0 takes level k of feature 0 with probability p₀(f = k). A point's levels are the fewest to "
            f"change ({self.config.metric}) until the optimal decision changes; shares and means are over the "
            "rightly decided points of a class. The paper does not print how its tables were made (Figure 3)."
        )

    def pictures(self) -> dict[str, Picture]:
        """The tables, and what the sweep found."""
        from .. import plots

        return {
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
    return Result(config=config, sweep=sweep, cases=cases)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument("--levels", type=whole(), help=f"per feature (default: {Config.levels})")
    parser.add_argument(
        "--samples", dest="n", type=whole(), metavar="N", help=f"random pairs of tables (default: {Config.n})"
    )
    parser.add_argument("--metric", choices=METRICS, help=f"how changes are counted (default: {Config.metric})")
