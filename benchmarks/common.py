"""What the benchmarks share: interleaved rounds, provenance, and one JSON file per benchmark."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mfakit

RESULTS = Path(__file__).parent / "results"


# For how long OpenBLAS's threads stay awake after a product, and more, seconds.
SPINNING = 0.25


def interleaved(
    candidates: dict[str, Callable[[], Any]], rounds: int = 5, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each candidate, in turn within each round, after one warm-up: machines drift, ratios within a round
    less. Between two the threads of BLAS fall asleep, which would spin for a while beside the next.
    """
    for run in candidates.values() if warm_up else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            time.sleep(SPINNING)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(seconds: dict[str, list[float]], numerator: str, denominator: str) -> float:
    """Median over rounds of the ratio within a round."""
    pairs = zip(seconds[numerator], seconds[denominator], strict=True)
    return statistics.median(a / b for a, b in pairs)


def provenance() -> dict[str, Any]:
    """Where and with what a number was measured."""
    packages = ("numpy", "scipy", "numba", "scikit-learn")
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "versions": {"mfakit": mfakit.__version__, **{name: version(name) for name in packages}},
    }


def save(name: str, result: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json, with all rounds."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": name, "provenance": provenance(), **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
