"""Ctrl-C: soon, inside every long function, and without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupts import Cases

import mfakit
from mfakit._threads import process as _threads
from mfakit._threads.process import Guard, _Guard

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

HERE = Path(__file__).parent


def _run(code: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(HERE), *sys.path])
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


# A function of ours that a long call goes through again and again is slowed down, and asks for Ctrl-C the third time:
# a thread that does not check whether it was cancelled goes on for seconds.
INSIDE = """
import importlib, logging, os, signal, sys, threading, time
import numpy as np, mfakit
from mfakit import attacks, classifiers
signal.signal(signal.SIGINT, signal.default_int_handler)
logging.getLogger("mfakit").setLevel(logging.ERROR)
rng = np.random.default_rng(0)
mfa = mfakit.MFA(np.full(4, 0.25), rng.random((4, 60)), rng.standard_normal((4, 60, 3)) / 10, 1e-2)
clf = mfakit.BayesClassifier([mfa, mfa.replace(means=1 - mfa.means)])
diagonal = mfakit.BayesClassifier([m.replace(noise_variance=np.full((4, 60), 1e-2)) for m in clf.mixtures])
X, y = clf.sample(4000, rng=0)
from mfakit._arrays import sharing as _shares
_shares.SERIAL_STEPS = _shares.SHARE_STEPS = _shares.ROWS_PER_THREAD = 1
_shares.SPIN_STEPS = 2**60
alone, many = dict(block_rows=20, n_threads=1), dict(block_rows=20, n_threads=2)
from mfakit.fit import workers
workers.WORKER_STEPS = 1
def fit(**settings):
    return mfakit.MixtureOfFactorAnalyzers(3, 2, tol=0.0, max_iter=1000, init="random", random_state=0, **settings)
em, threaded, sgd = fit(n_threads=1, block_rows=20), fit(**many), fit(solver="sgd", batch_size=20)
from mfakit.mixture.subspaces import pairs as _pairs
_pairs.BATCH_BYTES = 1
svm = classifiers.RBFSVM(gammas=[1e-3 * 1.1**i for i in range(80)], accuracy_threshold=0.1, n_threads=2)
images = dict(image_shape=(6, 10, 1), width=2, depth=2, batch_size=20, epochs=100, n_threads=1)
cnn = classifiers.CNN(**images)
trades = classifiers.TRADES(**images)
walk = dict(step_size=1e-9, max_steps=10**5)
RUNS = {
    "log_prob": ("mfakit.mixture.evaluator:Evaluator.center", lambda: mfa.log_prob(X, block_rows=20, n_threads=1)),
    "log_prob in threads": ("mfakit.mixture.evaluator:Evaluator.center", lambda: mfa.log_prob(X, **many)),
    "gradients in threads": ("mfakit.mixture.evaluator:Evaluator.gradient", lambda: clf.decision_gradient(X, **many)),
    "impute": ("mfakit.mixture.observed:_refine", lambda: mfa.impute(X[:200], rng.random((200, 60)) > 0.5)),
    "attack in the features": ("mfakit.attacks.models.bayes:MixtureVictim.direction",
                      lambda: attacks.gradient_attack(clf, X[:50], path="features", n_threads=1, **walk)),
    "attack in the features, in threads": ("mfakit.attacks.models.bayes:MixtureVictim.direction",
                                 lambda: attacks.gradient_attack(clf, X[:50], path="features", n_threads=2, **walk)),
    "factor attack": ("mfakit.attacks.gradient.walk:FactorWalk.run",
                      lambda: attacks.gradient_attack(clf, X, path="factor", step_size=1.0, **alone)),
    "factor attack in threads": ("mfakit.attacks.gradient.walk:FactorWalk.run",
                                 lambda: attacks.gradient_attack(clf, X, path="factor", step_size=1.0, **many)),
    "brackets": ("mfakit.attacks.minimal.attack:FeatureSearch.bracket",
                 lambda: attacks.minimal_perturbation(diagonal, X[:400])),
    "distances": ("mfakit.mixture.subspaces.pairs:_distances", lambda: mfakit.subspace_distances(
        mfa.replace(weights=np.full(4, 0.25)), mfa.replace(means=mfa.means + 1e-9), reduce="row_min")),
    "EM": ("mfakit.fit.workers:Evaluator.__call__", lambda: em.fit(X)),
    "EM in threads": ("mfakit.fit.workers:Evaluator.__call__", lambda: threaded.fit(X)),
    "steps of EM": ("mfakit.fit.em:maximization", lambda: em.fit(X[:100])),
    "SGD": ("mfakit.fit.sgd:_step", lambda: sgd.fit(X)),
    "SVM": ("mfakit.classifiers.svm.gamma_path:_Study.__call__", lambda: svm.fit(X[:200], y[:200])),
    "CNN": ("mfakit.classifiers.networks.training:_gradient", lambda: cnn.fit(X, y)),
    "TRADES": ("mfakit.classifiers.networks.training:_gradient", lambda: trades.fit(X, y)),
    "Carlini and Wagner": ("mfakit.attacks.carlini_wagner.network:Network.descend",
                           lambda: attacks.carlini_wagner_l2(clf, X[:8], bounds=None)),
    "theorem 2": ("mfakit.attacks.minimal.attack:FactorSearch.bracket",
                  lambda: mfakit.theory.validate_theorem2(clf, n=5)),
}
"""
MEASURE = """
def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mfakit")]
def interrupted(where, call):
    module, _, path = where.partition(":")
    *owner, name = path.split(".")
    owner = getattr(importlib.import_module(module), owner[0]) if owner else importlib.import_module(module)
    original, calls, sent = getattr(owner, name), [], []
    def slow(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.03)
        return original(*args, **kwargs)
    setattr(owner, name, slow)
    try:
        call()
        outcome = "ended"
    except KeyboardInterrupt:
        outcome = f"{time.monotonic() - sent[0]:.3f}"
    finally:
        setattr(owner, name, original)
    deadline = time.monotonic() + 0.5
    while ours() and time.monotonic() < deadline:  # libsvm comes to its end by itself
        time.sleep(0.01)
    return outcome, len(calls), len(ours())
