"""Small data sets in the formats and layouts in which they are distributed."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

MNIST = {
    "train-images-idx3-ubyte": np.arange(4 * 9, dtype=np.uint8).reshape(4, 3, 3),
    "train-labels-idx1-ubyte": np.array([3, 1, 0, 2], np.uint8),
    "t10k-images-idx3-ubyte": np.arange(2 * 9, dtype=np.uint8).reshape(2, 3, 3),
    "t10k-labels-idx1-ubyte": np.array([1, 0], np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, spell: Callable[[str], str] = str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in MNIST.items():
        path = folder / spell(name)
        path.write_bytes(gzip.compress(idx(array)) if path.suffix.lower() == ".gz" else idx(array))


BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
LABELS = [1, 0, 9]


def binary(name: str = "") -> tuple[str, bytes]:
    return name + ".bin", np.column_stack([np.uint8(LABELS), PIXELS]).tobytes()


def pickled(batch: dict, protocol: int) -> Callable[[str], tuple[str, bytes]]:
    return lambda name: (name, pickle.dumps(batch, protocol))


def write_cifar(folder: Path, make: Callable[[str], tuple[str, bytes]] = binary) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for batch in BATCHES:
        name, data = make(batch)
        (folder / name).write_bytes(data)


def pack_cifar(path: Path, make: Callable[[str], tuple[str, bytes]] = binary, mode: str = "w:gz", **options) -> None:
    with tarfile.open(path, mode, **options) as archive:
        for batch in BATCHES:
            name, data = make(batch)
            member = tarfile.TarInfo(f"cifar-10-batches-x/{name}")
            member.size, member.mtime = len(data), 1.5  # a time in fractions makes an extended header
            archive.addfile(member, io.BytesIO(data))


NAMES = [f"{i:06d}.jpg" for i in range(1, 5)]


def picture(value: int, size: tuple[int, int] = (178, 218)) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(out, "PNG")
    return out.getvalue()


def write_lists(attributes: Path, parts: Path | None = None, bom: str = "", line_end: str = "\n") -> None:
    for folder in (attributes, parts or attributes):
        folder.mkdir(parents=True, exist_ok=True)
    lines = ["4", "Male Smiling", *(f"{name} -1  1" for name in NAMES)]
    (attributes / "list_attr_celeba.txt").write_bytes((bom + line_end.join([*lines, ""])).encode())
    lines = [f"{name} {2 * (i > 1)}" for i, name in enumerate(NAMES)]
    (parts or attributes).joinpath("list_eval_partition.txt").write_bytes((bom + line_end.join([*lines, ""])).encode())


def write_tables(folder: Path, absent: int = -1, bom: str = "", line_end: str = "\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["image_id,Male,Smiling", *(f"{name},{absent},1" for name in NAMES)]
    (folder / "list_attr_celeba.csv").write_bytes((bom + line_end.join(lines)).encode())
    lines = ["image_id,partition", *(f"{name},{2 * (i > 1)}" for i, name in enumerate(NAMES))]
    (folder / "list_eval_partition.csv").write_bytes((bom + line_end.join(lines)).encode())


def write_images(folder: Path, names: Iterable[str] = NAMES, value: int = 200) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(picture(value))


def zip_images(path: Path, folders: dict[str, int], names: Iterable[str] = NAMES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for folder, value in folders.items():
            for name in names:
                archive.writestr(folder + name, picture(value))
