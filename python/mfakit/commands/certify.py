"""``mfakit certify``: certified minimal perturbations of a Bayes classifier or a support vector machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .._io.report import Table, number, percent, replacing, write_json
from ._common import (
    ARRAYS,
    JSON,
    add_classifier,
    add_data,
    check_outputs,
    check_picture,
    load_classifier_and_data,
    samples_from,
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "certify",
        help="the smallest perturbation of each sample, with proof",
        description="Bracket each sample's smallest perturbation that changes the decision: a proven lower bound, and "
        "a point beyond the boundary. A trained support vector machine (mfakit train) is certified on --data.",
        epilog="examples:\n  mfakit certify mnist-06 --samples 500 --json certified.json --picture certified.png\n"
        "  mfakit certify model.safetensors --data test.npz --json certified.json",
    )
    add_classifier(parser)
    add_data(parser)
    parser.add_argument(
        "--path", choices=("auto", "factor", "features"), default="auto",
        help="compiled code for isotropic noise (factor), NumPy for any noise (features), or whichever is possible",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help=".npz with lower, upper, x_adv, y")
    parser.add_argument("--json", type=Path, help="the table's numbers")
    parser.add_argument("--picture", type=Path, help=".png: brackets and the gradient attack, sorted")
    return parser


def run(args: argparse.Namespace) -> int:
    """Certify and report."""
    from ..attacks import gradient_attack, minimal_perturbation

    check_outputs(("--out", args.out, ARRAYS), ("--json", args.json, JSON), ("--picture", args.picture, ()))
    check_picture(args.picture)
    clf, X, y, variant = load_classifier_and_data(args)
    with samples_from(args.data):
        r = minimal_perturbation(clf, X, y, path=args.path, progress=args.progress)
        attack = gradient_attack(clf, X, y, polish=True, progress=args.progress)
    rows, numbers = [], {}
    for name, code in (("all", None), *((str(label), c) for c, label in enumerate(clf.classes_))):
        part = ~r.already_wrong & np.isfinite(r.upper) & (True if code is None else r.y == code)
        if not part.any():
            continue
        both = part & attack.success
        values = {
            "samples": int(part.sum()), "lower": float(r.lower[part].mean()), "upper": float(r.upper[part].mean()),
            "mean_gap": float(r.gap[part].mean()), "largest_gap": float(r.gap[part].max()),
            "within_0.1%": float((r.gap[part] < 1e-3).mean()),
            "attack_over_upper": float((attack.l2[both] / r.upper[both]).mean()) if both.any() else float("nan"),
        }  # fmt: skip
        numbers[name] = values
        rows.append(
            (
                name, str(values["samples"]), number(values["lower"], 4), number(values["upper"], 4),
                f"{values['mean_gap']:.1e}", f"{values['largest_gap']:.1e}", percent(values["within_0.1%"]),
                number(values["attack_over_upper"], 3),
            )
        )  # fmt: skip
    columns = (
        "class", "samples", "lower\nℓ2", "upper\nℓ2", "mean\ngap", "largest\ngap", "within\n0.1% (%)",
        "attack /\nupper",
    )  # fmt: skip
    print(Table(columns, tuple(rows)).terminal())
    below = int((attack.l2[attack.success] < r.lower[attack.success]).sum())
    print(f"attacked below a lower bound (a contradiction): {below}")
    _write(args, variant, r, attack, numbers)
    return 0


def _write(args: argparse.Namespace, variant: str | None, r: Any, attack: Any, numbers: dict[str, Any]) -> None:
    if args.json is not None:
        write_json(
            args.json,
            {"classifier": args.classifier, "variant": variant, "path": r.settings["path"], "classes": numbers},
        )
    if args.out is not None:
        with replacing(args.out) as temporary, open(temporary, "wb") as file:
            np.savez(file, lower=r.lower, upper=r.upper, x_adv=np.asarray(r.x_adv), y=r.y)
    if args.picture is not None:
        from ..plots import bracket_plot

        with replacing(args.picture) as temporary:
            title = ", ".join(filter(None, (args.classifier, variant)))
            bracket_plot(r.lower, r.upper, attack.l2, title=title).savefig(temporary, dpi=160)
    for path in (args.out, args.json, args.picture):
        if path is not None:
            print(f"written: {path}")
