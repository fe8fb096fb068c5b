"""The CUDA sources, one flattened string per family, as NVRTC gets them.

Flattened, because CuPy's kernel cache keys on the source it is given and does not see an edited include.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = ["FAMILIES", "definitions", "flatten", "kernel_names"]

# Source file -> what it holds.
FAMILIES = ("density", "pairs", "subspace", "attack", "sampling", "prune")

_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
_KERNEL = re.compile(r'^extern "C" __global__ void (\w+)\(', re.MULTILINE)


def source_root() -> Path:
    """The folder with ``cuda`` and ``include``: in the wheel beside the Python files, in a checkout at its top."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "csrc"
    return installed if (installed / "cuda").is_dir() else package.parents[1] / "csrc"


@cache
def flatten(family: str) -> str:
    """A family's source with every quoted include written out once."""
    root = source_root()
    seen: set[Path] = set()

    def read(name: str) -> str:
        path = next(
            p for p in (root / "cuda" / name, root / "include" / name, root / "include/mfakit" / name) if p.is_file()
        )
        if path in seen:
            return ""
        seen.add(path)
        text = path.read_text(encoding="utf-8").replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda match: read(match.group(1)), text)

    return read(f"{family}.cu")


def kernel_names(family: str) -> tuple[str, ...]:
    """The kernels of a family, in the order of its source."""
    return tuple(_KERNEL.findall(flatten(family)))


def definitions(real: str, **values: int) -> tuple[str, ...]:
    """Compiler options that choose the type of samples ("float" or "double") and sizes known at compilation."""
    return ("-std=c++17", f"-DMFA_REAL={real}", *(f"-D{name}={value}" for name, value in sorted(values.items())))
