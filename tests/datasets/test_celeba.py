from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mfakit.datasets import load_celeba

Image = pytest.importorskip("PIL.Image", reason="CelebA's images need Pillow")

ATTRIBUTES = ("Bald", "Male", "Smiling", "Wearing_Hat")
NAMES = [f"{i:06d}.jpg" for i in range(1, 9)]
# Interleaved, so that the order on disk differs from that of the list.
PARTS = [0, 2, 1, 0, 2, 0, 0, 1]
MALE = [1, 0, 1, 1, 1, 0, 0, 1]
HALF = (89, 109)


def pixels(i: int, size: tuple[int, int] = HALF) -> np.ndarray:
    width, height = size
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(array: np.ndarray, form: str = "PNG") -> bytes:
    # PNG keeps every value, so a test can compare them; the loader goes by the content, not the ending.
    out = io.BytesIO()
    Image.fromarray(array).save(out, form)
    return out.getvalue()


def write(
    root: Path,
    images: dict[str, bytes] | None = None,
    packed: bool = True,
    prefix: str = "img_align_celeba/",
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    images = {name: encode(pixels(i)) for i, name in enumerate(NAMES)} if images is None else images
    if packed:
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            archive.writestr("img_align_celeba/", b"")
            for name, data in images.items():
                archive.writestr(prefix + name, data)
    else:
        (root / "img_align_celeba").mkdir()
        for name, data in images.items():
            (root / "img_align_celeba" / name).write_bytes(data)
    write_attributes(root)
    write_partition(root)


def write_attributes(root: Path, rows: list[str] | None = None, count: int | str = len(NAMES)) -> None:
    if rows is None:
        rows = [f"{name} -1 {2 * male - 1:2d}  1 -1" for name, male in zip(NAMES, MALE, strict=True)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(count), " ".join(ATTRIBUTES) + " ", *rows]) + "\n")


