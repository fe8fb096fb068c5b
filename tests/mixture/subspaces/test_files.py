"""Sides of pairs that stay in their files: the answers of models in memory, and what is said of bad files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from subspace_cases import CASES
from support import EMULATE, random_mfa

import mfakit
from mfakit._io.tensor_files import map_tensors, read_tensors, write_tensors

pytestmark = pytest.mark.skipif(EMULATE, reason="files are read on the host")


@pytest.mark.parametrize("name", ["low rank", "points and planes", "touching", "without weight", "one feature"])
@pytest.mark.parametrize("method", ["dense", "pruned"])
def test_a_file_gives_what_the_model_in_it_gives(name: str, method: str, tmp_path: Path) -> None:
    mfa0, mfa1 = CASES[name]()
    path = tmp_path / "m.safetensors"
    mfa1.replace(means=mfa1.means.astype(np.float32)).save(path)
    mfa1 = mfakit.MFA.load(path)
    for reduce in ("row_min", "smallest", "min"):
        got, expected = (
            mfakit.subspace_distances(mfa0, other, reduce=reduce, method=method) for other in (str(path), mfa1)
        )
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    whole = mfakit.subspace_distances(mfa0, mfa1)
    np.testing.assert_allclose(
        mfakit.subspace_distances(path, mfa0), whole.T, rtol=1e-9, atol=1e-12 * np.nanmax(mfa1.means)
    )
    counts, edges = mfakit.subspace_distances(path, path, reduce="histogram", bins=9)
    np.testing.assert_array_equal(counts, mfakit.subspace_distances(mfa1, mfa1, reduce="histogram", bins=edges)[0])


def test_maps_are_what_is_read(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(6.0).reshape(2, 3), "b": np.arange(5, dtype=np.float32), "c": np.zeros((2, 0)),
        "d": np.array([3], np.int8),
    }  # fmt: skip
    write_tensors(tmp_path / "f", "kind", arrays)
    mapped, read = map_tensors(tmp_path / "f", "kind"), read_tensors(tmp_path / "f", "kind")[0]
    assert set(mapped) == set(read)
    for name, value in read.items():
        np.testing.assert_array_equal(mapped[name], value)
        assert mapped[name].dtype == value.dtype
    with pytest.raises(ValueError, match="read-only"):
        mapped["a"][0] = 1.0


def test_bad_files(tmp_path: Path) -> None:
    mfa, path = random_mfa(), tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="no model file"):
        mfakit.subspace_distances(mfa, path)
    mfa.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        mfakit.subspace_distances(mfa, path)
    tensors = mfa.to_tensors("0")
    for changes, message in (
        ({"0.loadings": None}, "lacks 0.loadings"),
        ({"0.means": np.zeros((2, 12))}, "do not match"),
        ({"0.means": np.full((4, 12), np.nan)}, "means has NaN or inf"),
        ({"0.loadings": np.full((4, 12, 3), np.inf)}, "loadings has NaN or inf"),
        ({"0.weights": np.full(4, 0.5)}, "weights must be non-negative and sum to 1"),
    ):
        changed = {n: a for n, a in {**tensors, **changes}.items() if a is not None}
        write_tensors(path, "mfa", changed)
        with pytest.raises(ValueError, match=message):
            mfakit.subspace_distances(mfa, path, reduce="min")
    write_tensors(path, "svm", tensors)
    with pytest.raises(ValueError, match="holds a svm, not a mfa"):
        mfakit.subspace_distances(path, mfa)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts what is mapped on Linux alone")
def test_memory_is_a_tile_and_not_the_model(tmp_path: Path) -> None:
    """64 MB of loadings, of which the bases are 128 MB, in a process that may take 100 MB more than it has."""
    k, d, l = 200, 10_000, 8
    path = tmp_path / "m.safetensors"
    loadings = np.random.default_rng(0).standard_normal((k, d, l), np.float32)
    means = np.zeros((k, d), np.float32)
    means[:, 0] = np.arange(k)
    tensors = {"0.weights": np.full(k, 1 / k), "0.means": means, "0.loadings": loadings, "0.noise_variance": np.ones(k)}
    write_tensors(path, "mfa", tensors)
    code = f"""
import resource, numpy as np, mfakit
from mfakit._io.tensor_files import map_tensors
from mfakit.backends.host_arrays import HOST
from mfakit.mixture.parameters import PARAMETERS
HOST.panel_bytes = 2**22
one = mfakit.MFA([1.0], np.zeros((1, {d})), np.zeros((1, {d}, 0)), 1.0)
mfakit.subspace_distances(one, one)
(line,) = (line for line in open("/proc/self/status") if line.startswith("VmData"))
most = 1024 * int(line.split()[1]) + 100_000_000
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
print(mfakit.subspace_distances(one, {str(path)!r}, reduce="row_min", method="dense")[1][0])
tensors = map_tensors({str(path)!r}, "mfa")
try:
    mfakit.subspace_distances(one, mfakit.MFA(*(tensors["0." + name] for name in PARAMETERS)))
except MemoryError:
    print("not in memory")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["0", "not in memory"]
