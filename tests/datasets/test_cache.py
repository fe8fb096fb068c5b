from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mfakit.datasets._cache import cache_folder, cached_rows, fingerprint

ROWS = np.random.default_rng(0).integers(0, 256, (10, 7), dtype=np.uint8)


def rows_at(path: Path | None, width: int, n_rows: int | None, build) -> np.ndarray:
    """The rows in a cache of this name, stem-x.npy, whose sources do not change."""
    if path is None:
        return cached_rows(None, "rows", lambda: "x", width, n_rows, build)
    return cached_rows(path.parent, path.stem.removesuffix("-x"), lambda: "x", width, n_rows, build)


class Builder:
    """Builds ROWS in two blocks and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return len(ROWS), iter([ROWS[:6], ROWS[6:]])


def test_built_once_then_mapped(tmp_path: Path) -> None:
    build = Builder()
    path = tmp_path / "rows-x.npy"
    for n_rows in (10, None):
        rows = rows_at(path, 7, n_rows, build)
        assert isinstance(rows, np.memmap)
        assert not rows.flags.writeable
        np.testing.assert_array_equal(rows, ROWS)
    assert build.calls == 1
    assert [p.name for p in tmp_path.iterdir()] == ["rows-x.npy"]


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    rows = rows_at(None, 7, 10, Builder())
    np.testing.assert_array_equal(rows, ROWS)
    assert not list(tmp_path.iterdir())


def foreign(kind: str, path: Path) -> None:
    whole = path.read_bytes()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10, 7)}
    if kind == "other shape":
        np.save(path, ROWS[:, :6])
    elif kind == "other length":
        np.save(path, ROWS[:9])
    elif kind == "other dtype":
        np.save(path, ROWS.astype(np.int8))
    elif kind == "column order":
        np.save(path, np.asfortranarray(ROWS))
    elif kind == "huge claim":
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (1 << 40, 7)})
    else:
        content = {"truncated": whole[:-1], "longer": whole + b"x", "empty": b"", "garbage": b"\x93NUMPY" + bytes(99)}
        path.write_bytes(content[kind])


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "longer",
        "empty",
        "garbage",
        "other shape",
        "other length",
        "other dtype",
        "column order",
        "huge claim",
    ],
)
def test_a_damaged_or_foreign_file_is_made_again(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    path = tmp_path / "rows-x.npy"
    rows_at(path, 7, 10, build)
    foreign(kind, path)
    with caplog.at_level(logging.WARNING, "mfakit"):
        np.testing.assert_array_equal(rows_at(path, 7, 10, build), ROWS)
    assert build.calls == 2
    assert "made again" in caplog.text
    np.testing.assert_array_equal(np.load(path), ROWS)


class Poison:
    def __reduce__(self):
        return os.mkdir, ("poisoned",)


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows-x.npy"
    np.save(path, np.array([Poison()], dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(rows_at(path, 7, 10, Builder()), ROWS)
    path.write_bytes(pickle.dumps(Poison()))
    np.testing.assert_array_equal(rows_at(path, 7, 10, Builder()), ROWS)
    assert not Path("poisoned").exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build():
        def blocks():
            yield ROWS[:6]
            raise ValueError("broken image")

        return 10, blocks()

    with pytest.raises(ValueError, match="broken image"):
        rows_at(tmp_path / "rows-x.npy", 7, 10, build)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_cache_keeps_the_rows_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A file where the folder should be fails for every user, root included.
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "mfakit"):
        rows = rows_at(tmp_path / "file" / "rows-x.npy", 7, 10, Builder())
    np.testing.assert_array_equal(rows, ROWS)
    assert "could not be written" in caplog.text


def test_a_source_that_cannot_be_read_is_not_called_an_unwritable_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def build():
        calls.append(1)

        def blocks():
            yield ROWS[:6]
            raise PermissionError(13, "Permission denied", "images.zip")

        return 10, blocks()

    with caplog.at_level(logging.WARNING, "mfakit"), pytest.raises(PermissionError, match=r"images\.zip"):
        rows_at(tmp_path / "rows-x.npy", 7, 10, build)
    assert len(calls) == 1
    assert not caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["cache", None])
def test_sources_that_change_while_they_are_read_are_not_kept(tmp_path: Path, folder: str | None) -> None:
    states = iter("abcd")
    place = None if folder is None else cache_folder(tmp_path / folder, tmp_path)
    with pytest.raises(ValueError, match="files of faces changed while they were read"):
        cached_rows(place, "faces", lambda: next(states), 7, 10, Builder())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_in_place_of_the_cache_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(NotADirectoryError, match=rf"cache={place} cannot be made a folder"):
            cache_folder(place, tmp_path)


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from mfakit.datasets._cache import cached_rows

def blocks():
    for i in range(40):
        time.sleep(0.002)
        yield np.full((5, 100), i, dtype=np.uint8)

path = Path(sys.argv[1])
rows = cached_rows(path.parent, "rows", lambda: "x", 100, 200, lambda: (200, blocks()))
sys.exit(0 if (rows == np.repeat(np.arange(40), 5)[:, None]).all() else 1)
"""


def test_processes_may_build_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "rows-x.npy"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [w.wait(timeout=60) for w in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["rows-x.npy"]


def test_the_name_follows_source_and_settings(tmp_path: Path) -> None:
    source = tmp_path / "images.zip"
    source.write_bytes(b"abc")
    first = fingerprint([source], crop=(1, 2))
    assert first == fingerprint([source], crop=(1, 2))
    assert first != fingerprint([source], crop=(1, 3))
    os.utime(source, ns=(0, 12345))
    touched = fingerprint([source], crop=(1, 2))
    source.write_bytes(b"abcd")
    os.utime(source, ns=(0, 12345))
    longer = fingerprint([source], crop=(1, 2))
    time.sleep(0.01)
    source.write_bytes(b"wxyz")
    os.utime(source, ns=(0, 12345))  # as tools that copy with times do
    assert len({first, touched, longer, fingerprint([source], crop=(1, 2))}) == 4


def test_sources_of_equal_names_sizes_and_times_are_told_apart(tmp_path: Path) -> None:
    found = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "images.zip").write_bytes(b"abc")
        os.utime(tmp_path / folder / "images.zip", ns=(0, 0))
        found.add(fingerprint([tmp_path / folder / "images.zip"]))
    assert len(found) == 2
    one, two = tmp_path / "a" / "1.jpg", tmp_path / "a" / "2.jpg"
    for path, content in ((one, b"old"), (two, b"older")):
        path.write_bytes(content)
    before = fingerprint([one, two])
    one.rename(tmp_path / "c")
    two.rename(one)
    (tmp_path / "c").rename(two)  # the same names, sizes in all and latest time
    assert fingerprint([one, two]) != before


def test_folder_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root = tmp_path / "data"
    root.mkdir()
    assert cache_folder(False, root) is None
    assert cache_folder(tmp_path / "mine", root) == tmp_path / "mine"
    assert cache_folder(True, root) == root / ".mfakit-cache"
    assert (root / ".mfakit-cache").is_dir()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG_CACHE_HOME is a convention of Linux")
def test_a_read_only_root_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root = tmp_path / "data"
    root.mkdir(mode=0o555)
    folder = cache_folder(True, root)
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "user")
    assert folder.is_dir()
    assert not list(root.iterdir())
