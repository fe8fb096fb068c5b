"""``python -m benchmarks [name ...]``: run all benchmarks, or those named; results go to benchmarks/results/.

A benchmark is a file here with ``CASES``, and perhaps ``BACKEND`` (default "auto"), ``around`` (a context that holds
while it runs) and ``draw`` (called with the report and the folder).
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from mfakit._io.report import write_json
from mfakit.backends import why_missing
from mfakit.bench import Machine, Report, run_cases

RESULTS = Path(__file__).parent / "results"
NAMES = (
    "core", "imports", "fit", "attack", "train", "svm", "carlini_wagner", "busy", "growth", "clusters", "device", "gpu",
)  # fmt: skip


def run(name: str, folder: Path, **how: Any) -> Report | None:
    """One benchmark, into ``<folder>/<name>.json``; None where its backend is missing."""
    module = import_module(f"benchmarks.{name}")
    backend = getattr(module, "BACKEND", "auto")
    reason = why_missing(backend) if backend == "cuda" else None
    if reason is not None:
        print(f"{name}: not measured here, {reason}")
        return None
    folder.mkdir(parents=True, exist_ok=True)

    def save(report: Report) -> None:
        write_json(folder / f"{name}.json", report.to_json())

    with getattr(module, "around", nullcontext)():
        report = run_cases(name, module.CASES, Machine(backend), source=Path(__file__), save=save, **how)
    print(f"{name}\n\n{report.table().terminal()}\n\n{report.notes}\n", flush=True)
    if hasattr(module, "draw"):
        module.draw(report, folder)
    return report


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each candidate (default: %(default)s)")
    parser.add_argument("--slow", action="store_true", help="also the cases that take minutes each")
    parser.add_argument("--seconds", type=float, help="no case of a benchmark begins later than this")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results go (default: benchmarks/results)")
    args = parser.parse_args(arguments)
    unknown = sorted(set(args.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if args.rounds < 1:
        parser.error(f"--rounds must be positive, got {args.rounds}")
    for name in args.names or NAMES:
        run(name, args.folder, rounds=args.rounds, slow=args.slow, seconds=args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
