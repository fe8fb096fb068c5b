"""The general path of minimal perturbations: against the dense algebra, an independent solver, brute force in the
plane, the compiled path, and attacks that try to prove it wrong.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from support import parameters, random_mfa

import mfakit
from mfakit import _reference as reference
from mfakit.attacks import _general_roots, gradient_attack, minimal, minimal_perturbation
from mfakit.attacks._general_dual import Curvature, Lagrangian
from mfakit.attacks._general_model import Components, Sample
from mfakit.attacks.general import RootSearchError
from mfakit.backends import why_missing

NATIVE = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


def general(clf: Any, X: Any, y: Any = None, **options: Any) -> Any:
    return minimal_perturbation(clf, X, y, path="general", **options)


def spheres(means: Any, sigmas: Any, priors: Any = None) -> mfakit.BayesClassifier:
    mixtures = [
        mfakit.MFA([1.0], np.asarray(m, float)[None], np.zeros((1, len(m), 0)), s**2)
        for m, s in zip(means, sigmas, strict=True)
    ]
    return mfakit.BayesClassifier(mixtures, priors)


def diagonal_classifier(
    seed: int, k: int = 3, d: int = 8, l: int = 2, sigma: float = 0.3, spread: float = 1.0, n_classes: int = 2
) -> mfakit.BayesClassifier:
    """Noise that differs by component and feature, over three orders of magnitude."""
    rng = np.random.default_rng(seed)
    mixtures = []
    for c in range(n_classes):
        m = random_mfa(k=k, d=d, l=l, noise="diagonal", sigma=sigma, seed=100 * seed + c, spread=spread)
        mixtures.append(m.replace(noise_variance=m.noise_variance * 10.0 ** rng.uniform(-2, 1, (k, d))))
    return mfakit.BayesClassifier(mixtures)


def log_odds(clf: mfakit.BayesClassifier, x: np.ndarray, y: int) -> float:
    logs = [reference.log_prob(x[None], *parameters(m))[0] for m in clf.mixtures]
    return float(logs[1 - y] - logs[y])


def precision(mfa: mfakit.MFA) -> np.ndarray:
    return np.linalg.inv(mfa.dense()[2][0])


def slsqp_radius(clf: mfakit.BayesClassifier, x: np.ndarray, y: int, starts: list[np.ndarray]) -> float:
    """The nearest flip between two single Gaussians, by SLSQP on dense quadratics, in the boundary's own scale."""
    (m0, m1), (A0, A1) = [m.means[0] for m in clf.mixtures], [precision(m) for m in clf.mixtures]
    sign, at_x = 1.0 if y == 0 else -1.0, log_odds(clf, x, y)
    b = sign * (A0 @ (x - m0) - A1 @ (x - m1))
    H = sign * (A0 - A1)
    best = np.inf
    for start in starts:
        found = minimize(
            lambda u: u @ u, start, jac=lambda u: 2 * u, method="SLSQP",
            constraints={
                "type": "eq", "fun": lambda u: (at_x + b @ u + 0.5 * u @ H @ u) / abs(at_x),
                "jac": lambda u: (b + H @ u) / abs(at_x),
            },
            options={"ftol": 1e-15, "maxiter": 500},
        )  # fmt: skip
        if abs(at_x + b @ found.x + 0.5 * found.x @ H @ found.x) < 1e-8 * abs(at_x):
            best = min(best, float(np.linalg.norm(found.x)))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_definiteness_and_solves_against_the_dense_matrix(seed: int) -> None:
    """Diagonals with negative, vanishing and tiny entries: the count agrees with the eigenvalues."""
    rng = np.random.default_rng(seed)
    d, r = 12, 5
    e = rng.uniform(0.2, 3.0, d)
    e[: seed % 4] *= -rng.choice([0.01, 0.3, 1.0], seed % 4)
    e[4] *= rng.choice([1.0, 1e-6, 0.0, -1e-9])
    sign = rng.choice([-1.0, 1.0], r)
    V = rng.normal(size=(r, d)) * np.where(sign > 0, 3.0, 0.2)[:, None]
    P = np.diag(e) + V.T @ (sign[:, None] * V)
    smallest = np.linalg.eigvalsh(P)[0]
    found = Curvature.factor(e, np.abs(e) + 1.0, V, sign)
    assert (found is not None) == (smallest > 0), smallest
    if found is not None:
        b = rng.normal(size=(2, d))
        x, left = found.solve(b)
        np.testing.assert_allclose(x, np.linalg.solve(P, b.T).T, rtol=1e-9, atol=1e-9 * np.abs(x).max())
        assert np.abs(left).max() < 1e-10


