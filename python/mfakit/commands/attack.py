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
    FRESH,
    JSON,
    VARIANT,
    add_classifier,
    add_data,
    check_outputs,
    load_classifier,
    load_data,
    read_samples,
    refuse,
    samples_from,
)  # fmt: skip

# Options of one method only: flag, parameter, type, help.
GRADIENT = (
    ("--step-size", "step_size", float, "ℓ2 length of a step (default: 0.05)"),
    ("--max-steps", "max_steps", whole(), "default: 5000"),
    ("--direction", "direction", str, "gradient, or log-ratio for RBF machines"),
)
CW = (
    ("--preset", "preset", str, "paper: the attack as the paper ran it"),
    ("--max-iterations", "max_iterations", whole(), "Adam's steps in one search (default: 500)"),
    ("--searches", "binary_search_steps", whole(), "searches per sample (default: 3)"),
    (
        "--learning-rate",
        "learning_rate",
        float,
        "of Adam (default: 0.01 of tanh's argument with --bounds, measured without)",
    ),
    ("--confidence", "confidence", float, "lead of the other class, in logits (default: 0)"),
    ("--batch-size", "batch_size", whole(), "samples at a time (default: 128)"),
)


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
    parser.add_argument("--method", choices=("gradient", "cw"), default="gradient", help="default: %(default)s")
    parser.add_argument(
        "--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="keep features within these (default: none)",
    )  # fmt: skip
    gradient = parser.add_argument_group("options of the gradient attack")
    gradient.add_argument("--polish", action="store_true", help="bisect the last step")
    gradient.add_argument("--frozen", action="store_true", help="keep the components chosen at the start")
    cw = parser.add_argument_group("options of CW-L2")
    for group, options in ((gradient, GRADIENT), (cw, CW)):
        for flag, parameter, kind, text in options:
            group.add_argument(flag, dest=parameter, type=kind, help=text)
    parser.add_argument("--out", type=Path, help=".npz with x_adv, success, l2, n_steps, y, y_adv")
    parser.add_argument("--json", type=Path, help="the table's numbers")
    return parser


def run(args: argparse.Namespace) -> int:
    """Attack and report."""
    check_outputs(("--out", args.out, ARRAYS), ("--json", args.json, JSON))
    options = _options(args)
    clf, X, y, variant = _classifier_and_data(args)
    with samples_from(args.data):
        if args.method == "cw":
            from ..attacks import carlini_wagner_l2

            r = carlini_wagner_l2(clf, X, y, progress=args.progress, **options)
        else:
            from ..attacks import gradient_attack

            r = gradient_attack(clf, X, y, progress=args.progress, **options)
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
    own, foreign = (GRADIENT, CW) if args.method == "gradient" else (CW, GRADIENT)
    wrong = [flag for flag, parameter, _, _ in foreign if getattr(args, parameter) is not None]
    switches = () if args.method == "gradient" else ("polish", "frozen")
    wrong += [f"--{name}" for name in switches if getattr(args, name)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: --method {args.method} has no such option; leave it out")
    options = {p: getattr(args, p) for _, p, _, _ in own if getattr(args, p) is not None}
    if args.method == "gradient":
        options |= {"polish": args.polish, "targets": "frozen" if args.frozen else "rechosen"}
    if args.bounds is not None:
        options["bounds"] = tuple(args.bounds)
    return options


def _classifier_and_data(args: argparse.Namespace) -> tuple[Any, NDArray[Any], Any, str | None]:
    """The classifier, X, y and, of a Bayes classifier, which variant it is."""
    if Path(args.classifier).suffix == ".safetensors":
        from .._io.tensor_files import read_kind
        from ..classifiers import load

        if read_kind(args.classifier) not in ("bayes-classifier", "mfa"):
            clf = load(args.classifier)
            if args.data is None:
                raise ValueError(
                    f"{args.classifier} is a {type(clf).__name__}, which has no samples of its own; give --data, such "
                    f"as what mfakit sample writes"
                )
            refuse(
                args, VARIANT | FRESH, f"{args.classifier} is a {type(clf).__name__} and is attacked on --data as it is"
            )
            return clf, *read_samples(args.data), None
    clf = load_classifier(args)
    return clf, *load_data(args, clf), args.variant


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
