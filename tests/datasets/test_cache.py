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

from mfakit.datasets._cache import cache_file, cache_folder, cached_rows

ROWS = np.random.default_rng(0).integers(0, 256, (10, 7), dtype=np.uint8)


class Builder:
    """Builds ROWS in two blocks and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return len(ROWS), iter([ROWS[:6], ROWS[6:]])


def test_built_once_then_mapped(tmp_path: Path) -> None:
    build = Builder()
    path = tmp_path / "rows.npy"
    for n_rows in (10, None):
        rows = cached_rows(path, 7, n_rows, build)
        assert isinstance(rows, np.memmap)
        assert not rows.flags.writeable
        np.testing.assert_array_equal(rows, ROWS)
    assert build.calls == 1
    assert [p.name for p in tmp_path.iterdir()] == ["rows.npy"]


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    rows = cached_rows(None, 7, 10, Builder())
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
    path = tmp_path / "rows.npy"
    cached_rows(path, 7, 10, build)
    foreign(kind, path)
    with caplog.at_level(logging.WARNING, "mfakit"):
        np.testing.assert_array_equal(cached_rows(path, 7, 10, build), ROWS)
    assert build.calls == 2
    assert "made again" in caplog.text
    np.testing.assert_array_equal(np.load(path), ROWS)


class Poison:
    def __reduce__(self):
        return os.mkdir, ("poisoned",)


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.npy"
    np.save(path, np.array([Poison()], dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(cached_rows(path, 7, 10, Builder()), ROWS)
    path.write_bytes(pickle.dumps(Poison()))
    np.testing.assert_array_equal(cached_rows(path, 7, 10, Builder()), ROWS)
    assert not Path("poisoned").exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build():
        def blocks():
            yield ROWS[:6]
            raise ValueError("broken image")

        return 10, blocks()

    with pytest.raises(ValueError, match="broken image"):
        cached_rows(tmp_path / "rows.npy", 7, 10, build)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_cache_keeps_the_rows_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A file where the folder should be fails for every user, root included.
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "mfakit"):
        rows = cached_rows(tmp_path / "file" / "rows.npy", 7, 10, Builder())
    np.testing.assert_array_equal(rows, ROWS)
    assert "could not be written" in caplog.text


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    day_old = time.time() - 25 * 3600
    for name in ("a.0.mfakit-tmp", "b.1.mfakit-tmp", "user.tmp"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("a.0.mfakit-tmp", "user.tmp"):
        os.utime(tmp_path / name, (day_old, day_old))
    cached_rows(tmp_path / "rows.npy", 7, 10, Builder())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.1.mfakit-tmp", "rows.npy", "user.tmp"]


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from mfakit.datasets._cache import cached_rows

def blocks():
    for i in range(40):
        time.sleep(0.002)
        yield np.full((5, 100), i, dtype=np.uint8)

rows = cached_rows(Path(sys.argv[1]), 100, 200, lambda: (200, blocks()))
sys.exit(0 if (rows == np.repeat(np.arange(40), 5)[:, None]).all() else 1)
"""


def test_processes_may_build_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [w.wait(timeout=60) for w in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.npy"]


def test_the_name_follows_source_and_settings(tmp_path: Path) -> None:
    source = tmp_path / "images.zip"
    source.write_bytes(b"abc")
    first = cache_file(tmp_path, "faces", [source], crop=(1, 2))
    assert first == cache_file(tmp_path, "faces", [source], crop=(1, 2))
    assert first != cache_file(tmp_path, "faces", [source], crop=(1, 3))
    os.utime(source, ns=(0, 12345))
    touched = cache_file(tmp_path, "faces", [source], crop=(1, 2))
    source.write_bytes(b"abcd")
    os.utime(source, ns=(0, 12345))
    assert len({first, touched, cache_file(tmp_path, "faces", [source], crop=(1, 2))}) == 3
    assert cache_file(None, "faces", [source]) is None


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
