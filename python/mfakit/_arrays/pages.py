"""Arrays that are memory maps: their files are checked before they are read, read ahead, and given back after use.

Reading a page that its file no longer has, or writing one that the disk has no room for, kills the process: neither is
an error that Python could see. And pages that were read count as memory of the process until they are given back, which
loses nothing: the system keeps them while nobody else needs the room.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.mapped import reserve, says_size

__all__ = ["Pages", "give_back"]

Array = NDArray[Any]

# Bytes that are read between two looks at whether they are still wanted.
PIECE_BYTES = 2**22


class Pages:
    """The memory map that an array is a view of.

    Attributes
    ----------
    name : str or None
        The path of the file, if it is known.
    by_rows : bool
        Whether some of the array's rows are one part of the file, so that they can be read ahead and given back.
    """

    def __init__(self, array: Array, root: Array, mapped: mmap.mmap) -> None:
        self.array, self._map = array, mapped
        self._bytes = np.frombuffer(mapped, np.uint8)
        self._start = self._bytes.ctypes.data
        filename = getattr(root, "filename", None)
        self.name = None if filename is None else str(filename)
        offset = getattr(root, "offset", None)
        # Where in the file the map begins; the rest of the offset is within the map.
        self._offset = None if offset is None else offset - offset % mmap.ALLOCATIONGRANULARITY
        self._shared = not self._bytes.flags.writeable or getattr(root, "mode", None) in ("r+", "w+")
        strides = [abs(stride) for stride in array.strides]
        self.by_rows = array.ndim > 0 and strides[0] == max(strides)

    @classmethod
    def of(cls, array: Any) -> Pages | None:
        """That of an array; None for one that is not in a file."""
        base, root = array, None
        while isinstance(base, np.ndarray):
            root, base = base, base.base
        if root is None or not isinstance(base, mmap.mmap) or not array.size:
            return None
        return cls(array, root, base)

    def _extent(self, part: Array) -> tuple[int, int]:
        """Where the bytes of a view of the array begin and end in the map."""
        start = end = part.__array_interface__["data"][0] - self._start
        for length, stride in zip(part.shape, part.strides, strict=True):
            start, end = start + min(stride * (length - 1), 0), end + max(stride * (length - 1), 0)
        return start, end + part.itemsize

    def check(self, part: Array, name: str) -> None:
        """Raise ValueError unless the file still has this part of the array, which the caller calls `name`."""
        if self._offset is None or not part.size:
            return
        end, size = self._offset + self._extent(part)[1], self._map.size()
        if end > size:
            raise ValueError(
                f"{name} is a memory map of {self.name or 'a file'}, which has {size} bytes where {end} are read: the "
                "file was cut short after it was opened"
            )

    def read(self, part: Array, unwanted: threading.Event) -> None:
        """Touch the pages of a part of the array, so that who reads them next need not wait for the disk."""
        start, end = self._extent(part)
        for first in range(start, end, PIECE_BYTES):
            if unwanted.is_set() or self._offset is None or self._offset + end > self._map.size():
                return
            np.bitwise_or.reduce(self._bytes[first : min(first + PIECE_BYTES, end) : mmap.PAGESIZE])

    def give_back(self, part: Array) -> None:
        """Take the pages of a part of the array out of this process's memory; their content stays. Not those of a
        private map, whose changes are nowhere else.
        """
        advise = getattr(mmap, "MADV_DONTNEED", None)
        if advise is None or not self._shared or not part.size:
            return
        start, end = self._extent(part)
        start -= start % mmap.PAGESIZE
        self._map.madvise(advise, start, end - start)

    def reserve(self) -> None:
        """Give the array's bytes a place on the disk, if the file is still the one of that name.

        Raises
        ------
        OSError
            Where there is no room.
        """
        if self.name is None or self._offset is None or not self._shared or not self._bytes.flags.writeable:
            return
        try:
            handle = os.open(self.name, os.O_RDWR)
        except OSError:
            return
        try:
            if os.fstat(handle).st_size == self._map.size():
                start, end = self._extent(self.array)
                with says_size(f"the memory map {self.name}", end - start):
                    reserve(handle, self._offset + start, end - start)
        finally:
            os.close(handle)


def give_back(array: Any) -> None:
    """Take what was written to an array out of this process's memory, if it is a memory map."""
    pages = Pages.of(array) if isinstance(array, np.ndarray) else None
    if pages is not None:
        pages.give_back(array)
