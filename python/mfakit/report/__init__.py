"""The report: what a folder holds of the paper's experiments, as one HTML page that opens anywhere, offline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .._io.outputs import output_file
from .._io.report import write_text
from ..experiments.collection import Collection, collect
from .page import build_page

__all__ = ["Written", "write_report"]


@dataclass(frozen=True, eq=False)
class Written:
    """The page's file, its bytes, and what it was made of."""

    path: Path
    size: int
    collection: Collection


def write_report(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Written:
    """Write the page of all results below `folder`, where ``mfakit reproduce --out`` has left them.

    Parameters
    ----------
    folder : path
    out : path, optional
        The file; None: ``report.html`` in `folder`. The same results give the same bytes.

    Returns
    -------
    Written

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        No folder of this name.
    ValueError
        A folder without any result.
    OSError
        A file that cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = NotADirectoryError if folder.exists() else FileNotFoundError
        raise what(f"no folder {folder} of results; make one with mfakit reproduce bayes --out {folder}")
    path = output_file(folder / "report.html" if out is None else Path(out))
    collection = collect(folder)
    if not collection.found and not collection.damaged:
        raise ValueError(f"{folder} holds no results; make some with mfakit reproduce bayes --out {folder}")
    page = build_page(collection)
    write_text(path, page)
    return Written(path, len(page.encode("utf-8")), collection)
