"""The theorems validated on the shipped pairs: what certified radii do as σ → 0.

Theorem 1 on the two classes' mean images, Theorem 2 on the symmetric pairs, Theorem 3 with outliers in the other class
alone and in both; then where the certificate itself is loose. Lemma A.2 is in ``mfakit reproduce quantization``.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import theory
from .._io import report
from .._io.arguments import seed_type, sigma_type, whole
from .._io.outputs import recorded_outputs
from ..attacks import minimal_perturbation
from ..bayes.classifier import BayesClassifier
from .shipped import have_matplotlib, prepare, written_to

if TYPE_CHECKING:  # theory loads them when a theorem is validated: `mfakit --help` need not
    from ..theory.gaps import GapSweep
    from ..theory.theorem1 import Theorem1Validation
    from ..theory.theorem2 import Theorem2Validation
    from ..theory.theorem3 import Theorem3Validation

__all__ = ["PairTheorems", "TheoremsReport", "run"]

# σ at which classes overlap so much that brackets are wide; and how many samples per class are looked at there.
LOOSE_SIGMA = 1.0
LOOSE_SAMPLES = 50


@dataclass(frozen=True, eq=False)
class PairTheorems:
    """The validations of one pair; `gaps` of the first pair only."""

    pair: str
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

    def numbers(self) -> dict[str, Any]:
        """What the tables show, unrounded: arrays over σ."""
        one, two = self.theorem1, self.theorem2
        return {
            "pair": self.pair,
            "theorem1": {
                "sigmas": one.sigmas, "radius": one.radius, "tolerance": one.tolerance, "share": one.share,
                "expected_share": one.expected_share, "largest_error": one.largest_error,
            },
            "theorem2": {
                "sigmas": two.sigmas, "accuracy": two.accuracy, "half_min_distance": two.half_min_distance,
                "share_half_distance": two.share_half_distance, "share_provable": two.share_provable,
                "share_half_min": two.share_half_min, "ratio_levels": (0, 0.05, 0.5, 0.95, 1),
                "ratio_quantiles": two.ratio_quantiles((0, 0.05, 0.5, 0.95, 1)), "largest_gap": two.largest_gap,
            },
            "theorem3": {
                found.outliers: {
                    "sigmas": found.sigmas, "outlier_sigma": found.outlier_sigma, "accuracy": found.accuracy,
                    "mean_upper": found.mean_upper, "mean_closed_form": np.nanmean(found.closed_form, axis=1),
                    "mean_limit": np.nanmean(found.limit, axis=1), "share_close": found.share_close,
                    "largest_gap": found.largest_gap,
                }
                for found in (self.theorem3, self.theorem3_both)
            },
            "gaps": self.gaps,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class TheoremsReport:
    """All pairs, their settings, and where they were computed."""

    results: list[PairTheorems]
    settings: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=report.environment)

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

    def markdown(self) -> str:
        """Tables, notes and settings."""
        parts = ["# The theorems as σ → 0"]
        for r in self.results:
            parts += [f"## {r.pair}", *(f"### {name}\n\n{table.markdown()}" for name, table in r.tables().items())]
        where = ", ".join(f"{k} {v}" for k, v in self.environment.items())
        parts += [self.notes, f"{self.settings['n']} samples per class, seed {self.settings['seed']}; {where}."]
        return "\n\n".join(parts) + "\n"


def run(
    pairs: Sequence[str] | None = None,
    *,
    n: int = 100,
    sigmas: Sequence[float] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> TheoremsReport:
    """Validate Theorems 1 to 3 on each pair.

    Parameters
    ----------
    pairs : sequence of str, optional
        Names of shipped pairs; None takes all.
    n : int
        Samples per class and σ.
    sigmas : sequence of float, optional
        Falling, below the outliers' 0.5, for all theorems and gaps alike; None takes the defaults of each.
    seed : int
        The same seed gives the same numbers.
    out : path, optional
        Folder for theorems.json, theorems.md and, with matplotlib, pictures; None writes nothing.
    progress : bool or None
        A progress bar; None shows it on a terminal.

    Returns
    -------
    TheoremsReport

    Raises
    ------
    ValueError
        For a pair that is not shipped, n < 1, or sigmas that do not fall.
    """
    names, bases, folder = prepare(pairs, n, seed, out)
    results = []
    for name, base in bases.items():
        settings: dict[str, Any] = {"n": n, "rng": [seed, *name.encode()]}
        if sigmas is not None:
            settings["sigmas"] = sigmas
        results.append(_validate(name, base, settings, progress, with_gaps=name == names[0]))
        if folder is not None:
            _draw(results[-1], base, n, seed, folder)
    found = TheoremsReport(results, {"pairs": names, "n": n, "sigmas": sigmas, "seed": seed})
    if folder is not None:
        report.write_text(folder / "theorems.md", found.markdown())
        numbers = [r.numbers() for r in results]
        report.write_json(
            folder / "theorems.json",
            {"results": numbers, "settings": found.settings, "environment": found.environment},
        )
    return found


def _validate(
    name: str, base: BayesClassifier, settings: dict[str, Any], progress: bool | None, *, with_gaps: bool
) -> PairTheorems:
    mean0, mean1 = (m.weights @ m.means for m in base.mixtures)
    return PairTheorems(
        name,
        theory.validate_theorem1(mean0, mean1, **settings, progress=progress),
        theory.validate_theorem2(base, **settings, progress=progress),
        theory.validate_theorem3(base, **settings, progress=progress),
        theory.validate_theorem3(base, **settings, outliers="both", progress=progress),
        theory.sweep_gaps(base, **{**settings, "n": min(settings["n"], LOOSE_SAMPLES)}) if with_gaps else None,
    )


def _draw(result: PairTheorems, base: BayesClassifier, n: int, seed: int, folder: Path) -> None:
    if not have_matplotlib():
        return
    from .. import plots

    name = result.pair
    both = {"outlier: other class": result.theorem3, "outliers: both": result.theorem3_both}
    pictures = {
        "theorem1": plots.theorem1_plot(result.theorem1, title=f"{name}: Theorem 1 on the mean images"),
        "theorem2": plots.theorem2_plot(result.theorem2, title=f"{name}: Theorem 2"),
        "theorem3": plots.theorem3_plot(both, title=f"{name}: Theorem 3"),
    }
    if result.gaps is not None:
        clf = base.symmetric(sigma=LOOSE_SIGMA)
        X, y = clf.sample(2 * min(n, LOOSE_SAMPLES), rng=seed, balanced=True, dtype=np.float64)
        title = f"{name}, σ = {LOOSE_SIGMA:g}: the widest brackets"
        pictures["uncertified"] = plots.uncertified_plot(clf, X, minimal_perturbation(clf, X, y), title=title)
    for what, figure in pictures.items():
        with report.replacing(folder / f"{name}-{what}.png") as temporary:
            figure.savefig(temporary, dpi=plots.DPI)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mfakit reproduce theorems``."""
    parser.add_argument("--pairs", nargs="+", metavar="PAIR", help="shipped pairs (default: all)")
    parser.add_argument(
        "--samples", type=whole(), default=100, metavar="N", help="samples per class and σ (default: %(default)s)"
    )
    parser.add_argument(
        "--sigmas", type=sigma_type, nargs="+", metavar="SIGMA",
        help="falling, below 0.5 (default: six for each theorem)",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/theorems"), help="folder (default: %(default)s)")


def run_command(args: argparse.Namespace) -> int:
    """Run and print; returns the exit status."""
    with recorded_outputs() as written:
        found = run(
            args.pairs, n=args.samples, sigmas=args.sigmas, seed=args.seed, out=args.out, progress=args.progress
        )
    for r in found.results:
        for name, table in r.tables().items():
            print(f"{r.pair}: {name}\n\n{table.terminal()}\n")
    print(textwrap.fill(found.notes, 100))
    print(f"\n{written_to(args.out, written)}")
    return 0
