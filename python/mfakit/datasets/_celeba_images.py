"""CelebA's images as arrays: read from the zip or a folder, cropped, and resized."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .._limits import default_threads
from .._progress import open_bar

__all__ = ["Crop", "decode_images", "image_files"]

Crop = Literal["authors"] | tuple[int, int, int, int] | None

# Left, top, width, height in the usual images, 178 wide and 218 high.
_AUTHORS_BOX = (25, 50, 128, 128)
_AUTHORS_SIZE = (178, 218)
# Far above the 10 kB of an image; what an entry of the zip may claim.
_MAX_ENTRY_BYTES = 1 << 26
_BLOCK = 256
_FORMATS = ("JPEG", "PNG")


class _ZipImages:
    """Entries of an open zip, looked up by their last name; nothing is extracted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise ValueError(f"{path} is not a whole zip file ({error}); get the file again") from error
        self._entries = {PurePosixPath(e.filename).name: e for e in self._zip.infolist() if not e.is_dir()}

    def names(self) -> set[str]:
        return set(self._entries)

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        if entry.file_size > _MAX_ENTRY_BYTES:
            raise ValueError(f"it claims {entry.file_size} bytes")
        return self._zip.read(entry)

    def close(self) -> None:
        self._zip.close()


class _FolderImages:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        return set(os.listdir(self.path))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def close(self) -> None:
        """A folder is not held open."""


def image_files(source: Path, names: Sequence[str]) -> list[Path]:
    """The files whose change makes a cache stale."""
    return [source / name for name in names] if source.is_dir() else [source]


def decode_images(
    source: Path, names: Sequence[str], crop: Crop, image_size: int, progress: bool | None
) -> Iterator[NDArray[np.uint8]]:
    """The named images in blocks [rows, image_size * image_size * 3], in the order of `names`.

    Raises
    ------
    ValueError
        If an image is missing from the source, cannot be decoded, or does not contain the crop box.
    ImportError
        Without Pillow.
    """
    from concurrent.futures import ThreadPoolExecutor

    _require_pillow()
    images = _FolderImages(source) if source.is_dir() else _ZipImages(source)
    try:
        _require_all(images, names)
        # Pillow decodes without the GIL, so threads help.
        with (
            ThreadPoolExecutor(min(8, default_threads())) as pool,
            open_bar(progress, total=len(names), desc="CelebA", unit="img") as bar,
        ):
            for start in range(0, len(names), _BLOCK):
                block = names[start : start + _BLOCK]
                rows = pool.map(lambda name: _decode(images, name, crop, image_size), block)
                yield np.stack(list(rows)).reshape(len(block), -1)
                bar.update(len(block))
    finally:
        images.close()


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "CelebA's images are decoded by Pillow, which is missing; pip install mfakit[plots]"
        ) from error


def _require_all(images: _ZipImages | _FolderImages, names: Sequence[str]) -> None:
    there = images.names()
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(
            f"{images.path} lacks {len(missing)} of the {len(names)} images that the attribute list names, first"
            f" {missing[0]}; get images and list from the same place, or pass limit= to load fewer"
        )


def _decode(images: _ZipImages | _FolderImages, name: str, crop: Crop, image_size: int) -> NDArray[np.uint8]:
    """One image as [image_size, image_size, 3]."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(images.read(name)), formats=_FORMATS) as image:
            image.load()
            pixels = image.convert("RGB")
    # What zipfile raises for a bad, encrypted or oddly packed entry, and Pillow for a bad image.
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{images.path}: {name} cannot be decoded ({error}); get the file again") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{images.path}: {name} is too large an image ({error})") from error
    pixels = pixels.crop(_box(crop, pixels.width, pixels.height, f"{images.path}: {name}"))
    if pixels.size != (image_size, image_size):
        # As in the authors' code: bilinear, with the support widened when shrinking.
        pixels = pixels.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(pixels)


def _box(crop: Crop, width: int, height: int, where: str) -> tuple[int, int, int, int]:
    """The crop as Pillow's left, top, right, bottom, in an image of this size."""
    if crop is None:
        return 0, 0, width, height
    if crop == "authors":
        left, top = _AUTHORS_BOX[0] * width // _AUTHORS_SIZE[0], _AUTHORS_BOX[1] * height // _AUTHORS_SIZE[1]
        wide = max(1, round(_AUTHORS_BOX[2] * width / _AUTHORS_SIZE[0]))
        high = max(1, round(_AUTHORS_BOX[3] * height / _AUTHORS_SIZE[1]))
    else:
        left, top, wide, high = crop
    if left + wide > width or top + high > height:
        raise ValueError(f"crop {(left, top, wide, high)} does not fit into {where}, which is {width}x{height}")
    return left, top, left + wide, top + high
