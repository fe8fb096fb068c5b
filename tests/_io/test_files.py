"""Model files: what goes in comes out, and hostile files are refused in a sentence, quickly."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import parameters, random_mfa

import mfakit
from mfakit._io import tensor_files as files

WRITER = """
import sys, numpy as np, mfakit
big = mfakit.MFA([1.0], np.ones((1, 200_000)), np.ones((1, 200_000, 8)), 1.0)
print("ready", flush=True)
while True:
    big.save(sys.argv[1])
"""


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_round_trip_bit_for_bit(tmp_path: Path, noise: str, dtype: Any) -> None:
    mfa = random_mfa(noise=noise)
    mfa = mfa.replace(means=mfa.means.astype(dtype), loadings=mfa.loadings.astype(dtype))
    mfa.save(tmp_path / "m.safetensors")
    again = mfakit.MFA.load(tmp_path / "m.safetensors")
    for name in ("weights", "means", "loadings", "noise_variance"):
        a, b = getattr(mfa, name), getattr(again, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1][::-1],
        lambda a: a.astype(a.dtype.newbyteorder()),
    ],
)
def test_any_layout_of_parameters_round_trips(tmp_path: Path, layout: Any) -> None:
    mfa = random_mfa()
    mfa.replace(means=layout(np.array(mfa.means)), loadings=layout(np.array(mfa.loadings))).save(tmp_path / "m")
    for a, b in zip(parameters(mfa), parameters(mfakit.MFA.load(tmp_path / "m")), strict=True):
        np.testing.assert_array_equal(a, b)


def test_classifier_round_trips_with_priors_and_extras(tmp_path: Path) -> None:
    extras = {"outlier_mean": np.arange(12.0), "outlier_step": np.ones(12, np.float32)}
    clf = mfakit.BayesClassifier([random_mfa(seed=s, l=s) for s in range(3)], priors=[0.2, 0.3, 0.5], extras=extras)
    clf.save(tmp_path / "c")
    again = mfakit.BayesClassifier.load(tmp_path / "c")
    np.testing.assert_array_equal(clf.priors, again.priors)
    assert [m.n_factors for m in again.mixtures] == [0, 1, 2]
    for name, value in extras.items():
        np.testing.assert_array_equal(again.extras[name], value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=">f8").reshape(2, 3), np.arange(3, dtype=">u2"), np.float32([np.nan, -0.0, np.inf]),
        np.float64(3.5), np.array([True, False]), np.zeros((0, 3)), np.float16([1, np.nan]), np.complex64([1 + 2j]),
        np.arange(6.0).reshape(2, 3).T, np.arange(6.0)[::-2],
    ],
)  # fmt: skip
def test_extras_read_back_equal(value: Any, tmp_path: Path) -> None:
    clf = mfakit.BayesClassifier([random_mfa(), random_mfa(seed=1)], extras={"a": value})
    clf.save(tmp_path / "c")
    again = mfakit.BayesClassifier.load(tmp_path / "c").extras["a"]
    assert again.dtype == value.dtype.newbyteorder("=")
    assert again.shape == value.shape
    np.testing.assert_array_equal(again, value)
    np.testing.assert_array_equal(np.signbit(again.real), np.signbit(value.real))


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", "b"]), np.array([None, 1.0]), np.array([b"abc"]), np.array(["2020-01-01"], "M8[D]"),
        np.zeros(3, "f4,i4"), np.array([1 + 2j]),
    ],
)  # fmt: skip
def test_extras_that_no_file_holds_are_refused_before_anything_is_written(value: Any, tmp_path: Path) -> None:
    clf = mfakit.BayesClassifier([random_mfa(), random_mfa(seed=1)], extras={"a": value})
    with pytest.raises(TypeError, match=r"extra\.a has dtype .*; convert it or leave it out$") as caught:
        clf.save(tmp_path / "c")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def saved(tmp_path: Path) -> bytes:
    random_mfa().save(tmp_path / "good")
    return (tmp_path / "good").read_bytes()


def edit_header(data: bytes, edit: Any) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def set_version(header: dict[str, Any]) -> None:
    header["__metadata__"]["version"] = "99"


def set_format(header: dict[str, Any]) -> None:
    header["__metadata__"] = {"format": "pt"}


def one_terabyte(header: dict[str, Any]) -> None:
    header["0.means"]["shape"] = [10**6, 10**6]


def negative(header: dict[str, Any]) -> None:
    header["0.means"]["shape"] = [-4, 12]


def lost_tensor(header: dict[str, Any]) -> None:
    header["0.renamed"] = header.pop("0.loadings")


def other_dtype(header: dict[str, Any]) -> None:
    header["0.means"]["dtype"] = "I64"


def other_k(header: dict[str, Any]) -> None:
    k, d = header["0.means"]["shape"]
    header["0.means"]["shape"] = [k // 2, d * 2]


HOSTILE = {
    "empty": (lambda data: b"", "not a readable safetensors file"),
    "cut short": (lambda data: data[: len(data) // 2], "cut short"),
    "cut in the header": (lambda data: data[:20], "cut short"),
    "garbage": (lambda data: os.urandom(5000), "not a readable safetensors file"),
    "huge header": (lambda data: struct.pack("<Q", 2**62) + data[8:], "not a readable safetensors file"),
    "1 TB shape": (lambda data: edit_header(data, one_terabyte), "not a readable safetensors file"),
    "negative shape": (lambda data: edit_header(data, negative), "not a readable safetensors file"),
    "unknown version": (
        lambda data: edit_header(data, set_version),
        "format version 99, and this mfakit reads version 1",
    ),
    "not ours": (lambda data: edit_header(data, set_format), "not one of mfakit's"),
    "bits of another type": (lambda data: edit_header(data, other_dtype), "means is int64, not float32 or float64"),
    "missing tensor": (lambda data: edit_header(data, lost_tensor), "lacks loadings"),
    "mismatched k": (lambda data: edit_header(data, other_k), "not a valid mixture: loadings must be"),
    "NaN parameters": (lambda data: data[:-8] + struct.pack("<d", np.nan), "not a valid mixture: .* has NaN or inf"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    damage, match = HOSTILE[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damage(saved(tmp_path)))
    mfakit.MFA.load(tmp_path / "good")  # whatever is imported on the way is not what is timed
    start = time.perf_counter()
    with pytest.raises(ValueError, match=match) as caught:
        mfakit.MFA.load(path)
    assert time.perf_counter() - start < 1.0
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "bomb").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a readable"):
        mfakit.MFA.load(tmp_path / "bomb")
    assert not (tmp_path / "executed").exists()


def test_missing_file_and_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model file at"):
        mfakit.MFA.load(tmp_path / "nothing")
    mfakit.BayesClassifier([random_mfa(), random_mfa(seed=1)]).save(tmp_path / "c")
    with pytest.raises(ValueError, match="holds a bayes-classifier, not a mfa"):
        mfakit.MFA.load(tmp_path / "c")


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    random_mfa().save(path)
    before = path.read_bytes()
    write = files._write

    def damage(temporary: Path, *args: Any) -> Any:
        starts = write(temporary, *args)
        content = bytearray(temporary.read_bytes())
        content[-1] ^= 1
        temporary.write_bytes(content)
        return starts

    monkeypatch.setattr(files, "_write", damage)
    with pytest.raises(OSError, match="did not read back"):
        random_mfa(seed=1).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_kill_9_during_save_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    random_mfa().save(path)
    for delay in (0.02, 0.05, 0.11):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        assert mfakit.MFA.load(path).n_components >= 1


def test_saved_files_get_the_users_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    random_mfa().save(tmp_path / "m")
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "plain").stat().st_mode
