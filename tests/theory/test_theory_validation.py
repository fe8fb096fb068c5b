"""The theorems' limits, certified: shares that tend to 1, and radii to where the statements say, or visibly not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit import theory
from mfakit.attacks import minimal_perturbation
from mfakit.backends import why_missing

pytestmark = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


@pytest.fixture(scope="module")
def digits() -> mfakit.BayesClassifier:
    return mfakit.datasets.load_bayes_pair("mnist-06")


def small_pair(seed: int = 0, d: int = 60) -> mfakit.BayesClassifier:
    """Oblique subspaces in few features, image-like in scale."""
    mixtures = [random_mfa(d=d, k=4, l=3, seed=seed + s, spread=0.15) for s in range(2)]
    return mfakit.BayesClassifier([m.replace(loadings=0.15 * m.loadings) for m in mixtures])


def parallel_lines(gap: float = 2.0) -> mfakit.BayesClassifier:
    A = np.array([[[1.0], [0.0], [0.0]]])
    return mfakit.BayesClassifier([mfakit.MFA([1.0], [[0.0, y, 0.0]], A, 1e-4) for y in (0.0, gap)])


def test_theorem1_radii_are_exact_and_tend_to_half_the_distance() -> None:
    found = theory.validate_theorem1([0.0] * 20, [3.0, 4.0] + [0.0] * 18, n=200, sigmas=(1.0, 0.1, 0.01), tolerance=0.1)
    assert found.radius == 2.5
    assert found.lower.shape == (3, 400)
    np.testing.assert_array_less(found.largest_error, 1e-8)
    # Binomial noise of 400 samples: 5 standard deviations.
    close(found.share, found.expected_share, atol=5 * 0.5 / math.sqrt(400))
    assert found.share[-1] == 1.0
    # (radius - ||d||/2) / sigma is standard normal whatever the number of features, so half of them are below.
    z = (found.exact[1:] - found.radius) / found.sigmas[1:, None]
    np.testing.assert_allclose(z.std(axis=1), 1.0, atol=0.15)  # four standard deviations
    close((found.lower[-1] < found.radius).mean(), 0.5, atol=5 * 0.5 / math.sqrt(400))


@pytest.mark.parametrize("name", ["digits", "small"])
def test_theorem2_shares_tend_to_one(name: str, digits: mfakit.BayesClassifier) -> None:
    clf = digits if name == "digits" else small_pair()
    found = theory.validate_theorem2(clf, 15, sigmas=(0.3, 0.01, 0.001))
    np.testing.assert_array_equal(found.accuracy[1:], 1.0)
    assert found.share_half_distance[0] < 0.5  # far from the limit the statement is not true yet
    for share in (found.share_half_distance, found.share_half_min, found.share_provable):
        assert share[-1] == 1.0
        assert (np.diff(share) >= 0).all()
    assert found.half_min_distance == theory.theorem2_radius(clf).radius
    # Over D/2 because the way to another subspace is oblique; not by much more than the way itself.
    low, high = found.ratio_quantiles((0.0, 1.0))[-1]
    assert 1.0 <= low < high < 1.5


def test_theorem2_is_measured_on_samples_of_each_sigma() -> None:
    """Every number can be had again by hand from a stream of the same seed."""
    clf = small_pair(4)
    found = theory.validate_theorem2(clf, 10, sigmas=(0.05, 0.01), rng=7)
    rng = np.random.default_rng(7)
    for i, sigma in enumerate((0.05, 0.01)):
        sym = clf.symmetric(sigma=sigma)
        X, y = sym.sample(20, rng=rng, balanced=True, dtype=np.float64)
        r = minimal_perturbation(sym, X, y)
        np.testing.assert_array_equal(found.y[i], y)
        close(found.lower[i], r.lower, rtol=1e-12)
        own, other = theory.own_and_other_distances(sym, X, y)
        np.testing.assert_allclose((found.own[i], found.other[i]), (own, other), rtol=1e-12)
    again = theory.validate_theorem2(clf, 10, sigmas=(0.05, 0.01), rng=8)
    assert (again.lower != found.lower).all()


def test_of_parallel_lines_half_of_the_samples_stay_short_of_their_half_distance() -> None:
    """There the theorem is sharp: radius = D/2 up to the noise along the normal, either way."""
    found = theory.validate_theorem2(parallel_lines(), 200, sigmas=(1e-2, 1e-4))
    np.testing.assert_allclose(found.share_half_distance, 0.5, atol=5 * 0.5 / math.sqrt(400))
    np.testing.assert_allclose(found.ratio[1], 1.0, atol=5e-4)
    assert found.share_provable.min() > 0.99


def test_theorem2_takes_three_classes() -> None:
    clf = mfakit.BayesClassifier([*small_pair().mixtures, small_pair(9).mixtures[0]])
    found = theory.validate_theorem2(clf, 5, sigmas=(0.001,))
    assert found.lower.shape == (1, 15)
    assert found.share_half_min[0] == found.share_half_distance[0] == 1.0


def test_theorem3_radii_tend_to_zero_along_the_closed_form(digits: mfakit.BayesClassifier) -> None:
    found = theory.validate_theorem3(digits, 10, sigmas=(0.03, 0.003, 0.0003))
    assert (np.diff(found.mean_upper) < 0).all()
    assert found.share_close.tolist() == [0.0, 0.0, 1.0]
    assert not found.limit.any()
    error = np.abs(found.ratio - 1).max(axis=1)
    assert (np.diff(error) < 0).all()
    assert error[-1] < 1e-4  # the outlier of the other class is flat at that scale
    assert (found.lower <= found.upper).all()


def test_an_outlier_of_the_own_class_keeps_samples_off_the_boundary(digits: mfakit.BayesClassifier) -> None:
    """With outliers in both classes, as in the paper's data, radii tend to the distance to the plane between them."""
    found = theory.validate_theorem3(digits, 20, sigmas=(0.001, 0.0001), outliers="both")
    held = found.limit[-1] > 0.05
    assert 0.2 < held.mean() < 0.8
    assert (found.lower >= found.limit * (1 - 1e-6)).all()  # nothing nearer crosses that plane
    close(found.lower[-1, held], found.limit[-1, held], rtol=0.02)
    free = found.limit[-1] == 0
    close(found.upper[-1, free], found.closed_form[-1, free], rtol=1e-3)
    assert found.share_close[-1] < 0.9
    easy = theory.validate_theorem3(digits, 20, sigmas=(0.001, 0.0001))
    assert easy.share_close[-1] == 1.0


