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

__all__ = ["read_exactly", "read_idx"]

_UNSIGNED_BYTE = 0x08
# Far above MNIST's 47 MB and its larger relatives, and what a compressed file may claim at most.
_MAX_BYTES = 1 << 30
# Deflate never expands by more than 1032 to 1, so a claim beyond that is false, whatever the file holds.
_MAX_EXPANSION = 1032
_CHUNK = 1 << 20


def read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """Up to `size` bytes, in pieces: memory follows what arrives, never what was claimed."""
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(_CHUNK, size - len(data)))
        if not piece:
            break
        data += piece
    return data


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
            raise ValueError(f"{path} is not a whole gzip file ({error}); get the file again") from error


def _parse(stream: IO[bytes], path: Path, n_axes: int, zipped: bool) -> NDArray[np.uint8]:
    shape = _read_shape(stream, path, n_axes)
    size, stored = math.prod(shape), path.stat().st_size
    if size > (min(_MAX_BYTES, _MAX_EXPANSION * stored) if zipped else stored):
        raise ValueError(
            f"{path} claims {size} bytes of data (shape {shape}), more than it can hold; get the file again"
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
