"""Launches that no small test meets: indices beyond 2^31, and the kernels under the address and undefined-behaviour
sanitizers, in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.engine import EmulatedEngine
from emulator.fake_cupy import DeviceArray
from support import close, random_mfa

from mfakit.backends import cuda_ops
from mfakit.backends._cuda import engine as _cuda_engine
from mfakit.backends.operands import Coarse, Mixture, Pairs


@pytest.fixture
def emulated(kernel_folder: Path) -> Any:
    engine = EmulatedEngine(kernel_folder)
    _cuda_engine.install(engine)
    yield engine
    _cuda_engine.install(None)


def _sparse(folder: Path, name: str, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """An array of zeros that takes no memory where it is not touched."""
    array: Any = np.memmap(folder / name, dtype, "w+", shape=shape)
    return DeviceArray(array)


def _last_blocks(engine: EmulatedEngine, blocks: int, count: int = 2) -> None:
    engine.block_part = (blocks - count, blocks)


def test_n_k_beyond_31_bits(emulated: EmulatedEngine, tmp_path: Path) -> None:
    n, k = 9_000_000, 256
    log_prob, out = (_sparse(tmp_path, name, (n, k), np.float64) for name in ("log_prob", "out"))
    log_prob._array[-1] = np.log(np.arange(1.0, k + 1))
    _last_blocks(emulated, n // 2)
    cuda_ops.softmax(log_prob, out)
    close(out._array[-1, -64:], np.arange(193.0, 257.0) / np.arange(1.0, k + 1).sum())

    total = _sparse(tmp_path, "total", (n,), np.float64)
    _last_blocks(emulated, n // 2)
    cuda_ops.log_sum_exp(log_prob, total)
    close(total._array[-1], np.log(np.arange(1.0, k + 1).sum()))


def test_products_beyond_31_bits(emulated: EmulatedEngine, tmp_path: Path) -> None:
    n, k, l = 5_000_000, 256, 1
    products = _sparse(tmp_path, "products", (n, k * (l + 1)), np.float32)
    log_prob = _sparse(tmp_path, "log_prob", (n, k), np.float64)
    keep = _sparse(tmp_path, "keep", (n, k), np.uint8)
    norms = _sparse(tmp_path, "norms", (n,), np.float64)
    products._array[-1, 1::2] = np.arange(k)  # xc · D⁻¹ m of each component
    norms._array[-1] = 1000.0
    zeros, ones = emulated.asarray(np.zeros((k, l))), emulated.asarray(np.ones(k))
    of_pairs = [emulated.asarray(np.zeros(shape)) for shape in ((k, 1), (k, l, 1), (k, l, l))]
    mixture = Mixture(*of_pairs, ones.reshape(k, 1), ones.reshape(k, 1), ones, ones, zeros, ones)
    coarse = Coarse(products, emulated.xp.empty((n, 0), np.float32), norms, 1e-6)
    _last_blocks(emulated, n // 2)
    cuda_ops.mixture_epilogue(coarse, mixture, log_prob, keep)
    close(log_prob._array[-1], 1 - 0.5 * (1001.0 - 2 * np.arange(k)))
    assert keep._array[-1].nonzero()[0].tolist() == list(range(215, 256))  # within 40 nats of the best


def test_rows_beyond_31_bits(emulated: EmulatedEngine, tmp_path: Path) -> None:
    n, d = 1_100_000, 2048
    X, out = (_sparse(tmp_path, name, (n, d), np.float32) for name in ("X", "out"))
    norms = _sparse(tmp_path, "norms", (n,), np.float64)
    mfa = random_mfa(2, d, 3)
    X._array[-1] = mfa.sample(1, rng=0)[0]
    mixture = Mixture._make(map(emulated.asarray, mfa.factors.mixture))
    _last_blocks(emulated, n // 2)
    cuda_ops.center_rows(X, emulated.asarray(mfa.factors.center), out, norms)
    close(out._array[-1], X._array[-1] - mfa.factors.center, np.float32, rtol=1e-6, atol=1e-6)
    emulated.block_part = None
    log_prob, y = emulated.asarray(np.zeros(1)), emulated.asarray(np.zeros((1, 3)))
    pair = Pairs._make(emulated.asarray(np.array([value])) for value in (n - 1, 1))
    cuda_ops.refine(X, pair, mixture, log_prob, y)
    expected = mfa.component_log_prob(np.array(X._array[-1:], np.float64))[0, 1]
    np.testing.assert_allclose(log_prob.get(), expected, rtol=1e-9)


def test_grids_stay_within_the_devices_limits() -> None:
    """What a device refuses, the emulator's launch refuses, too; here for sizes that no memory holds."""
    assert cuda_ops._grid(10**13, 256) == (2**31 - 1,)
    assert cuda_ops._grid(0, 256) == (0,)


def _sanitizer_libraries() -> str | None:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return None
    found = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return " ".join(found) if all(Path(path).is_absolute() for path in found) else None


@pytest.mark.skipif("MFAKIT_SANITIZE" in os.environ, reason="runs under the sanitizers as it is")
def test_kernels_under_sanitizers() -> None:
    libraries = _sanitizer_libraries()
    if libraries is None:
        pytest.skip("needs a compiler with the address sanitizer")
    tests = Path(__file__).with_name("test_cuda.py")
    environment = {
        **os.environ, "MFAKIT_SANITIZE": "1", "ASAN_OPTIONS": "detect_leaks=0", "LD_PRELOAD": libraries,
        "PYTHONPATH": os.pathsep.join([str(tests.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tests.parents[2]}", str(tests),
        "-k", "permuted and (float32 and usual or memory)",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert " passed" in done.stdout
