"""How many threads a call starts by default: every limit on them that somebody has set."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close
from threadpoolctl import threadpool_limits

import mfakit
from mfakit._arrays.options import Options
from mfakit._threads import limits as _limits
from mfakit._threads import process as _threads
from mfakit._threads.limits import _first_number, _quota_in, default_threads, one_thread


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight CPUs where nobody has set a limit."""
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "LOKY_MAX_CPU_COUNT", *_limits.BLAS_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(_limits, "CPUS_AT_IMPORT", 8)
    monkeypatch.setattr(_limits, "_quota", lambda: None)
    monkeypatch.setattr(_limits, "openmp_threads", lambda: 8)
    monkeypatch.setattr(_limits, "unheld_product_threads", lambda: 8)


def test_without_limits_there_is_one_thread_for_each_cpu(eight: None) -> None:
    assert default_threads() == 8
    assert Options().threads == 8
    assert Options(n_threads=3).threads == 3


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "LOKY_MAX_CPU_COUNT"])
def test_variables_limit_the_default_and_not_what_is_asked_for(
    eight: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "2")
    assert default_threads() == 2
    assert Options(n_threads=5).threads == 5
    monkeypatch.setenv(name, "100")
    assert default_threads() == 8


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3), (" 3\t", 3), ("+3", 3), ("3,2,1", 3), ("3 , 2", 3), ("007", 7),
        ("", None), ("0", None), ("-1", None), ("two", None), ("2x", None), ("2.0", None), ("2,", None), (",2", None),
        ("2,0", None), ("2,x", None), ("1e1", None), ("0x4", None), ("4 2", None), ("9" * 30, None), ("٣", None),
    ],
)  # fmt: skip
def test_malformed_numbers_are_ignored_as_libgomp_ignores_them(text: str, number: int | None) -> None:
    assert _first_number(text) == number


def test_affinity_is_asked_for_at_each_call(eight: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 6, 7}, raising=False)
    assert default_threads() == 3


def test_a_quota_limits(eight: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "_quota", lambda: 2)
    assert default_threads() == 2


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(("text", "cpus"), [("150000 100000", 2), ("1000 100000", 1), ("max 100000", None)])
def test_quotas_of_version_2(tmp_path: Path, text: str, cpus: int | None) -> None:
    _write(tmp_path / "slice" / "job", cpu__max=text)
    assert _quota_in(tmp_path, ["0::/slice/job"]) == cpus


