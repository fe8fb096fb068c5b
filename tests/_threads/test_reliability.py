"""What needs a process of its own: interrupts, a memory cap, and the GIL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit.backends.operands import Pairs

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")

SET_UP = """
import sys, time, numpy as np, mfakit
rng = np.random.default_rng(0)
mfa = mfakit.MFA(np.full(40, 1 / 40), rng.random((40, 3000)), rng.standard_normal((40, 3000, 8)) / 10, 1e-4)
clf = mfakit.BayesClassifier([mfa, mfa.replace(means=1 - mfa.means)])
X = np.tile(mfa.sample(500, rng=0)[0], (20, 1))
est = mfakit.MixtureOfFactorAnalyzers(10, 4, tol=0.0, max_iter=10_000, random_state=0)
mfa.log_prob(X[:2]), clf.predict(X[:2])
mfakit.attacks.gradient_attack(clf, X[:2], max_steps=2, path="features")
"""

LONG_RUNS = {
    "log_prob": "while True: mfa.log_prob(X)",
    "grad_log_prob": "while True: mfa.grad_log_prob(X)",
    "impute": "while True: mfa.impute(X[:200], X[:200] > 0.5)",
    "attack": "mfakit.attacks.gradient_attack(clf, X, step_size=1e-6, max_steps=10**6, path='features')",
    "factor attack": "while True: mfakit.attacks.gradient_attack(clf, X, step_size=1e-6, max_steps=10**6)",
    "distances": "while True: mfakit.subspace_distances(mfa, mfa)",
    "fit": "est.fit(X)",
}


@POSIX
@pytest.mark.parametrize("run", LONG_RUNS)
def test_ctrl_c_stops_within_half_a_second(run: str) -> None:
    code = f"""{SET_UP}
print("ready", flush=True)
try:
    {LONG_RUNS[run]}
except KeyboardInterrupt:
    print("interrupted", time.time(), [name for name in vars(est) if name.endswith("_")], flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.4)
    sent = time.time()
    process.send_signal(signal.SIGINT)
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    word, stopped, left = out.split(maxsplit=2)
    assert word == "interrupted"
    assert float(stopped) - sent < 0.5
    assert left.strip() == "[]"  # the estimator is as it was


@POSIX
@pytest.mark.skipif("MFAKIT_SANITIZE" in os.environ, reason="the sanitizer's allocator ends the process")
def test_a_memory_cap_is_a_memory_error() -> None:
    """Scoring goes through blocks; what does not fit (the result, here) is a MemoryError and no abort."""
    code = """
    import resource
    import numpy as np, mfakit
    mfa = mfakit.MFA(np.full(50, 0.02), np.zeros((50, 4)), np.zeros((50, 4, 1)), 1.0)
    X = np.zeros((1_200_000, 4), np.float32)
    mfa.log_prob(X[:10])
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
    assert mfa.log_prob(X).shape == (1_200_000,)
    try:
        mfa.component_log_prob(X)
    except MemoryError:
        print("MemoryError")
    print(mfa.log_prob(X[:2]).shape)
    """
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc to see what is in use")
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout.split("\n")[:2] == ["MemoryError", "(2,)"], run.stderr


def test_the_gil_is_free_during_kernels() -> None:
    """Python goes on counting while another thread is in a kernel."""
    ops = mfakit.backends.get_backend("auto")
    mfa = random_mfa(k=1, d=4000, l=8)
    X = mfa.sample(4000, rng=0, dtype=np.float64)[0]
    f, m = mfa.factors, len(X)
    pairs = Pairs(np.arange(m), np.zeros(m, np.int64))
    log_prob, y = np.empty(m), np.empty((m, 8))
    arguments = (X, pairs, f.mixture, log_prob, y, 1)
    ops.refine(*arguments)
    start = time.perf_counter()
    ops.refine(*arguments)
    alone = time.perf_counter() - start
    # One kernel call per measurement: between calls the GIL is taken anyway.
    ticks, done = [], threading.Event()

    def kernel() -> None:
        ops.refine(*arguments)
        done.set()

    thread = threading.Thread(target=kernel)
    thread.start()
    while not done.is_set():
        ticks.append(time.perf_counter())
        time.sleep(alone / 100)
    thread.join()
    assert len(ticks) > 5


def test_many_threads_on_one_model_agree() -> None:
    clf = mfakit.BayesClassifier([random_mfa(d=50, seed=s) for s in range(2)])
    X, y = clf.sample(200, rng=0)
    expected = mfakit.attacks.gradient_attack(clf, X, y, max_steps=50).x_adv
    results: list[np.ndarray] = []

    def run() -> None:
        results.append(mfakit.attacks.gradient_attack(clf, X, y, max_steps=50).x_adv)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        close(result, expected, np.float32, rtol=1e-6)
