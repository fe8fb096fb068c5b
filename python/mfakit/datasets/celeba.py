"""CelebA with one of its 40 attributes as the label."""

from __future__ import annotations

import filecmp
import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._cache import cache_folder, cached_rows, fingerprint
from ._celeba_images import Crop, decode_images
from ._celeba_lists import check_attributes, read_attribute, read_parts
from ._celeba_sources import FOLDER_NAMES, image_files
from ._download import data_root
from ._places import entries, files_called, folders_under, log_taken, missing_data, one_of, require_folder
from ._samples import Split, as_features

__all__ = ["PAPER_ATTRIBUTES", "load_celeba", "require_attributes"]

# Those of the paper's Table 1, in its order.
PAPER_ATTRIBUTES = (
    "Bangs", "Black_Hair", "Brown_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "No_Beard",
    "Smiling", "Wearing_Earrings", "Wearing_Lipstick", "Eyeglasses",
)  # fmt: skip
# Everything in one folder, or as the authors' drive has it.
_FOLDERS = ("", "Img", "Anno", "Eval", "celeba", "celeba/Img", "celeba/Anno", "celeba/Eval")
# In each folder the first of these that is there.
_IMAGES = ("img_align_celeba.zip", *FOLDER_NAMES, "img_align_celeba_png.zip")
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
_TRAIN, _VALIDATION, _TEST = 0, 1, 2


def load_celeba(
    root: str | os.PathLike[str] | None = None,
    attribute: str = "Male",
    *,
    image_size: int = 64,
    crop: Crop = "authors",
    include_validation: bool = False,
    limit: int | None = None,
    download: bool = False,
    cache: bool | str | os.PathLike[str] = True,
    as_uint8: bool = False,
    progress: bool | None = None,
) -> Split:
    """CelebA's aligned images and one attribute, straight from ``img_align_celeba.zip`` or its unpacked folder.

    Images are decoded once, to a memory-mapped cache of bytes, the parts one after the other: with `as_uint8` the
    result never is in memory as a whole.

    Parameters
    ----------
    root : path or None
        Folder that holds the images, ``list_attr_celeba`` and ``list_eval_partition`` (.txt or .csv), itself or in
        ``celeba``, together or in ``Img``, ``Anno`` and ``Eval``, whatever their capitals. None: the environment
        variable MFAKIT_DATA, else the user's cache folder. Which of them are read is logged.
    attribute : str
        The label: 1 where this attribute is present, else 0.
    image_size : int
        Height and width of the result.
    crop : "authors", (left, top, width, height) or None
        What is cut out and then resized (bilinear) to `image_size` if its size differs. "authors": the paper's box,
        128x128 at (25, 50) of the usual 178x218 images, scaled with the image, so 64x64 at (12, 25) of images half
        that size; images of another shape are an error. A tuple is in the pixels of the images at hand. None: the whole
        image. A box that is not square is stretched to a square.
    include_validation : bool
        Add the validation images to the train images. By default they are left out, as in the paper's code.
    limit : int or None
        Only this many images, the first of the list, each in its own part.
    download : bool
        Always an error if data is missing: CelebA's licence has to be accepted by hand.
    cache : bool or path
        Where the decoded images are kept: that folder; with True ``root/.mfakit-cache`` or, if `root` is read-only,
        the user's cache folder; with False nowhere.
    as_uint8 : bool
        Return memory-mapped bytes (read-only) instead of float32 in [0, 1].
    progress : bool or None
        Progress bar while decoding; None shows it on a terminal and in notebooks.

    Returns
    -------
    X_train : ndarray, [n, image_size * image_size * 3], float32 in [0, 1] (or uint8), flattened height-width-channel
    y_train : ndarray, [n], int64
    X_test : ndarray, [m, image_size * image_size * 3]
    y_test : ndarray, [m]

    Raises
    ------
    FileNotFoundError
        If files are missing; the message names them and every place looked.
    ValueError
        For an unknown attribute (the message lists the close ones), lists that do not fit each other, images that
        the lists name and the source lacks, images that cannot be decoded or differ in size, and where two files or
        folders could be meant (the message names both).
    ImportError
        Without Pillow, which comes with ``mfakit[plots]``.

    Examples
    --------
    >>> from mfakit.datasets import load_celeba
    >>> X_train, y_train, X_test, y_test = load_celeba("data", "Smiling", limit=1000)  # doctest: +SKIP
    >>> X_train.shape[1]  # doctest: +SKIP
    12288
    """
    image_size, limit, crop = _check_arguments(image_size, limit, crop)
    root = data_root(root)
    require_folder(root, "CelebA")
    images, attributes, partition = _locate(root, attribute, download)
    names, y = read_attribute(attributes, attribute)
    names, y = names[:limit], y[:limit]
    if not names:
        raise ValueError(f"{attributes} names no image; get the file again")
    parts = _parts_of(names, partition)
    # Part after part on disk, so that a part is a slice of the memory map.
    order = np.argsort(parts, kind="stable")
    ordered = [names[i] for i in order]

    def state() -> str:
        return fingerprint(image_files(images, ordered), order=ordered, crop=crop, image_size=image_size)

    pixels = cached_rows(
        cache_folder(cache, root),
        "celeba",
        state,
        image_size * image_size * 3,
        len(names),
        lambda: (len(names), decode_images(images, ordered, crop, image_size, progress)),
    )
    n_train, n_validation = int((parts == _TRAIN).sum()), int((parts == _VALIDATION).sum())
    train = slice(0, n_train + (n_validation if include_validation else 0))
    test = slice(n_train + n_validation, None)
    y = y[order]
    return as_features(pixels, train, as_uint8), y[train], as_features(pixels, test, as_uint8), y[test]


