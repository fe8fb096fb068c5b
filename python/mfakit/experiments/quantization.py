"""Discrete classes (Figure 3 c and g, Lemma A.2): from smooth tables to one whose points are all a level from the
boundary.
"""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import theory
from .._checks import check_integers
from .._io import report
from .._io.arguments import seed_type, whole
from .._io.outputs import output_folder, recorded_outputs
from .shipped import have_matplotlib, written_to

if TYPE_CHECKING:  # theory loads them when tables are checked: `mfakit --help` need not
    from ..theory.lemma_a2 import LemmaA2Check, LemmaA2Validation

__all__ = ["QuantizationReport", "run"]

# How concentrated class 0 is in the pictures: not at all, on the way, and as good as in the limit.
SHOWN = (None, 0.9, 0.99999)

EXAMPLE = "--levels 50"


@dataclass(frozen=True, eq=False)
class QuantizationReport:
    """The sweep over concentrations, and the pair of tables that is drawn, under its heading."""

    sweep: LemmaA2Validation
    cases: dict[str, LemmaA2Check]
    settings: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=report.environment)

    def tables(self) -> dict[str, report.Table]:
        """Each table under its heading."""
        return {
            f"Means over {self.settings['n']} random pairs of tables": self.sweep.table(),
            **{f"One pair, {label}": case.table() for label, case in self.cases.items()},
        }

    @property
    def notes(self) -> str:
        """What the columns mean."""
        return (
            f"Two classes over {' × '.join(map(str, self.sweep.levels))} cells, smooth random tables with the same "
            "floor; class 0 takes level k of feature 0 with probability p₀(f = k). A point's levels are the fewest to "
            f"change ({self.settings['metric']}) until the optimal decision changes; shares and means are over the "
            "rightly decided points of a class. The paper does not print how its tables were made (Figure 3)."
        )

    def markdown(self) -> str:
        """Tables, notes and settings."""
        parts = ["# Discrete classes and Lemma A.2"]
        parts += [f"## {name}\n\n{table.markdown()}" for name, table in self.tables().items()]
        where = ", ".join(f"{k} {v}" for k, v in self.environment.items())
        return "\n\n".join([*parts, self.notes, f"Seed {self.settings['seed']}; {where}."]) + "\n"


def run(
    *, levels: int = 100, n: int = 20, metric: str = "l1", seed: int = 0, out: str | Path | None = None
) -> QuantizationReport:
    """See Lemma A.2 at work on random tables.

    Parameters
    ----------
    levels : int
        Per feature; two features.
    n : int
        Random pairs of tables.
    metric : {"l1", "linf", "single"}
        How changes are counted, see :func:`mfakit.theory.levels_to_boundary`.
    seed : int
        The same seed gives the same numbers.
    out : path, optional
        Folder for quantization.json, quantization.md and, with matplotlib, pictures; None writes nothing.

    Returns
    -------
    QuantizationReport

    Raises
    ------
    ValueError
        For n < 1, or levels and metrics that there are not.
    """
    check_integers({"seed": seed}, 0)
    folder = None if out is None else output_folder(out)
    sweep = theory.validate_lemma_a2(levels, n=n, metric=metric, rng=seed)
    cases = {}
    for concentration in SHOWN:
        tables = theory.random_discrete_classes(levels, concentration=concentration, rng=seed)
        label = "as drawn" if concentration is None else f"p₀(f = k) = {concentration}"
        cases[label] = theory.check_lemma_a2(*tables, metric=metric)
    found = QuantizationReport(sweep, cases, {"levels": levels, "n": n, "metric": metric, "seed": seed})
    if folder is not None:
        _write(found, folder)
    return found


def _write(found: QuantizationReport, folder: Path) -> None:
    report.write_text(folder / "quantization.md", found.markdown())
    shown = ("accuracy", "one_level", "mean_levels", "concentration", "smallest")
    cases = {label: {name: getattr(case, name) for name in shown} for label, case in found.cases.items()}
    report.write_json(
        folder / "quantization.json",
        {"sweep": found.sweep, "cases": cases, "settings": found.settings, "environment": found.environment},
    )
    if not have_matplotlib():
        return
    from .. import plots

    pictures = {
        "quantization": plots.quantization_plot(found.cases, rng=found.settings["seed"]),
        "lemma-a2": plots.lemma_a2_plot(found.sweep, title="Lemma A.2 on random tables"),
    }
    for name, figure in pictures.items():
        with report.replacing(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, dpi=plots.DPI)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mfakit reproduce quantization``."""
    parser.add_argument("--levels", type=whole(), default=100, help="per feature (default: %(default)s)")
    parser.add_argument(
        "--samples", type=whole(), default=20, metavar="N", help="random pairs of tables (default: %(default)s)"
    )
    parser.add_argument("--metric", choices=("l1", "linf", "single"), default="l1", help="default: %(default)s")
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/quantization"), help="folder (default: %(default)s)")


def run_command(args: argparse.Namespace) -> int:
    """Run and print; returns the exit status."""
    with recorded_outputs() as written:
        found = run(levels=args.levels, n=args.samples, metric=args.metric, seed=args.seed, out=args.out)
    for name, table in found.tables().items():
        print(f"{name}\n\n{table.terminal()}\n")
    print(textwrap.fill(found.notes, 100))
    print(f"\n{written_to(args.out, written)}")
    return 0
