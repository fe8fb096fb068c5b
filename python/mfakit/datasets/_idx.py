"""The IDX format of MNIST: two zero bytes, a type code, the number of axes, their big-endian sizes, the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from .._io.messages import one_line
from .._io.unpacking import expands_too_far, read_exactly

__all__ = ["read_idx"]

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, n_axes: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes, plain or gzipped, as an array of `n_axes` axes.

    Raises
    ------
    ValueError
        If the magic number, the type, the number of axes or their sizes do not fit the file, before anything of
        the claimed size is allocated.
    """
    # By content, not by name: browsers drop or keep the ending as they like.
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
        try:
            return _parse(cast("IO[bytes]", stream), path, n_axes, zipped)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole gzip file ({one_line(error)}); get the file again") from error


def _parse(stream: IO[bytes], path: Path, n_axes: int, zipped: bool) -> NDArray[np.uint8]:
    shape = _read_shape(stream, path, n_axes)
    size, stored = math.prod(shape), path.stat().st_size
    if expands_too_far(size, stored) if zipped else size > stored:
        raise ValueError(
            f"{path} claims {size} bytes of data (shape {shape}), more than it can hold as images in {stored} bytes;"
            " get the file again"
        )
    data = read_exactly(stream, size)
    if len(data) != size or stream.read(1):
        problem = f"only {len(data)} follow" if len(data) != size else "more follow"
        raise ValueError(f"{path} claims {size} bytes of data (shape {shape}), but {problem}; get the file again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _read_shape(stream: IO[bytes], path: Path, n_axes: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(f"{path} is not an IDX file: expected two zero bytes first, got {magic!r}")
    if magic[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path} must hold unsigned bytes (type code 0x08), got type code 0x{magic[2]:02x}")
    if magic[3] != n_axes:
        raise ValueError(f"{path} must have {n_axes} axes, got {magic[3]}; are images and labels exchanged?")
    header = stream.read(4 * n_axes)
    if len(header) < 4 * n_axes:
        raise ValueError(f"{path} ends within its header; get the file again")
    shape = struct.unpack(f">{n_axes}i", header)
    if min(shape) < 0:
        raise ValueError(f"{path} claims a negative size (shape {shape}); get the file again")
    return shape
