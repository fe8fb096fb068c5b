"""Data sets as people have them: other folders, spellings, packings and lists; errors name both candidates."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import (
    BATCHES,
    LABELS,
    MNIST,
    NAMES,
    PIXELS,
    binary,
    idx,
    pack_cifar,
    pickled,
    picture,
    write_cifar,
    write_images,
    write_lists,
    write_mnist,
    write_tables,
    zip_images,
)

from mfakit.datasets import load_celeba, load_cifar10, load_mnist

pytest.importorskip("PIL.Image", reason="CelebA's images need Pillow")
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


# CelebA


def read_celeba(root: Path, value: int = 200) -> None:
    X, y, X_test, y_test = load_celeba(root, "Smiling", cache=False, progress=False, as_uint8=True, image_size=2)
    assert np.unique(X).tolist() == np.unique(X_test).tolist() == [value]
    assert (len(X), len(X_test)) == (2, 2)
    assert y.tolist() + y_test.tolist() == [1] * 4
    assert load_celeba(root, cache=False, progress=False, image_size=2)[1].tolist() == [0, 0]


@pytest.mark.parametrize("folder", ["", "celeba", "CelebA", "Celeba"])
@pytest.mark.parametrize("drive", [True, False], ids=["three folders", "one folder"])
def test_celeba_in_every_folder(tmp_path: Path, folder: str, drive: bool) -> None:
    base = tmp_path / folder
    write_lists(base / "Anno", base / "Eval") if drive else write_lists(base)
    write_images(base / "Img" / "img_align_celeba" if drive else base / "img_align_celeba")
    read_celeba(tmp_path)
    read_celeba(base)


def test_a_folder_within_the_folder_of_its_name(tmp_path: Path) -> None:
    write_lists(tmp_path)
    write_images(tmp_path / "img_align_celeba" / "img_align_celeba")
    read_celeba(tmp_path)
    write_images(tmp_path / "img_align_celeba", NAMES[:1])
    with pytest.raises(ValueError, match=r"000001\.jpg in two folders, \S+img_align_celeba' and \S+/img_align_celeba'"):
        load_celeba(tmp_path, cache=False)


@posix
def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    write_lists(tmp_path)
    write_images(tmp_path / "img_align_celeba")
    (tmp_path / "img_align_celeba" / "img_align_celeba").symlink_to(tmp_path / "img_align_celeba")
    (tmp_path / "img_align_celeba" / "000009.jpg").symlink_to("000009.jpg")
    os.mkfifo(tmp_path / "img_align_celeba" / "000008.jpg")
    (tmp_path / "celeba").symlink_to(tmp_path)
    read_celeba(tmp_path)
    (tmp_path / "img_align_celeba" / "000002.jpg").unlink()
    os.mkfifo(tmp_path / "img_align_celeba" / "000002.jpg")
    with pytest.raises(ValueError, match=r"lacks 1 of the 4 images .* 000002\.jpg"):
        load_celeba(tmp_path, cache=False)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_of_other_editors(tmp_path: Path, bom: str, line_end: str) -> None:
    write_images(tmp_path / "img_align_celeba")
    write_lists(tmp_path, bom=bom, line_end=line_end)
    read_celeba(tmp_path)
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (tmp_path / name).unlink()
    path = tmp_path / "list_attr_celeba.txt"
    path.write_text("Male Smiling\n" + "".join(f"{name}\t-1\t1\n" for name in NAMES))  # some lack the count
    write_tables(tmp_path)
    (tmp_path / "list_attr_celeba.csv").unlink()
    read_celeba(tmp_path)
    path.unlink()
    for absent in (-1, 0):
        write_tables(tmp_path, absent, bom, line_end)
        read_celeba(tmp_path)
    for path in tmp_path.glob("*.csv"):
        path.write_bytes(path.read_bytes().decode("utf-8-sig").encode("utf-16"))
    read_celeba(tmp_path)


def test_lists_that_contradict_themselves_or_each_other(tmp_path: Path) -> None:
    write_images(tmp_path / "img_align_celeba")
    write_lists(tmp_path)
    write_tables(tmp_path)
    read_celeba(tmp_path)
    path = tmp_path / "list_attr_celeba.csv"
    good = path.read_text()
    for content, message in {
        good.replace("000003.jpg,-1", "000003.jpg,1"): r"list_attr_celeba\.\w+ and, .*list_attr_celeba\.\w+",
        good.replace("000003.jpg,-1", "000003.jpg,0"): "has both -1 and 0 for Male",
        good.replace("000003", "000002"): r"names an image twice, '000002\.jpg'",
        good.replace("Smiling", "Male"): "names an attribute twice",
    }.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_celeba(tmp_path, cache=False)
    path.write_text(good)
    path = tmp_path / "list_eval_partition.csv"
    good = path.read_text()
    for content, message in {
        good.replace("000003.jpg,2", "000003.jpg,3"): "line 4 must be a name and 0, 1 or 2",
        good + "\n000001.jpg,2": r"names an image twice, '000001\.jpg'",
        good.replace("000003.jpg,2", "000003.jpg,1"): r"list_eval_partition\.\w+ and, .*list_eval_partition\.\w+",
    }.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_celeba(tmp_path, cache=False)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".PNG"])
@pytest.mark.parametrize("packed", [True, False])
def test_images_of_another_suffix(tmp_path: Path, suffix: str, packed: bool) -> None:
    write_lists(tmp_path)
    names = [name.replace(".jpg", suffix) for name in NAMES]
    if packed:
        zip_images(tmp_path / "img_align_celeba.zip", {"img_align_celeba_png/": 200}, names)
    else:
        write_images(tmp_path / ("img_align_celeba_png" if suffix == ".png" else "img_align_celeba"), names)
    read_celeba(tmp_path)
    if not packed:
        shutil.copy(next(tmp_path.glob("img*/000002*")), next(tmp_path.glob("img*")) / "000002.Jpeg")
        with pytest.raises(ValueError, match=r"has '000002\.\w+' and '000002\.\w+' for the image 000002\.jpg"):
            load_celeba(tmp_path, cache=False)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_folders_in_a_zip_the_aligned_one_is_read(tmp_path: Path, order: int) -> None:
    write_lists(tmp_path)
    folders = dict([("img_align_celeba/", 200), ("img_celeba/", 10)][::order])
    zip_images(tmp_path / "img_align_celeba.zip", folders)
    read_celeba(tmp_path)
    zip_images(tmp_path / "img_align_celeba.zip", {"some/": 200, "others/": 10})
    with pytest.raises(ValueError, match=r"000001\.jpg in two folders, '\w+' and '\w+'"):
        load_celeba(tmp_path, cache=False)
    zip_images(tmp_path / "img_align_celeba.zip", {"a/img_align_celeba/": 200, "b/img_align_celeba/": 10})
    with pytest.raises(ValueError, match=r"two folders, 'a/img_align_celeba' and 'b/img_align_celeba'"):
        load_celeba(tmp_path, cache=False)


def test_an_image_that_only_the_other_folder_holds_is_missing(tmp_path: Path) -> None:
    write_lists(tmp_path)
    zip_images(tmp_path / "img_align_celeba.zip", {"img_align_celeba/": 200}, NAMES[:3])
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "a") as archive:
        archive.writestr("img_celeba/000004.jpg", picture(10))
    with pytest.raises(ValueError, match=r"lacks 1 of the 4 images .* 000004\.jpg"):
        load_celeba(tmp_path, cache=False)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_holds_a_file_twice(tmp_path: Path) -> None:
    write_lists(tmp_path)
    zip_images(tmp_path / "img_align_celeba.zip", {"img_align_celeba/": 200}, [*NAMES, NAMES[1]])
    with pytest.raises(ValueError, match=r"holds 'img_align_celeba/000002\.jpg' twice"):
        load_celeba(tmp_path, cache=False)


def test_zips_of_other_systems(tmp_path: Path) -> None:
    write_lists(tmp_path)
    path = tmp_path / "img_align_celeba.zip"
    zip_images(path, {"img_align_celeba\\": 200})
    with zipfile.ZipFile(path, "a") as archive:
        for name in (*NAMES, *(f"._{name}" for name in NAMES), ".DS_Store"):
            archive.writestr(f"__MACOSX/img_align_celeba/{name}", b"no picture")
    read_celeba(tmp_path)


def test_images_in_two_places(tmp_path: Path) -> None:
    write_lists(tmp_path)
    zip_images(tmp_path / "img_align_celeba.zip", {"": 200})
    shutil.copytree(tmp_path, tmp_path / "CelebA")
    read_celeba(tmp_path)
    zip_images(tmp_path / "CelebA" / "img_align_celeba.zip", {"": 10})
    with pytest.raises(ValueError, match="with another content") as caught:
        load_celeba(tmp_path, cache=False)
    for place in (tmp_path, tmp_path / "CelebA"):
        assert f"{place / 'img_align_celeba.zip'}" in str(caught.value)


def test_what_is_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_lists(tmp_path / "Anno", tmp_path / "Eval")
    write_images(tmp_path / "Img" / "img_align_celeba")
    with caplog.at_level(logging.INFO, "mfakit"):
        read_celeba(tmp_path)
    for place in ("Img/img_align_celeba", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"):
        assert str(tmp_path / place) in caplog.text
