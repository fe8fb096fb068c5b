"""``mfakit attack``: the gradient attack on a Bayes classifier."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Table, number, percent, replacing, write_json
from ._common import add_classifier, add_data, check_outputs, load_classifier, load_data


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "attack",
        help="the gradient attack on a Bayes classifier",
        description="Attack a Bayes classifier with the fixed-step gradient attack and report accuracy and ℓ2.",
        epilog="examples:\n  mfakit attack mnist-06 --samples 200 --polish\n"
        "  mfakit attack model.safetensors --variant as-is --data test.npz --out attack.npz --json attack.json",
    )
    add_classifier(parser)
    add_data(parser)
    parser.add_argument("--step-size", type=float, default=0.05, help="ℓ2 length of a step (default: %(default)s)")
    parser.add_argument("--max-steps", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--polish", action="store_true", help="bisect the last step")
    parser.add_argument("--frozen", action="store_true", help="keep the components chosen at the start")
    parser.add_argument("--out", type=Path, help=".npz with x_adv, success, l2, n_steps, y, y_adv")
    parser.add_argument("--json", type=Path, help="the table's numbers")
    return parser


def run(args: argparse.Namespace) -> int:
    """Attack and report."""
    from ..attacks import gradient_attack

    check_outputs(args.out, args.json)
    clf = load_classifier(args)
    X, y = load_data(args, clf)
    r = gradient_attack(
        clf, X, y, step_size=args.step_size, max_steps=args.max_steps, polish=args.polish,
        targets="frozen" if args.frozen else "rechosen", progress=args.progress,
    )  # fmt: skip
    rows = []
    for c in range(clf.n_classes):
        part = r.y == c
        won = part & r.success
        accuracy = float((~r.already_wrong[part]).mean()) if part.any() else float("nan")
        attacked = part & ~r.already_wrong
        rate = float(r.success[attacked].mean()) if attacked.any() else float("nan")
        mean, median = (float(f(r.l2[won])) if won.any() else float("nan") for f in (np.mean, np.median))
        rows.append(
            (str(c), str(int(part.sum())), percent(accuracy), percent(rate), number(mean, 3), number(median, 3))
        )
    rows.append(("all", str(len(r)), percent(r.accuracy), percent(r.success_rate), number(r.mean_l2, 3), ""))
    table = Table(("class", "samples", "accuracy\n(%)", "fooled\n(%)", "mean\nℓ2", "median\nℓ2"), tuple(rows))
    print(table.terminal())
    if args.json is not None:
        numbers = {"accuracy": r.accuracy, "success_rate": r.success_rate, "mean_l2": r.mean_l2, "settings": r.settings}
        write_json(args.json, {**numbers, "classifier": args.classifier, "variant": args.variant, "n": len(r)})
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
