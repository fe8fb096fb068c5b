"""``mfakit distances``: between the subspaces of two mixtures, and from samples to them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .._io.arguments import whole
from .._io.report import Table, number, write_json
from ._common import JSON, check_outputs, is_pair, load_mixture, read_samples, samples_from

# A line each.
MOST_BINS = 10_000


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "distances",
        help="distances between subspaces (Theorem 2), or from samples to them",
        description="Distances between the subspaces of two mixtures, or from samples to those of one.",
        epilog="examples:\n  mfakit distances mnist-06 --smallest 5\n"
        "  mfakit distances mnist-06:0 mnist-27:0\n"
        "  mfakit distances mnist-06:0 --data digits.npy",
    )
    parser.add_argument(
        "model",
        help="a mixture's file, a class of a pair, such as mnist-06:0 or pair.safetensors:1, or a whole pair",
    )
    parser.add_argument("other", nargs="?", help="the second mixture")
    parser.add_argument("--data", type=Path, help=".npy or .npz with samples X [n, d], instead of a second mixture")
    parser.add_argument("--smallest", type=whole(), default=5, metavar="S", help="pairs to list (default: %(default)s)")
    parser.add_argument(
        "--bins", type=whole(most=MOST_BINS), default=10, help="of the histogram (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="the numbers")
    return parser


def run(args: argparse.Namespace) -> int:
    """Compute and print."""
    from ..datasets import available_bayes_pairs

    check_outputs(("--json", args.json, JSON))
    if args.other is None and args.data is None and (args.model in available_bayes_pairs() or is_pair(args.model)):
        args.model, args.other = f"{args.model}:0", f"{args.model}:1"
    if (args.other is None) == (args.data is None):
        raise ValueError("give either a second mixture or --data")
    mfa = load_mixture(args.model)
    numbers = _to_samples(args, mfa) if args.other is None else _between(args, mfa)
    if args.json is not None:
        write_json(args.json, numbers)
        print(f"written: {args.json}")
    return 0


def _between(args: argparse.Namespace, mfa: Any) -> dict[str, Any]:
    from ..mixture.subspaces import subspace_distances

    other = load_mixture(args.other)
    values, pairs = subspace_distances(mfa, other, reduce="smallest", n_smallest=args.smallest, progress=args.progress)
    nearest, _ = subspace_distances(mfa, other, reduce="row_min")
    nearest = nearest[mfa.live]  # of a component without weight there is none
    counts, edges = subspace_distances(mfa, other, reduce="histogram", bins=args.bins)
    rows = tuple((str(i), str(j), number(d, 4), number(d / 2, 4)) for d, (i, j) in zip(values, pairs, strict=True))
    print(Table(("component", "of other", "distance\nℓ2", "radius d/2\nℓ2"), rows, labels=2).terminal())
    print(f"\nto the nearest subspace of the other mixture, mean over components: {nearest.mean():.4f}\n")
    _print_histogram(counts, edges, "pairs")
    return {"smallest": values, "pairs": pairs, "nearest": nearest, "counts": counts, "edges": edges}


def _to_samples(args: argparse.Namespace, mfa: Any) -> dict[str, Any]:
    from ..mixture.subspaces import point_subspace_distances

    with samples_from(args.data):
        nearest = point_subspace_distances(read_samples(args.data)[0], mfa).min(axis=1)
    if not len(nearest):
        raise ValueError(f"{args.data} has no samples")
    print(f"{len(nearest)} samples to their nearest subspace: mean {nearest.mean():.4f}, min {nearest.min():.4f}\n")
    counts, edges = np.histogram(nearest, args.bins)
    _print_histogram(counts, edges, "samples")
    return {"nearest": nearest, "counts": counts, "edges": edges}


def _print_histogram(counts: Any, edges: Any, unit: str) -> None:
    rows = tuple((f"{a:.2f} - {b:.2f}", str(n)) for a, b, n in zip(edges, edges[1:], counts, strict=False))
    print(Table(("distance\nℓ2", unit), rows).terminal())
