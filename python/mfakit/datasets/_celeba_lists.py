"""CelebA's two lists, of attributes and of parts: text as its authors wrote it, or the tables made from it."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .._io.messages import excerpt, near, one_line
from .._io.unpacking import read_whole

__all__ = ["check_attributes", "read_attribute", "read_parts"]

# Ten times the list of attributes of all 202,599 images.
_MAX_BYTES = 1 << 28


def read_attribute(path: Path, attribute: str) -> tuple[list[str], NDArray[np.int64]]:
    """Image names and 0/1 labels, in the list's order.

    The text begins with the number of images, which some lack, and the attributes' names; the table with the names
    alone.
    Then each has a line per image, with its name and a value for each attribute: -1 or 1, or 0 or 1.
    """
    lines = _read_lines(path)
    table, counted, attributes = _titles(lines, path)
    n_titles = 2 if counted else 1
    if attribute not in attributes:
        raise ValueError(_unknown_attribute(attribute, attributes, path))
    rows = [(i, _fields(line, table)) for i, line in enumerate(lines[n_titles:], n_titles + 1) if line.strip()]
    if counted and lines[0].strip() != str(len(rows)):
        _refuse(path, f"says {excerpt(lines[0])} images but has {len(rows)} lines of them")
    if len(set(attributes)) != len(attributes):
        raise ValueError(f"{path} names an attribute twice; get the file again")
    column = 1 + attributes.index(attribute)
    for i, row in rows:
        if len(row) != 1 + len(attributes) or row[column] not in ("-1", "0", "1"):
            raise ValueError(f"{path}: line {i} must have a name and {len(attributes)} values -1 or 1; get it again")
    if {"-1", "0"} <= {row[column] for _, row in rows}:
        raise ValueError(f"{path} has both -1 and 0 for {attribute}, which is absent in neither or both; get it again")
    names = [row[0] for _, row in rows]
    _check_names(names, path)
    return names, np.array([row[column] == "1" for _, row in rows], dtype=np.int64)


def check_attributes(path: Path, wanted: Iterable[str]) -> None:
    """Raise ValueError for an attribute that the list does not have, with the close ones."""
    attributes = _titles(_read_lines(path), path)[2]
    for attribute in wanted:
        if attribute not in attributes:
            raise ValueError(_unknown_attribute(attribute, attributes, path))


def _titles(lines: list[str], path: Path) -> tuple[bool, bool, list[str]]:
    """Whether the list is a table, whether it begins with the number of images, and the attributes' names."""
    table = bool(lines) and "," in lines[0]
    if len(lines) < 2:
        raise ValueError(f"{path} must begin with the number of images and the attributes' names; get the file again")
    counted = not table and (lines[0].strip().isdigit() or len(lines[1].split()) != len(lines[0].split()) + 1)
    return table, counted, _fields(lines[0], table)[1:] if table else lines[1 if counted else 0].split()


def read_parts(path: Path) -> dict[str, int]:
    """The part of each image: 0 train, 1 validation, 2 test."""
    lines = _read_lines(path)
    table = bool(lines) and "," in lines[0]
    start = 1 if table and _fields(lines[0], True)[-1] not in ("0", "1", "2") else 0  # a table's titles
    names, parts = [], []
    for i, line in enumerate(lines[start:], start + 1):
        fields = _fields(line, table)
        if not line.strip():
            continue
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise ValueError(f"{path}: line {i} must be a name and 0, 1 or 2, got {excerpt(line)}; get the file again")
        names.append(fields[0])
        parts.append(int(fields[1]))
    _check_names(names, path)
    return dict(zip(names, parts, strict=True))


def _read_lines(path: Path) -> list[str]:
    data = read_whole(path, _MAX_BYTES)
    # Editors on Windows put a mark at the beginning. Bytes that are no text become odd characters, which the checks of
    # each line then report.
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace").splitlines()


def _fields(line: str, table: bool) -> list[str]:
    return [field.strip().strip('"') for field in line.split(",")] if table else line.split()


def _check_names(names: Sequence[str], path: Path) -> None:
    """The lists name files, not paths, so that a folder of images is never left; and each of them once."""
    seen: set[str] = set()
    for name in names:
        if name in ("", ".", "..") or len(name) > 255 or not name.isprintable() or "/" in name or "\\" in name:
            _refuse(path, f"names {excerpt(name)}, which is not a plain file name")
        if name in seen:
            _refuse(path, f"names an image twice, {excerpt(name)}")
        seen.add(name)


def _refuse(path: Path, why: str) -> NoReturn:
    raise ValueError(f"{path} {why}; get the file again")


def _unknown_attribute(attribute: Any, attributes: list[str], path: Path) -> str:
    close = near(str(attribute), attributes[:100], 5)
    hint = "did you mean" if close else "choose one of"
    names = ", ".join(one_line(name, 40) for name in (close or attributes[:100]))
    return f"{path} has no attribute {excerpt(attribute)}; {hint} {names}?"
