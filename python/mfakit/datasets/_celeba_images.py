"""CelebA's images as arrays: read from the zip or a folder, checked, cropped, and resized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .._io.progress import open_bar
from .._threads.limits import default_threads
from ._celeba_sources import FolderImages, ZipImages, open_images
from ._images import decoded, open_image, require_pillow

__all__ = ["Crop", "decode_images"]

Crop = Literal["authors"] | tuple[int, int, int, int] | None
Box = tuple[int, int, int, int]

# Left, top, width, height in the usual images, 178 wide and 218 high.
_AUTHORS_BOX = (25, 50, 128, 128)
_AUTHORS_SIZE = (178, 218)
_BLOCK = 256


def decode_images(
    source: Path, names: Sequence[str], crop: Crop, image_size: int, progress: bool | None
) -> Iterator[NDArray[np.uint8]]:
    """The named images in blocks [rows, image_size * image_size * 3], in the order of `names`.

    Raises
    ------
    ValueError
        If an image is missing from the source or there twice, cannot be decoded, has another size than the first, is
        not of the shape that the authors' crop is for, or does not contain the crop box.
    ImportError
        Without Pillow.
    """
    from concurrent.futures import ThreadPoolExecutor

    require_pillow("CelebA's images")
    images = open_images(source, names)
    try:
        size = _size(images, names[0])
        box = _box(crop, *size, f"{source}: {names[0]}")
        # Pillow decodes without the GIL, so threads help.
        with (
            ThreadPoolExecutor(min(8, default_threads())) as pool,
            open_bar(progress, total=len(names), desc="CelebA", unit="img") as bar,
        ):
            for start in range(0, len(names), _BLOCK):
                block = names[start : start + _BLOCK]
                rows = pool.map(lambda name: _decode(images, name, names[0], size, box, image_size), block)
                yield np.stack(list(rows)).reshape(len(block), -1)
                bar.update(len(block))
    finally:
        images.close()


def _size(images: ZipImages | FolderImages, name: str) -> tuple[int, int]:
    with open_image(images, name) as image:
        return image.size


def _decode(
    images: ZipImages | FolderImages, name: str, first: str, size: tuple[int, int], box: Box, image_size: int
) -> NDArray[np.uint8]:
    """One image as [image_size, image_size, 3]."""
    from PIL import Image

    with open_image(images, name) as image:
        if image.size != size:
            raise ValueError(
                f"{images.path}: all images must have one size, but {first} is {size[0]}x{size[1]} and {name} is"
                f" {image.width}x{image.height}; get the images again"
            )
        pixels = decoded(image, "RGB", images.path, name)
    pixels = pixels.crop(box)
    if pixels.size != (image_size, image_size):
        # As in the authors' code: bilinear, with the support widened when shrinking.
        pixels = pixels.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(pixels)


def _box(crop: Crop, width: int, height: int, where: str) -> Box:
    """The crop as Pillow's left, top, right, bottom, in an image of this size."""
    if crop is None:
        return 0, 0, width, height
    if crop == "authors":
        _require_usual_shape(width, height, where)
        left, top = _AUTHORS_BOX[0] * width // _AUTHORS_SIZE[0], _AUTHORS_BOX[1] * height // _AUTHORS_SIZE[1]
        wide = max(1, round(_AUTHORS_BOX[2] * width / _AUTHORS_SIZE[0]))
        high = max(1, round(_AUTHORS_BOX[3] * height / _AUTHORS_SIZE[1]))
    else:
        left, top, wide, high = crop
    if left + wide > width or top + high > height:
        raise ValueError(f"crop {(left, top, wide, high)} does not fit into {where}, which is {width}x{height}")
    return left, top, left + wide, top + high


def _require_usual_shape(width: int, height: int, where: str) -> None:
    """Raise unless both sides are those of the usual image times one factor, each rounded to pixels."""
    usual_width, usual_height = _AUTHORS_SIZE
    if 2 * abs(width * usual_height - height * usual_width) > usual_width + usual_height:
        raise ValueError(
            f"the authors' crop is for aligned images of {usual_width}x{usual_height} pixels or scaled versions, and"
            f" {where} is {width}x{height}; load_celeba(crop=None) takes whole images, as where they are cut already,"
            " and crop=(left, top, width, height) another box"
        )
