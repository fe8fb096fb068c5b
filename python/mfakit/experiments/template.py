"""A small experiment to copy: the mean smallest perturbation of a pair at several noise levels σ.

An experiment is a frozen configuration, which checks itself, a typed result, and ``run``, which makes one of the
other. Its name and an entry in ``EXPERIMENTS`` (``__init__.py``) register it; the command line offers the fields of
its configuration that ``add_arguments`` names, beside the options that all experiments share.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

from .._checks import check_integers, check_numbers
from .._io.arguments import sigma_type, whole
from .._io.report import Table, number
from ..attacks import minimal_perturbation
from .outcome import Context, Outcome
from .pairs import open_pairs

__all__ = ["Config", "Result", "run"]

EXAMPLE = "--pair mnist-06 --samples 20 --sigmas 0.1 0.01"
# What --quick and --full change of the configuration.
QUICK, FULL = {"n": 10}, {"n": 200}


@dataclass(frozen=True)
class Config:
    """What is run: pairs, samples per pair and noise level, and the noise levels."""

    pairs: tuple[str, ...] = ("mnist-06",)
    n: int = 20
    sigmas: tuple[float, ...] = (0.1, 0.01)
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"n": self.n}, 1)
        check_integers({"seed": self.seed}, 0)
        check_numbers({f"sigmas[{i}]": sigma for i, sigma in enumerate(self.sigmas)}, positive=True)


@dataclass(frozen=True)
class Row:
    """Means of the certified bounds of one pair at one σ, ℓ2 in data units."""

    pair: str
    sigma: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """One row for every pair and σ."""

    title: ClassVar[str] = "Smallest perturbations at several noise levels"

    config: Config
    rows: tuple[Row, ...]

    def tables(self) -> dict[str, Table]:
        """One row for every pair and σ."""
        cells = tuple((r.pair, f"{r.sigma:g}", number(r.lower, 4), number(r.upper, 4)) for r in self.rows)
        return {"": Table(("pair", "σ", "lower\nℓ2", "upper\nℓ2"), cells)}


def run(config: Config, context: Context) -> Result:
    """Run the experiment."""
    rows = []
    for name, base in open_pairs(config.pairs).items():
        for sigma in config.sigmas:
            clf = base.symmetric(sigma)
            r = minimal_perturbation(
                clf, *clf.sample(config.n, rng=config.seed, balanced=True), progress=context.progress
            )
            right = ~r.already_wrong
            rows.append(Row(name, sigma, float(r.lower[right].mean()), float(r.upper[right].mean())))
    return Result(config=config, rows=tuple(rows))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone, named as the fields of its configuration, whose defaults they leave."""
    parser.add_argument(
        "--samples", dest="n", type=whole(), metavar="N", help=f"samples per pair and σ (default: {Config.n})"
    )
    parser.add_argument(
        "--sigmas", type=sigma_type, nargs="+", metavar="SIGMA", help="noise levels (default: 0.1 0.01)"
    )
