"""Samples from the user's .npy and .npz files, checked before anything of the size that they claim is allocated."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .._io.messages import excerpt, one_line
from .._io.unpacking import expands_too_far

__all__ = ["read_samples"]

Array = NDArray[Any]

_CHUNK = 1 << 20


def read_samples(path: Path) -> tuple[Array, Array | None]:
    """X and y (None if there is none) from a .npz or .npy file; nothing in it is executed.

    Raises
    ------
    FileNotFoundError
        No regular file of this name.
    ValueError
        For another format, a file that is cut short or damaged, arrays of objects, and archives that would unpack to
        far more than data would.
    """
    if not path.is_file():
        what = "is there, but is no regular file" if path.exists() else "is not there"
        raise FileNotFoundError(f"no data file at {path}: it {what}")
    try:
        with path.open("rb") as file:
            packed = file.read(4).startswith(b"PK")
            file.seek(0)
            if not packed:
                return _read_array(file, path.stat().st_size, "the array"), None
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive)
    except PermissionError:
        raise
    # RuntimeError: an encrypted member.
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz or .npy file: {one_line(error)}") from None


def _read_archive(archive: zipfile.ZipFile) -> tuple[Array, Array | None]:
    members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    if "X" not in members:
        names = ", ".join(excerpt(name).strip("'") for name in list(members)[:10])
        raise ValueError(f"has arrays {names or 'none'}, but no X")
    return _read_member(archive, members["X"]), _read_member(archive, members["y"]) if "y" in members else None


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is packed by method {entry.compress_type}; save it again with numpy.savez")
    if expands_too_far(entry.file_size, entry.compress_size):
        raise ValueError(
            f"{entry.filename} would take {entry.file_size} bytes, unpacked from {entry.compress_size}, which is more"
            " than data take; save it with numpy.savez, unpacked, if it is meant"
        )
    with archive.open(entry) as file:
        return _read_array(file, entry.file_size, entry.filename)


def _read_array(file: IO[bytes], size: int, name: str) -> Array:
    """One array in NumPy's format, of `size` bytes with its header."""
    try:
        version = npy.read_magic(file)
        # Version 3 differs from 2 in the encoding of names of fields, which numbers do not have.
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # what stands in a damaged header may fail to parse in any way
        raise ValueError(f"the header of {name} is damaged ({one_line(error, 60)})") from None
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded, because that would run what the file asks for")
    if dtype.kind not in "biufc":
        raise ValueError(f"{name} has dtype {excerpt(str(dtype))}, and samples are numbers")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or claimed != there:
        raise ValueError(f"{name} claims shape {excerpt(shape)} of {dtype}, and {max(there, 0)} bytes follow")
    values: Array = np.empty(math.prod(shape), dtype)
    left = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
    while len(left):
        n = cast("io.BufferedReader", file).readinto(left[:_CHUNK])
        if not n:
            raise ValueError(f"{name} ends early")
        left = left[n:]
    return values.reshape(shape, order="F" if fortran else "C")
