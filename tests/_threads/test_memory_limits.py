"""A limit of memory or of threads: a MemoryError or the result, and never the end of the process or a wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mfakit.backends import why_missing

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's"),
    pytest.mark.skipif("MFAKIT_SANITIZE" in os.environ, reason="the sanitizer's allocator ends the process"),
]

# OpenMP's and BLAS's threads start at the first call, which is under a limit.
CALLS = """
import os, resource, sys
import numpy as np, sklearn.cluster, scipy.linalg, mfakit, mfakit.fit, mfakit.attacks
rng = np.random.default_rng(0)
def mixture():
    return mfakit.MFA(np.full(20, 0.05), rng.normal(size=(20, 200)), rng.normal(size=(20, 200, 4)), 0.1)
clf = mfakit.BayesClassifier([mixture(), mixture()])
m = clf.mixtures[0]
X = m.sample(6000, rng=0)[0]
clf.mixtures[0].factors, clf.mixtures[1].factors
settings = dict(random_state=0, max_iter=2, tol=0, init="random", progress=False)
RUNS = {
    "residual": lambda n: m.log_prob(X, n_threads=n, method="residual"),
    "grad": lambda n: m.grad_log_prob(X, n_threads=n),
    "attack": lambda n: mfakit.attacks.gradient_attack(clf, X[:400], n_threads=n, step_size=1.0, max_steps=20),
    "fit": lambda n: mfakit.MixtureOfFactorAnalyzers(3, 2, n_threads=n, **settings).fit(X),
    "numba": lambda n: m.log_prob(X, n_threads=n, backend="numba"),
}
"""
WITH_ROOM = (
    CALLS
    + """
what, n, rooms = sys.argv[1], int(sys.argv[2]), [int(room) for room in sys.argv[3:]]
if what == "numba":
    RUNS[what](1)  # it is compiled without a limit
for room in rooms:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room * 2**20, resource.RLIM_INFINITY))
    try:
        RUNS[what](n)
        print("ok")
    except MemoryError:
        print("MemoryError")
"""
)


def _run(code: str, *arguments: str) -> list[str]:
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("what", "n_threads"), [("residual", 16), ("grad", 16), ("attack", 16), ("fit", 4), ("numba", 4)]
)
def test_the_first_call_under_a_limit_ends_well(what: str, n_threads: int) -> None:
    """From too little for anything to enough for all, each time as much beyond what is in use by then."""
    if what == "numba" and why_missing("numba") is not None:
        pytest.skip(str(why_missing("numba")))
    outcomes = _run(WITH_ROOM, what, str(n_threads), "5", "12", "20", "40", "60", "100", "500")
    assert len(outcomes) == 7
    assert outcomes[-1] == "ok"


NO_THREADS = (
    CALLS
    + """
import _thread, threading
def refuse(*args, **kwargs):
    raise RuntimeError("can't start new thread")
expected = {what: RUNS[what](1) for what in ("grad", "residual")}
threading._start_new_thread = refuse
from mfakit._arrays import sharing as _shares
from mfakit.mixture import subspaces
_shares.SERIAL_STEPS = _shares.SHARE_STEPS = _shares.ROWS_PER_THREAD = 1
for what in RUNS:
    got = RUNS[what](2)
    if what in expected:
        np.testing.assert_allclose(got, expected[what], rtol=1e-6)
mfakit.subspace_distances(m, clf.mixtures[1])
print("ok")
"""
)


def test_without_threads_one_does_all() -> None:
    assert _run(NO_THREADS) == ["ok"]
