"""CIFAR-10 from its binary or its python archive, packed or unpacked."""

from __future__ import annotations

import functools
import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from ._cache import cache_file, cache_folder, cached_rows
from ._download import data_root, fetch, find, missing_data
from ._idx import read_exactly
from ._pickles import read_batch
from ._samples import Split, as_classes, as_features, keep_classes

__all__ = ["load_cifar10"]

_FOLDERS = ("", "cifar10", "cifar-10")
_NAMES = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# One byte for the label, then 32x32 red, green and blue.
_RECORD = 3073
# Thirty times the usual batch; what an archive may claim.
_MAX_BATCH_BYTES = 1 << 30

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
        Folder that holds the archive or the folder unpacked from it, itself or in ``cifar10``. None: the environment
        variable MFAKIT_DATA, else the user's cache folder.
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
        If a batch is damaged or missing from its archive, or for classes outside 0 to 9.

    Examples
    --------
    >>> from mfakit.datasets import load_cifar10
    >>> X_train, y_train, X_test, y_test = load_cifar10(classes=(3, 5), download=True)  # doctest: +SKIP
    >>> X_train.shape  # doctest: +SKIP
    (10000, 3072)
    """
    chosen = as_classes(classes, 10)
    root = data_root(root)
    source = _locate(root, download)
    folder = cache_folder(cache, root)
    read = functools.cache(lambda: _read(source))
    X_train, y_train = _read_part(source, folder, "train", _BATCHES[:5], read, chosen, as_uint8)
    X_test, y_test = _read_part(source, folder, "test", _BATCHES[5:], read, chosen, as_uint8)
    return X_train, y_train, X_test, y_test


def _locate(root: Path, download: bool) -> Path:
    found = find(root, _FOLDERS, _NAMES)
    if found is not None:
        return found
    if download:
        return fetch("cifar-10-binary.tar.gz", root / "cifar10")
    remedy = "pass download=True, or set MFAKIT_DATA to the folder that holds one of them"
    raise missing_data("CIFAR-10", _NAMES, root, _FOLDERS, remedy)


def _read_part(
    source: Path,
    folder: Path | None,
    part: str,
    batches: tuple[str, ...],
    read: Callable[[], Batches],
    classes: tuple[int, ...] | None,
    as_uint8: bool,
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64]]:
    def build() -> tuple[int, list[NDArray[np.uint8]]]:
        blocks = [read()[name] for name in batches]
        return sum(map(len, blocks)), blocks

    files = sorted(source.iterdir()) if source.is_dir() else [source]
    records = cached_rows(cache_file(folder, f"cifar10-{part}", files), _RECORD, None, build)
    rows, y = keep_classes(np.array(records[:, 0]), classes, 10, f"{source} ({part})")
    return as_features(records[:, 1:], rows, as_uint8), y


def _read(source: Path) -> Batches:
    """All six batches as records [n, 3073]: the label, then the pixels height-width-channel."""
    found = {}
    for name, data in _read_folder(source) if source.is_dir() else _read_archive(source):
        stem, where = name.removesuffix(".bin"), f"{source}: {name}"
        labels, planes = _read_binary(data, where) if name.endswith(".bin") else read_batch(data, where)
        if len(labels) != len(planes) or not len(labels):
            raise ValueError(f"{where} has {len(planes)} images and {len(labels)} labels; get the file again")
        found[stem] = _records(labels, planes)
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


def _is_batch(name: str) -> bool:
    return name.removesuffix(".bin") in _BATCHES


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        if _is_batch(path.name):
            yield path.name, path.read_bytes()


def _read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """The batches by name; nothing is extracted to disk."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                # Against false sizes of any member: even what is skipped must be unpacked to get past it.
                if member.size > _MAX_BATCH_BYTES:
                    raise ValueError(f"{path}: {member.name} claims {member.size} bytes; get the file again")
                name = PurePosixPath(member.name).name
                # A sparse member of a few bytes may claim any size.
                if _is_batch(name) and member.isreg() and not member.issparse():
                    yield name, _read_member(archive, member, path)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole tar.gz archive ({error}); get the file again") from error


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    data = read_exactly(cast("IO[bytes]", archive.extractfile(member)), member.size)
    if len(data) != member.size:
        raise ValueError(f"{path}: {member.name} ends early; get the file again")
    return bytes(data)
