"""Data sets as people have them: other folders, spellings, packings and lists; errors name both candidates."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import (
    BATCHES,
    LABELS,
    MNIST,
    PIXELS,
    binary,
    idx,
    pack_cifar,
    pickled,
    write_cifar,
    write_mnist,
)

from mfakit.datasets import load_celeba, load_cifar10, load_mnist

posix = pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")

# MNIST


def read_mnist(root: Path) -> None:
    X_train, y_train, X_test, y_test = load_mnist(root, as_uint8=True)
    np.testing.assert_array_equal(X_train, MNIST["train-images-idx3-ubyte"].reshape(4, 9))
    np.testing.assert_array_equal(X_test, MNIST["t10k-images-idx3-ubyte"].reshape(2, 9))
    assert (y_train.tolist(), y_test.tolist()) == ([3, 1, 0, 2], [1, 0])


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST", "Mnist", "raw", "MNIST/raw", "mnist/MNIST/raw"])
def test_mnist_in_every_folder(tmp_path: Path, folder: str) -> None:
    write_mnist(tmp_path / "my data" / folder)
    read_mnist(tmp_path / "my data")


@pytest.mark.parametrize("dash", ["-idx", ".idx", "_idx"])
@pytest.mark.parametrize("ending", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("case", [str, str.upper])
def test_mnist_in_every_spelling(tmp_path: Path, dash: str, ending: str, case: Callable[[str], str]) -> None:
    write_mnist(tmp_path, lambda name: case(name.replace("-idx", dash)) + ending)
    read_mnist(tmp_path)


@pytest.mark.parametrize("beside", [True, False])
def test_mnist_in_folders_called_like_its_files(tmp_path: Path, beside: bool) -> None:
    for name, array in MNIST.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(idx(array))
    if beside:
        write_mnist(tmp_path, lambda name: name.replace("-idx", ".idx"))
    read_mnist(tmp_path)


def test_two_files_of_one_name_must_agree(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_mnist(tmp_path / "MNIST" / "raw")
    read_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.array([0, 1], np.uint8)))
    with pytest.raises(ValueError, match="with another content") as caught:
        load_mnist(tmp_path)
    assert str(path) in str(caught.value)
    assert str(tmp_path / path.name) in str(caught.value)


def test_packed_and_unpacked_files_of_two_places_must_agree(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", "{}.gz".format)
    write_mnist(tmp_path / "raw")
    read_mnist(tmp_path)
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([9, 9], np.uint8)))
    with pytest.raises(ValueError, match=r"mnist/\S+\.gz and, with another content, in \S+/raw/t10k"):
        load_mnist(tmp_path)


def test_what_is_unpacked_is_read_rather_than_a_packed_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mnist(tmp_path)
    write_mnist(tmp_path, "{}.gz".format)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bcut short")
    with caplog.at_level(logging.INFO, "mfakit"):
        read_mnist(tmp_path)
    assert f"MNIST: {tmp_path / 'train-images-idx3-ubyte'}" in caplog.text


@posix
def test_what_is_no_regular_file_is_said(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    for make in (os.mkfifo, Path.mkdir, lambda p: p.symlink_to(p), lambda p: p.symlink_to("/dev/zero")):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
        make(path)
        with pytest.raises(FileNotFoundError, match=rf"\({path} is there, but is no regular file\)"):
            load_mnist(tmp_path)


@pytest.mark.parametrize("load", [load_mnist, load_celeba])
def test_a_root_that_is_a_file(tmp_path: Path, load: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=rf"root= must be a folder .* got {tmp_path / 'file'}"):
        load(tmp_path / "file")


def test_a_home_that_does_not_exist(tmp_path: Path) -> None:
    for options in ({"root": "~nobody-of-this-name/data"}, {"root": tmp_path, "cache": "~nobody-of-this-name/cache"}):
        write_cifar(tmp_path)
        with pytest.raises(ValueError, match=r"^~nobody-of-this-name/.* home of a user that does not exist"):
            load_cifar10(**options)


# CIFAR-10


def read_cifar(root: Path, n: int = 3) -> None:
    X, y, X_test, _ = load_cifar10(root, None, cache=False, as_uint8=True)
    assert len(X) == 5 * len(X_test) == 5 * n
    image = PIXELS.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).reshape(-1, 3072)
    np.testing.assert_array_equal(X_test, image[:n])
    assert y.tolist() == LABELS[:n] * 5


@pytest.mark.parametrize("folder", ["", "cifar10", "CIFAR10", "cifar-10", "cifar-10-batches-bin/cifar-10-batches-bin"])
def test_batches_straight_in_a_folder(tmp_path: Path, folder: str) -> None:
    write_cifar(tmp_path / folder)
    read_cifar(tmp_path)
    if folder:
        read_cifar(tmp_path / folder)


STRIDED = np.asfortranarray(np.repeat(PIXELS, 2, axis=0))[::2]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "labels",
    [LABELS, np.array(LABELS), np.array(LABELS, np.uint8), np.array(LABELS, ">i4"), np.array([*LABELS, 0])[:3]],
    ids=["list", "int64", "uint8", "big endian", "slice"],
)
@pytest.mark.parametrize("data", [PIXELS, np.asfortranarray(PIXELS), STRIDED], ids=["rows", "columns", "strided"])
@pytest.mark.parametrize("bytes_as_keys", [True, False])
def test_batches_saved_again(tmp_path: Path, protocol: int, labels, data: np.ndarray, bytes_as_keys: bool) -> None:
    from mfakit.datasets._pickles import read_batch

    batch = {"batch_label": "again", "labels": labels, "data": data, "filenames": ["a.png", "b.png"]}
    if bytes_as_keys:
        batch = {key.encode(): value for key, value in batch.items()}
    found_labels, pixels = read_batch(pickle.dumps(batch, protocol), "batch")
    np.testing.assert_array_equal(pixels, PIXELS)
    assert found_labels.tolist() == LABELS


def test_read_only_arrays_of_protocol_5() -> None:
    from mfakit.datasets._pickles import read_batch

    frozen = PIXELS.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(read_batch(pickle.dumps({"data": frozen, "labels": LABELS}, 5), "batch")[1], PIXELS)
    outside = pickle.dumps({"data": PIXELS, "labels": LABELS}, 5, buffer_callback=[].append)
    with pytest.raises(ValueError, match="has the operation NEXT_BUFFER"):
        read_batch(outside, "batch")


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("cifar-10-binary.tar.gz", "w:gz", {}),
        ("cifar-10-python.tar.gz", "w:gz", {"format": tarfile.GNU_FORMAT}),
        ("CIFAR-10-binary.tgz", "w:gz", {"format": tarfile.USTAR_FORMAT}),
        ("cifar-10-binary.tar", "w", {"format": tarfile.PAX_FORMAT}),
        ("mine.tar.gz", "w:gz", {}),
    ],
)
def test_archives(tmp_path: Path, name: str, mode: str, options: dict[str, int]) -> None:
    pack_cifar(tmp_path / name, mode=mode, **options)
    read_cifar(tmp_path / name)  # the archive itself as root
    if name != "mine.tar.gz":
        read_cifar(tmp_path)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_apple_s_companions_in_an_archive(tmp_path: Path, format: int) -> None:
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz", format=format) as archive:
        for batch in BATCHES:
            name, data = binary(batch)
            for member in (tarfile.TarInfo(f"{'ü' * 120}/._{name}"), tarfile.TarInfo(f"{'ü' * 120}/{name}")):
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    read_cifar(tmp_path)


def test_unpacked_batches_are_read_rather_than_their_archive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"an interrupted download")
    write_cifar(tmp_path / "cifar-10-batches-bin")
    with caplog.at_level(logging.INFO, "mfakit"):
        read_cifar(tmp_path)
    assert re.search(r"CIFAR-10: \S+cifar-10-batches-bin \(also there: \S+binary.tar.gz\)", caplog.text)
    # Unpacking was interrupted: the whole archive is read, not some batches.
    pack_cifar(tmp_path / "cifar-10-binary.tar.gz")
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    read_cifar(tmp_path)


def test_two_folders_of_batches_must_agree(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin")
    write_cifar(tmp_path / "cifar10" / "cifar-10-batches-py", pickled({"data": PIXELS, "labels": LABELS}, 2))
    read_cifar(tmp_path)
    write_cifar(tmp_path / "cifar10" / "cifar-10-batches-py", pickled({"data": PIXELS[::-1], "labels": LABELS}, 2))
    with pytest.raises(ValueError, match=r"in \S+/cifar-10-batches-bin and, .*, in \S+/cifar-10-batches-py"):
        load_cifar10(tmp_path, cache=False)


def test_two_files_of_one_batch_must_agree(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    write_cifar(tmp_path, pickled({"data": PIXELS, "labels": LABELS}, 4))
    read_cifar(tmp_path)
    write_cifar(tmp_path, pickled({"data": PIXELS, "labels": [0, 0, 1]}, 4))
    with pytest.raises(ValueError, match=r"twice with different images: data_batch_1 and data_batch_1\.bin"):
        load_cifar10(tmp_path, cache=False)
