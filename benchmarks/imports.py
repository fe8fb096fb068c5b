"""Seconds that ``import mfakit`` takes, and what it leaves unimported. Goal: under 0.3 s."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.common import save

CODE = """
import sys, time
start = time.perf_counter()
import mfakit
seconds = time.perf_counter() - start
heavy = {"torch", "sklearn", "cupy", "numba", "matplotlib", "scipy"} & set(sys.modules)
print(seconds, *sorted(heavy))
"""


def main() -> None:
    seconds, heavy = [], set()
    for _ in range(9):
        words = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
        seconds.append(float(words[0]))
        heavy.update(words[1:])
    print(
        f"import mfakit: median {statistics.median(seconds):.3f} s, heavy modules imported: {sorted(heavy) or 'none'}"
    )
    save("imports", {"seconds": seconds, "heavy_modules": sorted(heavy)})


if __name__ == "__main__":
    main()
