"""Folders of images as samples: all of one size, grey or in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._io.progress import open_bar
from .._io.unpacking import read_whole
from .._threads.limits import default_threads
from ._images import decoded, open_image, require_pillow
from ._places import entries

__all__ = ["load_image_folders"]

_SUFFIXES = (".jpg", ".jpeg", ".png")
_MAX_IMAGE_BYTES = 1 << 24
_GREY = ("1", "L")


class _Folder:
    """The images of a folder, by name."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            what = NotADirectoryError if path.exists() else FileNotFoundError
            found = "no folder" if path.exists() else "not there"
            raise what(f"{path} must be a folder of images (.jpg or .png); it is {found}")
        self.path = path
        files = [file for file in entries(path) if file.suffix.casefold() in _SUFFIXES]
        self.names = [file.name for file in files if file.is_file()]
        if not self.names:
            raise ValueError(f"{path} holds no image: it must have files that end in {', '.join(_SUFFIXES)}")

    def read(self, name: str) -> bytes:
        """The file of this name."""
        return read_whole(self.path / name, _MAX_IMAGE_BYTES)


def load_image_folders(
    paths: Sequence[Path], progress: bool | None = None
) -> tuple[list[NDArray[np.uint8]], tuple[int, int, int]]:
    """The JPEG and PNG images in each folder, by name, and their shape (height, width, channels).

    Folders within a folder are not searched. Images are grey, one channel, where all of them are; else all have three.

    Returns
    -------
    images : list of uint8 arrays [n, height * width * channels]
        Flattened height-width-channel, one array a folder.
    shape : (int, int, int)

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        Where there is no such folder.
    ValueError
        For a folder without images, images of several sizes (two are named), with transparency, or that cannot be
        decoded.
    ImportError
        Without Pillow, which comes with ``mfakit[plots]``.
    """
    from concurrent.futures import ThreadPoolExecutor

    folders = [_Folder(Path(path)) for path in paths]
    require_pillow("images")
    width, height, grey = _size(folders)
    mode, channels = ("L", 1) if grey else ("RGB", 3)

    def pixels(folder: _Folder, name: str) -> NDArray[np.uint8]:
        with open_image(folder, name) as image:
            return np.asarray(decoded(image, mode, folder.path, name)).reshape(-1)

    found = []
    total = sum(len(folder.names) for folder in folders)
    # Pillow decodes without the GIL, so threads help.
    with (
        ThreadPoolExecutor(min(8, default_threads())) as pool,
        open_bar(progress, total=total, desc="images", unit="img") as bar,
    ):
        for folder in folders:
            X = np.empty((len(folder.names), height * width * channels), np.uint8)
            for i, row in enumerate(pool.map(pixels, [folder] * len(X), folder.names)):
                X[i] = row
                bar.update()
            found.append(X)
    return found, (height, width, channels)


def _size(folders: Sequence[_Folder]) -> tuple[int, int, bool]:
    """Width and height of all images, from their headers, and whether all are grey."""
    first, size, grey = "", (0, 0), True
    for folder in folders:
        for name in folder.names:
            where = str(folder.path / name)
            with open_image(folder, name) as image:
                if image.has_transparency_data:
                    raise ValueError(f"{where} has transparency, which is no brightness; save the images without it")
                grey = grey and image.mode in _GREY
                first, size = (first, size) if first else (where, image.size)
                if image.size != size:
                    raise ValueError(
                        f"all images must have one size, but {first} is {size[0]}x{size[1]} and {where} is"
                        f" {image.width}x{image.height}; resize them first"
                    )
    return *size, grey
