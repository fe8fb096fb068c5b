"""``python -m benchmarks [name ...]``: run all benchmarks, or those named; results go to benchmarks/results/.

A benchmark is a file here with ``CASES``, and perhaps ``BACKEND`` (default "auto"), ``around`` (a context that holds
while it runs), ``FOLDER`` (of its results, within the others'), ``table`` (of the report, instead of its own), ``draw``
(called with the report and the folder) and ``with_checkouts`` (the cases, given the folders of ``--checkout``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from mfakit._io.report import write_json
from mfakit.backends import why_missing
from mfakit.bench import Machine, Report, read_report, run_cases

RESULTS = Path(__file__).parent / "results"
NAMES = (
    "core", "imports", "fit", "attack", "brackets", "subspaces", "train", "svm", "carlini_wagner", "busy", "growth",
    "clusters", "peers", "device", "gpu",
)  # fmt: skip


def run(name: str, folder: Path, checkouts: Mapping[str, Path], resume: bool = False, **how: Any) -> Report | None:
    """One benchmark, into ``<folder>/<name>.json``; None where its backend is missing. `resume` keeps what the file
    has, see :func:`mfakit.bench.run_cases`.
    """
    module = import_module(f"benchmarks.{name}")
    backend = getattr(module, "BACKEND", "auto")
    reason = why_missing(backend) if backend == "cuda" else None
    if reason is not None:
        print(f"{name}: not measured here, {reason}")
        return None
    cases = module.with_checkouts(checkouts) if hasattr(module, "with_checkouts") else module.CASES
    folder = folder / getattr(module, "FOLDER", "")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    earlier = read_report(file) if resume and file.exists() else None

    def save(report: Report) -> None:
        write_json(file, report.to_json())

    with getattr(module, "around", nullcontext)():
        report = run_cases(name, cases, Machine(backend), source=Path(__file__), save=save, earlier=earlier, **how)
    table = module.table(report) if hasattr(module, "table") else report.table()
    print(f"{name}\n\n{table.terminal()}\n\n{report.notes}\n", flush=True)
    if hasattr(module, "draw"):
        module.draw(report, folder)
    return report


def checkout(text: str) -> tuple[str, Path]:
    """The name and the folder of ``NAME=FOLDER``."""
    name, _, folder = text.partition("=")
    names = import_module("benchmarks.peers").CHECKOUTS
    if name not in names or not folder or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"must be NAME=FOLDER with a name of {', '.join(names)}, got {text!r}")
    return name, Path(folder)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each candidate (default: %(default)s)")
    parser.add_argument("--slow", action="store_true", help="also the cases that take minutes each")
    parser.add_argument("--seconds", type=float, help="no case of a benchmark begins later than this")
    parser.add_argument(
        "--resume", action="store_true", help="keep what the results there have of this commit, machine and day"
    )
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results go (default: benchmarks/results)")
    parser.add_argument(
        "--checkout", action="append", default=[], type=checkout, metavar="NAME=FOLDER",
        help="of peers: where a library lies that is not installed (torch-mfa, VAMM); may be given several times",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    unknown = sorted(set(args.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if args.rounds < 1:
        parser.error(f"--rounds must be positive, got {args.rounds}")
    for name in args.names or NAMES:
        run(
            name, args.folder, dict(args.checkout), args.resume, rounds=args.rounds, slow=args.slow,
            seconds=args.seconds,
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
