"""The features path of minimal perturbations: against an independent solver, brute force in the plane, the compiled
path, and attacks that try to prove it wrong.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from minimal_cases import check_on_circles, diagonal_classifier, in_features, slsqp_radius
from support import close, random_mfa

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.backends import why_missing

NATIVE = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


@pytest.mark.parametrize(("seed", "d"), [(0, 6), (1, 6), (2, 6), (0, 20)])
def test_single_gaussians_are_exact_and_agree_with_an_independent_solver(seed: int, d: int) -> None:
    clf = diagonal_classifier(seed, k=1, d=d)
    X, y = clf.sample(3, rng=seed, dtype=np.float64)
    r = in_features(clf, X, y)
    right = np.flatnonzero(~r.already_wrong)
    assert len(right)
    np.testing.assert_array_less(r.gap[right], 1e-8)
    rng = np.random.default_rng(seed)
    for i in right:
        attack = gradient_attack(clf, X[i : i + 1], y[i : i + 1], polish=True, step_size=0.02).x_adv[0] - X[i]
        starts = [attack, *(r.upper[i] * rng.normal(size=(5, d)) / np.sqrt(d)), r.x_adv[i] - X[i] + 1e-3]
        expected = slsqp_radius(clf, X[i], int(y[i]), starts)
        np.testing.assert_allclose([r.lower[i], r.upper[i]], expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_brute_force_in_the_plane(seed: int) -> None:
    """Two features: no flip on a fine polar grid within `lower`, and one just beyond `upper`."""
    clf = diagonal_classifier(seed, k=3, d=2, l=1, sigma=0.4, spread=2.0, n_classes=2 + seed % 2)
    X, y = clf.sample(6, rng=seed, dtype=np.float64)
    r = in_features(clf, X, y)
    right = np.flatnonzero(~r.already_wrong)
    assert len(right) >= 3
    for i in right:
        circle = check_on_circles(clf, X[i], int(y[i]), r.lower[i], r.upper[i])
        # `upper` is the nearest flip, not just a flip: no smaller circle meets one.
        assert (clf.predict(X[i] + 0.999 * r.upper[i] * circle) == y[i]).all()
    assert np.median(r.gap[right]) < 1e-3


def hill_climb(
    clf: mfakit.BayesClassifier, X: np.ndarray, y: np.ndarray, radius: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """The best margin of a wrong class [m, n] that projected gradient ascent finds within `radius` [n] of X [n, d],
    from `starts` [m, n, d].
    """
    m, (n, d) = len(starts), X.shape
    X, y, radius, delta = np.tile(X, (m, 1)), np.tile(y, m), np.tile(radius, m), starts.reshape(m * n, d).copy()
    rows, best, step = np.arange(m * n), np.full(m * n, -np.inf), 0.3 * radius
    for _ in range(30):
        delta *= np.minimum(1.0, radius / np.maximum(np.linalg.norm(delta, axis=1), 1e-300))[:, None]
        joint = clf.class_log_prob(X + delta)
        own = joint[rows, y].copy()
        joint[rows, y] = -np.inf
        best = np.maximum(best, joint.max(axis=1) - own)
        grads = np.stack([mixture.grad_log_prob(X + delta) for mixture in clf.mixtures], axis=1)
        g = grads[rows, joint.argmax(axis=1)] - grads[rows, y]
        delta = delta + (step / np.linalg.norm(g, axis=1))[:, None] * g
        step = 0.88 * step
    return best.reshape(m, n)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_search_finds_a_flip_below_a_lower_bound(n_classes: int) -> None:
    clf = diagonal_classifier(11, k=4, d=16, l=3, n_classes=n_classes)
    X, y = clf.sample(9, rng=0, dtype=np.float64)
    r = in_features(clf, X, y)
    right = ~r.already_wrong
    assert r.success[right].all()
    assert (clf.predict(r.x_adv) != y)[right].all()
    close(np.linalg.norm(r.x_adv - X, axis=1)[right], r.upper[right], rtol=1e-14)
    assert (r.lower[right] > 0).all()
    assert (r.lower <= r.upper).all()
    assert np.median(r.gap[right]) < 1e-3
    rng = np.random.default_rng(0)
    starts = np.concatenate([(r.x_adv - X)[None] * 0.5, rng.normal(size=(8, *X.shape)) * r.lower[:, None] / 4])
    # Where the ascent ends at the boundary itself, roundings of log p decide; 1e-9 nats is above those.
    assert (hill_climb(clf, X, y, r.lower, starts)[:, right] < 1e-9).all()
    for step in (0.1, 0.03):
        attack = gradient_attack(clf, X, y, polish=True, step_size=step)
        assert not len(attack.grade(r).contradictions)


def test_noise_that_is_equal_in_every_feature_is_isotropic() -> None:
    sym = [random_mfa(k=3, d=10, l=2, seed=s, spread=0.7) for s in range(2)]
    iso = mfakit.BayesClassifier(sym)
    diagonal = mfakit.BayesClassifier(
        [m.replace(noise_variance=np.repeat(m.noise_variance[:, None], 10, axis=1)) for m in sym]
    )
    X, y = iso.sample(10, rng=1, dtype=np.float64)
    a, b = in_features(iso, X, y), in_features(diagonal, X, y)
    close(a.lower, b.lower, rtol=1e-9)
    close(a.upper, b.upper, rtol=1e-9)
    assert a.settings["path"] == b.settings["path"] == "features"


@NATIVE
@pytest.mark.parametrize("sigmas", [(0.3, 0.3), (0.2, 0.5), (0.5, 0.2)])
def test_single_isotropic_gaussians_as_the_compiled_path(sigmas: tuple[float, float]) -> None:
    mixtures = [random_mfa(k=1, d=15, l=3, seed=c, spread=1.0) for c in range(2)]
    clf = mfakit.BayesClassifier([m.replace(noise_variance=s**2) for m, s in zip(mixtures, sigmas, strict=True)])
    X, y = clf.sample(12, rng=0, dtype=np.float64)
    a, b = in_features(clf, X, y), minimal_perturbation(clf, X, y, path="factor")
    close(a.lower, b.lower, rtol=1e-8)
    close(a.upper, b.upper, rtol=1e-8)


@NATIVE
@pytest.mark.parametrize("variant", ["symmetric", "asymmetric", "own sigmas", "shipped"])
def test_brackets_overlap_with_the_compiled_path(variant: str) -> None:
    if variant == "shipped":
        clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
        X, y = clf.sample(10, rng=0, dtype=np.float64)
    else:
        mixtures = [random_mfa(d=40, k=5, l=3, seed=s, spread=0.15) for s in range(2)]
        sym = mfakit.BayesClassifier([m.replace(loadings=0.15 * m.loadings) for m in mixtures]).symmetric(0.02)
        own = [m.replace(noise_variance=4e-4 * np.arange(1, 6)) for m in sym.mixtures]
        clf = {
            "symmetric": sym, "asymmetric": sym.asymmetric(direction=30),
            "own sigmas": mfakit.BayesClassifier(own, [0.3, 0.7]),
        }[variant]  # fmt: skip
        X, y = sym.sample(15, rng=0, dtype=np.float64)
    a, b = in_features(clf, X, y), minimal_perturbation(clf, X, y, path="factor")
    np.testing.assert_array_equal(a.already_wrong, b.already_wrong)
    assert (~a.already_wrong).any()
    assert (a.lower <= b.upper).all()
    assert (b.lower <= a.upper).all()
    assert a.gap.max() < 2 * b.gap.max() + 1e-6


def test_three_classes_take_the_nearest() -> None:
    """Single Gaussians and equal priors: the minimum over the two-class problems, exactly."""
    clf = diagonal_classifier(5, k=1, d=8, n_classes=3)
    X, y = clf.sample(9, rng=0, dtype=np.float64)
    r = in_features(clf, X, y)
    for i in np.flatnonzero(~r.already_wrong):
        radii = {}
        for c in set(range(3)) - {int(y[i])}:
            two = mfakit.BayesClassifier([clf.mixtures[y[i]], clf.mixtures[c]])
            radii[c] = in_features(two, X[i : i + 1], [0]).upper[0]
        np.testing.assert_allclose([r.lower[i], r.upper[i]], min(radii.values()), rtol=1e-8)
        assert r.target_class[i] == min(radii, key=lambda c: radii[c])


def test_theorem1_in_closed_form() -> None:
    """Equal diagonal covariances: the distance to a plane."""
    noise = np.array([[0.01, 0.04, 0.09]])
    means = np.array([[0.0, 0, 0], [1.0, 2, -1]])
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], m[None], np.zeros((1, 3, 1)), noise) for m in means])
    X = np.random.default_rng(0).normal(scale=0.1, size=(10, 3))
    r = in_features(clf, X)
    normal = (means[1] - means[0]) / noise[0]
    expected = (0.5 * means[1] - X) @ normal / np.linalg.norm(normal)
    close(r.lower, expected, rtol=2e-10)
    close(r.upper, expected, rtol=2e-10)


@pytest.mark.data
@pytest.mark.slow
def test_fitted_diagonal_noise_on_real_digits() -> None:
    """Mixtures of zeros and sixes with a variance per pixel, dead pixels included; the test images themselves."""
    X_train, y_train, X_test, y_test = mfakit.datasets.load_mnist(classes=(0, 6))
    mixtures = []
    for digit in np.unique(y_train):
        est = mfakit.MixtureOfFactorAnalyzers(3, 4, noise="diagonal", random_state=0, max_iter=8, tol=1e-2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 8 steps are enough here, converged or not
            mixtures.append(est.fit(X_train[y_train == digit][:1000]).mfa_)
    clf = mfakit.BayesClassifier(mixtures)
    X, y = X_test[:10].astype(np.float64), np.searchsorted(np.unique(y_train), y_test[:10])
    start = time.perf_counter()
    r = in_features(clf, X, y)
    seconds = time.perf_counter() - start
    right = ~r.already_wrong
    assert right.sum() >= 8
    assert r.success[right].all()
    assert (clf.predict(r.x_adv) != y)[right].all()
    assert r.gap[right].max() < 1e-2
    assert np.median(r.gap[right]) < 1e-3
    attack = gradient_attack(clf, X, y, polish=True, step_size=5e-3, max_steps=200)
    assert attack.success.any()
    assert not len(attack.grade(r).contradictions)
    rng = np.random.default_rng(0)
    starts = np.concatenate([(r.x_adv - X)[None] * 0.5, rng.normal(size=(2, *X.shape)) * r.lower[:, None] / 28])
    # log p cancels from 1e6 nats and more here.
    assert (hill_climb(clf, X, y, r.lower, starts)[:, right] < 1e-4).all()
    assert seconds < 20.0
