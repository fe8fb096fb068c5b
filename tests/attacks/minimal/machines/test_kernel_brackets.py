"""Brackets of machines of RBF kernels: closed forms, brute force in up to two features, and digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from support import Array, blobs, close

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.minimal.machines.quadratic import phi
from mfakit.classifiers import RBFSVM
from mfakit.classifiers.svm.kernel_machine import RBFMachine


def squares(machine: RBFMachine, X: Array) -> Array:
    """Squared distances to the support vectors, [n, m]."""
    return ((X[:, None].astype(float) - machine.support) ** 2).sum(axis=2)


def decisions(machine: RBFMachine, X: Array) -> Array:
    """By the definition, without the products of the machine."""
    f = np.exp(-machine.gamma * squares(machine, X)) @ machine.coefficients.T + machine.intercept
    return f.argmax(axis=1) if len(machine.intercept) > 1 else (f[:, 0] > 0).astype(int)


def ball(radius: float, d: int) -> tuple[Array, Array]:
    """Displacements in a grid of directions and lengths up to `radius`, and their lengths."""
    angles = np.linspace(0, 2 * np.pi, 181)
    ways = np.array([[1.0], [-1.0]]) if d == 1 else np.column_stack([np.cos(angles), np.sin(angles)])
    lengths = radius * np.linspace(0, 1, 121)[1:]
    return (lengths[:, None, None] * ways).reshape(-1, d), np.repeat(lengths, len(ways))


def random_machine(seed: int) -> tuple[RBFMachine, Array]:
    """A machine of up to seven support vectors in one or two features and three samples; some at 1000 from the origin,
    some without a constant, some of three classes, some samples on a support vector.
    """
    rng = np.random.default_rng(seed)
    d, m, n_rows = int(rng.integers(1, 3)), int(rng.integers(1, 8)), int(rng.choice([1, 1, 3]))
    support = rng.normal(size=(m, d)) * rng.choice([0.3, 1.0, 3.0]) + rng.choice([0.0, 0.0, 1e3])
    coefficients = rng.normal(size=(n_rows, m)) * np.exp(rng.normal(size=(n_rows, m)) * rng.choice([0.0, 2.0]))
    intercept = rng.normal(size=n_rows) * rng.choice([0.0, 0.1, 1.0])
    machine = RBFMachine(support, coefficients, intercept, float(np.exp(1.5 * rng.normal())))
    X = support.mean(axis=0) + rng.normal(size=(3, d)) * rng.choice([0.3, 1.0, 3.0])
    X[0] = support[0] if rng.random() < 0.3 else X[0]
    return machine, X


def check_against_grids(seeds: range) -> list[float]:
    """lower / upper of all samples; no flip on a grid may be below `lower`, and none nearer than `upper`."""
    quality = []
    for seed in seeds:
        machine, X = random_machine(seed)
        r = minimal_perturbation(machine, X)
        for i in np.flatnonzero(~r.already_wrong):
            known = next(v for v in (r.upper[i], r.lower[i], 10 / np.sqrt(machine.gamma)) if np.isfinite(v))
            moved, lengths = ball(known, X.shape[1])
            flips = decisions(machine, X[i] + moved) != r.y[i]
            assert not (flips & (lengths < r.lower[i] * (1 - 1e-9))).any(), (seed, i)
            # Where all kernels underflow the first class is computed, which an attack may stumble on.
            seen = (machine.gamma * squares(machine, X[i] + moved)).min(axis=1) < 700
            assert not (flips & seen & (lengths < r.upper[i] * (1 - 1e-6))).any(), (seed, i)
            if r.success[i]:
                assert decisions(machine, r.x_adv[i : i + 1])[0] == r.y_adv[i] != r.y[i]
                quality.append(r.lower[i] / r.upper[i])
    return quality


def test_no_flip_below_lower_and_none_nearer_than_upper_by_brute_force() -> None:
    quality = check_against_grids(range(25))
    assert len(quality) > 50
    assert np.median(quality) > 0.999
    assert np.mean(np.array(quality) > 0.99) > 0.9


@pytest.mark.slow
def test_the_same_for_many_machines() -> None:
    assert len(check_against_grids(range(25, 300))) > 500


@pytest.mark.parametrize("gamma", [0.04, 3.0])
def test_a_constant_on_the_rising_side_grows_with_the_ball(gamma: float) -> None:
    """One support vector: f = K - 1/2 > 0 within √(log 2 / γ) of it. |b| alone on the rising side would certify 8 where
    4.163 flips.
    """
    machine = RBFMachine(np.zeros((1, 3)), np.ones((1, 1)), np.array([-0.5]), gamma)
    wide = np.sqrt(np.log(2) / gamma)
    X = wide * np.array([[0.0, 0.0, 0.0], [0.3, 0.4, 0.0], [0.0, 0.99, 0.0], [0.0, 0.0, -1.5]])
    r = minimal_perturbation(machine, X)
    distance = np.abs(wide - np.linalg.norm(X, axis=1))
    assert (r.lower <= distance).all()
    assert (r.upper >= distance * (1 - 1e-12)).all()
    close(r.upper, distance, rtol=1e-9)
    close(r.lower, distance, rtol=3e-4)
    assert wide == pytest.approx({0.04: 4.163, 3.0: 0.481}[gamma], abs=5e-4)


def test_two_equal_kernels_meet_in_a_plane() -> None:
    support = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    machine = RBFMachine(support, np.array([[1.0, -1.0]]), np.zeros(1), 0.3)
    X = np.random.default_rng(0).normal(size=(10, 4))
    r = minimal_perturbation(machine, X)
    np.testing.assert_array_equal(r.y, X[:, 0] > 0)
    close(r.upper, np.abs(X[:, 0]), rtol=1e-9)
    close(r.lower, np.abs(X[:, 0]), rtol=3e-4)
    assert (r.lower <= np.abs(X[:, 0])).all()


def test_what_nothing_pulls_has_no_radius() -> None:
    """All coefficients and the constant are on the sample's side."""
    machine = RBFMachine(np.eye(2), np.ones((1, 2)), np.array([0.1]), 1.0)
    r = minimal_perturbation(machine, np.zeros((1, 2)))
    assert r.lower[0] == r.upper[0] == np.inf
    assert r.reason[0] == "no crossing"


