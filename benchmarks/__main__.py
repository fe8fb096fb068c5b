"""``python -m benchmarks [name ...]``: run all benchmarks, or those named; results go to benchmarks/results/."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = ("imports", "density", "distances", "fit", "attack", "train", "svm", "carlini_wagner", "busy", "device", "gpu")


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
