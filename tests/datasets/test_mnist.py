from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from mfakit.datasets import load_mnist

TRAIN_LABELS = np.array([6, 0, 3, 6, 0, 9], dtype=np.uint8)
TEST_LABELS = np.array([0, 6, 1], dtype=np.uint8)


def write(folder: Path, name: str, array: np.ndarray, ending: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    (folder / (name + ending)).write_bytes(gzip.compress(content) if ending == ".gz" else content)


def images(n: int, size: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "mnist", "train-images-idx3-ubyte", images(6))
    write(tmp_path / "mnist", "train-labels-idx1-ubyte", TRAIN_LABELS)
    write(tmp_path / "mnist", "t10k-images-idx3-ubyte", images(3, seed=1))
    write(tmp_path / "mnist", "t10k-labels-idx1-ubyte", TEST_LABELS)
    return tmp_path


def test_all_digits(root: Path) -> None:
    X_train, y_train, X_test, y_test = load_mnist(root)
    assert X_train.dtype == np.float32
    assert y_train.dtype == np.int64
    np.testing.assert_array_equal(X_train, images(6).reshape(6, 25).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(X_test, images(3, seed=1).reshape(3, 25).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(y_train, TRAIN_LABELS)
    np.testing.assert_array_equal(y_test, TEST_LABELS)


@pytest.mark.parametrize(("classes", "expected"), [((0, 6), [1, 0, 1, 0]), ([6, 0], [0, 1, 0, 1])])
def test_classes_are_relabelled_in_the_order_given(root: Path, classes, expected: list[int]) -> None:
    X_train, y_train, _X_test, y_test = load_mnist(root, classes)
    np.testing.assert_array_equal(y_train, expected)
    np.testing.assert_array_equal(y_test, [classes.index(0), classes.index(6)])
    np.testing.assert_array_equal(np.round(X_train * 255), images(6).reshape(6, 25)[[0, 1, 3, 4]])


def test_bytes_on_request(root: Path) -> None:
    X_train, _, X_test, _ = load_mnist(root, as_uint8=True)
    assert X_train.dtype == X_test.dtype == np.uint8
    np.testing.assert_array_equal(X_train, images(6).reshape(6, 25))


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("style", ["plain", "gz", "dot"])
def test_usual_places_and_names(tmp_path: Path, folder: str, style: str) -> None:
    for name, array in {
        "train-images-idx3-ubyte": images(6),
        "train-labels-idx1-ubyte": TRAIN_LABELS,
        "t10k-images-idx3-ubyte": images(3),
        "t10k-labels-idx1-ubyte": TEST_LABELS,
    }.items():
        stem = name.replace("-idx", ".idx") if style == "dot" else name
        write(tmp_path / folder, stem, array, ".gz" if style == "gz" else "")
    assert load_mnist(tmp_path)[0].shape == (6, 25)


def test_root_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFAKIT_DATA", str(root))
    assert load_mnist()[0].shape == (6, 25)


def test_missing_files_are_named_with_every_place(root: Path) -> None:
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(root)
    text = str(error.value)
    assert "t10k-labels-idx1-ubyte" in text
    assert "train-images" not in text
    for place in (root, root / "mnist", root / "MNIST/raw"):
        assert str(place) in text
    assert "download=True" in text
    assert "MFAKIT_DATA" in text


def test_images_and_labels_must_agree(root: Path) -> None:
    write(root / "mnist", "train-labels-idx1-ubyte", TRAIN_LABELS[:5])
    with pytest.raises(ValueError, match=r"6 images and .* 5 labels"):
        load_mnist(root)


def test_labels_above_nine(root: Path) -> None:
    write(root / "mnist", "train-labels-idx1-ubyte", TRAIN_LABELS + 4)
    with pytest.raises(ValueError, match="label 13, expected 0 to 9"):
        load_mnist(root)


def test_train_and_test_must_have_one_size(root: Path) -> None:
    write(root / "mnist", "t10k-images-idx3-ubyte", images(3, size=4))
    with pytest.raises(ValueError, match="same size, got 25 and 16"):
        load_mnist(root)


@pytest.mark.parametrize("classes", [(), (0, 0), (0, 10), (-1, 2)])
def test_impossible_classes(root: Path, classes) -> None:
    with pytest.raises(ValueError, match="different integers from 0 to 9"):
        load_mnist(root, classes)


@pytest.mark.parametrize("classes", [6, "06", (0.0, 6.0)])
def test_classes_of_another_type(root: Path, classes) -> None:
    with pytest.raises(TypeError, match="integers from 0 to 9"):
        load_mnist(root, classes)


def test_a_class_without_images(root: Path) -> None:
    with pytest.raises(ValueError, match="no image of class 8"):
        load_mnist(root, (0, 8))


@pytest.mark.data
def test_real_mnist(real_root) -> None:
    X_train, y_train, X_test, y_test = load_mnist(real_root("mnist"), as_uint8=True)
    assert X_train.shape == (60000, 784)
    assert X_test.shape == (10000, 784)
    assert np.bincount(y_train)[0] == 5923
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean that everyone who normalises MNIST has typed: 0.1307.
    assert round(X_train.mean() / 255, 4) == 0.1307


@pytest.mark.data
def test_real_pair(real_root) -> None:
    X_train, y_train, _X_test, y_test = load_mnist(real_root("mnist"), classes=(0, 6))
    assert X_train.shape == (5923 + 5918, 784)
    assert (X_train.min(), X_train.max()) == (0, 1)
    assert np.bincount(y_train).tolist() == [5923, 5918]
    assert np.bincount(y_test).tolist() == [980, 958]
