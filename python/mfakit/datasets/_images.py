"""One image of a file, by Pillow: opened, checked before its pixels take memory, decoded."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .._io.messages import one_line

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = ["Images", "decoded", "open_image", "require_pillow"]

# A hundred times CelebA's usual image: far above what a model of images takes, and a bound on what decoding takes.
_MOST_PIXELS = 100 * 178 * 218
_FORMATS = ("JPEG", "PNG")


class Images(Protocol):
    """Files of images by name, and where they are."""

    path: Path

    def read(self, name: str) -> bytes:
        """The file of this name."""


def require_pillow(what: str) -> None:
    """Raise ImportError without Pillow, which `what` is decoded by."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what} are decoded by Pillow, which is missing; pip install mfakit[plots]") from error


def open_image(images: Images, name: str) -> PillowImage:
    """An image whose header is read and whose pixels are not, yet.

    Raises
    ------
    ValueError
        For what is neither JPEG nor PNG, is damaged, too large, or has pixels that are not bytes.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(images.read(name)), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{images.path}: {name} is too large an image ({one_line(error)})") from error
    except PermissionError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{images.path}: {name} cannot be decoded (it is neither JPEG nor PNG); get the file again"
        ) from error
    # What zipfile raises for a bad, encrypted or oddly packed entry, and Pillow for a bad image.
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _undecodable(images.path, name, error) from error
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{images.path}: {name} is too large an image ({image.width}x{image.height} pixels)")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{images.path}: {name} has pixels of type {image.mode}, not bytes; get the file again")
    return image


def decoded(image: PillowImage, mode: str, path: Path, name: str) -> PillowImage:
    """An opened image in Pillow's `mode`, such as "RGB" or "L"; ValueError for one that is damaged."""
    try:
        image.load()
        return image.convert(mode)
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError, zlib.error) as error:
        raise _undecodable(path, name, error) from error


def _undecodable(path: Path, name: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: {name} cannot be decoded ({one_line(error)}); get the file again")
