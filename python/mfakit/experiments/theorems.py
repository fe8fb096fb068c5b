"""The theorems validated on pairs: what certified radii do as σ → 0.

Theorem 1 on the two classes' mean images, Theorem 2 on the symmetric pairs, Theorem 3 with outliers in the other class
alone and in both; then where the certificate itself is loose. Lemma A.2 is in ``mfakit reproduce fig3``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from .. import theory
from .._checks import check_integers
from .._io import report
from .._io.arguments import sigma_type, whole
from ..bayes.classifier import BayesClassifier
from ..theory.gaps import GapSweep
from ..theory.radii import Theorem2Check
from ..theory.sweeps import as_sigmas
from ..theory.theorem1 import Theorem1Validation
from ..theory.theorem2 import Theorem2Validation
from ..theory.theorem3 import Theorem3Validation
from .outcome import Context, Outcome, Picture
from .pairs import open_pairs

__all__ = ["Config", "PairTheorems", "Result", "run"]

EXAMPLE = "--pair mnist-06 --samples 20"
QUICK, FULL = {"n": 20}, {"n": 500}
# How many samples per class are looked at where brackets are wide.
LOOSE_SAMPLES = 50
# Noise at which the assumptions of Theorem 2 are measured, the paper's.
SIGMA = 0.01


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes
    ----------
    pairs : tuple of str
        Shipped pairs by name, others by file; none: all that are shipped.
    n : int
        Samples per class and σ.
    sigmas : tuple of float or None
        Falling, below the outliers' 0.5, for all theorems and gaps alike; None takes the defaults of each.
    seed : int
    """

    pairs: tuple[str, ...] = ()
    n: int = 100
    sigmas: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"n": self.n}, 1)
        check_integers({"seed": self.seed}, 0)
        if self.sigmas is not None:
            as_sigmas(self.sigmas)


@dataclass(frozen=True, eq=False)
class PairTheorems:
    """The validations of one pair; `assumptions` of its symmetric variant, `gaps` of the first pair only."""

    pair: str
    assumptions: Theorem2Check
    theorem1: Theorem1Validation
    theorem2: Theorem2Validation
    theorem3: Theorem3Validation
    theorem3_both: Theorem3Validation
    gaps: GapSweep | None = None

    def tables(self) -> dict[str, report.Table]:
        """Each table under its heading."""
        tables = {
            "Theorem 1, mean images": self.theorem1.table(),
            "Theorem 2": self.theorem2.table(),
            "Theorem 3, outlier in the other class": self.theorem3.table(),
            "Theorem 3, outliers in both classes": self.theorem3_both.table(),
        }
        return tables if self.gaps is None else {**tables, "Gaps of the certificate": self.gaps.table()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """All pairs."""

    title: ClassVar[str] = "The theorems as σ → 0"

    config: Config
    results: list[PairTheorems]

    def tables(self) -> dict[str, report.Table]:
        """Each validation of each pair."""
        return {f"{r.pair}: {name}": table for r in self.results for name, table in r.tables().items()}

    @property
    def notes(self) -> str:
        """What the columns mean, and what to read off them."""
        own_side = float(np.mean([np.nan_to_num(r.theorem3_both.limit) > 0 for r in self.results]))
        return (
            "Radii are ℓ2 in pixel units of [0, 1], of fresh samples at each σ; lower: certified, no smaller "
            "perturbation changes the decision. d: distance of the means (Theorem 1) or of two subspaces (Theorem 2); "
            "D: of a sample to the nearest subspace of the other class, ε: to its own. Theorem 1: a radius is ‖d‖/2 + "
            "σ g with g ~ N(0, 1), hence half of them are below ‖d‖/2 at any σ, by ever less; expected: the normal "
            "distribution's share. Theorem 3: closed form √(ρ² + 2σ²Δ) - ρ. With an outlier in both classes a sample "
            "must also cross the plane between the outliers; its distance to that, where it lies on its own outlier's "
            f"side ({100 * own_side:.0f}% of the samples), is what its radius tends to: column limit. Gaps: log|T| / "
            "(slope · upper) is the gap if the certificate gives all of log|T| away; "
            "active: components that shape the boundary there."
        )

    def pictures(self) -> dict[str, Picture]:
        """One for each theorem and pair."""
        from .. import plots

        found: dict[str, Picture] = {}
        for r in self.results:
            both = {"outlier: other class": r.theorem3, "outliers: both": r.theorem3_both}
            found |= {
                f"{r.pair}-theorem1": partial(
                    plots.theorem1_plot, r.theorem1, title=f"{r.pair}: Theorem 1 on the mean images"
                ),
                f"{r.pair}-theorem2": partial(plots.theorem2_plot, r.theorem2, title=f"{r.pair}: Theorem 2"),
                f"{r.pair}-theorem3": partial(plots.theorem3_plot, both, title=f"{r.pair}: Theorem 3"),
            }
        return found


def run(config: Config, context: Context) -> Result:
    """Validate Theorems 1 to 3 on each pair."""
    bases = open_pairs(config.pairs)
    results: list[PairTheorems] = []
    for name, base in bases.items():
        settings: dict[str, Any] = {"n": config.n, "rng": [config.seed, *name.encode()]}
        if config.sigmas is not None:
            settings["sigmas"] = config.sigmas
        results.append(_validate(name, base, settings, context.progress, with_gaps=not results))
    return Result(config=config, results=results)


def _validate(
    name: str, base: BayesClassifier, settings: dict[str, Any], progress: bool | None, *, with_gaps: bool
) -> PairTheorems:
    mean0, mean1 = (m.weights @ m.means for m in base.mixtures)
    return PairTheorems(
        name,
        theory.check_theorem2(base.symmetric(SIGMA), rng=settings["rng"]),
        theory.validate_theorem1(mean0, mean1, **settings, progress=progress),
        theory.validate_theorem2(base, **settings, progress=progress),
        theory.validate_theorem3(base, **settings, progress=progress),
        theory.validate_theorem3(base, **settings, outliers="both", progress=progress),
        theory.sweep_gaps(base, **{**settings, "n": min(settings["n"], LOOSE_SAMPLES)}) if with_gaps else None,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        "--samples", dest="n", type=whole(), metavar="N", help=f"samples per class and σ (default: {Config.n})"
    )
    parser.add_argument(
        "--sigmas", type=sigma_type, nargs="+", metavar="SIGMA",
        help="falling, below 0.5 (default: six for each theorem)",
    )  # fmt: skip
