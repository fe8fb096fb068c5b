"""The dual that the features path maximises: its algebra against dense matrices, and weak duality."""

from __future__ import annotations

import numpy as np
import pytest
from minimal_cases import diagonal_classifier
from support import close

import mfakit
from mfakit.attacks.minimal import roots
from mfakit.attacks.minimal.components import Components
from mfakit.attacks.minimal.lagrangian import Curvature, Lagrangian
from mfakit.attacks.minimal.sample import Sample


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
        close(x, np.linalg.solve(P, b.T).T, rtol=1e-9, atol=1e-9 * np.abs(x).max())
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
    best = roots.maximise(L, np.array([0.98, 0.01, 0.01]))
    assert max(bounds) <= best.radius * (1 + 1e-9)
    assert 0.0 < best.radius <= nearest


def test_components_that_play_no_part_cost_nothing() -> None:
    """One sphere among forty others of its class, all as near as two radii: log 41 nats would be 10% of the radius.
    Only the sphere in front matters, and the way to its plane is known.
    """
    rng = np.random.default_rng(0)
    around = rng.normal(size=(40, 4))
    around[:, 0] = 0.0
    around *= 5.5 / np.linalg.norm(around, axis=1, keepdims=True)
    means = np.concatenate([[[4.0, 0, 0, 0]], around])
    many = mfakit.MFA(np.full(41, 1 / 41), means, np.zeros((41, 4, 0)), 0.25)
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], np.zeros((1, 4)), np.zeros((1, 4, 0)), 0.25), many])
    r = mfakit.attacks.minimal_perturbation(clf, np.zeros((1, 4)), [0], path="features")
    expected = 2.0 + 0.25 * np.log(41) / 4.0
    close(r.upper, [expected], rtol=1e-7)
    close(r.lower, [expected], rtol=1e-4)  # gaps below that are not closed further
    assert r.lower[0] <= expected
