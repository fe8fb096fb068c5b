from __future__ import annotations

import io
import pickle
import struct
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mfakit.datasets import load_cifar10
from mfakit.datasets._pickles import read_batch

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# A different number of images in every batch, and every class among them.
SIZES = dict(zip(BATCHES, (12, 3, 4, 5, 6, 11), strict=True))
FORMATS = ("bin", "py", "bin.tar.gz", "py.tar.gz")


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and pixels [n, 3072], channel by channel, as in the files."""
    rng = np.random.default_rng(BATCHES.index(name))
    n = SIZES[name]
    return np.arange(n, dtype=np.uint8) % 10, rng.integers(0, 256, (n, 3072), dtype=np.uint8)


def python2_pickle(labels: np.ndarray, planes: np.ndarray) -> bytes:
    """The bytes that Python 2's cPickle and NumPy of 2009 wrote, opcode by opcode."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87q\x0bRq\x0c"
        + (b"(K\x01M" + struct.pack("<H", len(planes)) + b"M\x00\x0c\x86q\r")
        + b"cnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11"
        + b"(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89"
        + (b"T" + struct.pack("<I", planes.size) + planes.tobytes() + b"q\x14tq\x15b")
    )
    numbers = b"]q\x04(" + b"".join(b"K" + bytes([x]) for x in labels) + b"e"
    entries = short(b"labels") + numbers + short(b"data") + array + short(b"batch_label") + short(b"batch 1 of 5")
    return b"\x80\x02}q\x01(" + entries + b"u."


def contents(name: str, kind: str) -> tuple[str, bytes]:
    labels, planes = batch(name)
    if kind.startswith("bin"):
        return name + ".bin", np.column_stack([labels, planes]).tobytes()
    if name == "test_batch":  # as Python 3 writes it, for both to be met
        return name, pickle.dumps({b"data": planes, b"labels": labels.tolist(), b"filenames": [b"a.png"]}, protocol=2)
    return name, python2_pickle(labels, planes)


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write(root: Path, kind: str, extra: dict[str, bytes] | None = None, without: str = "") -> None:
    root.mkdir(parents=True, exist_ok=True)
    files = dict(contents(name, kind) for name in BATCHES if name != without) | (extra or {})
    folder = "cifar-10-batches-" + kind.partition(".")[0]
    if kind.endswith("tar.gz"):
        archive = "cifar-10-binary.tar.gz" if kind.startswith("bin") else "cifar-10-python.tar.gz"
        pack(root / archive, {f"{folder}/{name}": data for name, data in files.items()})
    else:
        (root / folder).mkdir()
        for name, data in files.items():
            (root / folder / name).write_bytes(data)


