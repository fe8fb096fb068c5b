"""``mfakit bench``: how fast this machine does it, and how near its own limit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._io.arguments import whole
from .._io.report import write_json
from ._common import JSON, check_outputs


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    from ..bench import SIZES

    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="throughput of every operation against limits measured on the spot",
        description="Measure the machine's product rates and bandwidths, then each operation against them and, in turn "
        "with it, against its bare product. Times are those of the quickest round.",
        epilog="examples:\n  mfakit bench\n  mfakit bench --backend cuda --size faces-gpu --json bench.json",
    )
    parser.add_argument("--backend", default="auto", help="auto, native, numba, numpy or cuda (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, help="default: digits, and digits-gpu with --backend cuda")
    parser.add_argument(
        "--rounds", type=whole(), default=5, help="timed calls of each operation (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="all numbers, with every round")
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and report."""
    from .. import bench

    check_outputs(("--json", args.json, JSON))
    size = args.size or ("digits-gpu" if args.backend == "cuda" else "digits")
    result = bench.run(args.backend, size, args.rounds, args.progress)
    print(result.table().terminal())
    print(f"\n{result.notes}")
    if args.json is not None:
        write_json(args.json, result.to_json())
        print(f"written: {args.json}")
    return 0