def test_definiteness_is_met_with_every_kind_of_answer() -> None:
    """The cases above are no use if all are definite, or none."""
    answers = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        e = rng.uniform(0.2, 3.0, 12)
        e[0] = -0.1
        V = rng.normal(size=(2, 12)) * rng.choice([0.01, 5.0])
        answers.append(Curvature.factor(e, np.abs(e) + 1.0, V, np.ones(2)) is not None)
    assert 5 < sum(answers) < 25


@pytest.mark.parametrize("seed", range(4))
def test_any_multiplier_is_a_lower_bound(seed: int) -> None:
    """Weak duality: no point with log p_t + c ≥ log Σ p_s lies within the radius that a random λ proves."""
    clf = diagonal_classifier(seed, k=3, d=4)
    rng = np.random.default_rng(seed)
    x = clf.mixtures[0].means[0] + 0.1 * rng.normal(size=4)
    components = Components(clf)
    sample = Sample(components, x)
    L = Lagrangian(sample, [4], np.ones(1), 0.3, [0, 1, 2])
    U = rng.normal(size=(4000, 4)) * 10.0 ** rng.uniform(-2, 1, (4000, 1))
    own, other = (m.component_log_prob(x + U, method="residual") for m in clf.mixtures)
    flips = other[:, 1] + 0.3 >= np.logaddexp.reduce(own, axis=1)
    nearest = np.linalg.norm(U[flips], axis=1).min()
    bounds = []
    for _ in range(300):
        lam = rng.dirichlet(np.ones(3)) * 10.0 ** rng.uniform(-5, 1)
        dual = L.evaluate(lam)
        if dual is not None:
            bounds.append(L.bound(dual))
            assert bounds[-1] <= nearest
    best = _general_roots.maximise(L, np.array([0.98, 0.01, 0.01]))
    assert max(bounds) <= best.radius * (1 + 1e-9)
    assert 0.0 < best.radius <= nearest


@pytest.mark.parametrize(("seed", "d"), [(0, 6), (1, 6), (2, 6), (0, 20), (1, 20)])
def test_single_gaussians_are_exact_and_agree_with_an_independent_solver(seed: int, d: int) -> None:
    clf = diagonal_classifier(seed, k=1, d=d)
    X, y = clf.sample(3, rng=seed, dtype=np.float64)
    r = general(clf, X, y)
    right = np.flatnonzero(~r.already_wrong)
    assert len(right)
    np.testing.assert_array_less(r.gap[right], 1e-8)
    rng = np.random.default_rng(seed)
    for i in right:
        attack = gradient_attack(clf, X[i : i + 1], y[i : i + 1], polish=True, step_size=0.02).x_adv[0] - X[i]
        starts = [attack, *(r.upper[i] * rng.normal(size=(12, d)) / np.sqrt(d)), r.x_adv[i] - X[i] + 1e-3]
        expected = slsqp_radius(clf, X[i], int(y[i]), starts)
        np.testing.assert_allclose([r.lower[i], r.upper[i]], expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_brute_force_in_the_plane(seed: int) -> None:
    """Two features: no flip on a fine polar grid within `lower`, and one just beyond `upper`."""
    clf = diagonal_classifier(seed, k=3, d=2, l=1, sigma=0.4, spread=2.0, n_classes=2 + seed % 2)
    X, y = clf.sample(6, rng=seed, dtype=np.float64)
    r = general(clf, X, y)
    right = np.flatnonzero(~r.already_wrong)
    assert len(right) >= 3
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for i in right:
        for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.99999):
            assert (clf.predict(X[i] + share * r.lower[i] * circle) == y[i]).all()
        assert (clf.predict(X[i] + 1.001 * r.upper[i] * circle) != y[i]).any()
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
    r = general(clf, X, y)
    right = ~r.already_wrong
    assert r.success[right].all()
    assert (clf.predict(r.x_adv) != y)[right].all()
    np.testing.assert_allclose(np.linalg.norm(r.x_adv - X, axis=1)[right], r.upper[right], rtol=1e-14)
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
    a, b = general(iso, X, y), general(diagonal, X, y)
    np.testing.assert_allclose(a.lower, b.lower, rtol=1e-9)
    np.testing.assert_allclose(a.upper, b.upper, rtol=1e-9)
    assert a.settings["path"] == b.settings["path"] == "general"


