"""``mfakit train``: the classifiers of the paper, on samples of a pair or on data."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

import numpy as np

from .._io.arguments import seed_type, sigma_type, whole
from .._io.report import Table, number, percent, write_json
from ..classifiers import KINDS
from ._common import JSON, MODEL, VARIANT, Array, check_outputs, load_classifier, read_samples, refuse, samples_from

# Without test data every fifth sample of a file is held out.
HELD_OUT = 5
# Options that are constructor parameters, where a model has them: flag, parameter, type, help.
PARAMETERS: tuple[tuple[str, str, Any, str], ...] = (
    ("--width", "width", whole(), "channels of the network's first layers"),
    ("--depth", "depth", whole(), "convolutions"),
    ("--epochs", "epochs", whole(), "passes over the training samples"),
    ("--batch-size", "batch_size", whole(), "samples per step"),
    ("--learning-rate", "learning_rate", float, "of Adam"),
    ("--label-smoothing", "label_smoothing", float, "share of the target given to all classes alike"),
    ("--device", "device", str, "auto, cpu or cuda"),
    ("--norm", "norm", str, "l2 or linf (TRADES)"),
    ("--epsilon", "epsilon", float, "largest perturbation in training (TRADES)"),
    ("--attack-steps", "n_attack_steps", whole(), "steps to find it (TRADES)"),
    ("--beta", "beta", float, "what robustness is worth (TRADES)"),
    ("--C", "C", float, "penalty of the SVMs"),
    ("--gamma", "gamma", "gamma", "of the RBF SVM: a number, or a word such as largest-accurate"),
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a CNN, TRADES or an SVM",
        description="Train a classifier on fresh samples of a Bayes pair, or on data, and write it to a file.",
        epilog="examples:\n"
        "  mfakit train cnn mnist-06 --samples 500 --width 8 --epochs 4 --out cnn.safetensors\n"
        "  mfakit train trades mnist-06 --norm l2 --epsilon 1.5 --beta 2 --out model.safetensors\n"
        "  mfakit train cnn mnist-06 --steps 8000 --out model.safetensors\n"
        "  mfakit train cnn faces.npz --image-shape 64 64 3 --out model.safetensors",
    )
    parser.add_argument("model", choices=tuple(KINDS))
    parser.add_argument(
        "classifier", metavar="source",
        help="a shipped pair such as mnist-06, a Bayes classifier's .safetensors file, or an .npz with X [n, d], y [n]",
    )  # fmt: skip
    parser.add_argument(
        "--variant", choices=("symmetric", "asymmetric", "as-is"), default="symmetric", help="default: %(default)s"
    )
    parser.add_argument("--sigma", type=sigma_type, default=0.01, help="noise of the symmetric variant")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--samples", type=whole(), metavar="N", help="training samples of a pair (default: 10000)")
    size.add_argument(
        "--steps", type=whole(), metavar="N",
        help="train networks on fresh samples at each of N steps (8000: a million)",
    )  # fmt: skip
    parser.add_argument(
        "--test-samples", type=whole(), default=1000, metavar="N", help="of a pair (default: %(default)s)"
    )
    parser.add_argument(
        "--test-data",
        type=Path,
        help=".npz with X, y, such as real images beside a pair's samples; without it a fifth of an .npz is held out",
    )
    parser.add_argument("--image-shape", type=whole(), nargs=3, metavar=("H", "W", "C"), help="default: square images")
    for flag, parameter, kind, text in PARAMETERS:
        parser.add_argument(flag, dest=parameter, type=_gamma if kind == "gamma" else kind, help=text)
    parser.add_argument("--seed", type=seed_type, default=0, help="of samples and training (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--json", type=Path, help="the table's numbers and the history")
    return parser


def run(args: argparse.Namespace) -> int:
    """Train, report and write."""
    check_outputs(("--out", args.out, MODEL), ("--json", args.json, JSON))
    from .. import classifiers

    estimator = _estimator(args, getattr(classifiers, KINDS[args.model]))
    parts = (_from_file if Path(args.classifier).suffix in (".npz", ".npy") else _from_pair)(args, estimator)
    estimator.save(args.out)  # before anything else can fail
    rows, accuracy = [], {}
    for name, (X, y) in parts.items():
        right = np.asarray(estimator.predict(X)) == y
        accuracy[name] = float(right.mean())
        rows += [(name, str(c), str(int((y == c).sum())), percent(float(right[y == c].mean()))) for c in np.unique(y)]
        rows.append((name, "all", str(len(y)), percent(accuracy[name])))
    print(Table(("samples", "class", "number", "accuracy\n(%)"), tuple(rows), labels=2).terminal())
    history = getattr(estimator, "history_", None)
    if history:
        print(f"{args.model}: loss {number(history['loss'][-1], 4)} after {history['step'][-1]} steps")
    if args.json is not None:
        numbers = {"model": args.model, "source": args.classifier, "parameters": estimator.get_params()}
        write_json(args.json, {**numbers, "accuracy": accuracy, "history": history})
    for path in (args.out, args.json):
        if path is not None:
            print(f"written: {path}")
    return 0


def _gamma(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _estimator(args: argparse.Namespace, cls: Any) -> Any:
    """The unfitted classifier; an option that it does not have is an error, not ignored."""
    known = inspect.signature(cls).parameters
    given = {parameter: getattr(args, parameter) for _, parameter, _, _ in PARAMETERS}
    given["image_shape"] = None if args.image_shape is None else tuple(args.image_shape)
    given = {name: value for name, value in given.items() if value is not None}
    flags = {parameter: flag for flag, parameter, _, _ in PARAMETERS} | {"image_shape": "--image-shape"}
    foreign = [flags[name] for name in given if name not in known]
    if args.steps is not None and not hasattr(cls, "fit_stream"):
        foreign.append("--steps")
    if foreign:
        raise ValueError(f"{', '.join(foreign)}: {args.model} has no such option; leave it out")
    usual = {"random_state": args.seed, "progress": args.progress}
    return cls(**given, **{name: value for name, value in usual.items() if name in known})


def _from_pair(args: argparse.Namespace, estimator: Any) -> dict[str, tuple[Array, Array]]:
    """Train on samples of a Bayes classifier; the samples to report on, by name."""
    pair = load_classifier(args)
    train_rng, test_rng = (np.random.default_rng([args.seed, i]) for i in range(2))
    # Drawn first: what does not fit into memory shows before the training.
    tests = {"test": pair.sample(args.test_samples, test_rng, balanced=True)}
    if args.test_data is not None:
        X, y = tests["test data"] = _labelled(args.test_data)
        if X.shape[1] != pair.n_features:
            raise ValueError(f"{args.test_data} must have the pair's {pair.n_features} features, got {X.shape[1]}")
        if not np.isin(y, pair.classes_).all():
            other = np.setdiff1d(y, pair.classes_)[:3].tolist()
            raise ValueError(
                f"{args.test_data} must have the pair's classes 0 to {pair.n_classes - 1} as y, got {other}"
            )
    if args.steps is not None:
        estimator.fit_stream(pair, args.steps)
        return tests
    train = pair.sample(10_000 if args.samples is None else args.samples, train_rng, balanced=True)
    estimator.fit(*train)
    return {"training": train, **tests}


def _from_file(args: argparse.Namespace, estimator: Any) -> dict[str, tuple[Array, Array]]:
    """Train on an .npz; the samples to report on, by name."""
    if args.samples is not None or args.steps is not None:
        raise ValueError("--samples and --steps draw from a pair; training from a file takes all of its samples")
    refuse(args, VARIANT | {"test_samples": 1000}, "a file has its own samples")
    X, y = _labelled(Path(args.classifier))
    if args.test_data is not None:
        train, test = (X, y), _labelled(args.test_data)
        if test[0].shape[1] != X.shape[1]:
            raise ValueError(
                f"{args.test_data} must have the {X.shape[1]} features of {args.classifier}, got {test[0].shape[1]}"
            )
    else:
        order = np.random.default_rng(args.seed).permutation(len(X))
        held_out, rest = np.split(order, [max(1, len(X) // HELD_OUT)])
        train, test = (X[rest], y[rest]), (X[held_out], y[held_out])
    with samples_from(Path(args.classifier)):
        estimator.fit(*train)
    return {"training": train, "test": test}


def _labelled(path: Path) -> tuple[Array, Array]:
    X, y = read_samples(path)
    if y is None:
        raise ValueError(f"{path} has no labels: training needs an .npz with X [n, d] and y [n]")
    if X.ndim != 2 or y.shape != (len(X),) or len(X) < 2:
        raise ValueError(f"{path} must hold X [n, d] and y [n] of two samples or more, got {X.shape} and {y.shape}")
    return X, y