def require_attributes(root: str | os.PathLike[str] | None, attributes: Sequence[str], download: bool = False) -> None:
    """Raise, before any image is decoded, where CelebA or one of its attributes is missing; see :func:`load_celeba`."""
    folder = data_root(root)
    require_folder(folder, "CelebA")
    check_attributes(_locate(folder, None, download)[1], attributes)


def _check_arguments(image_size: Any, limit: Any, crop: Any) -> tuple[int, int | None, Crop]:
    size = operator.index(image_size)
    if not 1 <= size <= 4096:
        raise ValueError(f"image_size must be from 1 to 4096, got {image_size}")
    if limit is not None:
        limit = operator.index(limit)
        if limit < 1:
            raise ValueError(f"limit must be None or at least 1, got {limit}")
    if crop is None:
        return size, limit, None
    if isinstance(crop, str) and crop == "authors":
        return size, limit, "authors"
    try:
        left, top, width, height = (operator.index(c) for c in crop)
    except (TypeError, ValueError):
        raise ValueError(f"crop must be 'authors', None or four integers, got {crop!r}") from None
    if min(left, top) < 0 or min(width, height) < 1:
        raise ValueError(f"crop must be (left, top, width, height) with a positive size, got {crop!r}")
    return size, limit, (left, top, width, height)


def _locate(root: Path, attribute: str | None, download: bool) -> tuple[Path, Path, Path]:
    """The images, the list of attributes and the list of parts; where there are several, they must agree."""
    folders = folders_under(root, _FOLDERS)
    images = [places[0] for folder in folders if (places := _images_in(folder))]
    attributes, odd_attributes = files_called(folders, _ATTRIBUTES)
    partition, odd_partition = files_called(folders, _PARTITION)
    files = {f"{_IMAGES[0]} (or its folder img_align_celeba)": images, _ATTRIBUTES[0]: attributes}
    files[_PARTITION[0]] = partition
    missing = [name for name, paths in files.items() if not paths]
    if missing:
        by_hand = "get them by hand from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, where the licence is"
        remedy = f"{by_hand}, put them into {root / 'celeba'}, or set MFAKIT_DATA to the folder that holds them"
        if download:
            remedy = f"download=True cannot fetch CelebA, whose licence has to be accepted: {remedy}"
        raise missing_data("CelebA", missing, root, _FOLDERS, remedy, odd_attributes + odd_partition)
    return (
        _taken(images, "CelebA's images", _same_files),
        _taken(attributes, "CelebA's attributes", lambda a, b: attribute is None or _same_labels(a, b, attribute)),
        _taken(partition, "CelebA's parts", lambda a, b: read_parts(a) == read_parts(b)),
    )


def _taken(paths: list[Path], what: str, agree: Callable[[Path, Path], bool]) -> Path:
    taken = one_of(paths, what, agree)
    log_taken(what, taken, [path for path in paths if path != taken])
    return taken


def _images_in(folder: Path) -> list[Path]:
    """Zips and folders of images, the preferred one first; folders that hold nothing do not count."""
    there = {path.name.casefold(): path for path in reversed(entries(folder))}
    found = [there[name] for name in _IMAGES if name in there]
    return [path for path in found if path.is_file() or entries(path)]


def _same_files(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False)


def _same_labels(a: Path, b: Path, attribute: str) -> bool:
    (names, y), (other_names, other_y) = read_attribute(a, attribute), read_attribute(b, attribute)
    return names == other_names and np.array_equal(y, other_y)


def _parts_of(names: list[str], path: Path) -> NDArray[np.int64]:
    """The part of each image: 0 train, 1 validation, 2 test."""
    part = read_parts(path)
    missing = [name for name in names if name not in part]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(names)} images of the attribute list, first"
            f" {missing[0]}; get both lists from the same place"
        )
    return np.array([part[name] for name in names], dtype=np.int64)