@NATIVE
@pytest.mark.parametrize("sigmas", [(0.3, 0.3), (0.2, 0.5), (0.5, 0.2)])
def test_single_isotropic_gaussians_as_the_compiled_path(sigmas: tuple[float, float]) -> None:
    mixtures = [random_mfa(k=1, d=15, l=3, seed=c, spread=1.0) for c in range(2)]
    clf = mfakit.BayesClassifier([m.replace(noise_variance=s**2) for m, s in zip(mixtures, sigmas, strict=True)])
    X, y = clf.sample(12, rng=0, dtype=np.float64)
    a, b = general(clf, X, y), minimal_perturbation(clf, X, y, path="factor")
    np.testing.assert_allclose(a.lower, b.lower, rtol=1e-8)
    np.testing.assert_allclose(a.upper, b.upper, rtol=1e-8)


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
    a, b = general(clf, X, y), minimal_perturbation(clf, X, y, path="factor")
    np.testing.assert_array_equal(a.already_wrong, b.already_wrong)
    assert (~a.already_wrong).any()
    assert (a.lower <= b.upper).all()
    assert (b.lower <= a.upper).all()
    assert a.gap.max() < 2 * b.gap.max() + 1e-6


def test_three_classes_take_the_nearest() -> None:
    """Single Gaussians and equal priors: the minimum over the two-class problems, exactly."""
    clf = diagonal_classifier(5, k=1, d=8, n_classes=3)
    X, y = clf.sample(9, rng=0, dtype=np.float64)
    r = general(clf, X, y)
    for i in np.flatnonzero(~r.already_wrong):
        radii = {}
        for c in set(range(3)) - {int(y[i])}:
            two = mfakit.BayesClassifier([clf.mixtures[y[i]], clf.mixtures[c]])
            radii[c] = general(two, X[i : i + 1], [0]).upper[0]
        np.testing.assert_allclose([r.lower[i], r.upper[i]], min(radii.values()), rtol=1e-8)
        assert r.target_class[i] == min(radii, key=lambda c: radii[c])


def test_theorem1_in_closed_form() -> None:
    """Equal diagonal covariances: the distance to a plane."""
    noise = np.array([[0.01, 0.04, 0.09]])
    means = np.array([[0.0, 0, 0], [1.0, 2, -1]])
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], m[None], np.zeros((1, 3, 1)), noise) for m in means])
    X = np.random.default_rng(0).normal(scale=0.1, size=(10, 3))
    r = general(clf, X)
    normal = (means[1] - means[0]) / noise[0]
    expected = (0.5 * means[1] - X) @ normal / np.linalg.norm(normal)
    np.testing.assert_allclose(r.lower, expected, rtol=2e-10)
    np.testing.assert_allclose(r.upper, expected, rtol=2e-10)


@pytest.mark.parametrize("d", [1, 3])
def test_a_narrow_class_inside_a_broad_one_is_the_hard_case(d: int) -> None:
    """Concentric spheres, x at the centre: no gradient and no preferred direction, yet a finite radius."""
    s, t = 0.1, 1.0
    r = general(spheres(np.zeros((2, d)), (s, t)), np.zeros((1, d)), [0])
    expected = np.sqrt(2 * d * np.log(t / s) / (1 / s**2 - 1 / t**2))
    np.testing.assert_allclose([r.lower[0], r.upper[0]], expected, rtol=1e-8)
    assert r.lower[0] <= expected * (1 + 1e-14)


def test_the_hard_case_of_one_feature_beside_others() -> None:
    """A feature that is all but constant in the true class, x at its mean: δ(λ) ends at the pole, short of q = 0."""
    noise = np.array([[1e-6, 0.05, 0.05]]), np.array([[1e-2, 0.06, 0.05]])
    means = np.array([[0.0, 0, 0], [0.0, 2.0, 0]])
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], m[None], np.ones((1, 3, 1)) * [[0], [1], [1]], D)
                                  for m, D in zip(means, noise, strict=True)])  # fmt: skip
    x = np.array([[0.0, 0.1, -0.2]])
    r = general(clf, x, [0])
    starts = [np.array([s, 0.0, 0.0]) for s in (-0.01, 0.003, 0.01)]
    np.testing.assert_allclose([r.lower[0], r.upper[0]], slsqp_radius(clf, x[0], 0, starts), rtol=1e-6)
    assert abs(r.x_adv[0, 0]) > 1e-3  # along the feature that the gradient at x does not see


