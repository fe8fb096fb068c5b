"""Arrays that stay in their files: .npy and .safetensors, opened by memory map; and results that become a .npy file."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .._threads.process import interruptible
from .messages import excerpt, one_line
from .outputs import NO_ROOM, PathLike, output_file, replacing

__all__ = ["NewArray", "is_path", "map_array", "new_array", "reserve", "says_size", "split_name"]

Array = NDArray[Any]

# What stands between the path of a .safetensors file and the name of one of its tensors.
SEPARATOR = "::"
SUFFIXES = (".npy", ".safetensors")
# safetensors' names of the numbers that NumPy has.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
# A longer header than safetensors itself takes.
MOST_HEADER = 100 * 10**6


def is_path(thing: Any) -> bool:
    """Whether it is the name of a .npy or .safetensors file, or of a tensor in one, which may or may not be there."""
    return isinstance(thing, str | os.PathLike) and Path(split_name(thing)[0]).suffix in SUFFIXES


def split_name(path: PathLike) -> tuple[str, str | None]:
    """The path of a file, and the name of a tensor in it where one is given, as in ``data.safetensors::images``."""
    text = os.fsdecode(path)
    file, separator, name = text.partition(SUFFIXES[1] + SEPARATOR)
    if not separator or os.path.exists(text):
        return text, None
    return file + SUFFIXES[1], name


def map_array(path: PathLike) -> Array:
    """The array in a .npy file, or the only [n, d] tensor, or the one that is named, of a .safetensors file, mapped
    read-only.

    Raises
    ------
    ValueError
        For a file that is shorter than its header says, or has no such array; one sentence with the path.
    """
    file, name = split_name(path)
    try:
        return _map_npy(file) if file.endswith(".npy") else _map_tensor(file, name)
    except PermissionError:
        raise
    except (ValueError, OSError, OverflowError) as error:
        raise ValueError(f"{file} cannot be read as an array: {one_line(error)}") from None


def _map_npy(path: str) -> Array:
    with open(path, "rb") as file:
        try:
            version = npy.read_magic(file)
            # Version 3 differs from 2 in the encoding of names of fields, which numbers do not have.
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read_header(file)
        except Exception as error:  # what stands in a damaged header may fail to parse in any way
            raise ValueError(f"its header is damaged ({one_line(error, 60)})") from None
        start = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and reading them would run what the file asks for")
    return _mapped(path, dtype, shape, start, "F" if fortran else "C")


def _map_tensor(path: str, name: str | None) -> Array:
    start, tensors = _read_header(path)
    if name is None:
        name = _only_matrix(tensors)
    if name not in tensors:
        raise ValueError(f"it has no tensor {excerpt(name)}, but {_listed(tensors)}")
    kind, shape, (begin, end) = _entry(tensors[name])
    if kind not in DTYPES:
        raise ValueError(f"its tensor {excerpt(name)} is {excerpt(kind)}, which NumPy lacks; save it as F32")
    dtype = np.dtype(DTYPES[kind])
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its tensor {excerpt(name)} claims shape {list(shape)} of {kind} in {end - begin} bytes")
    return _mapped(path, dtype, shape, start + begin, "C")


def _read_header(path: str) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and what its header says of each."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER, os.fstat(file.fileno()).st_size - 8):
            raise ValueError("its header is cut short, or it is no safetensors file")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its header is damaged ({one_line(error, 60)})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is damaged (no object)")
    header.pop("__metadata__", None)
    return 8 + length, header


def _entry(entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """dtype, shape and offsets of a tensor, checked."""
    try:
        kind, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError("its header is damaged (a tensor without dtype, shape or offsets)") from None
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)) or begin > end:
        raise ValueError("its header is damaged (shapes and offsets must be natural numbers)")
    return kind, shape, (begin, end)


def _only_matrix(tensors: dict[str, Any]) -> str:
    matrices = [name for name, entry in tensors.items() if len(_entry(entry)[1]) == 2]
    if len(matrices) != 1:
        raise ValueError(
            f"it has {len(matrices) or 'no'} tensors [n, d] among {_listed(tensors)}; name one, as in "
            f"file.safetensors{SEPARATOR}NAME"
        )
    return matrices[0]


def _listed(tensors: dict[str, Any]) -> str:
    return ", ".join(excerpt(name).strip("'") for name in list(tensors)[:10]) or "none"


def _mapped(path: str, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, order: Any) -> Array:
    size, there = math.prod(shape) * dtype.itemsize, os.stat(path).st_size - start
    if min(shape, default=0) < 0 or size > there:
        raise ValueError(
            f"it is shorter than its header says: {list(shape)} of {dtype} take {size} bytes, and {max(there, 0)} "
            "follow; was it cut short?"
        )
    if size == 0:  # which cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, order)


class NewArray:
    """A result that goes to a new .npy file, made when its shape is known; :func:`new_array` opens one."""

    def __init__(self, path: Path, temporary: Path) -> None:
        self.path, self._temporary = path, temporary
        self._array: np.memmap[Any, Any] | None = None

    def make(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array to write to, whose bytes have a place on the disk.

        Raises
        ------
        OSError
            Where the disk has no room for it.
        """
        if not math.prod(shape):  # which cannot be mapped
            np.save(self._temporary, np.empty(shape, dtype))
            return np.empty(shape, dtype)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with says_size(str(self.path), size):
            self._array = npy.open_memmap(self._temporary, "w+", np.dtype(dtype), shape)
            with self._temporary.open("r+b") as file:
                reserve(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return self._array

    def finish(self) -> None:
        """Bring everything to the disk; Ctrl-C is answered meanwhile."""
        if self._array is not None:
            interruptible(self._array.flush)


@contextlib.contextmanager
def new_array(path: PathLike) -> Iterator[NewArray]:
    """A file for a result, which is whole at `path` when the block ends well, and not there at all when it does not.

    Raises
    ------
    ValueError
        For a path that does not end in .npy.
    OSError
        As :func:`mfakit._io.outputs.output_file`.
    """
    if Path(path).suffix != ".npy":
        raise ValueError(f"out must end in .npy, which is what is written, got {os.fsdecode(path)!r}")
    output_file(path)
    with replacing(path) as temporary:
        new = NewArray(Path(path), temporary)
        yield new
        new.finish()


def reserve(handle: int, start: int, size: int) -> None:
    """Give `size` bytes of an open file from `start` on a place on the disk: who writes to a part that has none through
    a memory map, while the disk is full, is killed. Where the file system cannot, nothing happens.

    Raises
    ------
    OSError
        Where there is no room.
    """
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None or size <= 0:
        return
    try:
        allocate(handle, start, size)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise


@contextlib.contextmanager
def says_size(name: str, size: int) -> Iterator[None]:
    """Around what makes a file: an error of a full disk says which, and what it needs."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(error.errno, f"{name} takes {size} bytes, for which there is no room: {error.strerror}") from None
