"""Certificates inside a box: closed forms, brute force, weak duality against dense matrices, and attacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minimal_cases import diagonal_classifier, spheres
from scipy.optimize import lsq_linear
from support import close, parameters, random_mfa

import mfakit
from mfakit import _reference as reference
from mfakit._arrays.options import Options
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.gradient.walk import FeatureWalk
from mfakit.attacks.minimal.box import Box, BoxLagrangian, minimise
from mfakit.attacks.minimal.components import Components
from mfakit.attacks.minimal.constrained import Constraint
from mfakit.attacks.minimal.lagrangian import Quadratic
from mfakit.attacks.minimal.sample import Sample
from mfakit.attacks.models.bayes import MixtureVictim

Array = np.ndarray[Any, Any]


def clipped_radius(way: Array, height: float, low: Array, high: Array) -> float:
    """The shortest δ between low and high with way · δ = height: clip(t · way), with t by bisection."""
    if np.maximum(way * low, way * high).sum() < height:
        return np.inf
    below, above = 0.0, 1.0
    while way @ np.clip(above * way, low, high) < height:
        above *= 2.0
    for _ in range(200):
        middle = 0.5 * (below + above)
        below, above = (middle, above) if way @ np.clip(middle * way, low, high) < height else (below, middle)
    return float(np.linalg.norm(np.clip(above * way, low, high)))


@pytest.mark.parametrize("path", ["auto", "features"])
def test_a_plane_in_closed_form(path: Any) -> None:
    """Two equal spheres, and boxes of which some cut the way to the plane, one a part of it, and one all of it."""
    clf = spheres([[0.0, 0.0, 0.0], [3.0, 4.0, 1.0]], (0.3, 0.3))
    way = np.array([3.0, 4.0, 1.0])
    X = np.random.default_rng(0).normal(scale=0.1, size=(6, 3))
    heights = way @ way / 2 - X @ way
    for high, reached in (
        ([9.0, 9.0, 9.0], True),
        ([9.0, 0.5, 9.0], True),
        ([0.6, 9.0, 0.4], True),
        ([1.0] * 3, False),
    ):
        bounds = np.array([-1.0, -0.5, -2.0]), np.array(high)
        r = minimal_perturbation(clf, X, np.zeros(6), bounds=bounds, path=path)
        low, top = bounds[0] - X, bounds[1] - X
        expected = [clipped_radius(way, h, a, b) for h, a, b in zip(heights, low, top, strict=True)]
        assert np.isfinite(expected).all() == reached
        close(r.lower, expected, rtol=1e-6)
        close(r.upper, expected, rtol=1e-6)
        assert (r.lower <= np.array(expected) * (1 + 1e-12)).all()
        assert (r.x_adv >= bounds[0]).all()
        assert (r.x_adv <= bounds[1]).all()


def test_equal_numbers_for_all_features_are_the_same_box() -> None:
    clf = spheres([[0.0, 0.0], [1.0, 3.0]], (0.3, 0.3))
    X = np.array([[0.1, 0.2], [0.0, 0.4]])
    one = minimal_perturbation(clf, X, bounds=(0, 1.2))
    each = minimal_perturbation(clf, X, bounds=([0.0, 0.0], np.full(2, 1.2)))
    np.testing.assert_array_equal(one.lower, each.lower)
    np.testing.assert_array_equal(one.x_adv, each.x_adv)
    assert one.settings["bounds"] == (0.0, 1.2)
    assert each.settings["bounds"] == ((0.0, 0.0), (1.2, 1.2))


def test_a_box_that_holds_the_point_changes_nothing() -> None:
    clf = spheres([[0.0, 0.0], [1.0, 3.0]], (0.3, 0.3))
    X = np.array([[0.1, 0.2], [0.0, 0.4]])
    free = minimal_perturbation(clf, X)
    for bounds in ((-5, 5), (-np.inf, np.inf), ([-5, -np.inf], [np.inf, 5])):
        r = minimal_perturbation(clf, X, bounds=bounds)
        np.testing.assert_array_equal(r.lower, free.lower)
        np.testing.assert_array_equal(r.x_adv, free.x_adv)


def test_a_bound_on_one_side_only() -> None:
    clf = spheres([[0.0, 0.0], [3.0, 4.0]], (0.3, 0.3))
    r = minimal_perturbation(clf, np.zeros((1, 2)), bounds=([-np.inf, -np.inf], [np.inf, 0.5]))
    close(r.lower, [np.hypot((12.5 - 2.0) / 3, 0.5)], rtol=1e-6)


def brute_radius(clf: mfakit.BayesClassifier, x: Array, y: int, box: tuple[Array, Array], goal: int | None) -> float:
    """The nearest flip on a lattice in the box, by dense covariances."""
    n = {1: 20_001, 2: 201, 3: 41}[len(x)]
    axes = [np.linspace(a, b, n) for a, b in zip(*box, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(x))
    logs = np.stack([reference.log_prob(points, *parameters(m)) for m in clf.mixtures], axis=1)
    decision = (logs + np.log(clf.priors)).argmax(axis=1)
    flips = decision != y if goal is None else decision == goal
    return float(np.linalg.norm(points[flips] - x, axis=1).min(initial=np.inf))


def random_case(
    seed: int, softest: float = 0.0
) -> tuple[mfakit.BayesClassifier, Array, Array, tuple[Array, Array], Array | None]:
    """A classifier of two to four classes, samples [3, d], their classes, a box, and classes to reach or None; σ is up
    to 10 to the power of `softest`.
    """
    rng = np.random.default_rng(seed)
    d, n_classes = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    mixtures = [
        random_mfa(
            k=int(rng.integers(1, 4)), d=d, l=int(rng.integers(0, d + 1)), seed=10 * seed + c,
            noise=str(rng.choice(["isotropic", "diagonal"])), sigma=10.0 ** rng.uniform(-1.5, softest), spread=1.0,
        )
        for c in range(n_classes)
    ]  # fmt: skip
    clf = mfakit.BayesClassifier(mixtures, rng.dirichlet(np.ones(n_classes)) if seed % 2 else None)
    X, y = clf.sample(3, rng=seed, dtype=np.float64)
    low = X.min(axis=0) - rng.uniform(0, 1, d) * rng.integers(0, 2, d) - 1e-3
    high = X.max(axis=0) + rng.uniform(0, 1, d) * rng.integers(0, 2, d) + 1e-3
    others = np.array([rng.choice([c for c in range(n_classes) if c != label]) for label in y])
    return clf, X, y, (low, high), others if seed % 3 == 0 else None


def check_by_brute_force(seed: int, softest: float = 0.0) -> tuple[int, int]:
    """How many samples of a random case were examined, and for how many of them the nearest flip is bracketed."""
    clf, X, y, box, goals = random_case(seed, softest)
    r = minimal_perturbation(clf, X, y, bounds=box, target=goals)
    right, closed = np.flatnonzero(~r.already_wrong), 0
    for i in right:
        goal = None if goals is None else int(goals[i])
        nearest = brute_radius(clf, X[i], int(y[i]), box, goal)
        assert r.lower[i] <= nearest * (1 + 1e-12), (seed, i)
        closed += r.upper[i] <= nearest
        if r.success[i]:
            decision = clf.predict(r.x_adv[i : i + 1])[0]
            assert decision != y[i] if goal is None else decision == goal
            assert (r.x_adv[i] >= box[0]).all()
            assert (r.x_adv[i] <= box[1]).all()
            close(np.linalg.norm(r.x_adv[i] - X[i]), r.upper[i], rtol=1e-12)
    return len(right), closed


def test_random_models_by_brute_force() -> None:
    counts = np.sum([check_by_brute_force(seed, -0.7) for seed in range(1, 8)], axis=0)
    assert counts[0] >= 15
    assert counts[1] >= 0.9 * counts[0]


@pytest.mark.slow
def test_many_random_models_by_brute_force() -> None:
    counts = np.sum([check_by_brute_force(seed) for seed in range(8, 250)], axis=0)
    assert counts[1] >= 0.9 * counts[0]


@pytest.mark.parametrize("seed", range(3))
def test_any_multiplier_is_a_lower_bound_inside(seed: int) -> None:
    """Weak duality: no point of the box with log p_t + c ≥ log Σ p_s lies within the radius that a random λ proves,
    also where λ is beyond the pole of the problem without a box.
    """
    clf = diagonal_classifier(seed, k=3, d=4)
    rng = np.random.default_rng(seed)
    x = clf.mixtures[0].means[0] + 0.1 * rng.normal(size=4)
    low, high = x - rng.uniform(0, 0.5, 4), x + rng.uniform(0.1, 2.0, 4)
    U = rng.uniform(low - x, high - x, (20_000, 4)) * rng.random((20_000, 1))
    own, other = (m.component_log_prob(x + U, method="residual") for m in clf.mixtures)
    flips = other[:, 1] + 0.3 >= np.logaddexp.reduce(own, axis=1)
    nearest = np.linalg.norm(U[flips], axis=1).min(initial=np.inf)
    sample, bounds = Sample(Components(clf), x), []
    for _ in range(100):
        L = BoxLagrangian(sample, [4], np.ones(1), 0.3, [0, 1, 2], Box(x, low, high))
        dual = L.evaluate(rng.dirichlet(np.ones(3)) * 10.0 ** rng.uniform(-5, 1))
        if dual is not None:
            bounds.append(L.bound(dual))
            assert bounds[-1] <= nearest
            assert Box(x, low, high).holds(dual.delta)
    assert max(bounds) > 0.0


@pytest.mark.parametrize("seed", range(6))
def test_the_minimum_in_a_box_agrees_with_another_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, r = 9, 4
    e, V, sign = rng.uniform(0.5, 2.0, d), rng.normal(size=(r, d)), np.array([1.0, 1.0, 1.0, -1.0])
    V[3] *= 0.2
    low, high = -rng.uniform(0, 0.5, d) * rng.integers(0, 2, d), rng.uniform(0.1, 0.5, d)
    P, b = np.diag(e) + V.T @ (sign[:, None] * V), 3.0 * rng.normal(size=d)
    found = minimise(Quadratic(e, e, V, sign), b, Box(np.zeros(d), low, high), np.zeros(d))
    assert found is not None
    root = np.linalg.cholesky(P)  # ½ δᵀPδ - bᵀδ is ½ ‖Lᵀδ - L⁻¹b‖² and a constant
    expected = lsq_linear(root.T, np.linalg.solve(root, b), (low, high), method="bvls", tol=1e-15).x
    close(found[0], expected, rtol=1e-7, atol=1e-9)


def mixture_pair(sigma: float = 0.05) -> tuple[mfakit.BayesClassifier, Array, Array]:
    """Classes in [0, 1] of 40 features, half of whose samples' features are at a bound."""
    mixtures = [random_mfa(d=40, k=4, l=3, seed=s, spread=0.4) for s in range(2)]
    clf = mfakit.BayesClassifier([m.replace(loadings=0.1 * m.loadings) for m in mixtures]).symmetric(sigma)
    X, y = clf.sample(24, rng=0, dtype=np.float64)
    return clf, np.clip(X, 0.0, 1.0), y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_attack_is_below_a_lower_bound(dtype: Any) -> None:
    clf, X, y = mixture_pair()
    X = X.astype(dtype)
    r = minimal_perturbation(clf, X, y, bounds=(0, 1))
    right = ~r.already_wrong
    assert right.sum() > 15
    np.testing.assert_array_less(r.gap[right], 1e-3)
    assert (r.lower >= minimal_perturbation(clf, X, y).lower * (1 - 1e-9)).all()
    assert r.x_adv.dtype == dtype
    assert r.x_adv.min() >= 0.0
    assert r.x_adv.max() <= 1.0
    assert (clf.predict(r.x_adv) != y)[right].all()
    for step in (0.1, 0.03, 0.01):
        attack = gradient_attack(clf, X, y, bounds=(0, 1), polish=True, step_size=step)
        assert attack.success.any()
        assert not len(attack.grade(r).contradictions)
        assert (attack.l2[attack.success] >= r.upper[attack.success] * (1 - 1e-3)).all()


