"""Regular files of a tar archive, plain or gzipped, in one pass and in bounded memory.

Python's tarfile reads whatever the extended headers claim, and follows chains of them recursively. Here headers are
read in a loop, only their names and sizes are used, and links, devices and sparse files are never followed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from .._io.messages import excerpt, one_line
from .._io.unpacking import expands_too_far, read_exactly

__all__ = ["read_files"]

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL = b"L", b"K", b"x", b"g"
_SPARSE = b"S"
# A path, times and owners take a few hundred bytes; an archive of batches has ten members.
_MOST_HEADER_BYTES = 1 << 16
_MOST_HEADERS = 1000


class _Stream:
    """What is read of an archive, counted against what data in its bytes can unpack to."""

    def __init__(self, stream: IO[bytes], path: Path, most: int) -> None:
        self._stream, self._path, self._stored = stream, path, path.stat().st_size
        self._most, self._n_read = most, 0

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._n_read += len(piece)
        if self._n_read > self._most or expands_too_far(self._n_read, self._stored):
            raise ValueError(
                f"{self._path} unpacks to more than {self._n_read >> 20} MB, which is no set of batches in"
                f" {self._stored} bytes; get the file again"
            )
        return piece

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        data = read_exactly(cast("IO[bytes]", self), size)
        if len(data) != size:
            raise ValueError(f"{self._path} ends within a member; get the file again")
        return bytes(data)

    def skip(self, size: int) -> None:
        while size > 0:
            piece = self.read(min(size, 1 << 20))
            if not piece:
                raise ValueError(f"{self._path} ends within a member; get the file again")
            size -= len(piece)


def read_files(path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Name without folders, and content, of the regular files whose name is `wanted`.

    Parameters
    ----------
    path : Path
    wanted : callable
        Takes a name without folders.
    most : int
        Bytes that one member may have; the archive may unpack to eight times that.

    Raises
    ------
    ValueError
        If the archive is cut short, no archive, has a member larger than `most`, or sparse files.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
        try:
            yield from _files(_Stream(cast("IO[bytes]", stream), path, 8 * most), path, wanted, most)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole tar.gz archive ({one_line(error)}); get the file again") from error


def _files(stream: _Stream, path: Path, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    stated: dict[str, bytes] = {}  # by extended headers, of the member that follows them
    for _ in range(_MOST_HEADERS):
        header = bytes(read_exactly(cast("IO[bytes]", stream), _BLOCK))
        if not header.strip(b"\0"):  # the end, marked or not
            while stream.read(1 << 20):
                pass  # to its end, so that gzip's checksum is compared
            return
        short_name, size, kind = _parse(header, path)
        if kind in (_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL):
            if size > _MOST_HEADER_BYTES:
                raise ValueError(f"{path} has a header of {size} bytes, far more than a name takes; get the file again")
            data = stream.take(size)
            stream.skip(-size % _BLOCK)
            if kind == _LONG_NAME:
                stated["path"] = data.rstrip(b"\0")
            elif kind == _EXTENDED:
                stated |= _records(data, path)
            continue
        name = stated.get("path", short_name).decode("utf-8", "replace")
        size = _stated_size(stated["size"], path) if "size" in stated else size
        sparse = kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in stated)
        stated = {}
        if sparse:
            raise ValueError(f"{path}: {excerpt(name)} is a sparse file, which is not read; pack the archive anew")
        # Against false sizes of any member: even what is skipped must be unpacked to get past it.
        if size > most:
            raise ValueError(f"{path}: {excerpt(name)} claims {size} bytes, more than {most}; get the file again")
        size = 0 if kind in _WITHOUT_DATA else size
        last = name.rpartition("/")[2]
        if kind in _REGULAR and wanted(last):
            yield last, stream.take(size)
        else:
            stream.skip(size)
        stream.skip(-size % _BLOCK)
    raise ValueError(f"{path} has more than {_MOST_HEADERS} headers, which is no set of batches; get the file again")


def _parse(header: bytes, path: Path) -> tuple[bytes, int, bytes]:
    """Name, size and kind; a name in two parts has its last folders and the file in this one."""
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    try:
        size = _number(header[124:136]) if len(header) == _BLOCK and _number(header[148:156]) == total else -1
    except ValueError:
        size = -1
    if size < 0:
        raise ValueError(f"{path} is not a whole tar archive (a header is damaged); get the file again")
    return header[:100].partition(b"\0")[0], size, header[156:157]


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary form."""
    if field[0] in (0o200, 0o377):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0o377 else 0)
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _records(data: bytes, path: Path) -> dict[str, bytes]:
    """The records of an extended header, each a length, a space, a key, "=", a value and a line's end."""
    found: dict[str, bytes] = {}
    while data:
        digits, space, _ = data[:16].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        key, equals, value = data[len(digits) + 1 : max(length - 1, 0)].partition(b"=")
        if not (equals and len(digits) < length <= len(data)):
            raise ValueError(f"{path} is not a whole tar archive (an extended header is damaged); get the file again")
        found[key.decode("utf-8", "replace")] = value
        data = data[length:]
    return found


def _stated_size(digits: bytes, path: Path) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError(f"{path} is not a whole tar archive (an extended header is damaged); get the file again")
    return int(digits)