def test_loadings_that_make_up_for_a_negative_diagonal() -> None:
    """A feature with next to no noise of its own, explained by the factor (a Heywood case)."""
    A = np.array([[[1.0], [0.5], [0.2]]])
    source = mfakit.MFA([1.0], np.zeros((1, 3)), A, np.array([[1e-8, 0.3, 0.3]]))
    target = mfakit.MFA([1.0], [[2.0, 0.5, -1.0]], A[:, ::-1], np.array([[0.4, 0.2, 0.3]]))
    clf = mfakit.BayesClassifier([source, target])
    X = source.sample(5, rng=3, dtype=np.float64)[0]
    r = general(clf, X, np.zeros(5, int))
    rng = np.random.default_rng(0)
    right = np.flatnonzero(~r.already_wrong)
    assert len(right) >= 2
    L = Lagrangian(Sample(Components(clf), X[right[0]]), [1], np.ones(1), 0.0, [0])
    dual = _general_roots.nearest_on_quadric(L, np.ones(1)).dual
    assert dual is not None
    assert dual.lam[0] > 1e-7  # 1 - λ / D_s is far below 0 there
    for i in right:
        starts = [r.x_adv[i] - X[i], *(rng.normal(size=(10, 3)))]
        np.testing.assert_allclose([r.lower[i], r.upper[i]], slsqp_radius(clf, X[i], 0, starts), rtol=1e-6)


@pytest.mark.parametrize(
    ("sigmas", "priors"),
    [
        ((0.1, 0.1), [1.0, 0.0]),  # a class that does not occur
        ((1.0, 0.1), [1.0 - 1e-6, 1e-6]),  # a narrow class below the broad one everywhere
        ((0.3, 0.3), [0.7, 0.3]),  # the same density, less likely: q is a constant
    ],
)
def test_a_class_that_cannot_be_reached_has_an_infinite_radius(sigmas: Any, priors: Any) -> None:
    clf = spheres(np.zeros((2, 3)), sigmas, priors)
    r = general(clf, np.random.default_rng(0).normal(size=(3, 3)), [0, 0, 0])
    assert np.isinf(r.lower).all()
    assert np.isinf(r.upper).all()
    assert not r.success.any()
    assert set(r.reason) == {"no crossing"}
    np.testing.assert_array_equal(r.gap, 0.0)


def test_components_of_weight_zero_do_not_count() -> None:
    clf = diagonal_classifier(2, k=3)
    kept = mfakit.BayesClassifier([m.replace(weights=[0.4, 0.6, 0.0]) for m in clf.mixtures])
    only = mfakit.BayesClassifier(
        [mfakit.MFA([0.4, 0.6], m.means[:2], m.loadings[:2], m.noise_variance[:2]) for m in clf.mixtures]
    )
    X, y = only.sample(6, rng=0, dtype=np.float64)
    a, b = general(kept, X, y), general(only, X, y)
    np.testing.assert_allclose(a.lower, b.lower, rtol=1e-9)
    np.testing.assert_allclose(a.upper, b.upper, rtol=1e-9)


def test_already_wrong_is_zero_and_marked() -> None:
    clf = spheres([[0.0, 0], [1.0, 0]], (0.1, 0.1))
    X = np.array([[0.9, 0.0], [0.1, 0.0]])
    r = general(clf, X, [0, 0])
    assert r.already_wrong.tolist() == [True, False]
    assert (r.lower[0], r.upper[0], r.success[0]) == (0.0, 0.0, False)
    np.testing.assert_array_equal(r.x_adv[0], X[0])
    np.testing.assert_allclose(r.upper[1], 0.4, rtol=1e-9)