@pytest.mark.slow
def test_carlini_wagner_in_the_box_is_above_the_bounds() -> None:
    pytest.importorskip("torch")
    clf, X, y = mixture_pair()
    r = minimal_perturbation(clf, X[:4], y[:4], bounds=(0, 1))
    attack = mfakit.attacks.carlini_wagner_l2(
        clf, X[:4], y[:4], bounds=(0, 1), max_iterations=60, binary_search_steps=2, rescue_searches=0, polish=True
    )
    assert attack.success.any()
    assert not len(attack.grade(r).contradictions)


def test_what_is_no_flip_inside_is_searched() -> None:
    """Of four points one is a flip inside, one outside, one no flip at all and one short of a flip by rounding."""
    clf = spheres([[0.0, 0.0], [2.0, 0.0]])
    walk = FeatureWalk(MixtureVictim(clf, 4, Options()), np.zeros((4, 2)), np.zeros(4, np.int64))
    walk.state.flipped[:] = True
    walk.here[:] = [[1.1, 0.0], [1.1, 0.6], [0.5, 0.0], [1.0 - 1e-9, 0.0]]
    constraint = Constraint(clf, lambda: Components(clf), (-0.5, 1.5), None, None)
    constraint.apply(walk, 0)
    assert constraint.unsettled(walk).tolist() == [False, False, True, False]
    outside = Constraint(clf, lambda: Components(clf), ([-0.5, -0.5], [1.5, 0.5]), None, None)
    outside.apply(walk, 0)
    assert outside.unsettled(walk).tolist() == [False, True, True, False]


