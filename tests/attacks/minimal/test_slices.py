"""Classes whose components are close to each other: log p_T bounded slice by slice (csrc/include/mfakit/slices.hpp)."""

from __future__ import annotations

import numpy as np
import pytest
from minimal_cases import check_on_circles
from support import close, random_mfa

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.backends import why_missing

pytestmark = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


def _soft_classes(seed: int, k: int, d: int, l: int, n_classes: int = 2, sigma: float = 0.4) -> mfakit.BayesClassifier:
    """Components of a class overlap; the classes are apart."""
    shift = 3.0 * np.eye(n_classes, d)
    mixtures = []
    for c in range(n_classes):
        m = random_mfa(k=k, d=d, l=l, sigma=sigma, seed=100 * seed + c, spread=0.5)
        mixtures.append(m.replace(means=m.means + shift[c], loadings=0.5 * m.loadings))
    return mfakit.BayesClassifier(mixtures, np.arange(1.0, n_classes + 1) / np.arange(1, n_classes + 1).sum())


@pytest.mark.parametrize("seed", range(6))
def test_brute_force_in_the_plane(seed: int) -> None:
    """No flip on fine circles within `lower`, and one just beyond `upper`."""
    clf = _soft_classes(seed, k=2 + seed, d=2, l=seed % 3, n_classes=2 + seed % 2)
    X, y = clf.sample(8, rng=seed, dtype=np.float64)
    r = minimal_perturbation(clf, X, y, path="factor" if seed % 3 < 2 else "auto")
    right = np.flatnonzero(~r.already_wrong)
    assert len(right) >= 4
    for i in right:
        check_on_circles(clf, X[i], int(y[i]), r.lower[i], r.upper[i])


def test_soft_classes_are_closed_and_agree_with_the_features_path() -> None:
    """What c_t costs by itself is a multiple of what is left."""
    clf = _soft_classes(3, k=8, d=20, l=2)
    X, y = clf.sample(8, rng=1, dtype=np.float64)
    r = minimal_perturbation(clf, X, y, path="factor")
    right = ~r.already_wrong
    costs = mfakit.theory.explain_gaps(clf, r).predicted
    assert np.median(costs) > 1e-2
    assert np.median(r.gap[right]) < 1e-3
    other = minimal_perturbation(clf, X, y, path="features")
    assert (r.lower <= other.upper * (1 + 1e-9))[right].all()
    assert (other.lower <= r.upper * (1 + 1e-9))[right].all()
    close(r.upper[right], other.upper[right], rtol=1e-3)
    for step in (0.2, 0.05, 0.02):
        attack = gradient_attack(clf, X, y, polish=True, step_size=step)
        assert not len(attack.grade(r).contradictions)


def test_where_gradients_cancel_no_walk_is_believed() -> None:
    """In factor coordinates a point past a vanishing gradient is a difference of large parts: it was kept as the
    nearest flip, was none, and left samples without any.
    """
    rng = np.random.default_rng(172)
    rng.integers([1, 2], [4, 5])
    mixtures = []
    for c in range(2):
        k, l, noise = rng.integers(1, 4), rng.integers(0, 3), rng.choice(["isotropic", "diagonal"])
        sigma, spread = 10 ** rng.uniform(-2, 0), 10 ** rng.uniform(-0.5, 0.5)
        mixtures.append(random_mfa(k=int(k), d=2, l=int(l), noise=noise, sigma=sigma, spread=spread, seed=1720 + c))
    clf = mfakit.BayesClassifier(mixtures, rng.dirichlet(np.ones(2)) if rng.random() < 0.5 else None)
    X, y = clf.sample(6, rng=172, dtype=np.float64)
    r = minimal_perturbation(clf, X, y, path="factor")
    assert r.success.all()
    assert r.gap.max() < 1e-4


def test_one_component_copied_is_one_component() -> None:
    """Copies of a target: log p_T = log p_t + log 3 everywhere, where all u_j are 0."""
    one = _soft_classes(5, k=1, d=6, l=2)
    thrice = [
        m.replace(
            weights=np.full(3, 1 / 3), means=np.repeat(m.means, 3, axis=0),
            loadings=np.repeat(m.loadings, 3, axis=0), noise_variance=np.repeat(m.noise_variance, 3),
        )
        for m in one.mixtures
    ]  # fmt: skip
    X, y = one.sample(10, rng=0, dtype=np.float64)
    plain = minimal_perturbation(one, X, y)
    copied = minimal_perturbation(mfakit.BayesClassifier(thrice, one.priors), X, y)
    right = ~plain.already_wrong
    close(copied.lower[right], plain.lower[right], rtol=1e-6)
    close(copied.upper[right], plain.upper[right], rtol=1e-6)


@pytest.mark.parametrize(("seed", "row"), [(21, 5), (29, 1), (43, 0), (61, 0), (95, 2), (208, 2), (214, 3), (348, 1)])
def test_multipliers_of_one_slice_do_not_spoil_the_next(seed: int, row: int) -> None:
    """Where the likeliest source at x no longer matters, its multiplier is 0: all were reset to their shares at x, of
    1e-80 and less, from which no step led back. And multipliers that one slice makes tiny are no start in another.
    """
    rng = np.random.default_rng(seed)
    k, d, l = 6, 8, 1

    def mixture() -> mfakit.MFA:
        means, loadings = rng.standard_normal((k, d)), 0.7 * rng.standard_normal((k, d, l))
        return mfakit.MFA(np.full(k, 1 / k), means, loadings, rng.uniform(0.02, 0.2, k))

    clf = mfakit.BayesClassifier([mixture(), mixture()])
    X = 1.5 * rng.standard_normal((6, d))
    r = minimal_perturbation(clf, X, clf.predict(X), path="factor")
    assert r.gap[row] < 1e-3  # 3 to 97% before