def expected(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, 3072], height-width-channel, written out index by index, and labels."""
    labels = np.concatenate([batch(n)[0] for n in names])
    planes = np.concatenate([batch(n)[1] for n in names])
    pixels = np.empty_like(planes)
    for channel in range(3):
        for row in range(32):
            for column in range(32):
                pixels[:, (row * 32 + column) * 3 + channel] = planes[:, channel * 1024 + row * 32 + column]
    return pixels, labels


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same(tmp_path: Path, kind: str, cache: bool) -> None:
    write(tmp_path / "cifar10", kind)
    for _ in range(2):  # decoded, then from the cache
        X_train, y_train, X_test, y_test = load_cifar10(tmp_path, classes=None, cache=cache, as_uint8=True)
        for X, y, names in ((X_train, y_train, BATCHES[:5]), (X_test, y_test, BATCHES[5:])):
            pixels, labels = expected(names)
            np.testing.assert_array_equal(X, pixels)
            np.testing.assert_array_equal(y, labels)
            assert y.dtype == np.int64
            assert isinstance(X, np.memmap) == cache
    assert (tmp_path / ".mfakit-cache").exists() == cache


def test_pairs_are_relabelled_and_scaled(tmp_path: Path) -> None:
    write(tmp_path, "bin")
    pixels, labels = expected(BATCHES[:5])
    X, y, X_test, y_test = load_cifar10(tmp_path)
    assert X.dtype == X_test.dtype == np.float32
    np.testing.assert_array_equal(X, pixels[labels <= 1].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(y, labels[labels <= 1])
    assert y_test.tolist() == [0, 1, 0]
    X, y, _, _ = load_cifar10(tmp_path, classes=(4, 2))
    np.testing.assert_array_equal(y, np.where(labels[np.isin(labels, (2, 4))] == 4, 0, 1))
    np.testing.assert_array_equal(np.round(X * 255), pixels[np.isin(labels, (2, 4))])


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, "bin")
    load_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[: 3073 * 2])
    assert len(load_cifar10(tmp_path)[3]) == 2


def test_missing_data_names_every_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load_cifar10(tmp_path)
    text = str(error.value)
    for word in ("cifar-10-binary.tar.gz", "cifar-10-batches-py", str(tmp_path / "cifar10"), "download=True", "MFAKIT"):
        assert word in text


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_batch_is_named(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, without="data_batch_3")
    with pytest.raises(ValueError, match="has no data_batch_3;"):
        load_cifar10(tmp_path, cache=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0" * 3074, "multiple of 3073 bytes long, got 3074"),
        (b"", "0 images"),
        (b"\x0a" + bytes(3072), "label 10, expected 0 to 9"),
    ],
)
@pytest.mark.parametrize("kind", ["bin", "bin.tar.gz"])
def test_damaged_binary_batches(tmp_path: Path, kind: str, data: bytes, message: str) -> None:
    write(tmp_path, kind, extra={"data_batch_2.bin": data})
    with pytest.raises(ValueError, match=message):
        load_cifar10(tmp_path, cache=False)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_archive(tmp_path: Path, share: float) -> None:
    write(tmp_path, "bin.tar.gz")
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz"):
        load_cifar10(tmp_path, cache=False)


def test_false_sizes_in_an_archive(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size = 1 << 40
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.addfile(member, None)
    started = time.perf_counter()
    with pytest.raises(ValueError, match="claims 1099511627776 bytes"):
        load_cifar10(tmp_path, cache=False)
    assert time.perf_counter() - started < 1


def test_links_and_paths_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(contents("data_batch_1", "bin")[1])
    write(tmp_path, "bin.tar.gz", without="data_batch_1")
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "data_batch_1.bin")
        archive.addfile(link)
        for name, data in files.items():
            member = tarfile.TarInfo("../../" + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match="has no data_batch_1;"):
        load_cifar10(tmp_path, cache=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cifar-10-binary.tar.gz", "data_batch_1.bin"]


class Poison:
    def __init__(self, function: str) -> None:
        self.function = function

    def __reduce__(self):
        import os

        return getattr(os, self.function), ("poisoned",)


GOOD = {b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [1, 2]}
WRONG = {
    "code": (pickle.dumps({**GOOD, b"labels": Poison("mkdir")}), "asks for (posix|nt).mkdir"),
    "code, python 2": (b"\x80\x02cos\nmkdir\nU\x08poisoned\x85R.", "asks for os.mkdir"),
    "builtins": (b"cbuiltins\neval\n(S'1+1'\ntR.", "asks for builtins.eval"),
    "other numpy": (b"cnumpy\nfromfile\n(S'x'\ntR.", "asks for numpy.fromfile"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "asks for numpy.ndarray.tofile"),
    "list": (pickle.dumps([1]), "holds a list, not a dict"),
    "no labels": (pickle.dumps({b"data": GOOD[b"data"]}), "no labels"),
    "no data": (pickle.dumps({b"labels": [1]}), "no data"),
    "float labels": (pickle.dumps({**GOOD, b"labels": [1.0, 2.0]}), "list of small integers"),
    "large labels": (pickle.dumps({**GOOD, b"labels": [1, 256]}), "list of small integers"),
    "data is bytes": (pickle.dumps({**GOOD, b"data": bytes(6144)}), "not a NumPy array"),
    "float data": (pickle.dumps({**GOOD, b"data": np.zeros((2, 3072))}, protocol=2), "not an array of unsigned bytes"),
    "narrow data": (
        pickle.dumps({**GOOD, b"data": np.zeros((2, 9), dtype=np.uint8)}, protocol=2),
        r"got shape \(2, 9\)",
    ),
    "memo bomb": (b"\x80\x02}r\xff\xff\xff\xff.", "numbers an object 4294967295"),
    "length bomb": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.", "not a CIFAR-10 batch"),
    "bytearray bomb": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 34) + b"x.", "not a CIFAR-10 batch"),
    "cut": (python2_pickle(*batch("data_batch_1"))[:-2000], "not a CIFAR-10 batch"),
    "persistent id": (b"\x80\x02U\x01aQ.", "not a CIFAR-10 batch"),
    "garbage": (b"\xff\xd8\xff\xe0 no pickle", "not a CIFAR-10 batch"),
    "empty": (b"", "not a CIFAR-10 batch"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_pickles_run_nothing_and_hold_what_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read_batch(data, "here: data_batch_1")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "here: data_batch_1" in str(error.value)
    assert "\n" not in str(error.value)
    assert peak < 4 << 20
    assert not list(tmp_path.iterdir())


def test_a_false_shape_allocates_nothing() -> None:
    data = python2_pickle(*batch("data_batch_1")).replace(b"(K\x01M\x0c\x00", b"(K\x01J\xff\xff\xff\x7f")
    with pytest.raises(ValueError, match=r"got shape \(2147483647, 3072\)"):
        read_batch(data, "batch")


def test_column_order_is_read_as_such() -> None:
    labels, planes = batch("data_batch_2")
    for protocol in (2, 4):
        data = pickle.dumps({"data": np.asfortranarray(planes), "labels": labels.tolist()}, protocol=protocol)
        np.testing.assert_array_equal(read_batch(data, "batch")[1], planes)


def test_labels_and_images_must_agree(tmp_path: Path) -> None:
    short = pickle.dumps({**GOOD, b"labels": [1]}, protocol=2)
    write(tmp_path, "py", extra={"data_batch_1": short})
    with pytest.raises(ValueError, match="2 images and 1 labels"):
        load_cifar10(tmp_path)


def test_a_class_without_images(tmp_path: Path) -> None:
    write(tmp_path, "bin", extra={"test_batch.bin": bytes(3073)})
    with pytest.raises(ValueError, match=r"\(test\) has no image of class 1"):
        load_cifar10(tmp_path)


@pytest.mark.data
def test_real_cifar10(real_root, tmp_path: Path) -> None:
    root = real_root("cifar10")
    X_train, y_train, X_test, y_test = load_cifar10(root, classes=None, as_uint8=True, cache=tmp_path)
    assert isinstance(X_train, np.memmap)
    assert X_train.shape[1] == X_test.shape[1] == 3072
    # The usual distribution has 5,000 and 1,000 a class; smaller ones are balanced as well.
    assert len(set(np.bincount(y_train).tolist())) == len(set(np.bincount(y_test).tolist())) == 1
    assert len(y_train) in (20000, 50000)
    assert len(y_test) in (5000, 10000)
    X, y, _, y_pair = load_cifar10(root, classes=(3, 5), cache=tmp_path)
    assert X.shape == (len(y_train) // 5, 3072)
    assert np.bincount(y_pair).tolist() == [len(y_test) // 10] * 2
    np.testing.assert_array_equal(np.round(X[y == 0][0] * 255), X_train[y_train == 3][0])
    # Neighbours along a row are alike; they would not be if height, width and channel were exchanged.
    image = X_train[:500].reshape(-1, 32, 32, 3).astype(float)
    assert np.abs(np.diff(image, axis=2)).mean() < np.abs(image - image[:, :, ::-1]).mean() / 2
