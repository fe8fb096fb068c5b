"""CelebA as people have it: other folders, lists, suffixes and zips; what is ambiguous names both candidates."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dataset_files import NAMES, picture, write_images, write_lists, write_tables, zip_images

from mfakit.datasets import load_celeba

pytest.importorskip("PIL.Image", reason="CelebA's images need Pillow")
posix = pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")


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
