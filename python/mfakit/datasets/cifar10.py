"""CIFAR-10 from its binary or its python archive, packed or unpacked."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._io.unpacking import read_whole
from ._cache import cache_folder, cached_rows, fingerprint
from ._download import data_root, fetch
from ._pickles import read_batch
from ._places import entries, files_called, folders_under, log_taken, missing_data, one_of
from ._samples import Split, as_classes, as_features, keep_classes
from ._tar import read_files

__all__ = ["load_cifar10"]

_FOLDERS = ("", "cifar10", "cifar-10")
_UNPACKED = ("cifar-10-batches-bin", "cifar-10-batches-py")
_ARCHIVES = tuple(f"cifar-10-{kind}{ending}" for kind in ("binary", "python") for ending in (".tar.gz", ".tgz", ".tar"))
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# One byte for the label, then 32x32 red, green and blue.
_RECORD = 3073
# Four times the usual batch.
_MAX_BATCH_BYTES = 1 << 27

Batches = dict[str, NDArray[np.uint8]]


def load_cifar10(
    root: str | os.PathLike[str] | None = None,
    classes: Iterable[int] | None = (0, 1),
    *,
    download: bool = False,
    cache: bool | str | os.PathLike[str] = True,
    as_uint8: bool = False,
) -> Split:
    """CIFAR-10 from its binary or python batches, in a tar.gz or unpacked, any number of images per batch.

    The python batches are pickles; they are read by an unpickler that knows bytes, numbers, lists, dicts and arrays of
    bytes and calls nothing on behalf of the file.

    Parameters
    ----------
    root : path or None
        Folder that holds the batches, the folder unpacked from an archive, or an archive, itself or in ``cifar10``,
        whatever their capitals; or the archive itself. None: the environment variable MFAKIT_DATA, else the user's
        cache folder. Which of them is read is logged: what is unpacked rather than an archive.
    classes : iterable of int, or None
        Classes to keep, 0 (airplane) to 9 (truck); they are relabelled 0, 1, … in the order given. None keeps all ten.
    download : bool
        Fetch the binary archive into ``root/cifar10`` if nothing is there, and verify its SHA-256.
    cache : bool or path
        Keep the images as pixels in a memory-mapped file: in that folder; with True in ``root/.mfakit-cache`` or,
        if `root` is read-only, in the user's cache folder.
    as_uint8 : bool
        Return bytes instead of float32 in [0, 1]; with ``classes=None`` and a cache they stay on disk (memory map).

    Returns
    -------
    X_train : ndarray, [n, 3072], float32 in [0, 1] (or uint8), flattened height-width-channel
    y_train : ndarray, [n], int64
    X_test : ndarray, [m, 3072]
    y_test : ndarray, [m]

    Raises
    ------
    FileNotFoundError
        If the data is missing; the message names every place looked.
    ValueError
        If a batch is damaged or missing from its archive, if two places or two files of a place hold different images
        as one batch, or for classes outside 0 to 9.

    Examples
    --------
    >>> from mfakit.datasets import load_cifar10
    >>> X_train, y_train, X_test, y_test = load_cifar10(classes=(3, 5), download=True)  # doctest: +SKIP
    >>> X_train.shape  # doctest: +SKIP
    (10000, 3072)
    """
    chosen = as_classes(classes, 10)
    root = data_root(root)
    read = functools.cache(_read)
    source = _locate(root, download, read)
    folder = cache_folder(cache, root if root.is_dir() else root.parent)
    X_train, y_train = _read_part(source, folder, "train", _BATCHES[:5], read, chosen, as_uint8)
    X_test, y_test = _read_part(source, folder, "test", _BATCHES[5:], read, chosen, as_uint8)
    return X_train, y_train, X_test, y_test


def _locate(root: Path, download: bool, read: Callable[[Path], Batches]) -> Path:
    if root.is_file():
        log_taken("CIFAR-10", root)
        return root
    whole, parts = _folders_of_batches(root)
    archives, odd = files_called(folders_under(root, _FOLDERS), _ARCHIVES)
    # An archive beside what was unpacked from it is not unpacked again.
    candidates = whole or archives or parts
    if candidates:
        taken = one_of(
            candidates,
            "CIFAR-10's batches",
            lambda a, b: all(np.array_equal(read(a)[name], read(b)[name]) for name in _BATCHES),
        )
        log_taken("CIFAR-10", taken, [path for path in (*whole, *archives, *parts) if path != taken])
        return taken
    if download:
        return fetch("cifar-10-binary.tar.gz", root / "cifar10")
    remedy = "pass download=True, or set MFAKIT_DATA to the folder that holds one of them"
    names = (*_UNPACKED, "data_batch_1.bin", _ARCHIVES[0], _ARCHIVES[3])
    raise missing_data("CIFAR-10", names, root, _FOLDERS, remedy, odd)


def _folders_of_batches(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders that hold all batches, and those that hold some."""
    # An archive unpacked into a folder of its own name leaves two folders of one name.
    inside = ("", *_UNPACKED, *(f"{name}/{name}" for name in _UNPACKED))
    folders = folders_under(root, [f"{folder}/{name}" for folder in _FOLDERS for name in inside])
    numbers = {folder: len({_stem(path.name) for path in _batch_files(folder)}) for folder in folders}
    whole = [folder for folder, n in numbers.items() if n == len(_BATCHES)]
    return whole, [folder for folder, n in numbers.items() if 0 < n < len(_BATCHES)]


