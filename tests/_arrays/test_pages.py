"""Memory maps: which arrays are in files, files that were cut short, and memory that is given back."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, random_mfa

from mfakit._arrays.pages import Pages, give_back
from mfakit._arrays.rows import RowBlocks

Array = NDArray[Any]

linux = pytest.mark.skipif(sys.platform != "linux", reason="what a process has in memory is read from /proc")

# Rows that fill several pages each.
SHAPE = (64, 4096)


def same(got: Any, expected: Any) -> None:
    """Equal values of equal dtype."""
    close(got, expected, np.asarray(expected).dtype, rtol=0)


def in_file(folder: Path, mode: Any = "r", offset: int = 0) -> Array:
    """Random values in a file, mapped."""
    X = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    with open(folder / "X.bin", "wb") as file:
        file.write(bytes(offset) + X.tobytes())
        file.flush()
        os.fsync(file.fileno())  # no page is given back before it is written
    return np.memmap(folder / "X.bin", np.float32, mode, offset, SHAPE)


def resident(path: Path) -> int:
    """Bytes of a file that this process has in memory."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        ours = line.endswith(str(path)) if "-" in line.split(" ")[0] else ours
        if ours and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_which_arrays_are_in_files(tmp_path: Path) -> None:
    X = in_file(tmp_path)
    for view in (X, X[3:], X[:, ::2], np.asarray(X)[::-1], X.T, X.reshape(-1), X.view(np.uint32)):
        assert Pages.of(view) is not None
    for copy in (np.array(X), X + 1, X[[0, 1]], np.empty(SHAPE), [[1.0]], None, X[:0]):
        assert Pages.of(copy) is None
    by_rows = {name: Pages.of(view) for name, view in {"C": X, "columns": X[:, ::3], "F": X[:, :64].T}.items()}
    assert {name: pages.by_rows for name, pages in by_rows.items() if pages} == {"C": True, "columns": True, "F": False}


@pytest.mark.parametrize("offset", [0, 16, 5000])
def test_a_file_that_was_cut_short_is_an_error_and_no_signal(offset: int, tmp_path: Path) -> None:
    X = in_file(tmp_path, offset=offset)
    rows = RowBlocks(X)
    os.truncate(tmp_path / "X.bin", offset + X.nbytes // 2)
    same(rows.block(0, 32), np.array(X[:32]))
    message = rf"X is a memory map of .*X\.bin, which has {offset + X.nbytes // 2} bytes where .* cut short"
    for read in (lambda: rows.block(32, 33), lambda: rows.take(np.array([1, 63])), lambda: list(rows.walk(0, 64, 8))):
        with pytest.raises(ValueError, match=message):
            read()
    with pytest.raises(ValueError, match=message):
        random_mfa(d=4096).log_prob(np.asarray(X)[::-1], block_rows=8)
    pages = Pages.of(X)
    assert pages is not None
    pages.read(X[32:], threading.Event())  # it touches nothing


@linux
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_blocks_are_given_back_after_use(mode: str, tmp_path: Path) -> None:
    X = in_file(tmp_path, mode)
    rows, most = RowBlocks(X), 0
    for first, block in rows.walk(0, 64, 8):
        same(block, np.array(X[first : first + 8]))
        most = max(most, resident(tmp_path / "X.bin"))
    assert 0 < most <= 3 * 8 * 4096 * 4  # one in use, one ahead, and what the system reads around a page
    give_back(X)
    assert resident(tmp_path / "X.bin") == 0


@linux
def test_taking_rows_from_all_over_leaves_none_in_memory(tmp_path: Path) -> None:
    X = in_file(tmp_path)
    copy = np.array(X)
    give_back(X)
    for index in (np.arange(0, 64, 7), np.arange(64) % 5 == 0):
        same(RowBlocks(X).take(index), copy[index])
    same(RowBlocks(X).take(np.array([5, 2, 2]), np.float64), copy[[5, 2, 2]].astype(float))
    assert resident(tmp_path / "X.bin") == 0


def test_what_was_written_stays(tmp_path: Path) -> None:
    X = in_file(tmp_path, "r+")
    X[5] = 7.0
    give_back(X)
    np.testing.assert_array_equal(X[5], 7.0)
    assert np.fromfile(tmp_path / "X.bin", np.float32).reshape(SHAPE)[5].tolist() == [7.0] * 4096
    private = in_file(tmp_path, "c")  # whose changes are in memory alone
    private[5] = 7.0
    rows = RowBlocks(private)
    assert [float(block[5, 0]) for first, block in rows.walk(0, 64, 8) if first == 0] == [7.0]
    np.testing.assert_array_equal(private[5], 7.0)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve")
def test_a_map_to_write_to_has_a_place_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mfa = random_mfa()
    X = mfa.sample(20_000, rng=0)[0]
    path = tmp_path / "out.bin"
    with path.open("wb") as file:
        file.truncate(len(X) * 4)
    out = np.memmap(path, np.float32, "r+", shape=(len(X),))
    assert path.stat().st_blocks * 512 < len(X) * 4
    mfa.log_prob(X[:2], out=out[:2])
    assert mfa.log_prob(X, out=out) is out
    assert path.stat().st_blocks * 512 >= len(X) * 4
    np.testing.assert_array_equal(np.fromfile(path, np.float32), mfa.log_prob(X))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"the memory map .*out\.bin takes 80000 bytes, for which there is no room"):
        mfa.log_prob(X, out=out)
