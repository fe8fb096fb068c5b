"""``mfakit reproduce``: the paper's experiments."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from .._io.arguments import Parser, seed_type, whole
from .._io.outputs import recorded_outputs
from .._io.report import Table
from ..experiments import EXPERIMENTS, load_experiment, reproduce

# Of an experiment's help, unless its module has its own.
EXAMPLE = "--quick"
SHARED = ("scale", "out", "data", "device", "jobs", "progress")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help="the paper's experiments",
        description="Run one of the paper's experiments, or all of them. An interrupted run goes on where it stopped.",
        epilog="example:\n  mfakit reproduce bayes --pair mnist-06 --out results",
    )
    parser.add_argument(
        "--list", action="version", version=_listed(), help="what there is, what it needs, how long it takes"
    )
    names = parser.add_subparsers(title="experiments", metavar="EXPERIMENT", required=True)
    for name, experiment in EXPERIMENTS.items():
        own: Any = names.add_parser(
            name, help=experiment.about, description=f"{experiment.about} ({', '.join(experiment.shows) or name})",
            aliases=experiment.shows, formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
        )  # fmt: skip
        own.fill = partial(_add_own, name)
        own.set_defaults(experiments=[name], parser=own)
    every = names.add_parser(
        "all", help="every experiment that the data at hand allow", description="Run all experiments.",
        argument_default=argparse.SUPPRESS, epilog="example:\n  mfakit reproduce all --quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_shared(every, {"seed"})
    every.set_defaults(experiments=list(EXPERIMENTS), parser=every)
    return parser


def _add_own(name: str, parser: Parser) -> None:
    """The options of one experiment; its module is imported for them."""
    module = load_experiment(name)
    parser.epilog = f"example:\n  mfakit reproduce {name} {getattr(module, 'EXAMPLE', EXAMPLE)}"
    _add_shared(parser, {f.name for f in fields(module.Config)})
    module.add_arguments(parser)


def _add_shared(parser: argparse.ArgumentParser, settings: set[str]) -> None:
    """The options of all experiments, and those for settings that many have."""
    size = parser.add_mutually_exclusive_group()
    for scale, text in (("quick", "fewer samples and smaller networks"), ("full", "as many as the paper had")):
        size.add_argument(f"--{scale}", dest="scale", action="store_const", const=scale, help=text)
    if "pairs" in settings:
        parser.add_argument(
            "--pair",
            dest="pairs",
            nargs="+",
            metavar="PAIR",
            help="shipped pairs, or .safetensors files of pairs (default: all that are shipped)",
        )
    if "seed" in settings:
        parser.add_argument("--seed", type=seed_type, help="default: 0")
    parser.add_argument(
        "--data", type=Path, metavar="ROOT", help="folder of the real data sets (default: MFAKIT_DATA, or the cache)"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="of networks: auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--jobs", type=whole(), metavar="N", help="processes that share the data sets (default: 1)")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")


def _listed() -> str:
    rows = [(name, ", ".join(e.shows), ", ".join(e.needs) or "–", e.data, e.quick) for name, e in EXPERIMENTS.items()]
    return Table(("experiment", "shows", "needs", "data", "--quick takes"), tuple(rows), labels=5).terminal()


def run(args: argparse.Namespace) -> int:
    """Run the experiments, print what they found; the exit status."""
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items()}
    shared = {name: given.pop(name) for name in SHARED if name in given}
    # All other options are fields of the configuration.
    changes = {name: value for name, value in given.items() if name not in ("run", "parser", "experiments", "debug")}
    if len(args.experiments) > 1:
        return _run_all(args.experiments, shared, changes)
    _run_one(args.experiments[0], shared, changes)
    return 0


def _run_one(name: str, shared: dict[str, Any], changes: dict[str, Any]) -> None:
    with recorded_outputs() as written:
        found = reproduce(name, **shared, **changes)
    for heading, table in found.tables().items():
        print(f"{heading}\n\n{table.terminal()}\n" if heading else f"{table.terminal()}\n")
    if found.notes:
        print(textwrap.fill(found.notes, 100))
    folder = shared["out"] / name
    names = sorted({path.name for path in written if path.parent.resolve() == folder.resolve()})
    written_to = f"written to {folder}: {', '.join(names)}"
    print("\n" + textwrap.fill(written_to, 100, break_long_words=False, break_on_hyphens=False))


def _run_all(names: list[str], shared: dict[str, Any], changes: dict[str, Any]) -> int:
    """Each in turn; what cannot run here is said in the end, and why."""
    left = {}
    for name in names:
        own = {f.name for f in fields(load_experiment(name).Config)}
        print(f"── {name}\n")
        try:
            _run_one(name, shared, {key: value for key, value in changes.items() if key in own})
        except (FileNotFoundError, ImportError) as error:
            left[name] = str(error)
            print(f"not run: {error}")
        print()
    print(
        f"{len(names) - len(left)} of {len(names)} experiments were run"
        + (f"; not run: {', '.join(left)}" if left else "")
    )
    return 0
