"""The features path where the nearest point is hard to find, or there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minimal_cases import diagonal_classifier, in_features, slsqp_radius, spheres
from support import close

import mfakit
from mfakit.attacks.minimal import roots
from mfakit.attacks.minimal.components import Components
from mfakit.attacks.minimal.lagrangian import Lagrangian
from mfakit.attacks.minimal.sample import Sample


@pytest.mark.parametrize("d", [1, 3])
def test_a_narrow_class_inside_a_broad_one_is_the_hard_case(d: int) -> None:
    """Concentric spheres, x at the centre: no gradient and no preferred direction, yet a finite radius."""
    s, t = 0.1, 1.0
    r = in_features(spheres(np.zeros((2, d)), (s, t)), np.zeros((1, d)), [0])
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
    r = in_features(clf, x, [0])
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
    r = in_features(clf, X, np.zeros(5, int))
    rng = np.random.default_rng(0)
    right = np.flatnonzero(~r.already_wrong)
    assert len(right) >= 2
    L = Lagrangian(Sample(Components(clf), X[right[0]]), [1], np.ones(1), 0.0, [0])
    dual = roots.nearest_on_quadric(L, np.ones(1)).dual
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
    r = in_features(clf, np.random.default_rng(0).normal(size=(3, 3)), [0, 0, 0])
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
    a, b = in_features(kept, X, y), in_features(only, X, y)
    close(a.lower, b.lower, rtol=1e-9)
    close(a.upper, b.upper, rtol=1e-9)


def test_already_wrong_is_zero_and_marked() -> None:
    clf = spheres([[0.0, 0], [1.0, 0]], (0.1, 0.1))
    X = np.array([[0.9, 0.0], [0.1, 0.0]])
    r = in_features(clf, X, [0, 0])
    assert r.already_wrong.tolist() == [True, False]
    assert (r.lower[0], r.upper[0], r.success[0]) == (0.0, 0.0, False)
    np.testing.assert_array_equal(r.x_adv[0], X[0])
    close(r.upper[1], 0.4, rtol=1e-9)
