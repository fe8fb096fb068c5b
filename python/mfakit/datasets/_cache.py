"""Decoded images on disk, as plain .npy files that are memory-mapped.

A file's name is a digest of what it was made from, so a changed source or crop gives another file. Everything here
may be deleted at any time; it is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cache_file", "cache_folder", "cached_rows"]

logger = logging.getLogger("mfakit")

_FORMAT_VERSION = 1
_ABANDONED_AFTER = 24 * 3600.0

# Number of rows, and the rows in blocks [rows, width] of uint8.
Build = Callable[[], tuple[int, Iterable[NDArray[np.uint8]]]]


def cache_folder(cache: bool | str | os.PathLike[str], root: Path) -> Path | None:
    """The folder for caches: none, the one named, or `root`/.mfakit-cache if `root` is writable, else the user's."""
    if cache is False:
        return None
    if cache is not True:
        folder = Path(cache).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if _is_writable(root):
        folder = root / ".mfakit-cache"
    else:
        import pooch

        folder = Path(pooch.os_cache("mfakit")) / "decoded"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("decoded images are not cached, for %s cannot be made: %s", folder, error)
        return None
    return folder


def _is_writable(folder: Path) -> bool:
    # The mode is looked at as well because root may write everywhere, and a read-only data folder is meant to stay so.
    return folder.is_dir() and bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


def cache_file(folder: Path | None, dataset: str, sources: Iterable[Path], **settings: Any) -> Path | None:
    """The file for these sources (their names, number, sizes and latest change) and settings; None without folder."""
    if folder is None:
        return None
    names, size, changed = [], 0, 0
    for path in sources:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # building the rows reports it
        names.append(path.name)
        size, changed = size + stat.st_size, max(changed, stat.st_mtime_ns)
    key = json.dumps([_FORMAT_VERSION, names, size, changed, settings], sort_keys=True)
    return folder / f"{dataset}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"


def cached_rows(path: Path | None, width: int, n_rows: int | None, build: Build) -> NDArray[np.uint8]:
    """uint8 rows [n, width]: mapped from the file at `path`, which is made if it is absent or damaged.

    Without a path, or where it cannot be written, the rows are built in memory. `n_rows` None accepts any number.
    """
    if path is not None:
        rows = _open(path, width, n_rows)
        if rows is None:
            try:
                _write(path, width, *build())
            except OSError as error:
                logger.warning("%s could not be written, so the images stay in memory: %s", path, error)
            else:
                rows = _open(path, width, n_rows)
        if rows is not None:
            return rows
    n, blocks = build()
    out = np.empty((n, width), dtype=np.uint8)
    start = 0
    for block in blocks:
        out[start : start + len(block)] = block
        start += len(block)
    return out


def _open(path: Path, width: int, n_rows: int | None) -> NDArray[np.uint8] | None:
    """The rows in the file, mapped read-only, or None if it is absent, cut short or something else."""
    if not path.exists():
        return None
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # refuses objects, so nothing is unpickled
    except Exception as error:  # a foreign file may fail in any way, and is replaced in any case
        logger.warning("%s is damaged and is made again: %s", path, error)
        return None
    fits = rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == width and n_rows in (None, len(rows))
    if not (fits and rows.flags.c_contiguous and path.stat().st_size == rows.offset + rows.nbytes):
        logger.warning("%s does not hold what its name says and is made again", path)
        return None
    return rows


def _write(path: Path, width: int, n: int, blocks: Iterable[NDArray[np.uint8]]) -> None:
    """Write under a name of our own, then rename: readers and other writers see a whole file or none."""
    _remove_abandoned(path.parent)
    temporary = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.mfakit-tmp")
    try:
        with temporary.open("xb") as file:
            # Written, not mapped: a full disk is an OSError here, and would be a fatal signal there.
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, width)}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """What writers that were killed left behind."""
    for path in folder.glob("*.mfakit-tmp"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                path.unlink()
        except OSError:
            # Another process was faster, or it is not ours.
            continue
