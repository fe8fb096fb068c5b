"""MNIST, and whatever else comes as the same four IDX files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._download import data_root, fetch
from ._idx import read_idx
from ._places import files_called, folders_under, log_taken, missing_data, one_of, require_folder
from ._samples import Split, as_classes, as_features, keep_classes

__all__ = ["load_mnist"]

_FOLDERS = ("", "mnist", "raw", "MNIST/raw", "mnist/MNIST/raw")
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist(
    root: str | os.PathLike[str] | None = None,
    classes: Iterable[int] | None = None,
    *,
    download: bool = False,
    as_uint8: bool = False,
) -> Split:
    """MNIST from its four IDX files, plain or gzipped.

    Parameters
    ----------
    root : path or None
        Folder that holds the files, itself or in ``mnist``, ``raw`` or ``MNIST/raw``, whatever their capitals, dots
        and dashes. None: the environment variable MFAKIT_DATA, else the user's cache folder. Which files are read is
        logged.
    classes : iterable of int, or None
        Digits to keep; they are relabelled 0, 1, … in the order given. None keeps all ten as they are.
    download : bool
        Fetch the files that are missing into ``root/mnist``, and verify their SHA-256.
    as_uint8 : bool
        Return the stored bytes instead of float32 in [0, 1].

    Returns
    -------
    X_train : ndarray, [n, 784], float32 in [0, 1] (or uint8)
    y_train : ndarray, [n], int64
    X_test : ndarray, [m, 784]
    y_test : ndarray, [m]

    Raises
    ------
    FileNotFoundError
        If files are missing; the message names them and every place looked.
    ValueError
        If a file is damaged or is no IDX file, if two places hold different files of one name, or for classes outside
        0 to 9.

    Examples
    --------
    >>> from mfakit.datasets import load_mnist
    >>> X_train, y_train, X_test, y_test = load_mnist(classes=(0, 6), download=True)  # doctest: +SKIP
    >>> X_train.shape  # doctest: +SKIP
    (11841, 784)
    """
    chosen = as_classes(classes, 10)
    paths = _locate(data_root(root), download)
    X_train, y_train = _read_part(paths[0], paths[1], chosen, as_uint8)
    X_test, y_test = _read_part(paths[2], paths[3], chosen, as_uint8)
    if X_train.shape[1] != X_test.shape[1]:
        raise ValueError(
            f"train and test images must have the same size, got {X_train.shape[1]} and {X_test.shape[1]} pixels"
            f" ({paths[0]}, {paths[2]})"
        )
    return X_train, y_train, X_test, y_test


def _locate(root: Path, download: bool) -> list[Path]:
    require_folder(root, "MNIST")
    folders = folders_under(root, _FOLDERS)
    found = {name: files_called(folders, (name,), _spelled) for name in _FILES}
    missing = [name for name, (files, _) in found.items() if not files]
    if missing and not download:
        remedy = "pass download=True, or set MFAKIT_DATA to the folder that holds them"
        odd = [path for name in missing for path in found[name][1]]
        raise missing_data("MNIST", [name + "[.gz]" for name in missing], root, _FOLDERS, remedy, odd)
    copies = {name: _unpacked_first(files, name) for name, (files, _) in found.items()}
    taken = [
        one_of(copies[name], f"MNIST's {name}", _equal) if copies[name] else fetch(name + ".gz", root / "mnist")
        for name in _FILES
    ]
    for name, path in zip(_FILES, taken, strict=True):
        log_taken("MNIST", path, [file for file in found[name][0] if file != path])
    return taken


def _unpacked_first(files: list[Path], name: str) -> list[Path]:
    """Without the gzipped files beside an unpacked one."""

    def place(path: Path) -> Path:
        return path.parent.parent if _spelled(path.parent.name) == name else path.parent

    unpacked = {place(path) for path in files if path.suffix.casefold() != ".gz"}
    return [path for path in files if path.suffix.casefold() != ".gz" or place(path) not in unpacked]


def _spelled(name: str) -> str:
    """The name as in _FILES; mirrors and tools write "train-images.idx3-ubyte" or "train_images_idx3_ubyte.gz"."""
    return re.sub(r"[._-]+", "-", name.casefold()).removesuffix("-gz")


def _equal(a: Path, b: Path) -> bool:
    n_axes = 3 if "images" in a.name.casefold() else 1
    return np.array_equal(read_idx(a, n_axes), read_idx(b, n_axes))


def _read_part(
    images: Path, labels: Path, classes: tuple[int, ...] | None, as_uint8: bool
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64]]:
    pixels, digits = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(digits):
        raise ValueError(
            f"{images} has {len(pixels)} images and {labels} has {len(digits)} labels; get the files again"
        )
    rows, y = keep_classes(digits, classes, 10, str(labels))
    # The sizes are spelled out because -1 is ambiguous for no images.
    flat = pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])
    return as_features(flat, rows, as_uint8), y
