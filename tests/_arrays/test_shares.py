"""Rows shared out among threads: the same results, the first row's error, and nothing left behind."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, random_mfa
from threadpoolctl import threadpool_info

import mfakit
from mfakit._arrays import sharing as _shares
from mfakit._arrays.options import Options
from mfakit._arrays.sharing import plan_crew, useful_threads
from mfakit._threads import process as _threads
from mfakit._threads.rows import Crew, open_crew
from mfakit.attacks import blocks
from mfakit.attacks.models import bayes as victims

Array = NDArray[Any]


def product_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Few rows are shared, too, by as many threads as products could have; the sizes of crews of several are noted."""
    for name, value in {"SERIAL_STEPS": 1, "SHARE_STEPS": 1, "ROWS_PER_THREAD": 1, "SPIN_STEPS": 2**60}.items():
        monkeypatch.setattr(_shares, name, value)
    monkeypatch.setattr(
        blocks, "useful_threads", lambda options: 3 if options.threads > 1 and options.backend != "numpy" else 1
    )
    monkeypatch.setattr(_shares, "unheld_product_threads", lambda: 3)
    crews: list[int] = []
    start = Crew.__init__

    def noted(self: Crew, count: int) -> None:
        crews.extend([count] if count > 1 else [])
        start(self, count)

    monkeypatch.setattr(Crew, "__init__", noted)
    return crews


def classifier(noise: str = "isotropic") -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(3, 9, 2, noise=noise, seed=seed) for seed in (1, 2)])


CLASSIFIER = {
    "class_log_prob", "decision_function", "decision_gradient", "predict", "predict_proba",
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: lambda clf, X, name=name, **kw: getattr(clf, name)(X, **kw) for name in CLASSIFIER},
    **{
        name: lambda clf, X, name=name, **kw: getattr(clf.mixtures[0], name)(X, **kw)
        for name in (
            "log_prob", "component_log_prob", "responsibilities", "grad_log_prob", "latent", "reconstruct",
        )
    },
    "impute": lambda clf, X, **kw: clf.mixtures[0].impute(X, np.arange(9) % 3 == 0, **kw),
    "point_subspace_distances": lambda clf, X, **kw: mfakit.point_subspace_distances(X, clf.mixtures[0], **kw),
    "features": lambda clf, X, **kw: attacked(clf, X, "features", **kw),
    "factor": lambda clf, X, **kw: attacked(clf, X, "factor", **kw),
    "minimal": lambda clf, X, **kw: bracketed(clf, X, **kw),
}  # fmt: skip


def attacked(clf: mfakit.BayesClassifier, X: Array, path: str, **options: Any) -> tuple[Array, ...]:
    r = mfakit.attacks.gradient_attack(clf, X, path=path, polish=True, **options)
    return r.x_adv, r.success, r.l2, r.n_steps, r.source, r.target


def bracketed(clf: mfakit.BayesClassifier, X: Array, **options: Any) -> tuple[Array, ...]:
    r = mfakit.attacks.minimal_perturbation(clf, X, **options)
    return r.x_adv, r.success, r.lower, r.upper, r.n_pairs_examined


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_threads_that_share_find_what_one_finds(shared: list[int], name: str, noise: str) -> None:
    clf = classifier(noise)
    if name == "factor" and noise == "diagonal":
        pytest.skip("factor coordinates are of isotropic noise")
    X = clf.sample(20, rng=0, dtype=np.float64)[0]
    alone = FUNCTIONS[name](clf, X, n_threads=1)
    assert not shared
    together = FUNCTIONS[name](clf, X, n_threads=8)
    assert set(shared) == (set() if name == "minimal" and not native() else {3})
    pairs = zip(alone, together, strict=True) if isinstance(alone, tuple) else [(alone, together)]
    for one, many in pairs:
        np.testing.assert_allclose(many, one, rtol=1e-10, atol=1e-10, strict=True)


def native() -> bool:
    return mfakit.backends.why_missing("native") is None


