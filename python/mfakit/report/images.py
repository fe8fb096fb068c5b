"""Pictures as they stand in the page: PNG files as data URIs, made smaller until all of them fit."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._io.messages import one_line

__all__ = ["BUDGET", "Image", "have_pillow", "read_images"]

# Bytes of all pictures of a page; base64 makes four of three.
BUDGET = 3_300_000
# Widest a picture may be, in pixels: the first at which all fit is taken.
WIDTHS = (1200, 900, 700, 500, 360)
# Pictures are drawn at 160 dots per inch, and a page has 96.
SCALE = 96 / 160
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of one file: what matplotlib writes is far below.
MOST_BYTES, MOST_PIXELS = 2**26, 5 * 10**7


@dataclass(frozen=True)
class Image:
    """A picture, or why it is not shown.

    Attributes
    ----------
    uri : str
        Empty where it is not shown.
    width, height : int
        At which it is shown, in the page's pixels.
    why_not : str
        The rest of a sentence that begins with the picture's name.
    """

    uri: str
    width: int = 0
    height: int = 0
    why_not: str = ""


def have_pillow() -> bool:
    """Whether pictures can be made smaller."""
    try:
        import PIL  # noqa: F401 (asked only whether it is there)
    except ImportError:
        return False
    return True


def read_images(paths: Sequence[Path], budget: int = BUDGET) -> list[Image]:
    """The pictures of these PNG files, in their order, of at most `budget` bytes together before base64.

    Without Pillow they stay as they are, and those that no longer fit are left out.
    """
    read = [_read(path) for path in paths]
    encoded: list[tuple[bytes, int, int] | str] = list(read)
    if have_pillow():
        for width in WIDTHS:
            encoded = [_smaller(item, width) for item in read]
            if sum(len(item[0]) for item in encoded if not isinstance(item, str)) <= budget:
                break
    return _within(encoded, budget)


def _within(encoded: Sequence[tuple[bytes, int, int] | str], budget: int) -> list[Image]:
    """As many from the front as fit."""
    images, left = [], budget
    remedy = "" if have_pillow() else "; with Pillow it would be made smaller: pip install pillow"
    for item in encoded:
        if isinstance(item, str):
            images.append(Image("", why_not=item))
        elif len(item[0]) > left:
            images.append(Image("", why_not=f"is left out, because the page would become too large{remedy}"))
        else:
            left -= len(item[0])
            uri = f"data:image/png;base64,{base64.b64encode(item[0]).decode('ascii')}"
            images.append(Image(uri, round(SCALE * item[1]), round(SCALE * item[2])))
    return images


def _read(path: Path) -> tuple[bytes, int, int] | str:
    """The bytes of a PNG file, and its size in pixels as it was drawn; or why there are none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return f"is left out, because it has more than {MOST_BYTES:,} bytes"
        found = path.read_bytes()
    except FileNotFoundError:
        return "was not drawn: pictures need matplotlib, and the experiment run again"
    except OSError as error:
        return f"cannot be read: {one_line(error)}"
    if found[:8] != SIGNATURE or found[12:16] != b"IHDR" or len(found) < 24:
        return "is no PNG file"
    width, height = (int.from_bytes(found[i : i + 4], "big") for i in (16, 20))
    if not 0 < width * height <= MOST_PIXELS:
        return f"is left out, because it has {width} × {height} pixels"
    return found, width, height


def _smaller(item: tuple[bytes, int, int] | str, most: int) -> tuple[bytes, int, int] | str:
    """At most so wide, on white, in 256 colours; as it was where that is smaller."""
    if isinstance(item, str):
        return item
    from PIL import Image as pillow

    found, width, height = item
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; sizes are checked above
            with pillow.open(io.BytesIO(found), formats=("PNG",)) as file:
                picture: Any = _on_white(file.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        return f"is damaged: {one_line(error)}"
    if width > most:
        picture = picture.resize((most, max(1, round(height * most / width))), pillow.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.quantize(256, dither=pillow.Dither.NONE).save(written, "PNG", optimize=True)
    made = written.getvalue()
    return item if width <= most and len(made) >= len(found) else (made, width, height)


def _on_white(picture: Any) -> Any:
    from PIL import Image as pillow

    white = pillow.new("RGBA", picture.size, "white")
    return pillow.alpha_composite(white, picture).convert("RGB")
