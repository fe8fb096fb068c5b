"""``mfakit reproduce``: the paper's experiments."""

from __future__ import annotations

import argparse
from typing import Any

from ..experiments import EXPERIMENTS, load_experiment

# Of an experiment's help, unless its module has its own.
EXAMPLE = "--pairs mnist-06 --samples 100"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help="the paper's experiments",
        description="Run one of the paper's experiments.",
        epilog="example:\n  mfakit reproduce bayes --pairs mnist-06 --samples 100 --out results/bayes",
    )
    names = parser.add_subparsers(title="experiments", metavar="EXPERIMENT", required=True)
    for name, about in EXPERIMENTS.items():
        module = load_experiment(name)
        experiment = names.add_parser(
            name, help=about, description=about, formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  mfakit reproduce {name} {getattr(module, 'EXAMPLE', EXAMPLE)}",
        )  # fmt: skip
        experiment.add_argument("--no-progress", dest="progress", action="store_false", default=argparse.SUPPRESS,
                                help="no progress bar")  # fmt: skip
        module.add_arguments(experiment)
        experiment.set_defaults(experiment=name, parser=experiment)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the experiment."""
    status: int = load_experiment(args.experiment).run_command(args)
    return status
