"""Model files: safetensors with a format version, written whole or not at all, and never executed.

A file of mixtures has tensors ``<class>.weights``, ``<class>.means``, ``<class>.loadings``, ``<class>.noise_variance``;
a Bayes classifier adds ``priors`` and may add named extras. What a model makes of them is the model's own affair.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._threads.process import interruptible
from .messages import one_line
from .outputs import PathLike, replacing

__all__ = [
    "FORMAT_VERSION",
    "map_tensors",
    "read_kind",
    "read_tensors",
    "write_tensors",
]

Array = NDArray[Any]

FORMAT_VERSION = 1
# What the format calls NumPy's kinds of numbers.
DTYPES = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u8": "U64", "u4": "U32",
    "u2": "U16", "u1": "U8", "b1": "BOOL", "c8": "C64",
}  # fmt: skip
KINDS = {name: kind for kind, name in DTYPES.items()}
# Bytes that are written or compared at a time.
PART_BYTES = 2**24


def write_tensors(path: PathLike, kind: str, tensors: dict[str, Array], settings: dict[str, Any] | None = None) -> None:
    """Write named arrays, and settings that JSON can hold, as a file of one kind (what :func:`read_tensors` checks).

    Arrays of the other byte order come back in this machine's. Ctrl-C is answered while it writes, and leaves the old
    file.

    Raises
    ------
    TypeError
        An array that is not of numbers or booleans, such as strings or objects; nothing is written.
    OSError
        A path that cannot be written to, see :func:`mfakit._io.outputs.output_file`; the old file stays.
    """
    tensors = {name: _storable(name, value) for name, value in tensors.items()}
    metadata = {"format": "mfakit", "version": str(FORMAT_VERSION), "kind": kind}
    if settings is not None:
        metadata["settings"] = json.dumps(settings)
    with replacing(path) as temporary:
        starts = _write(temporary, metadata, tensors)
        with _opened(temporary, kind) as (file, _):
            read = {name: file.get_slice(name) for name in tensors}
            forms = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in read.items()}
        with open(temporary, "rb") as written:
            for name, value in tensors.items():
                same = forms[name] == (DTYPES[value.dtype.str[1:]], value.shape)
                if not (same and _same_bytes(written, starts[name], value)):
                    raise OSError(f"{path}: {name} did not read back as it was written; nothing was replaced")


def _write(path: Path, metadata: dict[str, str], tensors: dict[str, Array]) -> dict[str, int]:
    """A safetensors file of contiguous arrays; where the bytes of each begin. By parts, so that Ctrl-C is answered."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end, starts = 0, {}
    # The widest first, so that each begins at a multiple of its own size.
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        value = tensors[name]
        start, end = end, end + value.nbytes
        header[name] = {"dtype": DTYPES[value.dtype.str[1:]], "shape": value.shape, "data_offsets": (start, end)}
        starts[name] = start
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in starts:  # in the order of the offsets
            for part in _parts(tensors[name]):
                file.write(part.data)
        file.flush()
        interruptible(os.fsync, file.fileno())  # here, where Ctrl-C is answered, and not at the end
    return {name: start + 8 + len(text) for name, start in starts.items()}


def _parts(value: Array) -> Iterator[Array]:
    """The bytes of a contiguous array, some at a time."""
    flat = value.reshape(-1).view(np.uint8)
    return (flat[start : start + PART_BYTES] for start in range(0, len(flat), PART_BYTES))


def _same_bytes(file: Any, start: int, value: Array) -> bool:
    """Whether the bytes of an open file from `start` on are those of a contiguous array."""
    file.seek(start)
    return all(file.read(len(part)) == part.tobytes() for part in _parts(value))


def _storable(name: str, value: Array) -> Array:
    if value.dtype.kind not in "biufc" or value.dtype.itemsize > 8:
        raise TypeError(
            f"{name} has dtype {value.dtype}, and model files hold numbers and booleans of up to 64 bits; convert it "
            f"or leave it out"
        )
    return np.asarray(value, value.dtype.newbyteorder("<"), order="C")


def read_tensors(path: PathLike, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and settings of a file of this kind; errors as :func:`load_mfa`."""
    with _opened(path, kind) as (file, metadata):
        settings = _parse_settings(metadata.get("settings", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, settings  # noqa: SIM118 (a handle)


def map_tensors(path: PathLike, kind: str) -> dict[str, Array]:
    """Arrays of a file of this kind as memory maps, read-only: what is not looked at is not read; errors as
    :func:`read_tensors`.
    """
    with _opened(path, kind):  # the header is one, and the file as long as it says
        with open(path, "rb") as file:
            start = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start))
        found: dict[str, Array] = {}
        for name, entry in header.items():
            if name != "__metadata__":
                dtype, shape = np.dtype(f"<{KINDS[entry['dtype']]}"), tuple(entry["shape"])
                offset = 8 + start + entry["data_offsets"][0]
                # Of nothing there is no map.
                found[name] = np.empty(shape, dtype) if 0 in shape else np.memmap(path, dtype, "r", offset, shape)
    return found


def read_kind(path: PathLike) -> str:
    """The kind of an mfakit file, such as "mfa" or "cnn", without its arrays; errors as :func:`load_mfa`."""
    with _opened(path) as (_, metadata):
        return str(metadata.get("kind"))


@contextlib.contextmanager
def _opened(path: PathLike, kind: str | None = None) -> Iterator[tuple[Any, dict[str, str]]]:
    """An mfakit file and its metadata; of this kind, or of any."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata, metadata.get("kind") if kind is None else kind)
            yield file, metadata
    except (SafetensorError, OSError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file (cut short or tampered with?): {one_line(error)}"
        ) from None


def _parse_settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets nested beyond the stack
        raise TypeError(f"its settings are not JSON: {one_line(error)}") from None
    if not isinstance(settings, dict):
        raise TypeError(f"its settings are a {type(settings).__name__}, not an object")
    return settings


def _check_metadata(path: Path, metadata: dict[str, str], kind: str | None) -> None:
    if metadata.get("format") != "mfakit":
        raise ValueError(f"{path} is a safetensors file, but not one of mfakit's")
    if metadata.get("version") != str(FORMAT_VERSION):
        raise ValueError(
            f"{path} has format version {one_line(metadata.get('version'), 20)}, and this mfakit reads version "
            f"{FORMAT_VERSION}; update the older of the two"
        )
    if metadata.get("kind") != kind:
        found = one_line(metadata.get("kind"), 40)
        raise ValueError(f"{path} holds a {found}, not a {kind}; load it with the matching class")
