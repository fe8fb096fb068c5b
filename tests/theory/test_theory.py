"""The theorems' numbers against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit import theory


def lines(gap: float, sigma: float = 0.01) -> mfakit.BayesClassifier:
    """Two parallel lines in 3-space, `gap` apart."""
    A = np.array([[[1.0], [0.0], [0.0]]])
    return mfakit.BayesClassifier([mfakit.MFA([1.0], [[0.0, y, 0.0]], A, sigma**2) for y in (0.0, gap)])


def test_theorem1_is_half_the_distance_of_the_means() -> None:
    assert theory.theorem1_radius([0, 0], [3, 4]) == 2.5
    with pytest.raises(ValueError, match="two vectors"):
        theory.theorem1_radius([0, 0], [1, 2, 3])


def test_theorem2_finds_the_pair_and_its_closest_points() -> None:
    clf = mfakit.BayesClassifier([random_mfa(d=30, seed=s) for s in range(3)])
    found = theory.theorem2_radius(clf)
    distances = {
        (a, b): mfakit.subspace_distances(clf.mixtures[a], clf.mixtures[b]) for a, b in [(0, 1), (0, 2), (1, 2)]
    }
    classes = min(distances, key=lambda pair: distances[pair].min())
    assert found.classes == classes
    assert distances[classes][found.components] == distances[classes].min()
    close(2 * found.radius, distances[classes].min(), rtol=1e-12)
    close(np.linalg.norm(found.points[0] - found.points[1]), 2 * found.radius, rtol=1e-10)
    for c, i, point in zip(found.classes, found.components, found.points, strict=True):
        mixture = clf.mixtures[c]
        close(mfakit.point_subspace_distances(point[None], mixture)[0, i], 0, atol=1e-7)


def test_theorem2s_assumptions_hold_for_two_parallel_lines() -> None:
    check = theory.check_theorem2(lines(2.0))
    assert check.noise_spread == 0
    assert check.singular_value_spread == 0
    assert check.log_det_spread < 1e-12
    assert check.separation == 1
    assert check.keeps_component == 1
    assert check.radius == 1.0
    close(check.sigma_over_radius, 0.01 * np.sqrt(2))


def test_each_broken_assumption_shows() -> None:
    base = lines(2.0).mixtures
    noisy = mfakit.BayesClassifier([base[0], base[1].replace(noise_variance=1e-2)])
    close(theory.check_theorem2(noisy).noise_spread, np.log(10))
    longer = mfakit.BayesClassifier([base[0], base[1].replace(loadings=3 * base[1].loadings)])
    close(theory.check_theorem2(longer).singular_value_spread, np.log(3))
    # log det(AAᵀ + σ²I) differs by log((9 + σ²)/(1 + σ²)), half of which enters the log-density
    close(theory.check_theorem2(longer).log_det_spread, 0.5 * np.log((9 + 1e-4) / (1 + 1e-4)))
    flat = mfakit.BayesClassifier([base[0], base[1].replace(loadings=0 * base[1].loadings)])
    assert theory.check_theorem2(flat).singular_value_spread == np.inf
    twins = mfakit.MFA([0.5, 0.5], np.repeat(base[0].means, 2, 0), np.repeat(base[0].loadings, 2, 0), 1e-4)
    check = theory.check_theorem2(mfakit.BayesClassifier([twins, base[1]]))
    close(check.separation, 0.75)


def test_own_and_other_distances_of_points_between_lines() -> None:
    X = np.array([[5.0, 0.5, 0.0], [0.0, 1.9, 0.0]])
    own, other = theory.own_and_other_distances(lines(2.0), X, [0, 1])
    close(own, [0.5, 0.1])
    close(other, [1.5, 1.9])


def test_asymmetric_radius_is_what_an_attack_finds() -> None:
    """Image-like spread, outliers (σ = 0.5) close together: the boundary is where the closed form says, to a few per
    cent."""
    mixtures = [random_mfa(d=300, k=3, l=4, seed=s, spread=0.2) for s in range(2)]
    sym = mfakit.BayesClassifier([m.replace(loadings=0.1 * m.loadings) for m in mixtures]).symmetric(0.01)
    asym = sym.asymmetric(direction=40)
    X, y = sym.sample(100, rng=0, dtype=np.float64)
    predicted = theory.asymmetric_radius(asym, X, y)
    attack = mfakit.attacks.gradient_attack(asym, X, y, polish=True)
    assert attack.success.all()
    # Never shorter; longer for samples on the side of their own outlier, which takes over before the other one does.
    assert (attack.l2 > 0.99 * predicted).all()
    close(attack.mean_l2, predicted.mean(), rtol=0.1)
    assert attack.mean_l2 < 0.5 * mfakit.attacks.gradient_attack(sym, X, y, polish=True).mean_l2
    with pytest.raises(ValueError, match="two classes"):
        theory.asymmetric_radius(mfakit.BayesClassifier([random_mfa()] * 3), np.zeros((1, 12)), [0])


@pytest.mark.parametrize("n", [0, -3])
def test_check_needs_samples(n: int) -> None:
    with pytest.raises(ValueError, match="n must be positive"):
        theory.check_theorem2(lines(1.0), n=n)


def test_what_certifies_loads_on_first_use_only() -> None:
    """Attacks stand below this module: importing it must not import them."""
    import subprocess
    import sys

    code = "import sys, mfakit.theory as t; print([m for m in sys.modules if m.startswith('mfakit.attacks')]); "
    code += "print(*(callable(getattr(t, name)) for name in t.__all__))"
    before, after = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split("\n")[:2]
    assert before == "[]"
    assert set(after.split()) == {"True"}
    assert set(theory.__all__) <= set(dir(theory))
    with pytest.raises(AttributeError, match=r"'mfakit\.theory' has no attribute 'theorem4'"):
        _ = theory.theorem4


def test_what_is_no_model_is_named() -> None:
    mfa = random_mfa(d=3)
    for function in (mfakit.theory.theorem2_radius, mfakit.theory.check_theorem2, mfakit.theory.validate_theorem2):
        with pytest.raises(TypeError, match=r"clf must be a BayesClassifier, got MFA; an MFAClassifier has one in"):
            function(mfa)
    with pytest.raises(TypeError, match=r"mfa must be an MFA, got ndarray; a fitted estimator has one in its mfa_"):
        mfakit.point_subspace_distances(mfa, np.zeros((2, 3)))
