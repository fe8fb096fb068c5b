"""What experiments and commands hand out: tables for the terminal and in Markdown, JSON, and files that are whole or
absent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .outputs import PathLike, replacing

__all__ = [
    "Table",
    "environment",
    "installed",
    "jsonable",
    "number",
    "percent",
    "processor",
    "replacing",
    "write_json",
    "write_text",
]

NOT_KNOWN = "–"


def number(value: float | None, digits: int = 2) -> str:
    """A number with this many decimals; a dash for None and NaN."""
    return NOT_KNOWN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent, never rounded up to 100; a dash for None and NaN."""
    if share is None or math.isnan(share):
        return NOT_KNOWN
    text = f"{100 * share:.{digits}f}"
    return text if share >= 1 or float(text) < 100 else f"{100 - 10.0**-digits:.{digits}f}"


@dataclass(frozen=True)
class Table:
    """Text cells under column titles; a title's lines are parted by newlines, the unit in the last.

    Attributes
    ----------
    columns : tuple of str
    rows : tuple of tuple of str
        As many cells as columns each; a row of empty cells parts groups on the terminal.
    labels : int
        The number of leading columns that hold words and are set flush left; the others are numbers, flush right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1

    def __post_init__(self) -> None:
        wrong = [len(row) for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"every row must have {len(self.columns)} cells, got one of {wrong[0]}")

    def terminal(self) -> str:
        """Aligned columns under a rule, for a terminal."""
        titles = [title.split("\n") for title in self.columns]
        height = max(map(len, titles))
        # Titles of fewer lines sink to the rule.
        head = [[([""] * (height - len(t)) + t)[line] for t in titles] for line in range(height)]
        widths = [max(len(cells[i]) for cells in (*head, *self.rows)) for i in range(len(self.columns))]
        lines = [self._line(cells, widths) for cells in (*head, *self.rows)]
        lines.insert(height, "─" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join(lines)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        parts = [
            cell.ljust(width) if i < self.labels else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    def markdown(self) -> str:
        """A Markdown table; rows of empty cells are left out."""
        titles = [title.replace("\n", " ") for title in self.columns]
        rule = ["---" if i < self.labels else "---:" for i in range(len(titles))]
        rows = [row for row in self.rows if any(row)]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (titles, rule, *rows)
        )


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types: dataclasses and mappings as objects, arrays as lists, NaN and inf as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, os.PathLike) else value


def write_text(path: PathLike, text: str) -> None:
    """Write a text file, whole or not at all; UTF-8, ending in a newline."""
    with replacing(path) as temporary:
        temporary.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def write_json(path: PathLike, value: Any) -> None:
    """Write :func:`jsonable` of `value`, whole or not at all."""
    write_text(path, json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False))


def environment() -> dict[str, Any]:
    """What a number depends on beside its settings: versions, backend, threads, processor."""
    from .._threads.limits import default_threads
    from .._version import __version__
    from ..backends import get_backend

    return {
        "mfakit": __version__,
        "python": platform.python_version(),
        **installed(("numpy", "scipy")),
        "blas": _blas(),
        "backend": get_backend().__name__.rsplit(".", 1)[-1].removesuffix("_ops"),
        "threads": default_threads(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _blas() -> str:
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (KeyError, TypeError):
        return "unknown"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
