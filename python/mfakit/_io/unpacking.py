"""Packed data, without trust in what it claims: read in pieces, and refused where it would unpack to far too much."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

__all__ = ["expands_too_far", "read_exactly", "read_whole"]

# Images and samples of float32 pack 1:1 to 10:1. The largest file that may expand further than this is a little larger
# than MNIST's images, so that small artificial data (all zeros) are read.
_MOST_EXPANSION = 100
_ALWAYS_READ = 64 << 20
_CHUNK = 1 << 20


def expands_too_far(size: int, stored: int) -> bool:
    """Whether `size` bytes out of `stored` packed ones are more than data would be."""
    return size > max(_ALWAYS_READ, _MOST_EXPANSION * stored)


def read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """Up to `size` bytes, in pieces: memory follows what arrives, never what was claimed."""
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(_CHUNK, size - len(data)))
        if not piece:
            break
        data += piece
    return data


def read_whole(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises
    ------
    ValueError
        If it is longer, or grows beyond that while it is read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = read_exactly(file, most + 1) if size <= most else b""
    if size > most or len(data) > most:
        raise ValueError(f"{path} must have at most {most} bytes, and has {max(size, len(data))}; get the file again")
    return bytes(data)
