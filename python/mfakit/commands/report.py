"""``mfakit report``: the results of experiments as one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._common import check_outputs

PAGE = (".html", ".htm")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report",
        help="the experiments' results as one HTML page",
        description="Make one HTML page of all results in a folder: the claims of the paper, tables beside its own, "
        "figures, and what has not been run. The page needs no network and nothing beside itself.",
        epilog="example:\n  mfakit report results --out report.html",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what mfakit reproduce --out was given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: DIR/report.html)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the page, and say what is in it."""
    from ..report import write_report
    from ..report.images import have_pillow

    check_outputs(("--out", args.out, PAGE))
    written = write_report(args.folder, args.out)
    found = [name for name in written.collection.found if name != "claims"]
    print(f"results of {', '.join(found) or 'no experiment'}")
    for name, why in written.collection.damaged.items():
        print(f"{name} is left out: {why}")
    if not have_pillow():
        print("pictures were not made smaller, because Pillow is not installed: pip install pillow")
    print(f"written: {written.path} ({written.size / 1e6:.1f} MB)")
    return 0
