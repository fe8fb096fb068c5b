"""What the density does to the process around it: its floating point, random state and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from density_cases import FUNCTIONS, Array, samples
from support import EMULATE, random_mfa, rtol

import mfakit


def run(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


DENORMALS = """
import sys
import numpy as np, mfakit
def kept():
    return bool(np.array([5e-324]) * 1 > 0) and bool(np.array([1e-45], np.float32) * np.float32(1) > 0)
before = kept()
mfakit.MFA([1.0], np.zeros((1, 3)), np.ones((1, 3, 1)), 1.0).log_prob(np.zeros((2, 3)), backend=sys.argv[1])
print(before, kept())
"""


def test_denormal_numbers_stay(backend: str) -> None:
    if backend == "cuda" and EMULATE:
        pytest.skip("another process has no emulator")
    assert run(DENORMALS, backend) == "True True"


def test_the_global_random_state_is_untouched(backend: str) -> None:
    mfa = random_mfa()
    # the legacy state is what must not change
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    for function in FUNCTIONS:
        getattr(mfa, function)(samples(mfa), backend=backend)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


def sparse_file(path: Path, shape: tuple[int, int], dtype: Any) -> Array:
    """A memory map of zeros that takes no disk."""
    with path.open("wb") as file:
        file.truncate(shape[0] * shape[1] * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=shape)


def test_memory_is_one_block(backend: str, tmp_path: Path) -> None:
    if backend == "cuda" and EMULATE:
        pytest.skip("the emulator's device memory is the host's")
    mfa = random_mfa(3, 2048, 2)
    X = sparse_file(tmp_path / "X", (16_000, 2048), np.float32)
    mfa.log_prob(X[:100], backend=backend)  # factors, panel, compiled kernels
    peaks = []
    for n in (11_000, 16_000):  # a block has some 10,000 rows, and 5000 rows are 40 MB
        tracemalloc.start()
        try:
            scores = mfa.log_prob(X[:n], backend=backend)
            peaks.append(tracemalloc.get_traced_memory()[1] - scores.nbytes)
        finally:
            tracemalloc.stop()
        np.testing.assert_allclose(scores, scores[0], rtol=rtol(np.float32))
    assert peaks[1] < 100 * 2**20
    assert peaks[1] - peaks[0] < 2**20


CAPPED = """
import re, resource, sys
import numpy as np, mfakit
path, backend = sys.argv[1:]
X = np.memmap(path, np.uint8, "r", shape=(300_000, 8192))
rng = np.random.default_rng(0)
mfa = mfakit.MFA([1.0], np.zeros((1, 8192)), rng.normal(size=(1, 8192, 1)), 1.0)
mfa.log_prob(X[:64], backend=backend, n_threads=2)
held = int(re.search(r"VmData:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 300 * 2**20,) * 2)  # an eighth of X beside what is held
scores = mfa.log_prob(X[:10_000], backend=backend, n_threads=2)
try:
    mfa.grad_log_prob(X, backend=backend, n_threads=2)  # 9.8 GB
except MemoryError:
    print("MemoryError", len(scores), bool(np.allclose(scores, scores[0], rtol=1e-6)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds mapped memory on Linux only")
@pytest.mark.skipif("MFAKIT_SANITIZE" in os.environ, reason="the sanitizer's allocator ends the process")
def test_under_a_memory_cap(backend: str, tmp_path: Path) -> None:
    if backend == "cuda":
        pytest.skip("the cap counts what CUDA maps for itself")
    sparse_file(tmp_path / "X", (300_000, 8192), np.uint8)
    assert run(CAPPED, str(tmp_path / "X"), backend) == "MemoryError 10000 True"


@pytest.mark.slow  # kernels take blocks, which are small: it confirms that NumPy slices them from the right place
def test_more_elements_than_32_bits_count(tmp_path: Path) -> None:
    n, d = 33_000, 65_536
    assert n * d > 2**31
    X = sparse_file(tmp_path / "X", (n, d), np.uint8)
    X[n - 2] = np.arange(d) % 251
    rng = np.random.default_rng(0)
    mfa = mfakit.MFA([1.0], rng.normal(size=(1, d)), rng.normal(size=(1, d, 1)), 1.0)
    scores = mfa.log_prob(X)
    np.testing.assert_allclose(scores[n - 2], mfa.log_prob(X[n - 2][None].astype(float))[0], rtol=rtol(np.float32))
    zeros = np.delete(scores, n - 2)
    np.testing.assert_allclose(zeros, mfa.log_prob(np.zeros((1, d)))[0], rtol=rtol(np.float32))
