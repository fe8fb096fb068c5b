"""Fits that go on where they were killed: the same bits, for the same fit alone, and a file that is whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from support import random_mfa

import mfakit
from mfakit._io.tensor_files import read_tensors, write_tensors
from mfakit.fit import MFAClassifier, MixtureOfFactorAnalyzers, em
from mfakit.fit.bounds import Bounds
from mfakit.mixture.parameters import PARAMETERS

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Of each fit: steps in all, and those that an interrupted one makes.
STEPS, FIRST = 6, 3


def data(n: int = 300, d: int = 6, dtype: Any = np.float32) -> Array:
    return random_mfa(3, d, 2, seed=5, spread=0.5).sample(n, rng=1, dtype=dtype)[0]


def estimator(**changes: Any) -> MixtureOfFactorAnalyzers:
    settings = {"n_components": 4, "n_factors": 2, "tol": 0.0, "max_iter": STEPS, "random_state": 0, **changes}
    return MixtureOfFactorAnalyzers(**settings)


class Killed(BaseException):
    """What ends a process, for a test that stays in it."""


@contextmanager
def at_most(n: int) -> Iterator[None]:
    """No more than n E-steps are made in the block: the next one ends it."""
    real, left = em._expectation, [n]

    def limited(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(em, "_expectation", limited)
        yield


@contextmanager
def killed(n: int) -> Iterator[None]:
    """The block is ended after n E-steps."""
    with pytest.raises(Killed), at_most(n):
        yield


def assert_equal_bits(found: MixtureOfFactorAnalyzers, expected: MixtureOfFactorAnalyzers) -> None:
    for name in PARAMETERS:
        got, wanted = getattr(found.mfa_, name), getattr(expected.mfa_, name)
        assert got.dtype == wanted.dtype
        assert got.tobytes() == wanted.tobytes(), name
    for name in ("history_", "converged_", "n_iter_", "lower_bound_"):
        assert getattr(found, name) == getattr(expected, name), name


CASES: dict[str, dict[str, Any]] = {
    "isotropic": {},
    "diagonal": {"noise": "diagonal"},
    "no factors": {"n_factors": 0},
    "bounded": {"method": "pruned"},
    "diagonal, bounded": {"noise": "diagonal", "method": "pruned"},
    "residual": {"method": "residual"},
    "missing": {"missing": "marginal"},
    "several starts": {"n_init": 3, "init": "random"},
    "of a mixture": {"init": random_mfa(4, 6, 2, seed=9)},
    "without a seed": {"random_state": None, "init": random_mfa(4, 6, 2, seed=9)},
    "re-seeded": {"init": random_mfa(4, 6, 2, seed=9).replace(means=np.diag([0, 0, 0, 0, 0, 1e3])[[0, 1, 2, 5]])},
}


@pytest.mark.parametrize("case", CASES)
def test_a_killed_fit_goes_on_as_if_nothing_had_happened(case: str, tmp_path: Path) -> None:
    X, how = data(), CASES[case]
    if case == "missing":
        X = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    expected = estimator(**how).fit(X)
    path = tmp_path / "fit.safetensors"
    for n in (1, FIRST, FIRST):  # the E-step of the start, and no step; then some; and, of several starts, further ones
        with killed(n):
            estimator(**how).fit(X, checkpoint=path, checkpoint_every=0)
    assert_equal_bits(estimator(**how).fit(X, checkpoint=path, checkpoint_every=0), expected)
    if case == "re-seeded":
        assert [event["event"] for event in expected.history_["events"]] == ["reseeded"]
    again = estimator(**how).fit(X, checkpoint=path)  # of the finished state
    assert_equal_bits(again, expected)
    assert not list(tmp_path.glob("*.tmp"))


def test_projections_are_not_made_again(tmp_path: Path, monkeypatch: Any) -> None:
    """Bounds are kept from step to step: made anew after a restart they would be others, and so would be rounding."""
    made: list[int] = []
    choose = Bounds._choose

    def counted(self: Bounds, *args: Any) -> None:
        made.append(self._step)
        choose(self, *args)

    path = tmp_path / "fit.safetensors"
    with killed(FIRST):
        estimator(method="pruned").fit(data(), checkpoint=path, checkpoint_every=0)
    monkeypatch.setattr(Bounds, "_choose", counted)
    estimator(method="pruned").fit(data())
    fresh, made[:] = list(made), []
    estimator(method="pruned").fit(data(), checkpoint=path)
    assert made == [step for step in fresh if step > FIRST]


def test_more_steps_may_be_asked_for_and_fewer_not(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    estimator(max_iter=FIRST).fit(data(), checkpoint=path)
    assert_equal_bits(estimator().fit(data(), checkpoint=path), estimator().fit(data()))
    with pytest.raises(ValueError, match=r"is of step 6, beyond max_iter=3; raise max_iter, or remove the file"):
        estimator(max_iter=3).fit(data(), checkpoint=path)


def test_a_converged_fit_stays_converged(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    expected = estimator(tol=0.2, max_iter=50).fit(data())
    assert expected.converged_
    estimator(tol=0.2, max_iter=50).fit(data(), checkpoint=path)
    assert_equal_bits(estimator(tol=0.2, max_iter=60).fit(data(), checkpoint=path), expected)


def test_blocks_go_on_from_blocks_and_from_the_array(tmp_path: Path) -> None:
    X, path, w = data(), tmp_path / "fit.safetensors", np.random.default_rng(0).uniform(0.5, 2, 300)
    with killed(FIRST):
        estimator().fit(X, sample_weight=w, checkpoint=path, checkpoint_every=0)
    parts = [(X[:100], w[:100]), (X[100:], w[100:])]
    est = estimator().fit_blocks(parts, weighted=True, checkpoint=path, checkpoint_every=0)
    np.testing.assert_allclose(est.means_, estimator().fit(X, sample_weight=w).means_, rtol=1e-6)
    with pytest.raises(ValueError, match="the data is"):
        estimator().fit(X, checkpoint=path)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "components": ({"n_components": 3}, "n_components is 4 there and 3 here"),
    "factors": ({"n_factors": 1}, "n_factors is 2 there and 1 here"),
    "noise": ({"noise": "diagonal"}, "noise is 'isotropic' there and 'diagonal' here"),
    "tol": ({"tol": 1e-3}, "tol is 0.0 there and 0.001 here"),
    "floor": ({"noise_floor": 1e-3}, "noise_floor is None there and 0.001 here"),
    "seed": ({"random_state": 1}, "random_state is 0 there and 1 here"),
    "generator": ({"random_state": np.random.default_rng(0)}, "random_state is 0 there and 'one of digest"),
    "start": ({"init": "random"}, "init is 'kmeans' there and 'random' here"),
    "mixture": ({"init": random_mfa(4, 6, 2)}, r"init is 'kmeans' there and 'MFA.*; the start is None there"),
    "means": ({"means_init": np.eye(4, 6)}, "means_init is None there and 'one of digest"),
    "method": ({"method": "residual"}, "method is 'auto' there and 'residual' here"),
}


@pytest.fixture(scope="module")
def of_another_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "fit.safetensors"
    with pytest.warns(ConvergenceWarning):
        estimator(max_iter=1).fit(data(), checkpoint=path)
    return path


@pytest.mark.parametrize("case", OTHERS)
def test_another_fit_is_refused_with_what_differs(case: str, of_another_fit: Path) -> None:
    changes, message = OTHERS[case]
    before = of_another_fit.read_bytes()
    with pytest.raises(ValueError, match=rf"is the checkpoint of another fit: {message}.*Give this fit another path"):
        estimator(**changes).fit(data(), checkpoint=of_another_fit)
    assert of_another_fit.read_bytes() == before


def test_other_data_and_versions_are_refused(
    of_another_fit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = data()
    one[150, 3] += 1e-3
    for X in (one, data(301), data()[::-1], data(dtype=np.float64)):
        with pytest.raises(ValueError, match=r"the data is '\[300, 6\] float32, digest \w+' there and '\[30"):
            estimator().fit(X, checkpoint=of_another_fit)
    with monkeypatch.context() as patched:
        patched.setattr("mfakit.fit.checkpoint.__version__", "99.0")
        with pytest.raises(ValueError, match=rf"mfakit is '{mfakit.__version__}' there and '99\.0' here"):
            estimator().fit(data(), checkpoint=of_another_fit)
    tensors, settings = read_tensors(of_another_fit, "fit-checkpoint")
    path = tmp_path / "old.safetensors"
    write_tensors(path, "fit-checkpoint", tensors, {**settings, "state_version": 0})
    with pytest.raises(ValueError, match="its version is 0 there and 1 here"):
        estimator().fit(data(), checkpoint=path)


def test_a_file_that_is_no_checkpoint_is_refused(of_another_fit: Path, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    random_mfa().save(path)
    with pytest.raises(ValueError, match="holds a mfa, not a fit-checkpoint"):
        estimator().fit(data(), checkpoint=path)
    path.write_bytes(of_another_fit.read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        estimator().fit(data(), checkpoint=path)
    tensors, settings = read_tensors(of_another_fit, "fit-checkpoint")
    for random in ({}, {"bit_generator": "MT19937", "state": {}}, {**settings["random"], "state": {"state": -1}}):
        write_tensors(path, "fit-checkpoint", tensors, {**settings, "random": random})
        with pytest.raises(ValueError, match="its random numbers are no state of a PCG64"):
            estimator().fit(data(), checkpoint=path)
    for name in ("sum_xz", "reseeds", "mfa.means", "worst.rows"):
        for value in (None, np.zeros(3)):
            changed = {key: array for key, array in tensors.items() if key != name or value is not None}
            changed |= {} if value is None else {name: value}
            write_tensors(path, "fit-checkpoint", changed, settings)
            with pytest.raises(ValueError, match=r"(is no whole checkpoint|lacks means|is not a valid)"):
                estimator().fit(data(), checkpoint=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint": 3}, r"checkpoint must be the path of a \.safetensors file, or None, got 3"),
        ({"checkpoint": "fit.npy"}, r"\.safetensors file, or None, got 'fit\.npy'"),
        ({"checkpoint": "fit.safetensors", "checkpoint_every": -1}, "checkpoint_every must be a non-negative number"),
        ({"checkpoint": "nowhere/fit.safetensors"}, "no folder nowhere to write fit.safetensors to"),
    ],
)
def test_bad_arguments(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        estimator().fit(data(), **arguments)
    with pytest.raises(ValueError, match="checkpoint is for solver=\"em\", got solver='sgd'"):
        estimator(solver="sgd").fit(data(), checkpoint="fit.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_step_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from mfakit.fit import checkpoint as module

    path, written = tmp_path / "fit.safetensors", []
    real = module.write_tensors

    def fails(*args: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(real(*args))

    monkeypatch.setattr(module, "write_tensors", fails)
    with pytest.raises(OSError, match=r"of step 3 cannot be written \(No space left on device\); that of step 2 stays"):
        estimator().fit(data(), checkpoint=path, checkpoint_every=0)
    monkeypatch.undo()
    assert_equal_bits(estimator().fit(data(), checkpoint=path), estimator().fit(data()))


def test_writes_are_as_far_apart_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mfakit.fit import checkpoint as module

    written: list[int] = []
    real = module.write_tensors

    def counted(path: Any, kind: str, tensors: Any, settings: Any) -> None:
        written.append(settings["state"]["n_iter"])
        real(path, kind, tensors, settings)

    monkeypatch.setattr(module, "write_tensors", counted)
    clock = iter(range(100))  # a second between any two looks at it
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    estimator(max_iter=10).fit(data(), checkpoint=tmp_path / "fit.safetensors", checkpoint_every=3.0)
    assert written == [3, 6, 9, 10]


def test_each_class_has_its_own(tmp_path: Path) -> None:
    X = data()
    y = (np.arange(300) % 3 == 0).astype(int)
    clf = MFAClassifier(2, 1, tol=0.0, max_iter=3, random_state=0)
    expected = clf.fit(X, y).bayes_
    path = tmp_path / "fit.safetensors"
    with killed(6):  # four of the first class and two of the second
        clf.fit(X, y, checkpoint=path, checkpoint_every=0)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fit-class0.safetensors", "fit-class1.safetensors"]
    with at_most(2):
        found = clf.fit(X, y, checkpoint=path, checkpoint_every=0).bayes_
    for got, wanted in zip(found.mixtures, expected.mixtures, strict=True):
        assert got.means.tobytes() == wanted.means.tobytes()


KILLED = """
import os, signal, sys, warnings
import numpy as np
from mfakit._io import outputs
from mfakit.fit import MixtureOfFactorAnalyzers, em

path, data, where, count = *sys.argv[1:4], int(sys.argv[4])
owner, name = {"in a step": (em, "_expectation"), "while it writes": (outputs.os, "replace")}[where]
real, calls = getattr(owner, name), []

def deadly(*args):
    calls.append(1)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

setattr(owner, name, deadly)
est = MixtureOfFactorAnalyzers(4, 2, tol=0.0, max_iter=6, random_state=0)
est.fit(data, checkpoint=path, checkpoint_every=0)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("where", ["in a step", "while it writes"])
def test_kill_9(where: str, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", data())
    path = tmp_path / "fit.safetensors"
    command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "X.npy"), where, "4"]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert path.exists()
    assert bool(list(tmp_path.glob(".mfakit-*.tmp"))) == (where == "while it writes")
    found = estimator().fit(tmp_path / "X.npy", checkpoint=path, checkpoint_every=0)
    assert_equal_bits(found, estimator().fit(data()))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["X.npy", "fit.safetensors"]
