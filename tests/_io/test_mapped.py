"""Arrays in their files: what is mapped is what was saved, and results are whole or absent."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close

from mfakit._io.mapped import is_path, map_array, new_array, split_name

Array = NDArray[Any]


def same(got: Any, expected: Any) -> None:
    """Equal values of equal dtype."""
    close(got, expected, np.asarray(expected).dtype, rtol=0)


def values(dtype: Any = np.float32) -> Array:
    return np.arange(12).reshape(4, 3).astype(dtype)


def save_tensors(path: Path, tensors: dict[str, Array], **changes: Any) -> Path:
    """A file by safetensors itself; `changes` of the header's entry of every tensor are made afterwards."""
    from safetensors.numpy import save_file

    save_file(tensors, path)
    if changes:
        whole = path.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = {name: {**entry, **changes} for name, entry in json.loads(whole[8 : 8 + length]).items()}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    return path


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "u2", "u1", "?"])
def test_tensors_are_mapped_as_they_were_saved(dtype: str, tmp_path: Path) -> None:
    path = save_tensors(tmp_path / "X.safetensors", {"b": np.arange(5), "X": values(dtype), "a": np.ones(3, "u1")})
    for found in (map_array(path), map_array(f"{path}::X")):
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        same(np.asarray(found), values(dtype))
    same(np.asarray(map_array(f"{path}::b")), np.arange(5))


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_of_any_order(order: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.asarray(values(), order=order))
    found = map_array(tmp_path / "X.npy")
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, values())
    np.save(tmp_path / "X.npy", np.empty((0, 3)))  # no bytes cannot be mapped
    same(map_array(tmp_path / "X.npy"), np.empty((0, 3)))


def test_names_of_tensors(tmp_path: Path) -> None:
    assert is_path("X.npy")
    assert is_path(Path("X.safetensors"))
    assert is_path("X.safetensors::a::b")
    assert not any(map(is_path, ("X", "npy", b"X.npy", "X.npz", "X.npy::a", None, 3)))
    assert split_name("d/X.safetensors::a::b") == ("d/X.safetensors", "a::b")
    strange = tmp_path / "X.safetensors::a.npy"  # the name of a file
    np.save(strange, values())
    assert split_name(strange) == (str(strange), None)


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, array: Array) -> Path:
    np.save(path, array)
    return path


TENSORS = {"X": values()}
BROKEN: dict[str, tuple[Any, str]] = {
    "short": (lambda d: cut(saved(d / "X.npy", values()), 150), r"shorter than its header says.*take 48 bytes, and 22"),
    "no header": (lambda d: written(d / "X.npy", b"\x93NUMPY\x01\x00v"), "its header is damaged"),
    "text": (lambda d: written(d / "X.npy", b"hello"), "its header is damaged"),
    "objects": (lambda d: saved(d / "X.npy", np.array([[None]])), "holds Python objects"),
    "short tensor": (lambda d: cut(save_tensors(d / "X.safetensors", TENSORS), 100), "shorter than its header says"),
    "no tensors": (lambda d: written(d / "X.safetensors", b"\xff" * 30), "its header is cut short"),
    "no JSON": (lambda d: written(d / "X.safetensors", b"\x02" + bytes(7) + b"{{"), "its header is damaged"),
    "several": (lambda d: save_tensors(d / "X.safetensors", {"A": values(), "B": values()}), "2 tensors .* A, B; name"),
    "a vector": (lambda d: save_tensors(d / "X.safetensors", {"y": np.ones(3)}), "no tensors .* among y"),
    "no such name": (lambda d: f"{save_tensors(d / 'X.safetensors', TENSORS)}::Z", "no tensor 'Z', but X"),
    "bfloat16": (lambda d: save_tensors(d / "X.safetensors", TENSORS, dtype="BF16"), "'BF16', which NumPy lacks"),
    "huge": (lambda d: save_tensors(d / "X.safetensors", TENSORS, shape=[2**40, 3]), "claims shape .* in 48 bytes"),
    "negative": (lambda d: save_tensors(d / "X.safetensors", TENSORS, shape=[-4, -3]), "must be natural numbers"),
    "no offsets": (lambda d: save_tensors(d / "X.safetensors", TENSORS, data_offsets=[0]), "without dtype, shape or"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_array_is_one_sentence(case: str, tmp_path: Path) -> None:
    make, message = BROKEN[case]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        map_array(path)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_results_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    with new_array(path) as new:
        new.make((4, 3), np.float32)[:] = values()
        assert not path.exists()
    same(np.load(path), values())
    with pytest.raises(ValueError, match="could not broadcast"), new_array(path) as new:
        new.make((2, 2), np.float64)[:] = values()
    same(np.load(path), values())
    with new_array(path) as new:
        new.make((0, 3), np.float32)
    same(np.load(path), np.empty((0, 3), np.float32))
    assert [one.name for one in tmp_path.iterdir()] == ["out.npy"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve")
def test_a_full_disk_is_said_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"out\.npy takes 8000 bytes, for which there is no room: No space") as error:  # noqa: SIM117
        with new_array(tmp_path / "out.npy") as new:
            new.make((1000,), np.float64)
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "")))
    with new_array(tmp_path / "out.npy") as new:  # a file system that cannot reserve
        new.make((3,), np.float64)[:] = 1.0
    same(np.load(tmp_path / "out.npy"), np.ones(3))


def test_other_endings_are_refused(tmp_path: Path) -> None:
    for name in ("out", "out.npz", "out.safetensors"):
        with pytest.raises(ValueError, match=r"out must end in \.npy"), new_array(tmp_path / name):
            pass
    with pytest.raises(FileNotFoundError, match="no folder"), new_array(tmp_path / "none" / "out.npy"):
        pass
