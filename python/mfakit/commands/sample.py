"""``mfakit sample``: samples of a mixture or of a classifier's classes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .._io.arguments import seed_type, sigma_type, whole
from .._io.report import replacing
from ._common import check_outputs, check_picture, load_mixture


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sample",
        help="draw samples of a mixture",
        description="Draw samples and write them to a .npy file, or .npz with their components, or a picture.",
        epilog="examples:\n  mfakit sample mnist-06:0 -n 1000 --out zeros.npy\n"
        "  mfakit sample model.safetensors -n 24 --picture samples.png",
    )
    parser.add_argument("model", help="a mixture's .safetensors file, or a class of a shipped pair, such as mnist-06:0")
    parser.add_argument("-n", type=whole(), default=24, help="number of samples (default: %(default)s)")
    parser.add_argument("--seed", type=seed_type, default=0, help="default: %(default)s")
    parser.add_argument("--no-noise", dest="noise", action="store_false", help="points on the subspaces")
    parser.add_argument("--sigma", type=sigma_type, help="set the noise of all components first")
    parser.add_argument("--out", type=Path, help=".npy (X) or .npz (X, component)")
    parser.add_argument("--picture", type=Path, help=".png of the samples as images")
    return parser


def run(args: argparse.Namespace) -> int:
    """Draw and write."""
    if args.out is None and args.picture is None:
        raise ValueError("nothing to write: give --out, --picture or both")
    check_outputs(("--out", args.out, (".npy", ".npz")), ("--picture", args.picture, ()))
    check_picture(args.picture)
    mfa = load_mixture(args.model)
    if args.sigma is not None:
        mfa = mfa.replace(noise_variance=args.sigma**2)
    X, component = mfa.sample(args.n, rng=args.seed, noise=args.noise)
    if args.out is not None:
        with replacing(args.out) as temporary:
            if args.out.suffix == ".npy":
                np.save(temporary, X)
            else:
                np.savez(temporary, X=X, component=component)
        print(f"written: {args.out} {X.shape}")
    if args.picture is not None:
        from ..plots import show_images

        with replacing(args.picture) as temporary:
            show_images(X).savefig(temporary, dpi=160)
        print(f"written: {args.picture}")
    return 0