def test_a_tie_has_radius_0() -> None:
    machine = RBFMachine(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, -1.0]]), np.zeros(1), 1.0)
    r = minimal_perturbation(machine, np.array([[0.0, 0.3]]))
    assert r.lower[0] == 0
    assert r.upper[0] < 1e-8


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array, Array]:
    """Samples of a shipped pair: 400 to train with, classes, and 6 others."""
    pair = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = pair.sample(400, rng=0)
    return X, y, pair.sample(6, rng=1)[0]


@pytest.mark.parametrize("name", ["ours", "SVC"])
def test_brackets_of_digits_are_tight(name: str, digits: tuple[Array, Array, Array]) -> None:
    X, y, new = digits
    clf: Any = RBFSVM(gamma=0.04) if name == "ours" else SVC(gamma=0.04)
    clf.fit(X, y)
    r = minimal_perturbation(clf, new)
    share = r.lower / r.upper
    assert np.median(share) >= 0.999
    assert share.min() >= 0.998
    assert (clf.predict(r.x_adv) == r.y_adv).all()
    assert (r.y_adv != r.y).all()
    assert r.x_adv.dtype == new.dtype
    assert r.settings["path"] == "kernel"
    for options in ({"step_size": 0.05}, {"step_size": 0.3}, {"step_size": 0.05, "direction": "log-ratio"}):
        attack = gradient_attack(clf, new, polish=True, **options)
        won = attack.success
        assert (attack.l2[won] >= r.lower[won]).all()
        assert (attack.l2[won] >= r.upper[won] * (1 - 1e-6)).all()
        assert not len(attack.grade(r).contradictions)


def test_several_classes_against_the_rest() -> None:
    X, y = blobs(n_classes=3, dtype=np.float32)
    labels = np.array(["a", "b", "c"])[y]
    clf = RBFSVM(gamma=0.2).fit(X, labels)
    r = minimal_perturbation(clf, X[:20], labels[:20])
    right = clf.predict(X[:20]) == labels[:20]
    np.testing.assert_array_equal(r.already_wrong, ~right)
    assert (clf.classes_[r.y_adv[right]] == clf.predict(r.x_adv[right])).all()
    assert (r.lower[right] > 0.99 * r.upper[right]).all()
    other = minimal_perturbation(OneVsRestClassifier(SVC(gamma=0.2)).fit(X, labels), X[:20], labels[:20])
    close(other.upper[right], r.upper[right], rtol=5e-2)  # another solver stops elsewhere


def test_samples_do_not_depend_on_others_and_on_threads(digits: tuple[Array, Array, Array]) -> None:
    X, y, new = digits
    clf = RBFSVM(gamma=0.04).fit(X[:60], y[:60])
    together = minimal_perturbation(clf, new[:4], n_threads=1)
    shared = minimal_perturbation(clf, new[:4], n_threads=2)
    alone = minimal_perturbation(clf, new[3:4])
    np.testing.assert_array_equal(together.lower, shared.lower)
    np.testing.assert_array_equal(together.x_adv, shared.x_adv)
    close(alone.lower, together.lower[3:4])


def test_far_samples_end_without_a_certificate_and_alone() -> None:
    machine = RBFMachine(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, -1.0]]), np.array([0.1]), 1.0)
    X = np.array([[1.0, 0.0], [1e200, 0.0], [np.nan, 0.0]])
    r = minimal_perturbation(machine, X, check_finite=False)
    assert r.lower[0] > 0.5
    assert r.lower[1] == 0
    assert r.reason[1] == "not certified"
    assert np.isnan(r.lower[2])


def test_phi_rises_and_is_right_to_rounding() -> None:
    z = np.concatenate([-np.geomspace(1e-12, 300, 200)[::-1], np.geomspace(1e-12, 300, 200)])
    long = z.astype(np.longdouble)
    series = sum(long**k / np.prod(np.arange(1, k + 3, dtype=np.longdouble)) for k in range(60))
    near = np.abs(z) < 3
    close(phi(z)[near], series[near].astype(float), rtol=1e-13)
    assert (np.diff(phi(z)) >= 0).all()
    assert phi(np.zeros(1))[0] == 0.5