def test_inputs_of_every_kind() -> None:
    clf = diagonal_classifier(1)
    X, y = clf.sample(7, rng=0, dtype=np.float64)
    whole = general(clf, X, y)
    single = general(clf, X.astype(np.float32), y)
    assert single.x_adv.dtype == np.float32
    assert (clf.predict(single.x_adv) != y)[single.success].all()
    assert single.success.sum() >= 5
    np.testing.assert_allclose(single.upper, whole.upper, rtol=1e-4, atol=1e-5)
    spaced = np.zeros((14, 16))
    spaced[::2, ::2] = X
    kept = spaced.copy()
    for view in (spaced[::2, ::2], np.asfortranarray(X)):
        r = general(clf, view, y)
        np.testing.assert_array_equal(r.lower, whole.lower)
        np.testing.assert_array_equal(r.x_adv, whole.x_adv)
    np.testing.assert_array_equal(spaced, kept)
    alone = general(clf, X[4:5], y[4:5])
    np.testing.assert_allclose(alone.lower, whole.lower[4:5], rtol=1e-12)
    np.testing.assert_allclose(alone.upper, whole.upper[4:5], rtol=1e-12)
    none = general(clf, X[:0], y[:0])
    assert (len(none), none.gap.shape, none.x_adv.shape) == (0, (0,), (0, 8))
    np.testing.assert_array_equal(general(clf, X).y, clf.predict(X))


def test_a_row_that_is_not_finite_spoils_its_own_only() -> None:
    clf = diagonal_classifier(1)
    X, y = clf.sample(3, rng=0, dtype=np.float64)
    whole = general(clf, X, y)
    X[1, 2] = np.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 1"):
        general(clf, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN in the verification's comparisons
        r = general(clf, X, y, check_finite=False)
    assert np.isnan(r.lower[1]) or r.already_wrong[1]
    np.testing.assert_allclose(r.lower[[0, 2]], whole.lower[[0, 2]], rtol=1e-12)


@pytest.mark.parametrize(
    ("X", "y", "path", "match"),
    [
        (np.zeros((1, 8)), [0], "fast", "path must be one of"),
        (np.zeros((1, 8)), [0], "factor", r"its noise is diagonal.*path=\"general\""),
        (np.zeros((1, 7)), [0], "auto", r"\[n, 8\]"),
        (np.zeros((2, 8)), [0], "auto", r"one label per sample, shape \(2,\)"),
        (np.zeros((1, 8)), [2], "auto", "classes 0 to 1"),
    ],
)
def test_bad_input_says_what_is_wrong(X: Any, y: Any, path: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        minimal_perturbation(diagonal_classifier(0), X, y, path=path)


@pytest.mark.parametrize("noise", [0.0, [0.0], [[0.0, 1.0]]])
def test_no_noise_is_refused_and_points_to_the_limit(noise: Any) -> None:
    """σ = 0 has no density: Theorem 2's limit is what subspace_distances computes."""
    with pytest.raises(ValueError, match=r"Theorem 2 bounds the radius.*subspace_distances"):
        mfakit.MFA([1.0], np.zeros((1, 2)), np.ones((1, 2, 1)), noise)


def test_auto_takes_the_general_path_where_it_must_and_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagonal, iso = diagonal_classifier(0), spheres([[0.0, 0], [1.0, 0]], (0.1, 0.1))
    with caplog.at_level(logging.INFO, "mfakit"):
        assert minimal_perturbation(diagonal, np.zeros((20, 8))).settings["path"] == "general"
    said = [r.message for r in caplog.records if "minimal_perturbation" in r.message]
    assert len(said) == 1  # once, not per block
    assert "takes the general path: its noise is diagonal" in said[0]
    monkeypatch.setattr(minimal, "why_missing", lambda name: "no compiler was found")
    with caplog.at_level(logging.INFO, "mfakit"):
        r = minimal_perturbation(iso, np.zeros((1, 2)), [0])
    np.testing.assert_allclose([r.lower[0], r.upper[0]], 0.5, rtol=1e-9)
    assert "minimal_perturbation takes the general path: no compiler was found" in caplog.messages
    with pytest.raises(mfakit.BackendUnavailable, match=r"no compiler was found; use path=\"general\""):
        minimal_perturbation(iso, np.zeros((1, 2)), [0], path="factor")


def test_a_root_search_that_does_not_end_is_an_error_with_its_bracket(monkeypatch: pytest.MonkeyPatch) -> None:
    clf = diagonal_classifier(0, k=1)
    X, y = clf.sample(3, rng=0, dtype=np.float64)
    monkeypatch.setattr(_general_roots, "MOST_STEPS", 2)
    with pytest.raises(RootSearchError, match=r"sample \d: .* did not close its bracket: after 2 steps .* between"):
        general(clf, X, y)


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
    r = general(clf, X, y)
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
