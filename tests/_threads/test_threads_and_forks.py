"""The process around the package: forks, threads of BLAS, limits of memory, and what NumPy was asked to raise."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mfakit
from mfakit._threads import process as _threads
from mfakit._threads.process import product_threads, single_threaded_products
from mfakit.backends import BACKENDS, why_missing

Array = NDArray[Any]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The code in a process of its own, with threads; one that hangs fails."""
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60,
        env={**free, "PYTHONPATH": path, **environment},
    )  # fmt: skip


# A child that hangs is ended by its alarm, and the status says so.
IN_CHILD = """
import os, signal
import numpy as np
{before}
child = os.fork()
if child == 0:
    signal.alarm(20)
    {inside}
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
THREADED_TORCH = (
    "import torch; torch.set_num_threads(2); torch.ones(800, 800) @ torch.ones(800, 800); torch.randn(10**6).exp()"
)
SCORE = (
    "import mfakit; X = np.random.default_rng(0).normal(size=(20_000, 20)); "
    "mfakit.MFA([1.0], np.zeros((1, 20)), np.ones((1, 20, 1)), 0.5).log_prob(X, backend='native', n_threads=2)"
)
CERTIFY = (
    "mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]; "
    "X = np.random.default_rng(0).normal(size=(4000, 2)); "
    "mfakit.attacks.minimal_perturbation(mfakit.BayesClassifier(mixtures), X, path='factor', n_threads=2)"
)
SGD = (
    "X = np.random.default_rng(0).normal(size=(4000, 100)); "
    "mfakit.MixtureOfFactorAnalyzers(2, 2, solver='sgd', max_iter=1, batch_size=2000, random_state=0).fit(X)"
)


@needs_fork
@pytest.mark.parametrize(
    ("parent", "child"),
    [
        pytest.param(THREADED_TORCH, SCORE, id="package-in-child"),
        pytest.param(f"{THREADED_TORCH}; import mfakit", f"{CERTIFY}; {SCORE}", id="kernels-in-child"),
        pytest.param(f"{THREADED_TORCH}; import mfakit", SGD, id="sgd-in-child"),
    ],
)
def test_a_child_of_a_process_that_used_torch_does_not_hang(parent: str, child: str) -> None:
    pytest.importorskip("torch")
    if child != SGD and (reason := why_missing("native")) is not None:
        pytest.skip(f"native: {reason}")
    done = run_python(IN_CHILD.format(before=parent, inside=child))
    assert done.stdout == "0\n", done.stderr


@needs_fork
def test_a_child_without_libgomp_keeps_its_threads() -> None:
    """Servers fork before they import anything, and lose nothing by it."""
    inside = "from mfakit._threads.process import forked; os._exit(3 if forked() else 0)"
    assert run_python(IN_CHILD.format(before="", inside=inside)).stdout == "0\n"
    assert run_python(IN_CHILD.format(before="import mfakit", inside=inside)).stdout == f"{3 << 8}\n"


@needs_fork
def test_a_child_computes_while_its_parent_computes_factors() -> None:
    """What another thread was in the middle of at the fork, nobody brings to an end in the child."""
    before = """
import threading, mfakit
from mfakit._threads import process as _threads
from mfakit.mixture import mfa as module
mixtures = [mfakit.MFA([1.0], np.zeros((1, 10)), np.ones((1, 10, 1)), 1.0) for _ in range(2)]
inside, free, factorize = threading.Event(), threading.Event(), module.factorize
def slow(*args):
    with _threads.single_threaded_products():
        inside.set()
        free.wait(20)
        return factorize(*args)
