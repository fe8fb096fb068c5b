"""Decoded images on disk, as plain .npy files that are memory-mapped.

A file's name is a digest of what it was made from, so a changed source or crop gives another file. Everything here
may be deleted at any time; it is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.messages import one_line
from .._io.outputs import replacing
from ._download import expanded

__all__ = ["cache_folder", "cached_rows", "fingerprint"]

logger = logging.getLogger("mfakit")

_FORMAT_VERSION = 2

# Number of rows, and the rows in blocks [rows, width] of uint8.
Build = Callable[[], tuple[int, Iterable[NDArray[np.uint8]]]]


def cache_folder(cache: bool | str | os.PathLike[str], root: Path) -> Path | None:
    """The folder for caches: none, the one named, or `root`/.mfakit-cache if `root` is writable, else the user's."""
    if cache is False:
        return None
    if cache is not True:
        folder = expanded(cache)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(
                f"cache={folder} cannot be made a folder, because there is a file in its place; give another"
            ) from None
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


def fingerprint(sources: Iterable[Path], **settings: Any) -> str:
    """A digest of these files as they are now, and of settings that JSON can hold.

    Of each file its place, size and times count. The time of the last change of its entry is among them: copying
    tools restore the other one, so that two versions of a file may agree in all else.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT_VERSION, settings], sort_keys=True).encode())
    for path in sources:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # building the rows reports it
        digest.update(repr((os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)).encode())
    return digest.hexdigest()[:24]


class _SourceError(Exception):
    """An OSError of the files that are read, not of the cache that is written."""


def cached_rows(
    folder: Path | None, name: str, state: Callable[[], str], width: int, n_rows: int | None, build: Build
) -> NDArray[np.uint8]:
    """uint8 rows [n, width]: mapped from the cache, which is written if it is absent or damaged.

    Without a folder, or where it cannot be written to, the rows are built in memory.

    Parameters
    ----------
    folder : Path or None
    name : str
        The beginning of the file's name.
    state : callable
        The :func:`fingerprint` of the sources, which is the rest of the name.
    width, n_rows : int
        Expected of the file; `n_rows` None accepts any number.
    build : callable
        Decodes the sources.

    Raises
    ------
    ValueError
        If the sources changed while they were read; nothing is kept then.
    """
    found = state()

    def check() -> None:
        if state() != found:
            raise ValueError(f"the files of {name} changed while they were read; load again when they are complete")

    if folder is not None:
        path = folder / f"{name}-{found}.npy"
        rows = _open(path, width, n_rows)
        if rows is None:
            try:
                _write(path, width, build, check)
            except _SourceError as error:
                raise error.args[0] from None
            except OSError as error:
                logger.warning("%s could not be written, so the images stay in memory: %s", path, one_line(error))
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
    check()
    return out


def _open(path: Path, width: int, n_rows: int | None) -> NDArray[np.uint8] | None:
    """The rows in the file, mapped read-only, or None if it is absent, cut short or something else."""
    if not path.is_file():
        return None  # writing reports what else is in its place
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # refuses objects, so nothing is unpickled
    except Exception as error:  # a foreign file may fail in any way, and is replaced in any case
        logger.warning("%s is damaged and is made again: %s", path, one_line(error))
        return None
    fits = rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == width and n_rows in (None, len(rows))
    if not (fits and rows.flags.c_contiguous and path.stat().st_size == rows.offset + rows.nbytes):
        logger.warning("%s does not hold what its name says and is made again", path)
        return None
    return rows


def _write(path: Path, width: int, build: Build, check: Callable[[], None]) -> None:
    """Write the rows, whole or not at all; `check` raises if they are not to be kept."""
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            n, blocks = _read(build)
            # Written, not mapped: a full disk is an OSError here, and would be a fatal signal there.
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, width)}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
        check()


def _read(build: Build) -> tuple[int, Iterator[NDArray[np.uint8]]]:
    def each() -> Iterator[NDArray[np.uint8]]:
        try:
            yield from blocks
        except OSError as error:
            raise _SourceError(error) from error

    try:
        n, blocks = build()
    except OSError as error:
        raise _SourceError(error) from error
    return n, each()