def test_few_rows_in_one_dtype_per_call(shared: list[int], backend: str) -> None:
    """float32, `out`, blocks lower than a share, and more threads than rows."""
    mfa = random_mfa(3, 9, 2)
    for n in (0, 1, 2, 3, 5, 50):
        X = mfa.sample(n, rng=0)[0]
        out = np.full(n, np.nan, np.float32)
        got = mfa.log_prob(X, backend=backend, n_threads=5, block_rows=4, out=out)
        assert got is out
        close(out, mfa.log_prob(X, backend=backend, n_threads=1), np.float32, rtol=1e-6)
    assert bool(shared) == (backend in ("native", "numba"))


def test_the_error_is_of_the_first_bad_row(shared: list[int]) -> None:
    clf = classifier()
    X = clf.sample(90, rng=0)[0]
    before = product_threads()
    X[[80, 41, 33]] = np.nan
    for call in (clf.predict, clf.mixtures[0].log_prob, partial(mfakit.attacks.gradient_attack, clf)):
        with pytest.raises(ValueError, match="first in row 33;"):
            call(X, n_threads=3)
    assert shared == [3, 3, 3]
    assert product_threads() == before


def test_rows_go_to_their_thread_and_errors_stop_the_others() -> None:
    done: list[tuple[int, int, int]] = []
    with open_crew(3) as crew:
        crew.share(8, lambda i, start, end, tag: done.append((i, start, end)), "tag")
        assert {library.get_num_threads() for library in _threads._blas_libraries()} == {1}
    assert sorted(done) == [(0, 0, 2), (1, 2, 5), (2, 5, 8)]
    before = product_threads()
    with open_crew(1) as crew:  # this thread, and BLAS's own
        crew.share(8, lambda i, start, end: done.append((i, start, threading.get_ident())))
        assert product_threads() == before
    assert done[-1] == (0, 0, threading.get_ident())

    not_stopped: list[int] = []

    def work(i: int, start: int, end: int) -> None:
        if i == 0:
            raise KeyError("first")
        for _ in range(1000):  # some five seconds
            crew.raise_if_cancelled()
            time.sleep(0.005)
        not_stopped.append(i)

    alive = threading.active_count()
    with pytest.raises(KeyError, match="first"), open_crew(2) as crew:
        crew.share(2, work)
    assert not not_stopped
    assert threading.active_count() == alive


