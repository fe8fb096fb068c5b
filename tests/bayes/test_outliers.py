"""The outlier's mean from training samples: what they may be, and a classifier that keeps it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import svds
from support import close, random_mfa

import mfakit
from mfakit.bayes.outliers import outlier_step, principal_step


def _classifier() -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(2, 12, 2, seed=seed) for seed in (0, 1)])


def test_a_row_with_nan_is_named() -> None:
    X = np.random.default_rng(0).normal(size=(30, 12))
    X[17, 3] = np.nan
    with pytest.raises(ValueError, match=r"X_train has NaN or inf, first in row 17"):
        _classifier().asymmetric(X, direction=2)


@pytest.mark.parametrize("n", [5, 30])
def test_equal_rows_have_no_spread(n: int) -> None:
    """The outlier is then at their mean, whichever of the two covariances is decomposed."""
    clf = _classifier().asymmetric(np.full((n, 12), 0.25), direction=2)
    for mixture in clf.mixtures:
        np.testing.assert_allclose(mixture.means[-1], 0.25, atol=1e-7)


def test_fewer_samples_than_features_are_never_in_memory_twice() -> None:
    n, d, direction = 400, 60_000, 3
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, 6)) * [9, 7, 5, 3, 2, 1] @ rng.normal(size=(6, d))).astype(np.float32)
    tracemalloc.start()
    try:
        mean, step = principal_step(X, direction)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes  # in float64 all of X would take twice that
    centered = X - X.mean(axis=0, dtype=np.float64)
    _, sizes, directions = svds(centered, k=direction, v0=np.ones(n))
    close(mean, X.mean(axis=0, dtype=np.float64), rtol=1e-12, atol=1e-12)
    expected = directions[sizes.argmin()] * sizes.min() / np.sqrt(n)
    expected *= np.sign(expected[np.abs(expected).argmax()])
    close(step, expected, rtol=1e-8, atol=1e-8)


def test_a_classifier_that_keeps_its_datas_step_needs_no_data(tmp_path: Path) -> None:
    """In its file and its variants; for another direction the mixtures' own moments count."""
    clf = _classifier()
    X = clf.sample(300, rng=0, dtype=np.float64)[0] * 3.0
    kept = clf.with_outlier_step(X, direction=2)
    kept.save(tmp_path / "pair")
    for model in (kept, mfakit.BayesClassifier.load(tmp_path / "pair"), kept.symmetric(0.1), kept.to("cpu")):
        for got, expected in zip(
            model.asymmetric(direction=2).mixtures, clf.asymmetric(X, direction=2).mixtures, strict=True
        ):
            close(got.means[-1], expected.means[-1], rtol=1e-14, atol=1e-14)
        others = [c.asymmetric(direction=3).mixtures[0].means[-1] for c in (model, model.replace(extras={}))]
        np.testing.assert_array_equal(*others)
    assert not clf.extras
    assert not np.allclose(
        kept.asymmetric(direction=2).mixtures[0].means[-1], clf.asymmetric(direction=2).mixtures[0].means[-1]
    )


def test_files_that_name_no_direction_have_the_fiftieth() -> None:
    """Those of before."""
    step = np.linspace(0.0, 1.0, 60)
    extras = {"outlier_mean": np.zeros(60, np.float32), "outlier_step": step.astype(np.float32)}
    clf = mfakit.BayesClassifier([random_mfa(2, 60, 2, seed=seed) for seed in (0, 1)], extras=extras)
    close(clf.asymmetric(scale=2.0).mixtures[1].means[-1], -2.0 * step, rtol=1e-6)
    assert np.abs(clf.asymmetric(direction=1).mixtures[1].means[-1]).max() > 0.0
    assert not np.allclose(clf.asymmetric(direction=1, scale=2.0).mixtures[1].means[-1], -2.0 * step)


@pytest.mark.parametrize(
    ("extras", "match"),
    [
        ({"outlier_mean": np.zeros(5)}, r"extras\['outlier_mean'\] must be real numbers \[12\].*\(5,\)"),
        ({"outlier_step": np.zeros(12, int)}, "must be real numbers"),
        ({"outlier_step": np.full(12, np.nan)}, "has NaN or inf"),
        ({"outlier_direction": np.zeros(2, int)}, "must be an integer"),
        ({"outlier_direction": np.float64(2)}, "must be an integer"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_at_once(extras: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        _classifier().replace(extras=extras)


@pytest.mark.parametrize("rank", [3, 2])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_the_models_own_step_is_that_of_its_covariance(noise: str, rank: int) -> None:
    """Whatever finds it, and beyond the directions of loadings and means, where every direction has the noise alone."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(2, 40, rank)) @ rng.normal(size=(rank, 3))  # three columns, of which some may depend
    means = rng.normal(size=(2, 40))
    variance = 0.3 if noise == "isotropic" else rng.uniform(0.1, 0.5, (2, 40))
    clf = mfakit.BayesClassifier([mfakit.MFA([0.25, 0.75], means + shift, loadings, variance) for shift in (0, 1)])
    weights, far = np.array([0.125, 0.375, 0.125, 0.375]), np.concatenate([means, means + 1])
    mean = weights @ far
    within = np.diag(np.broadcast_to(clf.mixtures[0].noise_variance.reshape(2, -1), (2, 40)).T @ weights[:2] * 2)
    within += np.einsum("k,kil,kjl->ij", weights[:2] * 2, loadings, loadings)
    values = np.linalg.eigvalsh(within + (far - mean).T * weights @ (far - mean))[::-1]
    for direction in (1, 2, 4 * rank + 1, 40):
        found, step = outlier_step(clf, None, direction)
        close(found, mean)
        close(np.linalg.norm(step), np.sqrt(values[direction - 1]), rtol=1e-9)
        covered = within @ step + (far - mean).T @ (weights * ((far - mean) @ step))
        close(covered, values[direction - 1] * step, rtol=1e-7, atol=1e-9)


def test_too_few_samples_or_features_for_the_direction() -> None:
    clf = _classifier()
    with pytest.raises(ValueError, match="direction must be an integer of at most 12, got 50"):
        clf.with_outlier_step(np.zeros((100, 12)))
    with pytest.raises(ValueError, match="X_train has 3 samples, too few for principal direction 4"):
        clf.with_outlier_step(np.zeros((3, 12)), direction=4)
