"""CNN and the process around it: random states, torch's settings, threads, signals, forks and what is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from cnn_cases import TINY, images, weights

import mfakit

torch = pytest.importorskip("torch")

from mfakit.classifiers import CNN  # noqa: E402 (needs torch)


def test_global_random_states_are_untouched() -> None:
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (its state is what is tested)
    for seed in (0, None):
        CNN(**TINY, random_state=seed).fit(*images(20))
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 (its state is what is tested)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_torchs_settings_change_nothing() -> None:
    X, y = images()

    def results() -> bytes:
        cnn = CNN(**TINY).fit(X, y)
        parts = [cnn.decision_function(X), cnn.decision_gradient(X), cnn.predict_proba(X.astype(float))]
        return weights(cnn) + b"".join(part.tobytes() for part in parts)

    expected = results()
    precision = torch.get_float32_matmul_precision()
    for dtype in (torch.float16, torch.float64):
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision("medium")
        try:
            for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"), torch.device("meta")):
                with context:
                    assert results() == expected
            assert torch.get_default_dtype() == dtype
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision(precision)
    threads = torch.get_num_threads()
    assert CNN(**TINY, n_threads=1).fit(X, y).n_threads == 1
    assert torch.get_num_threads() == threads


def test_the_order_of_overlapping_threads_does_not_matter_for_settings() -> None:
    from mfakit.classifiers.networks.network import settled

    x, layer = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)), torch.ones(4096, 64) / 3
    exact = x @ layer
    cpu, before = torch.device("cpu"), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    coarse = x @ layer
    try:
        first, second = settled(cpu), settled(cpu)
        inside = threading.Event()

        def other() -> None:
            with second:
                inside.set()
                leave.wait(10)

        leave, thread = threading.Event(), threading.Thread(target=other)
        with first:
            thread.start()
            assert inside.wait(10)
            assert torch.equal(x @ layer, exact)
        assert torch.equal(x @ layer, exact)  # the second is still at work
        leave.set()
        thread.join()
        assert torch.equal(x @ layer, coarse)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_that_is_not_there_is_a_memory_error() -> None:
    from mfakit.classifiers.networks.network import settled

    cpu = torch.device("cpu")
    with pytest.raises(MemoryError, match="a network on cpu ran out of memory; lower batch_size"), settled(cpu):
        torch.empty(2**58)
    with pytest.raises(RuntimeError, match="something else"), settled(cpu):
        raise RuntimeError("something else")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_ctrl_c_leaves_the_estimator_as_it_was() -> None:
    X, y = images(400, shape=(28, 28, 1))
    cnn = CNN(width=16, epochs=10_000, device="cpu")
    before = dict(vars(cnn))
    sent: list[float] = []

    def interrupt(*_: Any) -> None:
        sent.append(time.perf_counter())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            cnn.fit(X, y)
        delay = time.perf_counter() - sent[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert delay < 0.5
    assert vars(cnn) == before


FORK = """
import os, numpy as np, torch
from mfakit.classifiers import CNN
torch.set_num_threads(2)
X, y = np.random.default_rng(0).normal(size=(64, 784)).astype(np.float32), np.arange(64) % 2
cnn = CNN(width=4, epochs=1, device="cpu").fit(X, y)
expected = cnn.decision_function(X)
child = os.fork()
if child == 0:
    same = np.allclose(cnn.decision_function(X), expected, rtol=1e-4, atol=1e-5)
    cnn.fit(X, y)
    os._exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use_does_not_hang() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr


def test_networks_are_loaded_on_first_use() -> None:
    code = (
        "import sys, mfakit; mfakit.classifiers.load; loaded = {'torch', 'sklearn'} & set(sys.modules); "
        "assert not loaded, loaded; mfakit.classifiers.CNN; assert 'sklearn' in sys.modules; "
        "assert {'CNN', 'TRADES', 'LinearSVM', 'RBFSVM', 'load'} <= set(dir(mfakit.classifiers))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    with pytest.raises(AttributeError, match="has no attribute 'MLP'"):
        mfakit.classifiers.MLP  # noqa: B018 (looking it up is the test)


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"CNN needs torch.*pip install mfakit\[torch\]"):
        CNN(**TINY).fit(*images(20))