def write_partition(root: Path, rows: list[str] | None = None) -> None:
    if rows is None:
        rows = [f"{name} {part}" for name, part in zip(NAMES, PARTS, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(rows) + "\n")


def crop(i: int) -> np.ndarray:
    """The authors' box in an image of 89x109, flattened."""
    return pixels(i)[25:89, 12:76].reshape(-1)


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
def test_half_size_images_are_cropped_without_resampling(tmp_path: Path, packed: bool, cache: bool) -> None:
    write(tmp_path / "celeba", packed=packed)
    for _ in range(2):
        X_train, y_train, X_test, y_test = load_celeba(tmp_path, as_uint8=True, cache=cache)
        np.testing.assert_array_equal(X_train, [crop(0), crop(3), crop(5), crop(6)])
        np.testing.assert_array_equal(X_test, [crop(1), crop(4)])
        assert y_train.tolist() == [1, 1, 0, 0]
        assert y_test.tolist() == [0, 1]
        assert y_train.dtype == np.int64
        assert isinstance(X_train, np.memmap) == isinstance(X_test, np.memmap) == cache
    X_train = load_celeba(tmp_path, cache=cache)[0]
    assert X_train.dtype == np.float32
    np.testing.assert_array_equal(X_train[1], crop(3).astype(np.float32) / np.float32(255))


def test_validation_joins_train_on_request(tmp_path: Path) -> None:
    write(tmp_path)
    X_train, y_train, X_test, _ = load_celeba(tmp_path, include_validation=True, as_uint8=True)
    np.testing.assert_array_equal(X_train, [crop(i) for i in (0, 3, 5, 6, 2, 7)])
    assert y_train.tolist() == [1, 1, 0, 0, 1, 1]
    np.testing.assert_array_equal(X_test, [crop(1), crop(4)])


def test_other_attribute(tmp_path: Path) -> None:
    write(tmp_path)
    assert load_celeba(tmp_path, "Smiling")[1].tolist() == [1] * 4
    assert load_celeba(tmp_path, attribute="Bald")[3].tolist() == [0] * 2


def test_full_size_images_are_shrunk_as_the_authors_do(tmp_path: Path) -> None:
    size = (178, 218)
    write(tmp_path, {name: encode(pixels(i, size)) for i, name in enumerate(NAMES)})
    X_train = load_celeba(tmp_path, as_uint8=True)[0]
    box = Image.fromarray(pixels(3, size)).crop((25, 50, 25 + 128, 50 + 128))
    np.testing.assert_array_equal(X_train[1], np.asarray(box.resize((64, 64), Image.Resampling.BILINEAR)).reshape(-1))
    X_train = load_celeba(tmp_path, as_uint8=True, image_size=128)[0]
    np.testing.assert_array_equal(X_train[1], np.asarray(box).reshape(-1))


def test_crops(tmp_path: Path) -> None:
    write(tmp_path)
    X_train = load_celeba(tmp_path, crop=(80, 100, 9, 9), image_size=9, as_uint8=True)[0]
    np.testing.assert_array_equal(X_train[0], pixels(0)[100:109, 80:89].reshape(-1))
    X_train = load_celeba(tmp_path, crop=None, image_size=32, as_uint8=True)[0]
    whole = Image.fromarray(pixels(0)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(X_train[0], np.asarray(whole).reshape(-1))


@pytest.mark.parametrize("size", [(60, 61), (300, 200), (64, 64), (178, 178), (178, 216), (218, 178)])
def test_images_of_another_shape_are_not_stretched(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path, {name: encode(pixels(i, size)) for i, name in enumerate(NAMES)})
    with pytest.raises(ValueError, match=rf"178x218 .* 000001\.jpg is {size[0]}x{size[1]}; load_celeba\(crop=None\)"):
        load_celeba(tmp_path)
    assert not list((tmp_path / ".mfakit-cache").iterdir())
    assert load_celeba(tmp_path, image_size=16, crop=None)[0].shape == (4, 768)


@pytest.mark.parametrize("scale", [0.25, 0.37, 1 / 3, 0.9, 2])
def test_scaled_versions_of_the_usual_images_are_read(tmp_path: Path, scale: float) -> None:
    size = round(178 * scale), round(218 * scale)
    write(tmp_path, {name: encode(pixels(i, size)) for i, name in enumerate(NAMES)})
    assert load_celeba(tmp_path, image_size=16, cache=False)[0].shape == (4, 768)


def test_images_of_two_sizes_are_not_mixed(tmp_path: Path) -> None:
    images = {name: encode(pixels(i)) for i, name in enumerate(NAMES)} | {NAMES[4]: encode(pixels(0, (178, 218)))}
    write(tmp_path, images)
    with pytest.raises(ValueError, match=r"000001\.jpg is 89x109 and 000005\.jpg is 178x218"):
        load_celeba(tmp_path)


def test_the_first_images_only(tmp_path: Path) -> None:
    # Images beyond the limit need not be there.
    write(tmp_path, {name: encode(pixels(i)) for i, name in enumerate(NAMES[:4])})
    X_train, y_train, X_test, y_test = load_celeba(tmp_path, limit=4, as_uint8=True)
    np.testing.assert_array_equal(X_train, [crop(0), crop(3)])
    np.testing.assert_array_equal(X_test, [crop(1)])
    assert (y_train.tolist(), y_test.tolist()) == ([1, 1], [0])
    X_train, _, X_test, y_test = load_celeba(tmp_path, limit=1)
    assert (X_train.shape, X_test.shape, y_test.shape) == ((1, 12288), (0, 12288), (0,))
    assert len(load_celeba(tmp_path, limit=4)[0]) == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_odd_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(pixels(0)).convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG" if mode in ("L", "CMYK") else "PNG")
    write(tmp_path, {name: out.getvalue() for name in NAMES})
    X_train = load_celeba(tmp_path, as_uint8=True)[0]
    with Image.open(out) as stored:
        rgb = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(X_train[2], rgb[25:89, 12:76].reshape(-1))


@pytest.mark.parametrize("prefix", ["", "img_align_celeba/img_align_celeba/"])
def test_other_folders_within_the_zip(tmp_path: Path, prefix: str) -> None:
    write(tmp_path, prefix=prefix)
    np.testing.assert_array_equal(load_celeba(tmp_path, as_uint8=True)[2], [crop(1), crop(4)])


def test_the_distribution_s_own_layout(tmp_path: Path) -> None:
    write(tmp_path / "celeba")
    for name, folder in (("img_align_celeba.zip", "Img"), ("list_attr_celeba.txt", "Anno")):
        (tmp_path / "celeba" / folder).mkdir()
        (tmp_path / "celeba" / name).rename(tmp_path / "celeba" / folder / name)
    assert len(load_celeba(tmp_path)[0]) == 4


@pytest.mark.parametrize("download", [False, True])
def test_missing_data_tells_how_to_get_it(tmp_path: Path, download: bool) -> None:
    write(tmp_path)
    (tmp_path / "img_align_celeba.zip").unlink()
    (tmp_path / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_celeba(tmp_path, download=download)
    text = str(error.value)
    for word in ("no img_align_celeba.zip", "no list_eval_partition.txt", str(tmp_path / "celeba"), "MFAKIT_DATA"):
        assert word in text
    assert "no list_attr_celeba" not in text
    assert "by hand" in text
    assert ("download=True cannot fetch CelebA" in text) == download


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("male", "did you mean Male?"),
        ("Smilling", "did you mean Smiling?"),
        ("Hat", "did you mean Wearing_Hat?"),
        ("zzz", "choose one"),
    ],
)
def test_an_unknown_attribute_lists_the_close_ones(tmp_path: Path, wrong: str, hint: str) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=f"no attribute '{wrong}'") as error:
        load_celeba(tmp_path, wrong)
    assert hint in str(error.value)
    if wrong == "zzz":
        assert all(a in str(error.value) for a in ATTRIBUTES)


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
def test_images_that_the_list_names_and_the_source_lacks(tmp_path: Path, packed: bool) -> None:
    write(tmp_path, {name: encode(pixels(0)) for name in NAMES[:1] + NAMES[4:]}, packed=packed)
    with pytest.raises(ValueError, match=r"lacks 3 of the 8 images .* 00000[24]\.jpg"):
        load_celeba(tmp_path)
    assert not list((tmp_path / ".mfakit-cache").iterdir())


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "header"])
@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: str, packed: bool) -> None:
    good = encode(pixels(0), "JPEG")
    bad = {"cut": good[: len(good) // 2], "text": b"<html>quota exceeded</html>", "empty": b"", "header": good[:30]}
    images = dict.fromkeys(NAMES, good) | {"000005.jpg": bad[damage]}
    write(tmp_path, images, packed=packed)
    with pytest.raises(ValueError, match=r"000005\.jpg cannot be decoded"):
        load_celeba(tmp_path)
    assert not list((tmp_path / ".mfakit-cache").iterdir())


def test_a_bad_checksum_within_the_zip_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("img_align_celeba/000003.jpg").header_offset
    content[start + 1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"000003\.jpg cannot be decoded"):
        load_celeba(tmp_path)


def test_a_zip_bomb_among_the_images(tmp_path: Path) -> None:
    write(tmp_path)
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in NAMES:
            archive.writestr(name, bytes((1 << 24) + 1) if name == NAMES[1] else encode(pixels(0)))
    with pytest.raises(ValueError, match=r"000002\.jpg cannot be decoded \(it claims 16777217 bytes\)"):
        load_celeba(tmp_path)


def test_an_image_bomb(tmp_path: Path) -> None:
    # A PNG header that claims 60,000 x 60,000 pixels.
    good = bytearray(encode(pixels(0)))
    good[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    good[29:33] = zlib.crc32(good[12:29]).to_bytes(4, "big")
    write(tmp_path, dict.fromkeys(NAMES, bytes(good)))
    with pytest.raises(ValueError, match=r"000001\.jpg is too large an image"):
        load_celeba(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_zip(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    (tmp_path / "img_align_celeba.zip").write_bytes(content)
    with pytest.raises(ValueError, match="not a whole zip file"):
        load_celeba(tmp_path)


def test_a_crop_outside_the_image_names_it(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=r"\(30, 0, 60, 60\) does not fit into .*000001\.jpg, which is 89x109"):
        load_celeba(tmp_path, crop=(30, 0, 60, 60))


@pytest.mark.parametrize("crop", ["paper", (1, 2, 3), (0, 0, 0, 5), (-1, 0, 5, 5), (0.5, 0, 5, 5), 7])
def test_impossible_crops(tmp_path: Path, crop) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match="crop must be"):
        load_celeba(tmp_path, crop=crop)


@pytest.mark.parametrize("argument", [{"limit": 0}, {"limit": -3}, {"image_size": 0}, {"image_size": 5000}])
def test_impossible_numbers(tmp_path: Path, argument: dict[str, int]) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=f"{next(iter(argument))} must be"):
        load_celeba(tmp_path, **argument)


ROW = "000001.jpg -1  1  1 -1"


@pytest.mark.parametrize(
    ("rows", "count", "message"),
    [
        ([ROW], 2, "says '2' images but has 1 lines"),
        ([ROW], "x", "says 'x' images but has 1 lines"),
        ([ROW[:-3]], 1, "line 3 must have a name and 4 values"),
        ([ROW.replace(" 1 ", " 7 ", 1)], 1, "line 3 must have a name and 4 values"),
        ([ROW, ROW], 2, "names an image twice"),
        ([ROW.replace("0", "../", 1)], 1, "not a plain file name"),
        ([ROW.replace("0", "..\\\\", 1)], 1, "not a plain file name"),
    ],
)
def test_damaged_attribute_lists(tmp_path: Path, rows: list[str], count: int, message: str) -> None:
    write(tmp_path)
    write_attributes(tmp_path, rows, count)
    with pytest.raises(ValueError, match=message):
        load_celeba(tmp_path)


def test_binary_instead_of_a_list(tmp_path: Path) -> None:
    write(tmp_path)
    for content in (b"", bytes(range(128, 256))):
        (tmp_path / "list_attr_celeba.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"list_attr_celeba\.txt must begin with"):
            load_celeba(tmp_path)


def test_damaged_partitions(tmp_path: Path) -> None:
    write(tmp_path)
    write_partition(tmp_path, [f"{name} 0" for name in NAMES[:5]])
    with pytest.raises(ValueError, match=r"lacks 3 of the 8 images of the attribute list, first 000006\.jpg"):
        load_celeba(tmp_path)
    write_partition(tmp_path, [f"{NAMES[0]} 0", f"{NAMES[1]} 3"])
    with pytest.raises(ValueError, match="line 2 must be a name and 0, 1 or 2"):
        load_celeba(tmp_path)


def test_the_cache_follows_what_it_was_made_from(tmp_path: Path) -> None:
    write(tmp_path, packed=False)
    folder = tmp_path / "cache"
    load_celeba(tmp_path, cache=folder)
    load_celeba(tmp_path, "Bald", cache=folder, include_validation=True)
    assert len(list(folder.iterdir())) == 1
    load_celeba(tmp_path, cache=folder, crop=None)
    assert len(list(folder.iterdir())) == 2
    path = tmp_path / "img_align_celeba" / "000001.jpg"
    path.write_bytes(encode(pixels(99)))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    X_train = load_celeba(tmp_path, cache=folder, as_uint8=True)[0]
    np.testing.assert_array_equal(X_train[0], crop(99))


def test_progress_is_shown_when_asked_and_not_off_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    for progress in (None, False):
        load_celeba(tmp_path, cache=False, progress=progress)
    assert capfd.readouterr() == ("", "")
    load_celeba(tmp_path, cache=False, progress=True)
    assert "8/8" in capfd.readouterr().err


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install mfakit\[plots\]"):
        load_celeba(tmp_path)


@pytest.mark.data
def test_real_celeba_starts_as_it_should(real_root, tmp_path: Path) -> None:
    X_train, y_train, X_test, _y_test = load_celeba(real_root("celeba"), limit=200, cache=tmp_path, as_uint8=True)
    assert len(X_train) + len(X_test) <= 200
    assert X_train[0].reshape(64, 64, 3).shape == (64, 64, 3)
    assert y_train[0] == 0  # 000001.jpg is not male
    # A face, and not noise: neighbouring pixels are alike along both axes, and skin is redder than blue.
    images = X_train.reshape(-1, 64, 64, 3).astype(float)
    assert np.abs(np.diff(images, axis=1)).mean() < 15
    assert np.abs(np.diff(images, axis=2)).mean() < 15
    assert images[..., 0].mean() > images[..., 2].mean() + 10


@pytest.mark.data
@pytest.mark.slow
def test_real_celeba(real_root, tmp_path: Path) -> None:
    root = real_root("celeba")
    X_train, y_train, X_test, y_test = load_celeba(root, cache=tmp_path, as_uint8=True)
    if len(X_train) > 10000:
        pytest.skip("the counts below are those of the subset of 10,000 images")
    assert X_train.shape == (7992, 12288)
    assert X_test.shape == (2008, 12288)
    assert int(y_train.sum()) + int(y_test.sum()) == 4217
    assert isinstance(X_train, np.memmap)
