"""The start of a fit: groups and their truncated PPCA, or one's own: a mixture, means, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from support import close, random_mfa

import mfakit
from mfakit.fit import Source, initial_mfa, ppca

Array = NDArray[Any]
Estimator = mfakit.MixtureOfFactorAnalyzers


@pytest.fixture(scope="module")
def truth() -> mfakit.MFA:
    return random_mfa(3, 6, 2, spread=3.0)


@pytest.fixture(scope="module")
def X(truth: mfakit.MFA) -> Array:
    return truth.sample(2000, rng=0, dtype=np.float64)[0]


def test_a_mixture_is_the_start_itself(X: Array, truth: mfakit.MFA) -> None:
    est = Estimator(3, 2, init=truth, max_iter=0, n_init=3).fit(X)
    np.testing.assert_array_equal(est.means_, truth.means)
    np.testing.assert_array_equal(est.loadings_, truth.loadings)
    np.testing.assert_array_equal(est.noise_variance_, truth.noise_variance)
    again = clone(est).set_params(max_iter=2).fit(X)
    assert again.lower_bound_ > est.lower_bound_
    assert again.history_["log_likelihood"][0] == pytest.approx(est.lower_bound_, rel=1e-12)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_means_and_weights_are_where_it_starts(X: Array, truth: mfakit.MFA, noise: str) -> None:
    est = Estimator(3, 2, noise=noise, means_init=truth.means, weights_init=[0.2, 0.3, 0.5], max_iter=0).fit(X)
    np.testing.assert_array_equal(est.means_, truth.means)
    close(est.weights_, np.array([0.2, 0.3, 0.5]), rtol=1e-15)
    # Each component is already that of its own group, so that the start explains the data nearly as well as the truth.
    assert est.lower_bound_ > truth.log_prob(X).mean() - 1.0


def test_means_decide_which_component_is_which(X: Array, truth: mfakit.MFA) -> None:
    order = [2, 0, 1]
    est = Estimator(3, 2, means_init=truth.means[order], max_iter=50).fit(X)
    close(est.means_, truth.means[order], atol=0.25)
    assert est.score(X) >= truth.log_prob(X).mean()
    close(est.weights_, truth.weights[order], atol=0.05)


def test_weights_alone_go_with_any_start(X: Array) -> None:
    est = Estimator(2, 1, weights_init=[0.25, 0.75], max_iter=0, random_state=0).fit(X)
    plain = Estimator(2, 1, max_iter=0, random_state=0).fit(X)
    np.testing.assert_array_equal(est.means_, plain.means_)
    np.testing.assert_array_equal(est.weights_, [0.25, 0.75])


def test_a_mean_without_rows_of_its_own_gets_the_spread_of_all(X: Array) -> None:
    means = np.stack([X.mean(axis=0), X.mean(axis=0) + 1e3])
    est = Estimator(2, 1, means_init=means, max_iter=0, random_state=0).fit(X)
    close(est.weights_[1], np.float64(1 / 2001), rtol=1e-12)
    close(est.noise_variance_[1], est.noise_variance_[0], rtol=1e-12)
    assert np.isfinite(est.score(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"means_init": np.zeros((2, 6))}, r"means_init must be numbers \[3, 6\]"),
        ({"means_init": np.full((3, 6), np.nan)}, "means_init has NaN or inf"),
        ({"means_init": np.full((3, 6), "a")}, "means_init must be numbers"),
        ({"weights_init": [0.5, 0.5]}, r"weights_init must be numbers \[3\]"),
        ({"weights_init": [0.5, 0.5, 0.5]}, "sum 1, got smallest 0.5, sum 1.5"),
        ({"weights_init": [0.5, 0.5, 0.0]}, "must be positive with sum 1"),
        ({"init": random_mfa(2, 6, 2)}, r"init goes on from MFA\(k=2.*k=3, d=6, l=2, isotropic noise is asked for"),
        ({"init": random_mfa(3, 5, 2)}, "init goes on from"),
        ({"init": random_mfa(3, 6, 2, noise="diagonal")}, "pass a mixture of that shape"),
        ({"init": random_mfa(3, 6, 2), "weights_init": [0.2, 0.3, 0.5]}, "leave means_init and weights_init None"),
        ({"init": "k-means"}, "init must be one of 'kmeans', 'random', got 'k-means'"),
    ],
)
def test_starts_that_do_not_fit(X: Array, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Estimator(3, 2, **options).fit(X)


@pytest.mark.parametrize("method", ["kmeans", "random"])
def test_the_start_describes_its_groups(noise: str, method: str) -> None:
    """Far groups are told apart by the start alone, each with its own mean and share."""
    truth = random_mfa(3, 6, 2, noise=noise, spread=50.0)
    X, component = truth.sample(3000, rng=0, dtype=np.float64)
    starts = [
        initial_mfa(
            Source.from_array(X), 3, 2, isotropic=noise == "isotropic", method=method, floor=1e-9,
            rng=np.random.default_rng(seed),
        )
        for seed in range(8)
    ]  # fmt: skip
    best = max(starts, key=lambda mfa: float(mfa.log_prob(X).mean()))
    order = np.array([np.linalg.norm(best.means - mean, axis=1).argmin() for mean in truth.means])
    np.testing.assert_allclose(best.weights[order], np.bincount(component) / 3000, atol=1e-12)
    assert best.log_prob(X).mean() > truth.log_prob(X).mean() - 0.2


@pytest.mark.parametrize("together", [0, 256])
def test_the_start_in_many_dimensions_uses_projections_and_small_gram_matrices(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ppca, "MOST_TOGETHER", together)
    truth = random_mfa(2, 3000, 2, spread=3.0)
    X = truth.sample(60, rng=0)[0]
    mfa = initial_mfa(
        Source.from_array(X), 2, 2, isotropic=True, method="kmeans", floor=1e-9, rng=np.random.default_rng(0)
    )
    assert mfa.log_prob(X).mean() > truth.log_prob(X).mean()


@pytest.mark.parametrize("d", [3, 40, 700])
@pytest.mark.parametrize("l", [0, 2, 6])
def test_groups_described_together_are_those_described_one_by_one(
    d: int, l: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of one row, of equal rows and of a few hundred, in a metric that rotations of the loadings leave alone."""
    rng = np.random.default_rng(0)
    sizes = [1, 2, 3, 5, 8, 8, 40, 150, 300]
    X = rng.normal(size=(sum(sizes), d)) @ np.diag(np.geomspace(1, 0.1, d)) + rng.normal(size=d)
    groups = np.split(rng.permutation(len(X)), np.cumsum(sizes)[:-1])
    X[groups[4]] = X[groups[4][0]]
    weights = rng.uniform(0.1, 2.0, len(X))
    together = ppca.truncated_ppca(X, groups, weights, min(l, d), np.random.default_rng(1))
    monkeypatch.setattr(ppca, "MOST_TOGETHER", 0)
    single = ppca.truncated_ppca(X, groups, weights, min(l, d), np.random.default_rng(1))
    np.testing.assert_allclose(together[0], single[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(together[2], single[2], rtol=1e-9, atol=1e-12)
    for a, b in zip(together[1], single[1], strict=True):
        np.testing.assert_allclose(a @ (a.T @ X.T), b @ (b.T @ X.T), rtol=0, atol=1e-9 * float(np.abs(X).max() * d))
        np.testing.assert_allclose(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0), rtol=1e-9, atol=1e-12)