def test_the_least_quota_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    _write(tmp_path / "slice" / "job", cpu__max="max 100000")
    _write(tmp_path / "slice", cpu__max="300000 100000")
    _write(tmp_path, cpu__max="700000 100000")
    assert _quota_in(tmp_path, ["0::/slice/job"]) == 3
    assert _quota_in(tmp_path, ["0::/elsewhere"]) == 7  # a container, whose root is its own group


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 3), ("-1", None), ("none", None)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_version_1(tmp_path: Path, mount: str, quota: str, cpus: int | None) -> None:
    _write(tmp_path / mount / "job", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    lines = ["9:memory:/other", f"1:{mount}:/job", "0::/"]
    assert _quota_in(tmp_path, lines) == cpus


@pytest.mark.parametrize("name", ["openmp_threads", "unheld_product_threads"])
def test_limits_in_force_count_and_defaults_of_the_libraries_do_not(
    eight: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_limits, name, lambda: 2)
    assert default_threads() == 2
    if name == "unheld_product_threads":  # it is the variable that says 2, and that is about products alone
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        assert default_threads() == 8


needs_two = pytest.mark.skipif(default_threads() < 2, reason="needs two CPUs to tell a limit from none")


@needs_two
@pytest.mark.parametrize("api", [None, "blas", "openmp"])
def test_threadpoolctl_is_obeyed(api: str | None) -> None:
    if api == "openmp" and not _threads.openmp_threads():
        pytest.skip("the kernels were compiled without OpenMP")
    before = default_threads()
    with threadpool_limits(1, user_api=api):
        assert default_threads() == 1
        with _threads.single_threaded_products():
            assert default_threads() == 1
    with _threads.single_threaded_products():  # our own hold is no limit
        assert default_threads() == before
    assert default_threads() == before


def test_threads_of_a_pool_share(eight: None) -> None:
    together = threading.Barrier(4)

    def ask(_: int) -> int:
        together.wait(10)
        count = default_threads()
        together.wait(10)
        return count

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [2] * 4
    with ThreadPool(4) as pool:
        assert pool.map(ask, range(4), chunksize=1) == [2] * 4
    found: list[int] = []
    single = threading.Thread(target=lambda: found.append(default_threads()))
    single.start()
    single.join()
    assert found == [8]


def test_threads_of_a_worker_of_dask_share(eight: None) -> None:
    pools = pytest.importorskip("distributed.threadpoolexecutor")
    together = threading.Barrier(4)

    def ask(_: int) -> int:
        together.wait(10)
        count = default_threads()
        together.wait(10)
        return count

    pool = pools.ThreadPoolExecutor(4, thread_name_prefix="Dask-Default-Threads")  # as its workers have it
    try:
        assert list(pool.map(ask, range(4))) == [2] * 4
    finally:
        pool.shutdown()


def test_a_thread_that_is_to_be_one_starts_none(eight: None) -> None:
    found: list[int] = []
    with one_thread():
        assert default_threads() == 1
        assert Options(n_threads=3).threads == 3  # what is asked for wins
        other = threading.Thread(target=lambda: found.append(default_threads()))
        other.start()
        other.join()
        with one_thread():
            assert default_threads() == 1
    assert found == [8]
    assert default_threads() == 8


@needs_two
def test_products_take_one_thread_while_one_is_to_be_one() -> None:
    """Two threads at once, which overlap: what was set before is there again when the last one is out."""
    before = _threads.unheld_product_threads(), _threads.product_threads()
    inside, out = threading.Event(), threading.Event()

    def hold() -> None:
        with one_thread():
            inside.set()
            out.wait(10)

    other = threading.Thread(target=hold)
    with one_thread():
        other.start()
        inside.wait(10)
        assert max(library.get_num_threads() for library in _threads._blas_libraries()) == 1
    assert max(library.get_num_threads() for library in _threads._blas_libraries()) == 1
    out.set()
    other.join()
    assert (_threads.unheld_product_threads(), _threads.product_threads()) == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_workers_of_multiprocessing_take_one_thread(eight: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "forked", lambda: False)  # as in a worker that imported mfakit after the fork
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(default_threads) == 1
    assert default_threads() == 8


PEAK = """
import os, threading, time, numpy as np, mfakit
m = mfakit.MFA(np.full(20, 0.05), np.zeros((20, 300)), np.ones((20, 300, 4)), 0.1)
X = np.random.default_rng(0).normal(size=(3000, 300))
settings = dict(max_iter=1, tol=0.0, init="random", random_state=0, backend={backend!r})
def work(n_threads=None):
    for _ in range(3):
        m.log_prob(X, backend={backend!r}, n_threads=n_threads)
        m.grad_log_prob(X, backend={backend!r}, n_threads=n_threads)
    mfakit.MixtureOfFactorAnalyzers(3, 2, n_threads=n_threads, **settings).fit(X)
def threads():
    return len(os.listdir("/proc/self/task"))
def peak():
    deadline = time.monotonic() + 5
    while threads() > idle and time.monotonic() < deadline:
        time.sleep(1e-3)  # the watcher before this one may still be listed though it was joined
    top, stop = [0], threading.Event()
    def watch():
        while not stop.is_set():
            top[0] = max(top[0], threads())
            time.sleep(2e-4)
    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    stop.set()
    watcher.join()
    return top[0] - 1 - idle
work(n_threads=1)  # BLAS's own threads are there from here on
idle = threads()
for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "LOKY_MAX_CPU_COUNT"):
    os.environ[name] = "1"
    print(peak())
    del os.environ[name]
print(peak())
"""


@needs_two
@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of /proc")
# Numba compiles for 13 s in a process of its own.
@pytest.mark.parametrize("backend", ["native", pytest.param("numba", marks=pytest.mark.slow)])
def test_nothing_of_ours_starts_threads_beyond_the_limit(backend: str) -> None:
    if (reason := mfakit.backends.why_missing(backend)) is not None:
        pytest.skip(reason)
    free = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "LOKY_", "OPENBLAS_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK.format(backend=backend)], capture_output=True, text=True,
        timeout=60, env={**free, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    *limited, free_to_start = map(int, done.stdout.split())
    assert limited == [0, 0, 0], done.stderr
    assert free_to_start > 0


@needs_two
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_workers_of_joblib_take_their_share(backend: str) -> None:
    joblib = pytest.importorskip("joblib")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ask: Callable[[], Any] = default_threads
    counts = joblib.Parallel(cpus, backend=backend)(joblib.delayed(ask)() for _ in range(2 * cpus))
    assert set(counts) == {1}


def test_what_is_asked_for_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Options(n_threads=4).threads == 4
    X = np.random.default_rng(0).normal(size=(500, 30))
    mfa = mfakit.MFA([1.0], np.zeros((1, 30)), np.ones((1, 30, 2)), 0.5)
    close(mfa.log_prob(X, n_threads=4), mfa.log_prob(X), rtol=1e-12)