module.factorize = slow
library = _threads._blas_libraries()[0]
_threads._set_threads(library, 2)
threading.Thread(target=lambda: mixtures[0].factors).start()
inside.wait(20)
module.factorize = factorize
"""
    inside = (
        "mixtures[1].log_prob(np.zeros((2, 10))); mixtures[0].log_prob(np.zeros((2, 10))); "
        "os._exit(0 if library.get_num_threads() == 2 and not _threads._held else 3)"
    )
    done = run_python(
        IN_CHILD.format(before=before, inside=inside).replace("print(os.waitpid", "free.set(); print(os.waitpid")
    )
    assert done.stdout == "0\n", done.stderr


def test_what_is_computed_once_is_stored_once() -> None:
    mfa = mfakit.MFA([1.0], np.zeros((1, 4)), np.ones((1, 4, 1)), 1.0)
    together = threading.Barrier(4)
    found: list[Any] = []

    def ask() -> None:
        together.wait(10)
        found.append(mfa.factors)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is mfa.factors for one in found)


@contextmanager
def _two_threads() -> Iterator[Callable[[], set[int]]]:
    """All BLAS libraries at two threads; gives what they have now."""
    import scipy.linalg  # noqa: F401 (brings a BLAS of its own)

    product_threads()
    libraries = _threads._blas_libraries()
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        _threads._set_threads(library, 2)
    try:
        yield lambda: {library.get_num_threads() for library in libraries}
    finally:
        for library, n_threads in zip(libraries, before, strict=True):
            _threads._set_threads(library, n_threads)


def test_the_last_one_out_restores_the_threads_of_products() -> None:
    with _two_threads() as threads:
        first, second = ExitStack(), ExitStack()
        first.enter_context(single_threaded_products())
        second.enter_context(single_threaded_products(scan=True))
        assert threads() == {1}
        first.close()
        assert threads() == {1}
        second.close()
        assert threads() == {2}


def test_threads_that_come_and_go_leave_the_threads_of_products() -> None:
    def come_and_go(seed: int) -> None:
        for scan in np.random.default_rng(seed).random(50) < 0.1:
            with single_threaded_products(scan=bool(scan)):
                np.ones((30, 30)) @ np.ones((30, 30))

    with _two_threads() as threads:
        several = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(4)]
        for one in several:
            one.start()
        for one in several:
            one.join()
        assert threads() == {2}
    assert not _threads._held


def _kmeans() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    mfakit.MixtureOfFactorAnalyzers(3, 1, max_iter=1, tol=0.0, random_state=0).fit(X)


def _gamma_path() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    svm = mfakit.classifiers.RBFSVM(gammas=[0.1, 0.2], accuracy_threshold=0.5, n_threads=2)
    svm.set_params(random_state=0).fit(X, X[:, 0] > 0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # one step is enough here
@pytest.mark.parametrize("what", ["kmeans", "gamma-path"])
def test_calls_that_overlap_leave_the_threads_of_products(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's limit is met at the beginning, and gone at the end."""
    from sklearn.cluster import KMeans

    from mfakit.classifiers.svm import gamma_path as path

    inside, alone = threading.Event(), threading.Event()

    def held_up(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside.set()
            assert alone.wait(20)
            return function(*args, **kwargs)

        return call

    if what == "kmeans":
        monkeypatch.setattr(KMeans, "fit", held_up(KMeans.fit))
    else:
        monkeypatch.setattr(path, "solve", held_up(path.solve))
    with _two_threads() as threads:
        other = threading.Thread(target=_kmeans if what == "kmeans" else _gamma_path)
        with single_threaded_products():
            other.start()
            assert inside.wait(20)
        alone.set()
        other.join()
        assert threads() == {2}


def _classifier() -> mfakit.BayesClassifier:
    """Two classes so far apart that densities of one under the other underflow."""
    rng = np.random.default_rng(0)
    return mfakit.BayesClassifier(
        [
            mfakit.MFA([0.3, 0.3, 0.4], 20 * rng.normal(size=(3, 5)), rng.normal(size=(3, 5, 2)), np.full((3, 5), 0.7)),
            mfakit.MFA([0.5, 0.5], rng.normal(size=(2, 5)), rng.normal(size=(2, 5, 2)), [0.5, 0.5]),
        ]
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # two steps are enough here
@pytest.mark.parametrize("backend", BACKENDS)  # a device has no such errors
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("which", ["under", "all"])
def test_what_underflows_is_no_error(which: str, dtype: type, backend: str) -> None:
    if (reason := why_missing(backend)) is not None:
        pytest.skip(f"{backend}: {reason}")
    clf = _classifier()
    mfa = clf.mixtures[0]

    def results() -> list[Any]:
        X, y = clf.sample(40, rng=1)
        X = X.astype(dtype)
        fit = mfakit.MixtureOfFactorAnalyzers(2, 1, max_iter=2, tol=0.0, random_state=0, backend=backend)
        attack = mfakit.attacks.gradient_attack(clf, X[:4], y[:4], step_size=0.5, max_steps=20, backend=backend)
        return [
            mfa.log_prob(X, backend=backend), mfa.component_log_prob(X, backend=backend),
            mfa.responsibilities(X, backend=backend), mfa.latent(X, backend=backend)[0],
            *(mfa.grad_log_prob(X, backend=backend, method=m) for m in ("auto", "dense", "residual")),
            mfa.reconstruct(X, backend=backend), mfa.sample(10, rng=0)[0], clf.decision_function(X, backend=backend),
            clf.decision_gradient(X, backend=backend), clf.predict(X, backend=backend),
            clf.predict_proba(X, backend=backend), clf.predict_log_proba(X, backend=backend),
            mfakit.attacks.minimal_perturbation(clf, X[:4], y[:4], path="features", backend=backend).lower,
            mfakit.point_subspace_distances(X, mfa, backend=backend), attack.x_adv, fit.fit(X).mfa_.means,
        ]  # fmt: skip

    expected = results()
    with np.errstate(**{which: "raise"}):
        got = results()
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_kernels_of_support_vector_machines_underflow() -> None:
    X, y = _classifier().sample(60, rng=0)
    with np.errstate(all="raise"):
        svm = mfakit.classifiers.RBFSVM(gamma=30.0).fit(X, y)
        values, gradients = svm.decision_function(X + 50.0), svm.decision_gradient(X + 50.0)
    np.testing.assert_allclose(values, svm.intercept_[0])
    assert not gradients.any()


CAPPED = """
import resource
import numpy as np, scipy.linalg.cython_blas, sklearn.svm
from mfakit.classifiers import LinearSVM, RBFSVM
X, y = np.random.default_rng(0).normal(size=(1500, 20)), np.arange(1500) % 2
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {room} * 2**20,) * 2)
try:
    {svm}.fit(X, y)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.skipif("MFAKIT_SANITIZE" in os.environ, reason="the sanitizer's allocator ends the process")
@pytest.mark.parametrize(
    ("svm", "room"),
    [("LinearSVM(max_iter=9)", 60), ("RBFSVM(gamma=0.05)", 45), ("RBFSVM(accuracy_threshold=0.1, n_threads=2)", 200)],
)
def test_machines_beyond_a_limit_of_memory_are_one_sentence(svm: str, room: int) -> None:
    done = run_python(CAPPED.format(svm=svm, room=room), OPENBLAS_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert "MiB more, which this process cannot have; train on fewer samples" in done.stdout, done.stdout