def test_results_do_not_depend_on_the_batch() -> None:
    clf, X, y = mixture_pair()
    whole = minimal_perturbation(clf, X[:6], y[:6], bounds=(0, 1), n_threads=1)
    alone = minimal_perturbation(clf, X[3:4], y[3:4], bounds=(0, 1), n_threads=2)
    close(alone.lower, whole.lower[3:4], rtol=1e-9)
    close(alone.upper, whole.upper[3:4], rtol=1e-9)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1.0, 0.0), r"bounds must be \(low, high\) with low < high, or None, got \(1.0, 0.0\)"),
        ((0.0, np.nan), r"bounds must be .* got \(0.0, nan\)"),
        (([0.0, 0.0], [1.0, np.nan]), r"low < high, got 0 and nan for feature 1"),
        (([0.0, 2.0], [1.0, 1.0]), r"low < high, got 2 and 1 for feature 1"),
        (([0.0] * 3, 1.0), r"bounds must be two numbers or arrays \[2\], one number per feature, got \[3\]"),
        (([0.0] * 3, [1.0] * 2), r"arrays of shapes \(3,\) and \(2,\)"),
        (3, r"bounds must be \(low, high\)"),
        ((0.0, 0.15), r"X must lie within bounds \[0, 0.15\], got values from 0.1 to 0.2 in row 1; clip X or widen"),
        (([-1, -1], [1, 0.15]), r"X must lie within bounds \[-1, 0.15\] of feature 1, got 0.2 in row 1; clip X"),
    ],
)
def test_bounds_that_are_none(bounds: Any, message: str) -> None:
    clf = spheres([[0.0, 0.0], [1.0, 0.0]])
    X = np.array([[0.0, 0.0], [0.1, 0.2], [0.3, 0.3]])
    for attack in (minimal_perturbation, gradient_attack):
        with pytest.raises(ValueError, match=message):
            attack(clf, X, bounds=bounds)
