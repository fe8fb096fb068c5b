"""Support vector machines refuse bad samples and parameters, and end early without a half-made fit."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from svm_cases import BOTH, BOTH_IDS, data

from mfakit.classifiers import RBFSVM, LinearSVM
from mfakit.classifiers.svm import gram as _gram


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
@pytest.mark.parametrize(
    ("X", "y", "error", "match"),
    [
        (np.ones((6, 3)), [0, 1] * 3, ValueError, "all 6 rows of X are equal"),
        (np.eye(4), [1, 1, 1, 1], ValueError, "y has one class only, 1"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], ValueError, "X has NaN or inf, first in row 0"),
        (np.eye(4), [0, 1, 0], ValueError, "inconsistent numbers: 4 and 3"),
        (np.eye(4), None, ValueError, "requires y to be passed"),
        (np.eye(4) > 0, [0, 1, 0, 1], TypeError, "must be real numbers"),
        (1e200 * np.eye(4), [0, 1, 0, 1], ValueError, "too large for squared lengths"),
        (np.zeros((0, 3)), [], ValueError, r"0 sample\(s\)"),
        (np.eye(4), np.arange(4).astype("datetime64[D]"), ValueError, "y must hold class labels, .* got datetime64"),
        (np.eye(4), [0j, 1, 0, 1], ValueError, "y must hold class labels, integers or strings, got complex128"),
        (np.eye(4), [0, np.nan, 0, 1], ValueError, "y contains NaN"),
    ],
)
def test_bad_samples_are_named(svm: Any, X: Any, y: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match) as caught, np.errstate(over="ignore"):
        clone(svm).fit(X, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"C": 0.0}, "C must be a positive"), ({"tol": np.nan}, "tol must be"), ({"max_iter": -2}, "max_iter must be"),
        ({"max_iter": 0}, "max_iter must be an integer of at least 1, or -1 for no limit, got 0"),
        ({"max_iter": 2**40}, "max_iter must be an integer of at most 2147483647"),
        ({"gammas": "abc"}, "gammas must be a sequence of positive"), ({"gammas": {1: 2}}, "gammas must be a sequence"),
        ({"gamma": -1.0}, "gamma must be a positive"), ({"gamma": "auto"}, "gamma must be a positive number or one of"),
        ({"gammas": [1.0, 0.0]}, "gammas must be a sequence of positive"), ({"gammas": []}, "gammas must be"),
        ({"accuracy_threshold": 1.1}, "accuracy_threshold must be"),
        ({"validation_share": 1.0}, "validation_share must be"), ({"n_threads": 0}, "n_threads must be"),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RBFSVM(**parameters).fit(*data())


@pytest.mark.parametrize("svm", BOTH, ids=BOTH_IDS)
def test_use_before_fit_and_with_other_widths(svm: Any) -> None:
    svm = clone(svm)
    for call in (svm.predict, svm.decision_function, svm.decision_gradient):
        with pytest.raises(NotFittedError):
            call(np.ones((2, 20)))
    with pytest.raises(NotFittedError):
        svm.save("nowhere.safetensors")
    svm.fit(*data())
    with pytest.raises(ValueError, match=r"X has 4 features, but .* is expecting 20"):
        svm.predict(np.ones((2, 4)))
    with pytest.raises(ValueError, match="first in row 1"):
        svm.decision_gradient(np.array([[0.0] * 20, [np.inf] * 20]))
    with pytest.raises(ValueError, match="at least one sample"):
        svm.score(np.ones((0, 20)), [])


def test_too_many_samples_are_refused_before_memory_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gram.os, "sysconf", lambda name: 1000)
    with pytest.raises(MemoryError, match="the kernel matrix of 400 samples takes"):
        LinearSVM().fit(*data(400))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_is_heard_while_libsvm_runs() -> None:
    """Noise at a large C keeps libsvm busy for far longer than the promised half second."""
    code = (
        "import os, signal, threading, time, numpy as np\n"
        "from mfakit.classifiers import LinearSVM\n"
        "rng = np.random.default_rng(0)\n"
        "X, y = rng.normal(size=(1500, 30)), rng.integers(2, size=1500)\n"
        "def interrupt():\n"
        "    global sent\n"
        "    sent = time.perf_counter(); os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Timer(1.5, interrupt).start()\n"
        "svm = LinearSVM(C=1e6)\n"
        "try:\n"
        "    svm.fit(X, y)\n"
        "except KeyboardInterrupt:\n"
        "    print(time.perf_counter() - sent, hasattr(svm, 'support_'), flush=True); os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    seconds, fitted = done.stdout.split()
    assert float(seconds) < 0.5
    assert fitted == "False"


def test_a_solver_that_gives_up_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        svm = RBFSVM(gamma=0.1, max_iter=3).fit(*data())
    assert svm.n_iter_.tolist() == [3]


def test_a_failed_fit_leaves_the_machine_as_it_was() -> None:
    X, y = data()
    svm = RBFSVM(gamma="scale").fit(X, y)
    before = svm.decision_function(X)
    with pytest.raises(ValueError, match="all 9 rows"):
        svm.fit(np.ones((9, 5)), [0, 1, 0] * 3)
    np.testing.assert_array_equal(svm.decision_function(X), before)


def test_what_never_ends_is_ended() -> None:
    """Classes that overlap, at a scale where C is nothing: libsvm without a limit does not come back."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 4))
    X[:, 0] += 2 * y
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        svm = LinearSVM(max_iter=10_000).fit(X * 1e6, y)
    assert np.isfinite(svm.coef_).all()
    assert LinearSVM().max_iter == RBFSVM().max_iter == 10_000_000


def test_squares_that_underflow() -> None:
    X, y = data()
    with pytest.raises(ValueError, match="squared lengths of the centred rows of X underflow; scale X up"):
        LinearSVM().fit(X * 1e-200, y)
