"""``mfakit attack``: the gradient attack or CW-L2, on a Bayes classifier or a trained one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.arguments import whole
from .._io.report import Table, number, percent, replacing, write_json
from ._common import (
    ARRAYS,
    JSON,
    add_classifier,
    add_data,
    check_outputs,
    load_classifier_and_data,
    samples_from,
)  # fmt: skip

# Options of one method only, as argparse takes them; `dest` is the function's argument, left out if not given.
GRADIENT: dict[str, dict[str, Any]] = {
    "--step-size": {"dest": "step_size", "type": float, "help": "ℓ2 length of a step (default: 0.05)"},
    "--max-steps": {"dest": "max_steps", "type": whole(), "help": "default: 5000"},
    "--direction": {"dest": "direction", "help": "gradient, or log-ratio for RBF machines"},
    "--polish": {"dest": "polish", "action": "store_const", "const": True, "help": "bisect the last step"},
    "--frozen": {
        "dest": "targets", "action": "store_const", "const": "frozen", "help": "keep the components chosen at the start"
    },
}  # fmt: skip
CW: dict[str, dict[str, Any]] = {
    "--preset": {"dest": "preset", "help": "paper: the attack as the paper ran it"},
    "--max-iterations": {
        "dest": "max_iterations", "type": whole(), "help": "Adam's steps in one search (default: 500)"
    },
    "--searches": {"dest": "binary_search_steps", "type": whole(), "help": "searches per sample (default: 3)"},
    "--learning-rate": {
        "dest": "learning_rate", "type": float,
        "help": "of Adam (default: 0.01 of tanh's argument with --bounds, measured without)",
    },
    "--confidence": {"dest": "confidence", "type": float, "help": "lead of the other class, in logits (default: 0)"},
    "--batch-size": {"dest": "batch_size", "type": whole(), "help": "samples at a time (default: 128)"},
}  # fmt: skip
# Method -> its name in help, the function in mfakit.attacks, and its options.
METHODS = {
    "gradient": ("the gradient attack", "gradient_attack", GRADIENT),
    "cw": ("CW-L2", "carlini_wagner_l2", CW),
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "attack",
        help="attack a Bayes classifier or a trained one",
        description="Attack a classifier by the fixed-step gradient attack or CW-L2, and report accuracy and ℓ2. A "
        "trained classifier (mfakit train) is attacked on --data.",
        epilog="examples:\n  mfakit attack mnist-06 --samples 200 --polish\n"
        "  mfakit attack model.safetensors --variant as-is --data test.npz --out attack.npz --json attack.json\n"
        "  mfakit attack model.safetensors --data test.npz --method cw --preset paper --bounds 0 1",
    )
    add_classifier(parser)
    add_data(parser)
    parser.add_argument("--method", choices=tuple(METHODS), default="gradient", help="default: %(default)s")
    parser.add_argument(
        "--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="keep features within these (default: none)",
    )  # fmt: skip
    known: set[str] = set()
    for title, _, options in METHODS.values():
        group = parser.add_argument_group(f"options of {title}")
        for flag in (flag for flag in options if flag not in known):  # methods may share options
            group.add_argument(flag, **options[flag])
        known |= options.keys()
    parser.add_argument("--out", type=Path, help=".npz with x_adv, success, l2, n_steps, y, y_adv")
    parser.add_argument("--json", type=Path, help="the table's numbers")
    return parser


def run(args: argparse.Namespace) -> int:
    """Attack and report."""
    check_outputs(("--out", args.out, ARRAYS), ("--json", args.json, JSON))
    options = _options(args)
    clf, X, y, variant = load_classifier_and_data(args)
    with samples_from(args.data):
        from .. import attacks

        attack = getattr(attacks, METHODS[args.method][1])
        r = attack(clf, X, y, progress=args.progress, **options)
    print(_table(r, clf.classes_).terminal())
    if args.json is not None:
        numbers = {"accuracy": r.accuracy, "success_rate": r.success_rate, "mean_l2": r.mean_l2, "settings": r.settings}
        write_json(args.json, {**numbers, "classifier": args.classifier, "variant": variant, "n": len(r)})
    if args.out is not None:
        fields = {
            name: getattr(r, name) for name in ("x_adv", "success", "l2", "n_steps", "y", "y_adv", "already_wrong")
        }
        with replacing(args.out) as temporary, open(temporary, "wb") as file:
            np.savez(file, **fields)
    for path in (args.out, args.json):
        if path is not None:
            print(f"written: {path}")
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the method; an option that it does not have is an error, not ignored."""
    own = METHODS[args.method][2]
    every = {flag: option["dest"] for _, _, options in METHODS.values() for flag, option in options.items()}
    given = {flag: argument for flag, argument in every.items() if getattr(args, argument) is not None}
    wrong = [flag for flag in given if flag not in own]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: --method {args.method} has no such option; leave it out")
    options = {argument: getattr(args, argument) for argument in given.values()}
    if args.bounds is not None:
        options["bounds"] = tuple(args.bounds)
    return options


def _table(r: Any, classes: NDArray[Any]) -> Table:
    rows = []
    for c, label in enumerate(classes):
        part = r.y == c
        won = part & r.success
        accuracy = float((~r.already_wrong[part]).mean()) if part.any() else float("nan")
        attacked = part & ~r.already_wrong
        rate = float(r.success[attacked].mean()) if attacked.any() else float("nan")
        mean, median = (float(f(r.l2[won])) if won.any() else float("nan") for f in (np.mean, np.median))
        rows.append(
            (str(label), str(int(part.sum())), percent(accuracy), percent(rate), number(mean, 3), number(median, 3))
        )
    rows.append(("all", str(len(r)), percent(r.accuracy), percent(r.success_rate), number(r.mean_l2, 3), ""))
    return Table(("class", "samples", "accuracy\n(%)", "fooled\n(%)", "mean\nℓ2", "median\nℓ2"), tuple(rows))
