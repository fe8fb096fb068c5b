"""Seconds that ``import mfakit`` takes beyond Python's own start, and what it leaves unimported. Goal: under 0.15 s."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from mfakit.bench import Case, Machine, Timed, Work

HEAVY = ("torch", "sklearn", "cupy", "numba", "matplotlib", "scipy")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def import_time(case: Case, machine: Machine) -> Work:
    heavy = python(f"import sys, mfakit; print(*sorted(set({HEAVY}) & set(sys.modules)))").split()
    start = partial(python, "pass")
    beside = {"import numpy": Timed(partial(python, "import numpy"), less=start)}
    return Work(
        Timed(partial(python, "import mfakit"), less=start), len(heavy), 1, "imports", beside=beside,
        facts={"heavy_modules": heavy},
    )  # fmt: skip


CASES = (Case("import mfakit", import_time, against="no heavy module imported", allowed=0, rounds=9),)
