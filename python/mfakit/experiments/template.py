"""A small experiment to copy: the mean smallest perturbation of a shipped pair at several noise levels σ.

An experiment is a frozen configuration, a typed result that its JSON file gives back, and two functions for the command
line. Its name and one sentence about it in ``EXPERIMENTS`` (``__init__.py``) register it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checks import check_integers, check_numbers
from .._io.arguments import seed_type, sigma_type, whole
from .._io.outputs import output_folder
from .._io.report import Table, number, write_json
from ..attacks import minimal_perturbation
from ..datasets import load_bayes_pair

__all__ = ["Config", "Result", "run"]

EXAMPLE = "mnist-06 --samples 20 --sigmas 0.1 0.01"


@dataclass(frozen=True)
class Config:
    """What is run: a pair, samples per noise level, and the noise levels."""

    pair: str = "mnist-06"
    n: int = 20
    sigmas: tuple[float, ...] = (0.1, 0.01)
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers({"n": self.n}, 1)
        check_integers({"seed": self.seed}, 0)
        check_numbers({f"sigmas[{i}]": sigma for i, sigma in enumerate(self.sigmas)}, positive=True)


@dataclass(frozen=True)
class Result:
    """Means of the certified bounds `lower` and `upper` at each of the configuration's σ, ℓ2 in data units."""

    config: Config
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def table(self) -> Table:
        """One row a σ."""
        values = zip(self.config.sigmas, self.lower, self.upper, strict=True)
        return Table(
            ("σ", "lower\nℓ2", "upper\nℓ2"), tuple((f"{s:g}", number(a, 4), number(b, 4)) for s, a, b in values)
        )

    @classmethod
    def load(cls, path: Path) -> Result:
        """The result in a file that :func:`run` has written."""
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config = found["config"] | {"sigmas": tuple(found["config"]["sigmas"])}
        return cls(Config(**config), tuple(found["lower"]), tuple(found["upper"]))


def run(config: Config, out: Path | None = None) -> Result:
    """Run the experiment, and write its result to ``result.json`` in the folder `out`, if that is given."""
    folder = None if out is None else output_folder(out)  # an error before the work, not after it
    base, lower, upper = load_bayes_pair(config.pair), [], []
    for sigma in config.sigmas:
        clf = base.symmetric(sigma)
        r = minimal_perturbation(clf, *clf.sample(config.n, rng=config.seed, balanced=True))
        lower.append(float(r.lower[~r.already_wrong].mean()))
        upper.append(float(r.upper[~r.already_wrong].mean()))
    result = Result(config, tuple(lower), tuple(upper))
    if folder is not None:
        write_json(folder / "result.json", result)
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mfakit reproduce``; their defaults are the configuration's."""
    parser.add_argument("pair", nargs="?", default=Config.pair, help="a shipped pair (default: %(default)s)")
    parser.add_argument("--samples", type=whole(), default=Config.n, metavar="N", help="default: %(default)s")
    parser.add_argument("--sigmas", type=sigma_type, nargs="+", default=Config.sigmas, help="default: 0.1 0.01")
    parser.add_argument("--seed", type=seed_type, default=Config.seed, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder of result.json; by default nothing is written")


def run_command(args: argparse.Namespace) -> int:
    """Run and print; returns the exit status."""
    print(run(Config(args.pair, args.samples, tuple(args.sigmas), args.seed), args.out).table().terminal())
    return 0
