"""``mfakit fit``: a mixture from data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .._io.arguments import number, seed_type, whole
from ._common import MODEL, Array, check_outputs, read_samples, refuse, samples_from


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "fit",
        help="fit a mixture to images or to an array",
        description="Fit a mixture of factor analyzers by EM (or SGD) and write it to a .safetensors file.",
        epilog="examples:\n  mfakit fit --mnist 0 --components 25 --factors 6 --out zeros.safetensors\n"
        "  mfakit fit --celeba Male=1 --components 8 --factors 10 --out male.safetensors\n"
        "  mfakit fit --data samples.npy --components 3 --factors 2 --out model.safetensors",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data", type=Path,
        help=".npy or .safetensors with X [n, d], whose rows stay in the file, or .npz with X (FILE.safetensors::NAME "
        "for one of several tensors)",
    )  # fmt: skip
    source.add_argument("--mnist", type=whole(0, 9), metavar="DIGIT", help="training images of a digit")
    source.add_argument("--celeba", metavar="ATTRIBUTE=0|1", help="training images with or without an attribute")
    source.add_argument("--cifar10", type=whole(0, 9), metavar="CLASS", help="training images of a class")
    parser.add_argument("--data-root", type=Path, help="where the data sets are (default: MFAKIT_DATA)")
    parser.add_argument("--download", action="store_true", help="fetch MNIST or CIFAR-10 if it is not there")
    parser.add_argument("--components", type=whole(), default=25, help="k (default: %(default)s)")
    parser.add_argument("--factors", type=whole(0), default=6, help="l (default: %(default)s)")
    parser.add_argument("--noise", choices=("isotropic", "diagonal"), default="isotropic", help="default: %(default)s")
    parser.add_argument("--solver", choices=("em", "sgd"), default="em", help="default: %(default)s")
    parser.add_argument("--max-iter", type=whole(0), default=100, help="default: %(default)s")
    parser.add_argument("--tol", type=number(0, 1e300), default=1e-3, help="nats per sample (default: %(default)s)")
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE",
        help="a .safetensors file to keep EM's state in, once a minute, and to go on from if it is there",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    return parser


def run(args: argparse.Namespace) -> int:
    """Fit and write."""
    import warnings

    check_outputs(("--out", args.out, MODEL), ("--checkpoint", args.checkpoint, MODEL))
    if args.checkpoint is not None and args.solver == "sgd":
        raise ValueError("--checkpoint is for --solver em; leave it out")
    if args.solver == "sgd":
        import torch  # noqa: F401 (where it is missing, that is said before the data are read)
    X = _load(args)
    from ..fit import MixtureOfFactorAnalyzers

    estimator = MixtureOfFactorAnalyzers(
        args.components, args.factors, noise=args.noise, solver=args.solver, max_iter=args.max_iter, tol=args.tol,
        random_state=args.seed, progress=args.progress,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "EM has not converged")  # the line below says so
        warnings.showwarning = lambda message, *_: print(f"mfakit: warning: {message}", file=sys.stderr)
        with samples_from(args.data):
            estimator.fit(X, checkpoint=args.checkpoint)
    estimator.mfa_.save(args.out)
    remedy = ": raise --max-iter or --tol" if estimator.n_iter_ == args.max_iter else ""
    state = "converged" if estimator.converged_ else f"not converged{remedy}"
    print(f"{estimator.mfa_} from {len(X)} samples: {estimator.lower_bound_:.4f} nats per sample after "
          f"{estimator.n_iter_} iterations ({state})")  # fmt: skip
    print(f"written: {args.out}")
    return 0


def _load(args: argparse.Namespace) -> Array:
    if args.data is not None:
        refuse(args, {"download": False, "data_root": None}, "--data is a file of its own")
        from .._io.mapped import is_path, map_array, split_name

        stays = is_path(args.data) and Path(split_name(args.data)[0]).is_file()
        return map_array(args.data) if stays else read_samples(args.data)[0]
    try:
        return _load_images(args)
    except (OSError, ValueError) as error:
        raise type(error)(in_flags(str(error))) from error


def _load_images(args: argparse.Namespace) -> Array:
    from .. import datasets

    where = {"root": args.data_root, "download": args.download}
    if args.mnist is not None:
        return np.asarray(datasets.load_mnist(**where, classes=(args.mnist,))[0])
    if args.cifar10 is not None:
        return np.asarray(datasets.load_cifar10(**where, classes=(args.cifar10,))[0])
    attribute, _, value = args.celeba.partition("=")
    if value not in ("0", "1"):
        raise ValueError(f"--celeba must be ATTRIBUTE=0 or ATTRIBUTE=1, such as Male=1, got {args.celeba!r}")
    X, y, _, _ = datasets.load_celeba(**where, attribute=attribute, progress=args.progress)
    return np.asarray(X[y == int(value)])


def in_flags(message: str) -> str:
    """A loader's message with this command's options in place of the loader's arguments."""
    for argument, flag in {
        "download=True": "--download",
        "pass --download": "give --download",
        "set MFAKIT_DATA": "set --data-root or MFAKIT_DATA",
        "pass root=": "give --data-root",
        "root=": "--data-root",
    }.items():
        message = message.replace(argument, flag)
    return message
