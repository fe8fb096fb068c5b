"""CelebA with one of its 40 attributes as the label."""

from __future__ import annotations

import difflib
import operator
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._cache import cache_file, cache_folder, cached_rows
from ._celeba_images import Crop, decode_images, image_files
from ._download import data_root, find, missing_data
from ._samples import Split, as_features

__all__ = ["load_celeba"]

_FOLDERS = ("", "celeba", "celeba/Img", "celeba/Anno", "celeba/Eval")
_IMAGES, _ATTRIBUTES, _PARTITION = "img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"
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
        Folder that holds the images, ``list_attr_celeba.txt`` and ``list_eval_partition.txt``, itself or in
        ``celeba``. None: the environment variable MFAKIT_DATA, else the user's cache folder.
    attribute : str
        The label: 1 where this attribute is present, else 0.
    image_size : int
        Height and width of the result.
    crop : "authors", (left, top, width, height) or None
        What is cut out and then resized (bilinear) to `image_size` if its size differs. "authors": the paper's box,
        128x128 at (25, 50) of the usual 178x218 images, scaled with the image, so 64x64 at (12, 25) of images half
        that size. A tuple is in the pixels of the images at hand. None: the whole image.
    include_validation : bool
        Add the validation images to the train images. By default they are left out, as in the paper's code.
    limit : int or None
        Only the first so many images of the list, each in its own part.
    download : bool
        Always an error if data is missing: CelebA's licence has to be accepted by hand.
    cache : bool or path
        Where the decoded images are kept: that folder; with True ``root/.mfakit-cache`` or, if `root` is read-only,
        the user's cache folder; with False nowhere.
    as_uint8 : bool
        Return memory-mapped bytes (read-only) instead of float32 in [0, 1].
    progress : bool or None
        Progress bar while decoding; None shows it on a terminal only.

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
        the lists name and the source lacks, and images that cannot be decoded.
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
    images, attributes, partition = _locate(root, download)
    names, y = _read_attribute(attributes, attribute)
    names, y = names[:limit], y[:limit]
    parts = _parts_of(names, partition)
    # Part after part on disk, so that a part is a slice of the memory map.
    order = np.argsort(parts, kind="stable")
    ordered = [names[i] for i in order]
    path = cache_file(
        cache_folder(cache, root),
        "celeba",
        image_files(images, ordered),
        order=ordered,
        crop=crop,
        image_size=image_size,
    )
    pixels = cached_rows(
        path,
        image_size * image_size * 3,
        len(names),
        lambda: (len(names), decode_images(images, ordered, crop, image_size, progress)),
    )
    n_train, n_validation = int((parts == _TRAIN).sum()), int((parts == _VALIDATION).sum())
    train = slice(0, n_train + (n_validation if include_validation else 0))
    test = slice(n_train + n_validation, None)
    y = y[order]
    return as_features(pixels, train, as_uint8), y[train], as_features(pixels, test, as_uint8), y[test]


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


def _locate(root: Path, download: bool) -> tuple[Path, Path, Path]:
    images = find(root, _FOLDERS, (_IMAGES, "img_align_celeba"))
    attributes, partition = find(root, _FOLDERS, (_ATTRIBUTES,)), find(root, _FOLDERS, (_PARTITION,))
    if images is not None and attributes is not None and partition is not None:
        return images, attributes, partition
    files = {f"{_IMAGES} (or its folder img_align_celeba)": images, _ATTRIBUTES: attributes, _PARTITION: partition}
    missing = [name for name, path in files.items() if path is None]
    by_hand = "get them by hand from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, where the licence is"
    remedy = f"{by_hand}, put them into {root / 'celeba'}, or set MFAKIT_DATA to the folder that holds them"
    if download:
        remedy = f"download=True cannot fetch CelebA, whose licence has to be accepted: {remedy}"
    raise missing_data("CelebA", missing, root, _FOLDERS, remedy)


def _read_lines(path: Path) -> list[str]:
    # Bytes that are no text become odd characters, which the checks of each line then report.
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _check_name(name: str, path: Path) -> None:
    """The lists name files, not paths: a folder of images is never left."""
    if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{path} names {name!r}, which is not a plain file name; get the file again")


def _read_attribute(path: Path, attribute: str) -> tuple[list[str], NDArray[np.int64]]:
    """Image names and 0/1 labels from: a count, the attributes' names, then a line per image with -1 or 1 for each."""
    lines = _read_lines(path)
    if len(lines) < 2:
        raise ValueError(f"{path} must begin with the number of images and the attributes' names; get the file again")
    attributes, rows = lines[1].split(), [line.split() for line in lines[2:] if line.strip()]
    if attribute not in attributes:
        raise ValueError(_unknown_attribute(attribute, attributes, path))
    if lines[0].strip() != str(len(rows)):
        raise ValueError(f"{path} says {lines[0][:40]!r} images but has {len(rows)} lines of them; get the file again")
    column = 1 + attributes.index(attribute)
    names, y = [], np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        if len(row) != 1 + len(attributes) or row[column] not in ("-1", "1"):
            raise ValueError(
                f"{path}: line {i + 3} must have a name and {len(attributes)} values -1 or 1; get it again"
            )
        _check_name(row[0], path)
        names.append(row[0])
        y[i] = row[column] == "1"
    if len(set(names)) != len(names):
        raise ValueError(f"{path} names an image twice; get the file again")
    return names, y


def _unknown_attribute(attribute: Any, attributes: list[str], path: Path) -> str:
    folded = {a.casefold(): a for a in attributes}
    wanted = str(attribute).casefold()
    # "hat" is far from "wearing_hat" as strings go.
    within = [a for a in folded if len(wanted) > 2 and wanted in a]
    close = list(dict.fromkeys(difflib.get_close_matches(wanted, list(folded), n=5) + within))
    hint = "did you mean" if close else "choose one of"
    return f"{path} has no attribute {attribute!r}; {hint} {', '.join(folded[c] for c in close or folded)}?"


def _parts_of(names: list[str], path: Path) -> NDArray[np.int64]:
    """The part of each image: 0 train, 1 validation, 2 test."""
    part = {}
    for i, line in enumerate(_read_lines(path)):
        fields = line.split()
        if fields and (len(fields) != 2 or fields[1] not in ("0", "1", "2")):
            raise ValueError(
                f"{path}: line {i + 1} must be a name and 0, 1 or 2, got {line[:40]!r}; get the file again"
            )
        if fields:
            part[fields[0]] = int(fields[1])
    missing = [name for name in names if name not in part]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(names)} images of the attribute list, first {missing[0]}; get"
            " both lists from the same place"
        )
    return np.array([part[name] for name in names], dtype=np.int64)
