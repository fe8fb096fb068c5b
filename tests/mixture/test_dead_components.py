"""Components of weight 0: whatever their parameters are, everything is as if they were not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit import theory
from mfakit.torch import BayesClassifierModule


def with_dead(mfa: mfakit.MFA, extreme: bool = False) -> mfakit.MFA:
    """The mixture with two more components of weight 0, first and last: broad ones at the origin that would be nearest
    to everything, or such that their numbers leave float64.
    """
    _, d, l = mfa.loadings.shape
    far, small = (1e200, 1e-250) if extreme else (0.0, 25.0)
    loadings = np.full((1, d, l), 1e200) if extreme else np.eye(d)[None, :, :l] * 9.0
    noise = np.full((1, *mfa.noise_variance.shape[1:]), small)

    def around(new: Any, old: Any) -> Any:
        return np.concatenate([new, old, new])

    return mfakit.MFA(
        around([0.0], mfa.weights),
        around(np.full((1, d), far), mfa.means),
        around(loadings, mfa.loadings),
        around(noise, mfa.noise_variance),
    )


@pytest.fixture(params=[False, True], ids=["broad", "extreme"])
def pair(request: pytest.FixtureRequest) -> tuple[mfakit.BayesClassifier, mfakit.BayesClassifier]:
    """A classifier, and the same with dead components."""
    mixtures = [random_mfa(3, 8, 2, sigma=0.1, seed=s) for s in (0, 1)]
    return mfakit.BayesClassifier(mixtures), mfakit.BayesClassifier([with_dead(m, request.param) for m in mixtures])


@pytest.mark.parametrize("extreme", [False, True])
def test_densities_know_nothing_of_them(backend: str, noise: str, extreme: bool) -> None:
    mfa = random_mfa(3, 8, 2, noise=noise)
    dead = with_dead(mfa, extreme)
    for dtype in (np.float64, np.float32):
        X = np.concatenate([mfa.sample(9, rng=0, dtype=dtype)[0], np.full((1, 8), 1e12, dtype)])
        rtol = 1e-10 if dtype == np.float64 else 1e-5
        for function in ("log_prob", "grad_log_prob", "reconstruct"):
            got, expected = (getattr(m, function)(X, backend=backend) for m in (dead, mfa))
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected[:9]).max())
        resp = dead.responsibilities(X, backend=backend)
        np.testing.assert_array_equal(resp[:, [0, -1]], 0.0)
        np.testing.assert_allclose(resp[:, 1:-1], mfa.responsibilities(X, backend=backend), atol=1e-5)
        assert np.isneginf(dead.component_log_prob(X, backend=backend)[:, [0, -1]]).all()
        mask = np.arange(8) < 3
        filled = (m.impute(X[:9], mask, backend=backend) for m in (dead, mfa))
        np.testing.assert_allclose(*filled, rtol=1e-6)


def test_no_sample_is_drawn_from_them() -> None:
    dead = with_dead(random_mfa(3, 8, 2))
    assert set(dead.sample(5000, rng=0)[1].tolist()) == {1, 2, 3}


def test_symmetric_leaves_them_dead() -> None:
    mfa = random_mfa(3, 8, 2)
    clf = mfakit.BayesClassifier([mfa.replace(weights=[0.5, 0.5, 0.0]), mfa])
    symmetric = clf.symmetric(0.01)
    np.testing.assert_array_equal(symmetric.mixtures[0].weights, [0.5, 0.5, 0.0])
    np.testing.assert_allclose(symmetric.mixtures[1].weights, 1 / 3)


def test_symmetric_leaves_padding_its_weight() -> None:
    mfa = random_mfa(4, 8, 2)
    clf = mfakit.BayesClassifier([mfa.replace(weights=[0.7, 0.3 - 5e-11, 5e-11, 0.0]), mfa])
    close(clf.symmetric(0.01).mixtures[0].weights, [0.5, 0.5, 5e-11, 0.0], rtol=1e-9)


def test_asymmetric_counts_the_living(pair: tuple[mfakit.BayesClassifier, mfakit.BayesClassifier]) -> None:
    plain, dead = (clf.asymmetric(direction=2) for clf in pair)
    for a, b in zip(plain.mixtures, dead.mixtures, strict=True):
        close(b.weights[b.live], a.weights, rtol=1e-14)
        close(b.means[-1], a.means[-1], rtol=1e-6)


def test_distances_leave_them_out(backend: str, pair: tuple[mfakit.BayesClassifier, mfakit.BayesClassifier]) -> None:
    plain, dead = pair[0].mixtures, pair[1].mixtures
    matrix = mfakit.subspace_distances(*plain, backend=backend)
    got = mfakit.subspace_distances(*dead, backend=backend)
    close(got[1:-1, 1:-1], matrix, rtol=1e-12)
    assert np.isinf(got[[0, -1]]).all()
    assert np.isinf(got[:, [0, -1]]).all()
    values, index = mfakit.subspace_distances(*dead, reduce="row_min", backend=backend)
    close(values[1:-1], matrix.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(index, [-1, *(matrix.argmin(axis=1) + 1), -1])
    values, pairs = mfakit.subspace_distances(*dead, reduce="smallest", n_smallest=99, backend=backend)
    close(values, np.sort(matrix.ravel()), rtol=1e-12)
    assert set(pairs.ravel().tolist()) == {1, 2, 3}
    counts, edges = mfakit.subspace_distances(*dead, reduce="histogram", bins=7, backend=backend)
    np.testing.assert_array_equal(counts, np.histogram(matrix, edges)[0])
    assert counts.sum() == matrix.size
    X = np.zeros((3, 8))
    points = mfakit.point_subspace_distances(X, dead[0], backend=backend)
    assert np.isinf(points[:, [0, -1]]).all()
    close(points[:, 1:-1], mfakit.point_subspace_distances(X, plain[0], backend=backend), rtol=1e-10)


def test_theorems_leave_them_out(pair: tuple[mfakit.BayesClassifier, mfakit.BayesClassifier]) -> None:
    plain, dead = pair
    assert theory.theorem2_radius(dead).radius == pytest.approx(theory.theorem2_radius(plain).radius, rel=1e-12)
    checks = (theory.check_theorem2(clf, n=20) for clf in (dead, plain))
    for got, expected in zip(*(vars(check).values() for check in checks), strict=True):
        assert got == pytest.approx(expected, rel=1e-9)
    X, y = plain.sample(20, rng=0, dtype=np.float64)
    for got, expected in zip(*(theory.own_and_other_distances(clf, X, y) for clf in (dead, plain)), strict=True):
        close(got, expected, rtol=1e-9)


def test_decisions_and_attacks_leave_them_out(pair: tuple[mfakit.BayesClassifier, mfakit.BayesClassifier]) -> None:
    plain, dead = pair
    X, y = plain.sample(8, rng=0)
    close(dead.decision_function(X), plain.decision_function(X), np.float32, rtol=1e-6)
    assert BayesClassifierModule(dead, "scaled").scale == BayesClassifierModule(plain, "scaled").scale
    clf, other = dead.symmetric(0.1), plain.symmetric(0.1)
    _same_attack(clf, other, X, y, "features")
    if np.abs(dead.mixtures[0].means).max() < 1e100:  # of such columns there are no inner products
        _same_attack(clf, other, X, y, "factor")
        bound, expected = (mfakit.attacks.minimal_perturbation(c, X, y) for c in (clf, other))
        close(bound.lower, expected.lower, rtol=1e-4)
        close(bound.upper, expected.upper, rtol=1e-4)


def _same_attack(dead: mfakit.BayesClassifier, plain: mfakit.BayesClassifier, X: Any, y: Any, path: str) -> None:
    found, expected = (mfakit.attacks.gradient_attack(clf, X, y, path=path) for clf in (dead, plain))
    close(found.l2, expected.l2, rtol=1e-4)
    assert set(found.target.tolist()) <= {1, 2, 3, -1}


def test_files_keep_them_dead(tmp_path: Path) -> None:
    dead = with_dead(random_mfa(3, 8, 2))
    dead.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(mfakit.MFA.load(tmp_path / "m.safetensors").weights, dead.weights)


def test_criteria_count_the_living() -> None:
    mfa = random_mfa(3, 8, 2)
    X = mfa.sample(50, rng=0)[0]
    plain, dead = (mfakit.MixtureOfFactorAnalyzers(3, 2, max_iter=0, random_state=0).fit(X) for _ in range(2))
    dead.mfa_ = with_dead(plain.mfa_)
    assert dead.bic(X) == pytest.approx(plain.bic(X))
    assert dead.aic(X) == pytest.approx(plain.aic(X))
    assert dead.score(X) == pytest.approx(plain.score(X))


@pytest.mark.parametrize("name", ["score", "bic", "aic"])
def test_a_sum_over_no_rows_is_an_error(name: str) -> None:
    X = random_mfa(1, 8, 2).sample(50, rng=0)[0]
    estimator = mfakit.MixtureOfFactorAnalyzers(1, 2, max_iter=0, random_state=0).fit(X)
    with pytest.raises(ValueError, match=f"{name} needs at least one sample, got X with 0 rows"):
        getattr(estimator, name)(X[:0])


@pytest.mark.parametrize("path", ["factor", "features"])
def test_a_component_without_weight_may_have_any_parameters_in_attacks(path: str) -> None:
    rng = np.random.default_rng(0)
    classes, living = [], []
    for _ in range(2):
        weights, means, loadings = np.array([0.5, 0.5, 0.0]), rng.normal(size=(3, 6)), rng.normal(size=(3, 6, 2))
        noise = np.full(3, 0.1)
        means[2], loadings[2], noise[2] = 1e200, 1e190, 1e-250
        classes.append(mfakit.MFA(weights, means, loadings, noise))
        living.append(mfakit.MFA(weights[:2], means[:2], loadings[:2], noise[:2]))
    clf, expected = mfakit.BayesClassifier(classes), mfakit.BayesClassifier(living)
    X, y = expected.sample(6, rng=0, dtype=np.float64)
    got, right = (mfakit.attacks.minimal_perturbation(c, X, y, path=path) for c in (clf, expected))
    close(got.lower, right.lower, rtol=1e-12)
    close(got.upper, right.upper, rtol=1e-9)
    walks = [mfakit.attacks.gradient_attack(c, X, y, path=path) for c in (clf, expected)]
    close(walks[0].x_adv, walks[1].x_adv, rtol=1e-9, atol=1e-9)
