"""The walk in factor coordinates is the walk in the d features: same steps, same components, same points."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit.attacks import coordinates, gradient_attack
from mfakit.attacks.coordinates import FactorCoordinates


def symmetric(d: int = 120, scale: float = 0.1) -> mfakit.BayesClassifier:
    """Image-like: two classes of different k and l, one with a loading that spans nothing."""
    mixtures = [random_mfa(d=d, k=4 + s, l=3 + s, seed=s, spread=0.2) for s in range(2)]
    mixtures = [m.replace(loadings=scale * m.loadings) for m in mixtures]
    loadings = np.array(mixtures[0].loadings)
    loadings[1, :, 2] = 0.0
    loadings[2, :, 1] = 2 * loadings[2, :, 0]
    return mfakit.BayesClassifier([mixtures[0].replace(loadings=loadings), mixtures[1]]).symmetric(0.01)


@pytest.mark.parametrize("variant", ["symmetric", "asymmetric", "own sigmas"])
@pytest.mark.parametrize("options", [{}, {"polish": True}, {"targets": "frozen", "max_steps": 60}])
def test_same_trajectory_as_the_direct_path(backend: str, variant: str, options: dict[str, Any]) -> None:
    sym = symmetric()
    clf = {
        "symmetric": lambda: sym,
        "asymmetric": lambda: sym.asymmetric(direction=40),
        "own sigmas": lambda: mfakit.BayesClassifier(
            [m.replace(noise_variance=1e-4 * np.arange(1, m.n_components + 1)) for m in sym.mixtures], [0.3, 0.7]
        ),
    }[variant]()
    X, y = sym.sample(40 if backend in ("native", "numba") else 12, rng=0, dtype=np.float64)
    features, factor = (
        gradient_attack(clf, X, y, step_size=0.05, path=path, backend=backend, **options)
        for path in ("features", "factor")
    )
    assert features.settings["path"] == "features"
    assert factor.settings["path"] == "factor"
    for name in ("success", "n_steps", "source", "target", "target_class", "reason", "y_adv"):
        np.testing.assert_array_equal(getattr(features, name), getattr(factor, name), err_msg=name)
    close(factor.x_adv, features.x_adv, rtol=0, atol=1e-9 * np.abs(features.x_adv).max())


def test_same_trajectory_on_digits() -> None:
    sym = mfakit.datasets.load_bayes_pair("mnist-27").symmetric(0.01)
    for clf in (sym, sym.asymmetric()):
        X, y = sym.sample(60, rng=1, dtype=np.float64)
        features, factor = (gradient_attack(clf, X, y, path=path) for path in ("features", "factor"))
        np.testing.assert_array_equal(features.n_steps, factor.n_steps)
        close(factor.x_adv, features.x_adv, rtol=0, atol=1e-9 * np.abs(features.x_adv).max())


def test_points_and_inner_products() -> None:
    q = FactorCoordinates.of(symmetric())
    rng = np.random.default_rng(0)
    X, w, alpha = rng.normal(size=(5, 120)), rng.normal(size=(5, len(q.columns))), rng.normal(size=5)
    a, _ = q.project(X)
    P = q.points(X, alpha, w)
    close(P, q.center + alpha[:, None] * (X - q.center) + w @ q.columns, rtol=1e-12)
    # inner products of the moved points follow from the Gram matrix alone
    close(q.project(P)[0], alpha[:, None] * a + w @ q.gram, rtol=1e-9, atol=1e-9)


def test_coordinates_are_made_once_and_do_not_travel() -> None:
    import pickle

    clf = symmetric()
    assert FactorCoordinates.of(clf) is FactorCoordinates.of(clf)
    assert pickle.loads(pickle.dumps(clf))._coordinates is None


def test_a_memory_limit_forces_the_direct_path_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clf = symmetric()
    X, y = clf.sample(5, rng=0)
    monkeypatch.setattr(coordinates, "GRAM_BYTES", 1000)
    with caplog.at_level(logging.INFO, "mfakit"):
        assert gradient_attack(clf, X, y).settings["path"] == "features"
    assert "over the limit" in caplog.text
    with pytest.raises(ValueError, match=r'path="factor" cannot be taken: the Gram matrix .*GRAM_BYTES'):
        gradient_attack(clf, X, y, path="factor")


def test_what_has_no_factor_coordinates_says_why() -> None:
    diagonal = mfakit.BayesClassifier([random_mfa(noise="diagonal", seed=s) for s in range(2)])
    X, y = diagonal.sample(3, rng=0)
    assert gradient_attack(diagonal, X, y).settings["path"] == "features"
    with pytest.raises(ValueError, match="noise is diagonal"):
        gradient_attack(diagonal, X, y, path="factor")
    with pytest.raises(ValueError, match="bounds clip single features"):
        gradient_attack(symmetric(), np.zeros((1, 120)), path="factor", bounds=(-1, 1))


def test_same_trajectory_on_images() -> None:
    """At 64 x 64 x 3 features, on symmetric and asymmetric models."""
    rng = np.random.default_rng(5)
    d, k, l = 12_288, 4, 10
    mixtures = [
        mfakit.MFA(np.full(k, 1 / k), 0.5 + 0.05 * rng.normal(size=(k, d)), 0.05 * rng.normal(size=(k, d, l)), 1e-4)
        for _ in range(2)
    ]
    sym = mfakit.BayesClassifier(mixtures)
    for clf in (sym, sym.asymmetric()):
        X, y = sym.sample(3, rng=1, dtype=np.float64)
        features, factor = (gradient_attack(clf, X, y, step_size=0.2, path=path) for path in ("features", "factor"))
        assert features.success.all()
        assert features.n_steps.max() > 5
        for name in ("success", "n_steps", "source", "target", "target_class", "reason", "y_adv"):
            np.testing.assert_array_equal(getattr(features, name), getattr(factor, name), err_msg=name)
        close(factor.x_adv, features.x_adv, rtol=0, atol=1e-9 * np.abs(features.x_adv).max())


def test_components_with_loadings_in_all_directions_and_tiny_noise() -> None:
    """Inner products cancel there, and more at every step; such samples are walked in the d features."""
    rng = np.random.default_rng(0)
    broad = mfakit.MFA([1.0], [[0.5, -0.5]], np.zeros((1, 2, 0)), 10.0)
    clf = mfakit.BayesClassifier(
        [broad, mfakit.MFA([0.5, 0.5], rng.normal(size=(2, 2)), rng.normal(size=(2, 2, 2)), 1e-4)]
    )
    X = clf.mixtures[1].sample(20, rng=0, dtype=np.float64)[0]
    X = X[clf.predict(X) == 1]
    features, factor = (
        gradient_attack(clf, X, path=path, max_steps=300, polish=True) for path in ("features", "factor")
    )
    assert features.success_rate > 0.9
    np.testing.assert_array_equal(factor.success, features.success)
    close(factor.l2, features.l2, rtol=1e-6)