def test_already_wrong_samples_are_left_out_of_theorem3() -> None:
    clf = parallel_lines(0.05)
    found = theory.validate_theorem3(clf, 40, sigmas=(0.3, 0.1), direction=2)
    wrong = np.isnan(found.upper)
    assert 0 < wrong.mean() < 1
    close(found.accuracy, 1 - wrong.mean(axis=1))
    np.testing.assert_array_equal(np.isnan(found.closed_form), wrong)
    assert np.isfinite(found.mean_upper).all()


def test_slices_leave_little_of_what_log_T_costs(digits: mfakit.BayesClassifier) -> None:
    found = theory.sweep_gaps(digits, 15, sigmas=(0.3, 0.1, 0.01))
    close(found.mean_predicted[1] / found.mean_predicted[2], 100, rtol=0.3)  # as sigma squared
    assert (found.mean_predicted[:2] > 2e-3).all()
    assert (found.largest_gap < 2e-4).all()
    assert found.own_active[0] > found.own_active[2] >= 1.0


def test_a_single_component_gives_nothing_away() -> None:
    clf = parallel_lines()
    X, y = clf.sample(6, rng=0, dtype=np.float64)
    causes = theory.explain_gaps(clf, minimal_perturbation(clf, X, y))
    np.testing.assert_array_equal(causes.predicted, 0.0)
    np.testing.assert_allclose(causes.own_active, 1.0)
    # log-odds of parallel lines: linear across them with slope gap / sigma^2
    np.testing.assert_allclose(causes.slope, 2.0 / 1e-4, rtol=1e-6)


def test_tables_have_a_row_per_sigma_and_fit_a_terminal() -> None:
    clf = small_pair()
    found: list[Any] = [
        theory.validate_theorem1([0.0], [1.0], n=3, sigmas=(0.1, 0.01)),
        theory.validate_theorem2(clf, 3, sigmas=(0.1, 0.01)),
        theory.validate_theorem3(clf, 3, sigmas=(0.1, 0.01), direction=20),
        theory.sweep_gaps(clf, 3, sigmas=(0.1, 0.01)),
    ]
    for one in found:
        table = one.table()
        assert [row[0] for row in table.rows] == ["0.1", "0.01"]
        assert max(map(len, table.terminal().split("\n"))) <= 100


@pytest.mark.parametrize("validate", [theory.validate_theorem2, theory.validate_theorem3, theory.sweep_gaps])
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n": 0}, "n must be an integer of at least 1, got 0"),
        ({"n": 2.5}, "got 2.5"),
        ({"sigmas": (0.01, 0.1)}, "sort them from large to small"),
        ({"sigmas": ()}, "at least one"),
        ({"sigmas": (0.1, 0.0)}, "positive standard deviations"),
        ({"sigmas": (0.1, float("nan"))}, "positive standard deviations"),
    ],
)
def test_bad_arguments(validate: Any, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        validate(parallel_lines(), **arguments)


def test_bad_arguments_of_single_theorems() -> None:
    with pytest.raises(ValueError, match="two vectors of one length"):
        theory.validate_theorem1([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match="means must differ"):
        theory.validate_theorem1([1.0], [1.0])
    with pytest.raises(ValueError, match="tolerance must be a share"):
        theory.validate_theorem1([0.0], [1.0], tolerance=1.0)
    with pytest.raises(ValueError, match="outliers must be one of 'other', 'both', got 'none'"):
        theory.validate_theorem3(parallel_lines(), outliers="none")
    with pytest.raises(ValueError, match=r"sigmas must be below the outliers' 0.5"):
        theory.validate_theorem3(parallel_lines(), sigmas=(0.5,))
    with pytest.raises(ValueError, match="closeness must be positive"):
        theory.validate_theorem3(parallel_lines(), closeness=0)
    clf = parallel_lines()
    nothing = minimal_perturbation(clf, np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match="no sample that was fooled"):
        theory.explain_gaps(clf, nothing)
