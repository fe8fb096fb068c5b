"""The path of γ: the largest one that keeps its accuracy, by single fits."""

from __future__ import annotations

import numpy as np
import pytest
from svm_cases import Array

from mfakit.classifiers import RBFSVM


def rings(n: int = 400) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, 2))
    X[:, 0] += 3 * rng.integers(2, size=n)
    return X, (np.abs(X[:, 0] - 1.5) < 1.5).astype(int)


def test_the_largest_accurate_gamma_is_found_and_the_path_is_kept() -> None:
    X, y = rings()
    svm = RBFSVM(accuracy_threshold=0.93, random_state=0, gammas=[30.0, 0.01, 0.3, 1.0, 300.0, 3000.0]).fit(X, y)
    path = svm.gamma_path_
    assert path.gammas.tolist() == [0.01, 0.3, 1.0, 30.0, 300.0, 3000.0]
    assert path.accuracy.shape == path.n_support.shape == (6,)
    good = path.accuracy >= 0.93
    assert 0 < good.sum() < 6
    assert svm.gamma_ == path.gamma == path.gammas[good].max()
    assert (path.n_support > 0).all()
    plain = RBFSVM(gamma=svm.gamma_).fit(X, y)
    np.testing.assert_array_equal(svm.decision_function(X), plain.decision_function(X))  # fitted to all samples again
    assert not hasattr(svm.set_params(gamma=1.0).fit(X, y), "gamma_path_")


def test_the_path_is_that_of_single_fits() -> None:
    """Accuracy and support vectors of one γ, by a single fit, on the same held-out samples."""
    from mfakit._checks import as_generator
    from mfakit.classifiers.svm.gamma_path import stratified_split

    X, y = rings()
    found = RBFSVM(accuracy_threshold=0.0, random_state=3, gammas=[0.5]).fit(X, y).gamma_path_
    train, held = stratified_split(y, 0.2, as_generator(3))
    assert len(held) == pytest.approx(80, abs=1)
    assert not set(train) & set(held)
    single = RBFSVM(gamma=0.5).fit(X[train], y[train])
    assert found.accuracy[0] == single.score(X[held], y[held])
    assert found.n_support[0] == len(single.support_)


def test_a_seed_is_enough_and_threads_change_nothing() -> None:
    X, y = rings()
    runs = [RBFSVM(accuracy_threshold=0.5, random_state=1, n_threads=t).fit(X, y) for t in (1, 3)]
    np.testing.assert_array_equal(runs[0].gamma_path_.accuracy, runs[1].gamma_path_.accuracy)
    assert runs[0].gamma_ == runs[1].gamma_
    assert len(runs[0].gamma_path_.gammas) == 17


def test_no_accurate_gamma_is_an_error_with_the_best_seen() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^no γ of the path keeps a validation accuracy of 0.99: the best is 0\.\d+ "):
        RBFSVM(random_state=0).fit(rng.normal(size=(60, 3)), rng.integers(2, size=60))


def test_the_best_accuracy_of_the_path_is_a_threshold_that_is_always_met() -> None:
    """Few samples that overlap reach no fixed share; the choice is still the largest γ that nothing surpasses."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.integers(2, size=60)
    svm = RBFSVM(accuracy_threshold="best", random_state=0).fit(X, y)
    path = svm.gamma_path_
    assert path.accuracy.max() < 0.9
    assert path.chosen == np.flatnonzero(path.accuracy == path.accuracy.max())[-1]
    with pytest.raises(ValueError, match="accuracy_threshold must be a share of 1 or \"best\", got 'most'"):
        RBFSVM(accuracy_threshold="most").fit(X, y)