"""


def _names() -> list[str]:
    return [line.split('"')[1] for line in INSIDE.splitlines() if line.startswith('    "')]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[str]]:
    code = f"""{INSIDE}{MEASURE}
for name, (where, call) in RUNS.items():
    print(name, *interrupted(where, call), sep="|", flush=True)
print("fitted", *[k for e in (em, threaded, sgd, svm, cnn, trades) for k in vars(e) if k.endswith("_")], sep="|")
"""
    pytest.importorskip("torch")
    done = _run(code)
    assert done.returncode == 0, done.stderr
    return {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("name", _names())
def test_ctrl_c_is_heard_inside(name: str, outcomes: dict[str, list[str]]) -> None:
    latency, calls, threads_left = outcomes[name]
    assert float(latency) < 0.5
    assert int(calls) < 12  # what was slowed down was not gone through to the end
    assert int(threads_left) == 0


def test_interrupted_fits_leave_estimators_unfitted(outcomes: dict[str, list[str]]) -> None:
    assert outcomes["fitted"] == []


@pytest.mark.parametrize("torch", [False, True])
def test_interrupts_at_random_times_do_no_damage(torch: bool) -> None:
    if torch:
        pytest.importorskip("torch")
    only = ["MFAModule", "BayesClassifierModule", "CNN", "decision of CNN"] if torch else []
    args = ["interrupts.py", "50", "--seed", str(int(torch)), *(["--only", *only] if torch else ["--no-torch"])]
    done = _run(f"import sys, interrupts; sys.argv = {args!r}; sys.exit(interrupts.main())")
    assert "damaged: 0 of 50" in done.stdout, done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore:EM has not converged")
def test_numpys_own_error_settings_do_not_outlive_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy.errstate restores in Python code: an interrupt before the first line of its __exit__ leaves what it set,
    at each place where NumPy, scikit-learn or mfakit use it.
    """
    restore, seen, at = np.errstate.__exit__, [0], [-1]

    def interrupted(self: Any, *error: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            seen[0] += 1
            if seen[0] == at[0]:
                raise KeyboardInterrupt
        restore(self, *error)

    monkeypatch.setattr(np.errstate, "__exit__", interrupted)
    before, interrupts = np.geterr(), 0
    for name, call in Cases(tmp_path).calls().items():
        seen[0], at[0] = 0, -1
        call()
        for at[0] in {*np.linspace(1, seen[0], 5).astype(int).tolist()} if seen[0] else ():
            seen[0] = 0
            with suppress(KeyboardInterrupt):
                call()
            interrupts += seen[0] == at[0]
            assert np.geterr() == before, name
    assert interrupts >= 20


def test_a_thread_whose_start_was_interrupted_is_not_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    before, launch, ran = threading.active_count(), threading._start_new_thread, []

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(threading, "_start_new_thread", launch)
        raise KeyboardInterrupt

    for call in (
        lambda: _threads.run_together([lambda: ran.append(1)] * 2, threading.Event()),
        lambda: _threads.interruptible(lambda: ran.append(1)),
    ):
        monkeypatch.setattr(threading, "_start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
        deadline = time.monotonic() + 1.0
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == before
    assert not ran


class Interrupted:
    """Something that is taken and put back, with an interrupt at each place in turn."""

    def __init__(self, place: int) -> None:
        self.place, self.steps, self.taken = place, 0, False

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.place:
            raise KeyboardInterrupt

    def take(self) -> str:
        self.step()
        self.taken = True
        self.step()
        return "given"

    def undo(self) -> None:
        self.step()
        self.taken = False
        self.step()


@pytest.mark.parametrize("guard", [Guard, _Guard])
@pytest.mark.parametrize("place", [1, 2, 3, 4, 5, 6])
def test_a_guard_puts_back_what_is_interrupted_anywhere(guard: Any, place: int) -> None:
    what = Interrupted(place)

    def block() -> None:
        with guard(what.take, what.undo) as given:
            assert (given, what.taken) == ("given", True)
            what.step()
        if place == 6:  # later than the last step
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    assert not what.taken


@pytest.mark.parametrize("guard", [Guard, _Guard])
def test_a_guard_passes_errors_on_or_translates_them(guard: Any) -> None:
    what = Interrupted(0)

    def translate(error: BaseException) -> None:
        if "room" in str(error):
            raise MemoryError("none left") from None

    with pytest.raises(MemoryError, match="none left"), guard(what.take, what.undo, translate):
        raise RuntimeError("no room")
    assert not what.taken
    with pytest.raises(RuntimeError, match="another"), guard(what.take, what.undo, translate):
        raise RuntimeError("another")
    assert not what.taken


def test_a_guard_that_is_dropped_puts_back() -> None:
    if Guard is _Guard:
        pytest.skip("only the compiled one does")
    what = Interrupted(0)
    guard = Guard(what.take, what.undo)
    guard.__enter__()
    assert what.taken
    del guard
    assert not what.taken


def test_an_estimator_has_the_attributes_of_one_fit() -> None:
    """Each attribute that is set is a step at which an interrupt may come: there is one step."""
    X = np.random.default_rng(0).normal(size=(60, 4))
    y = X[:, 0] > 0
    estimators = [
        mfakit.MixtureOfFactorAnalyzers(2, 1, max_iter=0, random_state=0),
        mfakit.classifiers.LinearSVM(), mfakit.classifiers.RBFSVM(gamma=0.5),
        mfakit.classifiers.RBFSVM(gammas=[0.1], accuracy_threshold=0.1, random_state=0),
    ]  # fmt: skip
    for estimator in estimators:
        seen: list[tuple[int, str]] = []

        class Watched(type(estimator)):  # type: ignore[misc]
            def __setattr__(self, name: str, value: Any, seen: list[tuple[int, str]] = seen) -> None:
                super().__setattr__(name, value)
                seen.append((id(self), name))

        watched = Watched(**estimator.get_params())
        watched.fit(X[:, :3], y)
        first = set(vars(watched))
        watched.feature_names_in_ = np.array(["a", "b", "c"], object)  # as of a DataFrame
        seen.clear()
        watched.fit(X, y)
        assert [name for owner, name in seen if owner == id(watched)] == ["__dict__"]
        assert set(vars(watched)) == first
        assert watched.n_features_in_ == 4


def test_held_settings_are_restored_from_any_state() -> None:
    """An interrupt may leave `take` or `let_go` at any of its steps; `let_go` again restores all the same."""
    value, places = [2], range(1, 9)
    for place in places:
        steps = [0]

        def step(steps: list[int] = steps, place: int = place) -> None:
            steps[0] += 1
            if steps[0] == place:
                raise KeyboardInterrupt

        def get() -> int:
            step()
            return value[0]

        def put(new: int) -> None:
            value[0] = new
            step()

        holder = _threads.Holder([_threads.Setting("of a test", get, put, 1)])
        try:
            with Guard(holder.take, holder.let_go):
                assert value == [1]
        except KeyboardInterrupt:
            pass
        assert value == [2], place
        assert "of a test" not in _threads._held
