"""The paper's central numbers on the shipped pairs and on real faces: what every later experiment stands on."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support import close

import mfakit

PAIRS = ("mnist-06", "mnist-27", "mnist-45")
N = 500  # samples per class


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[mfakit.BayesClassifier, np.ndarray, np.ndarray]:
    """A symmetric pair and N samples per class."""
    sym = mfakit.datasets.load_bayes_pair(request.param).symmetric(0.01)
    return sym, *sym.sample(2 * N, rng=0, balanced=True)


def test_the_shipped_pairs_are_what_they_say() -> None:
    assert tuple(mfakit.datasets.available_bayes_pairs()) == PAIRS
    for name in PAIRS:
        clf = mfakit.datasets.load_bayes_pair(name)
        assert all((m.n_components, m.n_factors, m.n_features) == (25, 6, 784) for m in clf.mixtures)
        assert {"outlier_mean", "outlier_step"} <= set(clf.extras)
        # √λ₅₀ is about 0.34 to 0.38 on the MNIST pairs
        assert 0.3 < np.linalg.norm(clf.extras["outlier_step"]) < 0.42
    with pytest.raises(ValueError, match="no shipped pair 'mnist-99'; there are mnist-06, mnist-27, mnist-45"):
        mfakit.datasets.load_bayes_pair("mnist-99")


def test_symmetric_pairs_are_robust(pair: tuple[mfakit.BayesClassifier, np.ndarray, np.ndarray]) -> None:
    """Accuracy and success 100%; no flip below (D - ε)/2; mean ℓ2 within 15% above half the mean distance."""
    sym, X, y = pair
    attack = mfakit.attacks.gradient_attack(sym, X, y, polish=True)
    own, other = mfakit.theory.own_and_other_distances(sym, X, y)
    assert attack.accuracy == 1.0
    assert attack.success_rate == 1.0
    assert (attack.l2 >= (other - own) / 2).all()
    assert 1.0 <= attack.mean_l2 / (other.mean() / 2) <= 1.15


def test_asymmetric_pairs_are_brittle(pair: tuple[mfakit.BayesClassifier, np.ndarray, np.ndarray]) -> None:
    """Samples of the main components: success 100%, mean ℓ2 under 0.8 and within 10% of the closed form."""
    sym, X, y = pair
    asym = sym.asymmetric()
    attack = mfakit.attacks.gradient_attack(asym, X, y, polish=True)
    assert attack.accuracy == 1.0
    assert attack.success_rate == 1.0
    assert attack.mean_l2 < 0.8
    close(attack.mean_l2, mfakit.theory.asymmetric_radius(asym, X, y).mean(), rtol=0.1)


def test_certified_brackets_are_tight_and_no_attack_is_below(
    pair: tuple[mfakit.BayesClassifier, np.ndarray, np.ndarray],
) -> None:
    """Mean relative gap under 0.3%, 99th percentile under 3%, 90% of the samples certified to within 0.1%."""
    sym, X, y = pair
    minimal = mfakit.attacks.minimal_perturbation(sym, X, y)
    assert minimal.success.all()
    assert minimal.gap.mean() < 3e-3
    assert np.quantile(minimal.gap, 0.99) < 3e-2
    assert (minimal.gap < 1e-3).mean() > 0.9
    for step in (0.1, 0.05, 0.02):
        attack = mfakit.attacks.gradient_attack(sym, X, y, polish=True, step_size=step)
        assert (attack.l2 >= minimal.lower).all()


@pytest.mark.data
@pytest.mark.slow
def test_celeba_male_is_robust_where_it_is_symmetric() -> None:
    """The 10,000 faces of the shared subset, k = max(2, samples // 500), l = 10: D between 6 and 7.5, ℓ2 between 3 and
    4."""
    parts = mfakit.datasets.load_celeba(os.environ["MFAKIT_DATA"], "Male", include_validation=True)
    X, y = np.concatenate([parts[0], parts[2]]), np.concatenate([parts[1], parts[3]])
    mixtures = []
    for c in (0, 1):
        images = X[y == c]
        estimator = mfakit.MixtureOfFactorAnalyzers(
            n_components=max(2, len(images) // 500), n_factors=10, max_iter=30, tol=1.0, random_state=0
        )
        mixtures.append(estimator.fit(images).mfa_)
    sym = mfakit.BayesClassifier(mixtures).symmetric(0.01)
    S, labels = sym.sample(400, rng=0, balanced=True)
    attack = mfakit.attacks.gradient_attack(sym, S, labels, polish=True)
    _, other = mfakit.theory.own_and_other_distances(sym, S, labels)
    assert sym.score(S, labels) == 1.0
    assert attack.success_rate == 1.0
    assert 6.0 < other.mean() < 7.5
    assert 3.0 < attack.mean_l2 < 4.0