def test_attacks_heed_an_interrupt(shared: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread is interrupted while it waits; the others end with their step, not with their walk."""
    clf = classifier()
    X = clf.sample(30, rng=0)[0]
    steps: list[int] = []
    scores = victims.MixtureVictim.scores

    def slow(self: Any, X: Array, y: Array) -> Any:
        steps.append(len(X))
        if len(steps) == 4:
            _thread.interrupt_main()
        time.sleep(0.01)
        return scores(self, X, y)

    monkeypatch.setattr(victims.MixtureVictim, "scores", slow)
    alive, before = threading.active_count(), product_threads()
    with pytest.raises(KeyboardInterrupt):
        mfakit.attacks.gradient_attack(clf, X, step_size=1e-6, max_steps=10_000, path="features", n_threads=3)
    assert len(steps) < 1000
    assert threading.active_count() == alive
    assert product_threads() == before


def test_what_numpy_was_asked_to_raise_is_no_matter(shared: list[int]) -> None:
    clf = classifier()
    X = clf.sample(30, rng=0)[0]
    with np.errstate(all="raise"):
        clf.predict_proba(X, n_threads=3)
        clf.mixtures[0].grad_log_prob(X, n_threads=3)
    assert shared == [3, 3]


def test_progress_counts_every_sample(shared: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    clf = classifier()
    mfakit.attacks.gradient_attack(clf, clf.sample(30, rng=0)[0], progress=True, block_rows=9, n_threads=3)
    assert shared == [3]
    assert "30/30" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n", "d", "columns", "threads", "expected"),
    [
        (20_000, 784, 350, 2, (2, 1)),
        (128, 12_288, 1100, 2, (2, 1)),
        (100, 784, 350, 2, (1, 1)),  # little work: in this thread
        (16, 12_288, 1100, 2, (1, 1)),  # few rows, a large panel: the product in several threads, the kernels in one
        (10, 3, 4, 2, (1, None)),  # a product that BLAS keeps in one thread
        (20_000, 784, 350, 1, (1, None)),
        (20_000, 784, 350, 16, (16, 1)),
        (4096, 12_288, 1100, 64, (1, None)),  # sixteen threads of 64 would lose more than the kernels wait
    ],
)
def test_who_shares(
    n: int, d: int, columns: int, threads: int, expected: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shares, "useful_threads", lambda options: threads)
    count, own = plan_crew(n, d, columns, 16_384, Options())
    assert (count, own.n_threads) == expected


def test_limits_of_threads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shares, "unheld_product_threads", lambda: 4)
    assert useful_threads(Options(n_threads=9)) == 4
    assert useful_threads(Options(n_threads=2)) == 2
    assert useful_threads(Options(n_threads=9, backend="numpy")) == 1
    with open_crew(2):
        assert useful_threads(Options(n_threads=9)) == 4
    monkeypatch.setattr(_shares, "forked", lambda: True)
    assert useful_threads(Options(n_threads=9)) == 1


def test_an_ending_interpreter_shares_nothing() -> None:
    code = (
        "import atexit, numpy as np, mfakit\n"
        "from mfakit._arrays import sharing as _shares\n"
        "_shares.unheld_product_threads = lambda: 2\n"
        "mfa = mfakit.MFA([1.0], np.zeros((1, 300)), np.ones((1, 300, 3)), 0.5)\n"
        "X = np.ones((60_000, 300), np.float32)\n"
        "assert _shares.plan_crew(60_000, 300, 4, 16_384, mfakit._arrays.options.Options(n_threads=2))[0] == 2\n"
        "atexit.register(lambda: print(mfa.log_prob(X, n_threads=2).shape))\n"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("(60000,)\n", 0), done.stderr


def small_calls() -> dict[str, Callable[[], Any]]:
    """What multiplies small matrices."""
    mfa = random_mfa(20, 300, 4)
    other = mfa.replace(means=-mfa.means)
    clf = mfakit.BayesClassifier([mfa, other])
    X = mfa.sample(200, rng=0)[0]
    return {
        "log_prob": lambda: mfa.log_prob(X),
        "sample": lambda: mfa.sample(400, rng=0),
        "start": lambda: mfakit.MixtureOfFactorAnalyzers(
            3, 2, init="random", max_iter=1, tol=0.0, noise_floor=1e-3, random_state=0, progress=False
        ).fit(mfa.sample(150, rng=0)[0]),
        "features": lambda: mfakit.attacks.gradient_attack(clf, X, path="features", max_steps=2),
    }


@pytest.mark.parametrize("name", ["log_prob", "sample", "start", "features"])
@pytest.mark.filterwarnings("ignore")
def test_small_products_have_one_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAS's second thread would be waited for where another process has its core."""
    call, begun = small_calls()[name], []
    call()
    before = product_threads()
    take = _threads.Holder.take

    def noted(self: _threads.Holder) -> None:
        take(self)
        begun.append({library.get_num_threads() for library in _threads._blas_libraries()})

    monkeypatch.setattr(_threads.Holder, "take", noted)
    call()
    assert {1} in begun
    assert product_threads() == before


def test_large_products_keep_their_threads() -> None:
    few, many = _shares.SHARE_STEPS - 1, _shares.SHARE_STEPS
    before = product_threads()
    with _shares.careful_products(many):
        assert product_threads() == before
    with _shares.careful_products(few):
        assert set(product_threads()) == {1}
    assert product_threads() == before


def test_many_steps_of_few_rows_are_shared() -> None:
    """Threads that are started once for all steps of an attack pay where those of one product would not."""
    if useful_threads(Options(n_threads=2)) < 2:
        pytest.skip("one core")
    assert plan_crew(100, 784, 175, 100, Options(n_threads=2))[0] == 1
    assert plan_crew(100, 784, 175, 100, Options(n_threads=2), repeats=40)[0] == 2


def test_a_task_is_waited_for_though_its_thread_is_taken_for_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interrupted join does before Python 3.13."""
    begun, done = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        done.set()

    def fail() -> None:
        begun.wait(5)
        raise KeyError("first")

    class Ended(threading.Thread):
        def is_alive(self) -> bool:
            return False

    monkeypatch.setattr(_threads.threading, "Thread", Ended)
    monkeypatch.setattr(_threads, "_wait_for", lambda thread: begun.wait(5) and time.sleep(0.01))
    with pytest.raises(KeyError, match="first"):
        _threads.run_together([fail, slow], threading.Event())
    assert done.is_set()
