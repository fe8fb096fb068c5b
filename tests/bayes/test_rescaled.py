"""Other units: decisions stay, radii are divided by the width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit.attacks import minimal_perturbation


def pair() -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(seed=s, spread=1.0) for s in range(2)], [0.3, 0.7])


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_densities_change_by_the_width_alone(noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X = mfa.sample(20, rng=0, dtype=np.float64)[0]
    close(mfa.rescaled(-3, 5).log_prob((X + 3) / 8), mfa.log_prob(X) + mfa.n_features * np.log(8), rtol=1e-10)


def test_decisions_stay_and_radii_scale() -> None:
    clf = pair()
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    unit = clf.rescaled(-20, 30)
    Z = (X + 20) / 50
    close(unit.decision_function(Z), clf.decision_function(X), rtol=1e-9, atol=1e-9)
    before, after = minimal_perturbation(clf, X, y), minimal_perturbation(unit, Z, y)
    close(50 * after.lower, before.lower, rtol=1e-6)
    close(50 * after.upper, before.upper, rtol=1e-6)
    np.testing.assert_array_equal(unit.priors, clf.priors)


def test_what_is_stored_for_outliers_is_rescaled() -> None:
    clf = pair()
    X, _ = clf.sample(200, rng=0, dtype=np.float64)
    stored = clf.with_outlier_step(X, direction=3)
    direct = stored.asymmetric(direction=3, sigma=0.5).rescaled(-20, 30)
    later = stored.rescaled(-20, 30).asymmetric(direction=3, sigma=0.01)
    for one, other in zip(direct.mixtures, later.mixtures, strict=True):
        close(other.means, one.means, rtol=1e-9, atol=1e-12)
        close(other.noise_variance, one.noise_variance, rtol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (
            np.zeros(12),
            np.ones(12),
            "rescaled needs two numbers low and high, because a scale of its own for each feat",
        ),
        (0.0, np.ones(12), "two numbers"),
        (1.0, 1.0, "rescaled needs finite numbers with low < high, got 1.0 and 1.0"),
        (0.0, np.inf, "finite numbers"),
        (np.nan, 1.0, "finite numbers"),
        ("a", 1.0, "finite numbers"),
    ],
)
def test_what_is_no_change_of_units(low: Any, high: Any, message: str) -> None:
    for model in (pair(), random_mfa()):
        with pytest.raises(ValueError, match=message):
            model.rescaled(low, high)
