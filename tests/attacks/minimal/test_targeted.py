"""Certified minima of flips to a given class: closed forms, brute force, and attacks with the same target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minimal_cases import spheres
from support import close, random_mfa

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.minimal.components import Components
from mfakit.attacks.minimal.lagrangian import Lagrangian
from mfakit.attacks.minimal.sample import Sample

Array = np.ndarray[Any, Any]


def nearest_in_polyhedron(x: Array, normals: Array, heights: Array) -> float:
    """The length of the shortest δ with normals · (x + δ) ≥ heights, two constraints in a plane."""
    short = heights - normals @ x
    lengths = []
    for n, h in zip(normals, short, strict=True):
        delta = n * max(h, 0.0) / (n @ n)
        lengths += [np.linalg.norm(delta)] if (normals @ delta >= short - 1e-12).all() else []
    corner = np.linalg.solve(normals, short)
    return float(min([*lengths, np.linalg.norm(corner)]))


@pytest.mark.parametrize("path", ["auto", "features"])
def test_three_equal_spheres_in_closed_form(path: Any) -> None:
    """The cell of a class is where it is nearest: two half-planes, entered through a side or at its corner."""
    means = np.array([[0.0, 0.0], [3.0, 0.0], [1.4, 0.9]])
    clf = spheres(means, (0.1, 0.1, 0.1))
    X = np.array([[0.0, 0.0], [0.2, -0.6], [-0.3, 0.4], [0.1, -1.5]])
    normals = means[1] - means[[0, 2]]
    heights = (means[1] @ means[1] - (means[[0, 2]] ** 2).sum(axis=1)) / 2
    expected = [nearest_in_polyhedron(x, normals, heights) for x in X]
    r = minimal_perturbation(clf, X, np.zeros(4), target=1, path=path)
    close(r.lower, expected, rtol=1e-6)
    close(r.upper, expected, rtol=1e-6)
    np.testing.assert_array_equal(clf.predict(r.x_adv), [1] * 4)
    assert r.target_class.tolist() == [1] * 4
    assert r.settings["targeted"] is True
    assert (r.lower >= minimal_perturbation(clf, X, np.zeros(4), path=path).lower).all()


def test_of_two_classes_the_target_is_any_other() -> None:
    clf = mfakit.BayesClassifier([random_mfa(d=10, k=3, l=2, seed=s, spread=1.0) for s in range(2)])
    X, y = clf.sample(10, rng=0, dtype=np.float64)
    plain, aimed = minimal_perturbation(clf, X, y), minimal_perturbation(clf, X, y, target=1 - y)
    np.testing.assert_array_equal(plain.lower, aimed.lower)
    np.testing.assert_array_equal(plain.x_adv, aimed.x_adv)
    assert not plain.settings["targeted"]


def test_each_sample_may_have_a_target_of_its_own() -> None:
    clf = spheres([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]], (0.1, 0.1, 0.1))
    X = np.zeros((3, 2))
    r = minimal_perturbation(clf, X, [0, 0, 0], target=[1, 2, 1])
    close(r.upper, [1.0, 0.5, 1.0], rtol=1e-6)
    assert r.y_adv.tolist() == [1, 2, 1]
    boxed = minimal_perturbation(clf, X, [0, 0, 0], target=[1, 2, 1], bounds=([-1.0, -1.0], [2.0, 0.45]))
    close(boxed.lower[[0, 2]], [1.0, 1.0], rtol=1e-6)
    assert np.isinf(boxed.lower[1])
    assert not boxed.success[1]


def test_no_attack_is_below_a_lower_bound() -> None:
    clf = mfakit.BayesClassifier(
        [random_mfa(d=30, k=3, l=2, seed=s, spread=0.5) for s in range(3)], [0.5, 0.3, 0.2]
    ).symmetric(0.2)
    X, y = clf.sample(15, rng=0, dtype=np.float64)
    target = (y + 1) % 3
    r = minimal_perturbation(clf, X, y, target=target)
    right = ~r.already_wrong
    np.testing.assert_array_equal(clf.predict(r.x_adv)[right], target[right])
    np.testing.assert_array_less(np.median(r.gap[right]), 1e-3)
    for step in (0.2, 0.05, 0.02):
        attack = gradient_attack(clf, X, y, target=target, polish=True, step_size=step)
        assert attack.success[right].all()
        assert not len(attack.grade(r).contradictions)


def test_gibbs_holds_for_each_class_on_its_own() -> None:
    """The dual with sources of two classes: no point that beats both of them lies within what a random λ proves."""
    rng = np.random.default_rng(0)
    clf = mfakit.BayesClassifier([random_mfa(d=2, k=2, l=1, seed=s, spread=1.0, sigma=0.5) for s in range(3)])
    x = clf.mixtures[0].means[0]
    sample = Sample(Components(clf), x)
    L = Lagrangian(sample, [4], np.ones(1), np.log(2.0), [0, 1, 2, 3])
    U = rng.normal(size=(20_000, 2)) * 10.0 ** rng.uniform(-2, 1, (20_000, 1))
    scores = np.stack([m.log_prob(x + U) for m in clf.mixtures])
    t = clf.mixtures[2].component_log_prob(x + U)[:, 0] + np.log(2.0)
    nearest = np.linalg.norm(U[(t >= scores[0]) & (t >= scores[1])], axis=1).min()
    bounds = []
    for _ in range(300):
        dual = L.evaluate(rng.dirichlet(np.ones(4)) * 10.0 ** rng.uniform(-3, 1))
        bounds.append(0.0 if dual is None else L.bound(dual))
        assert bounds[-1] <= nearest
    assert 0.5 * nearest < max(bounds)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (1, "target must differ from the true classes, but both are 1 in row 2; pass one class per sample"),
        ([1, 2, 1], "target must differ from the true classes, but both are 1 in row 2"),
        (3, "target must hold the classes 0 to 2 of this classifier, got values 3"),
        ("cat", r"target must hold the classes 0 to 2 .* got values cat \(str\)"),
        (0.5, "target must hold the classes 0 to 2 .* got values 0.5"),
        ([1, 2], r"target must have one label per sample, shape \(3,\), got \(2,\)"),
    ],
)
def test_targets_that_are_none(target: Any, message: str) -> None:
    clf = spheres([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]], (0.1, 0.1, 0.1))
    X = np.array([[0.0, 0.0], [0.1, 0.0], [2.0, 0.0]])
    for attack in (minimal_perturbation, gradient_attack):
        for y in ([0, 0, 1], None):
            with pytest.raises(ValueError, match=message):
                attack(clf, X, y, target=target)