def _read_part(
    source: Path,
    folder: Path | None,
    part: str,
    batches: tuple[str, ...],
    read: Callable[[Path], Batches],
    classes: tuple[int, ...] | None,
    as_uint8: bool,
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64]]:
    def build() -> tuple[int, list[NDArray[np.uint8]]]:
        blocks = [read(source)[name] for name in batches]
        return sum(map(len, blocks)), blocks

    def state() -> str:
        return fingerprint(_batch_files(source) if source.is_dir() else [source])

    records = cached_rows(folder, f"cifar10-{part}", state, _RECORD, None, build)
    rows, y = keep_classes(np.array(records[:, 0]), classes, 10, f"{source} ({part})")
    return as_features(records[:, 1:], rows, as_uint8), y


def _read(source: Path) -> Batches:
    """All six batches as records [n, 3073]: the label, then the pixels height-width-channel."""
    found: Batches = {}
    names: dict[str, str] = {}
    contents = _read_folder(source) if source.is_dir() else read_files(source, _is_batch, _MAX_BATCH_BYTES)
    for name, data in contents:
        where = f"{source}: {name}"
        labels, planes = _read_binary(data, where) if _stem(name) != name.casefold() else read_batch(data, where)
        if len(labels) != len(planes) or not len(labels):
            raise ValueError(f"{where} has {len(planes)} images and {len(labels)} labels; get the file again")
        records = _records(labels, planes)
        if not np.array_equal(found.setdefault(_stem(name), records), records):
            raise ValueError(
                f"{source} has this batch twice with different images: {names[_stem(name)]} and {name}; remove one"
            )
        names[_stem(name)] = name
    missing = [name for name in _BATCHES if name not in found]
    if missing:
        raise ValueError(f"{source} has no {', '.join(missing)}; get it again")
    return found


def _read_binary(data: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels [n] and pixels [n, 3072], channel by channel."""
    if len(data) % _RECORD:
        raise ValueError(f"{where} must be a multiple of {_RECORD} bytes long, got {len(data)}; get the file again")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD)
    return records[:, 0], records[:, 1:]


def _records(labels: NDArray[np.uint8], planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    n = len(labels)
    records = np.empty((n, _RECORD), dtype=np.uint8)
    records[:, 0] = labels
    records[:, 1:] = planes.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1).reshape(n, _RECORD - 1)
    return records


def _stem(name: str) -> str:
    return name.casefold().removesuffix(".bin")


def _is_batch(name: str) -> bool:
    return _stem(name) in _BATCHES


def _batch_files(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if _is_batch(path.name) and path.is_file()]


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in _batch_files(folder):
        yield path.name, read_whole(path, _MAX_BATCH_BYTES)
