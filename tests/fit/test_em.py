"""The E and M steps against dense covariances, statistics that add up, monotonicity, and what guards them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit._arrays.options import Options
from mfakit.fit import Source, Statistics, em, expectation, fit_em, maximization

Array = NDArray[Any]

NAMES = ("weight", "sum_x", "sum_xx", "sum_z", "sum_zz", "sum_xz")
# k, d, l
SHAPES = [(3, 7, 2), (1, 5, 1), (2, 1, 1), (3, 4, 4), (2, 6, 0)]


def case(k: int, d: int, l: int, noise: str, n: int = 60) -> tuple[mfakit.MFA, Array, Array]:
    """A model that does not fit its data, so that a step moves everything, and weights."""
    X = random_mfa(k, d, l, noise=noise, seed=1, spread=0.7).sample(n, rng=2, dtype=np.float64)[0]
    return random_mfa(k, d, l, noise=noise, seed=3, spread=0.7, sigma=0.8), X, np.random.default_rng(4).uniform(0, 3, n)


def dense_step(mfa: mfakit.MFA, X: Array, w: Array, floor: float) -> tuple[Array, Array, Array, Array]:
    """The step as the papers write it, with covariances S [d, d]: Tipping & Bishop for isotropic noise, Ghahramani &
    Hinton's A and D around the new mean for diagonal noise."""
    R = w[:, None] * _reference.responsibilities(X, *parameters(mfa))
    covariances = mfa.dense()[2]
    means, loadings, noise = [], [], []
    for j in range(mfa.n_components):
        A, N = mfa.loadings[j], R[:, j].sum()
        mean = R[:, j] @ X / N
        S = (R[:, j, None] * (X - mean)).T @ (X - mean) / N
        if mfa.is_isotropic:
            sigma2 = mfa.noise_variance[j]
            M_inv = np.linalg.inv(sigma2 * np.eye(A.shape[1]) + A.T @ A)
            A_new = S @ A @ np.linalg.inv(sigma2 * np.eye(A.shape[1]) + M_inv @ A.T @ S @ A)
            D = np.trace(S - S @ A @ M_inv @ A_new.T) / len(S)
        else:
            beta = A.T @ np.linalg.inv(covariances[j])
            A_new = S @ beta.T @ np.linalg.inv(np.eye(A.shape[1]) - beta @ A + beta @ S @ beta.T)
            D = np.diag(S - A_new @ beta @ S)
        means.append(mean)
        loadings.append(A_new)
        noise.append(np.maximum(D, floor))
    return R.sum(axis=0) / R.sum(), np.array(means), np.array(loadings), np.array(noise)


@pytest.mark.parametrize("shape", SHAPES)
def test_step_equals_the_dense_formulas(noise: str, shape: tuple[int, int, int]) -> None:
    mfa, X, w = case(*shape, noise)
    new = maximization(Statistics.zeros(mfa).add(X, w), floor=1e-9)
    for ours, theirs in zip(parameters(new), dense_step(mfa, X, w, 1e-9), strict=True):
        close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_step_is_the_same_on_every_backend(noise: str, backend: str) -> None:
    mfa, X, w = case(3, 7, 2, noise)
    new = maximization(Statistics.zeros(mfa).add(X, w, Options(backend=backend)), floor=1e-9)
    for ours, theirs in zip(parameters(new), dense_step(mfa, X, w, 1e-9), strict=True):
        close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_step_in_float32_is_that_of_its_values(noise: str) -> None:
    mfa, X, w = case(3, 7, 2, noise)
    X = X.astype(np.float32)
    new = maximization(Statistics.zeros(mfa).add(X, w), floor=1e-9)
    for ours, theirs in zip(parameters(new), dense_step(mfa, X.astype(float), w, 1e-9), strict=True):
        # Statistics are float64, and so are the responsibilities of all components within 40 nats of the best.
        close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_log_likelihood_of_statistics_is_the_oracles(noise: str) -> None:
    mfa, X, w = case(3, 7, 2, noise)
    expected = w @ _reference.log_prob(X, *parameters(mfa))
    stats = Statistics.zeros(mfa).add(X, w)
    assert stats.log_likelihood == pytest.approx(expected, rel=rtol(np.float64))
    assert stats.mean_log_likelihood == pytest.approx(expected / w.sum(), rel=rtol(np.float64))


def same_sums(a: Statistics, b: Statistics) -> None:
    for name in (*NAMES, "log_likelihood", "total_weight"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-10, err_msg=name)
    close(a.worst.log_prob, b.worst.log_prob, rtol=1e-12)
    np.testing.assert_array_equal(a.worst.rows, b.worst.rows)
    np.testing.assert_array_equal(a.worst.components, b.worst.components)


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_statistics_add_up(noise: str, block_rows: int) -> None:
    mfa, X, w = case(3, 7, 2, noise)
    whole = Statistics.zeros(mfa).add(X, w)
    parts = Statistics.zeros(mfa)
    for start in (0, 13, 31):
        stop = {0: 13, 13: 31, 31: 60}[start]
        parts += Statistics.zeros(mfa).add(X[start:stop], w[start:stop], Options(block_rows=block_rows))
    same_sums(whole, parts)
    before = whole.sum_xz.copy()
    total = whole + parts
    close(total.sum_xz, 2 * before, rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(whole.sum_xz, before)


def test_statistics_of_two_mixtures_do_not_add_up() -> None:
    mfa, X, _ = case(3, 7, 2, "isotropic")
    other = mfa.replace(means=mfa.means + 1)
    with pytest.raises(ValueError, match="different mixtures"):
        Statistics.zeros(mfa).add(X) + Statistics.zeros(other).add(X)
    copy = mfakit.MFA(*parameters(mfa))
    assert (Statistics.zeros(mfa).add(X) + Statistics.zeros(copy).add(X)).total_weight == 2 * len(X)


def test_weight_two_is_a_row_twice_and_weight_zero_is_none(noise: str) -> None:
    mfa, X, _ = case(3, 7, 2, noise)
    w = np.tile([2.0, 0.0, 1.0], 20)
    repeated = Statistics.zeros(mfa).add(np.repeat(X, w.astype(int), axis=0))
    weighted = Statistics.zeros(mfa).add(X, w)
    for name in (*NAMES, "log_likelihood", "total_weight"):
        close(getattr(weighted, name), getattr(repeated, name), rtol=1e-12, atol=1e-10)
    absent = Statistics.zeros(mfa).add(X[w > 0], w[w > 0])
    same_sums(weighted, absent)


def test_what_is_left_out_is_below_its_tolerance() -> None:
    """Components far from a sample are left out of the sums, and nothing that counts is."""
    mfa, X, _ = case(4, 5, 1, "isotropic", n=200)
    resp = _reference.responsibilities(X, *parameters(mfa))
    assert (resp < 1e-13).any()
    stats = Statistics.zeros(mfa).add(X)
    close(stats.weight, resp.sum(axis=0), rtol=0, atol=1e-12 * len(X))


@pytest.mark.parametrize("seed", range(12))
def test_log_likelihood_never_falls(noise: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, d, l = int(rng.integers(1, 6)), int(rng.integers(1, 9)), 0
    l = int(rng.integers(0, d + 1))
    X = random_mfa(k, d, min(l, d), noise=noise, seed=seed).sample(150, rng=seed, dtype=np.float64)[0]
    start = random_mfa(k, d, l, noise=noise, seed=seed + 100, sigma=1.0)
    # Every third seed with a floor that binds: the step stops at it and still rises.
    floor = 0.5 if seed % 3 == 0 else 1e-8
    start = start.replace(noise_variance=np.maximum(start.noise_variance, floor))
    result = fit_em(start, Source.from_array(X), floor=floor, tol=0.0, max_iter=40, progress=False)
    values = np.array(result.log_likelihood)
    rises = np.diff(values) >= -1e-9 * np.maximum(np.abs(values[:-1]), d)
    reseeded = {event["iteration"] for event in result.events if event["event"] == "reseeded"}
    assert all(rise or i + 1 in reseeded for i, rise in enumerate(rises))
    assert not any(event["event"] == "fell" for event in result.events)
    assert result.mfa.noise_variance.min() >= floor
    expected = _reference.log_prob(X, *parameters(result.mfa)).mean()
    assert result.lower_bound == pytest.approx(expected, rel=1e-9)
    assert values[-1] > values[0]


def test_one_component_reaches_the_closed_form_of_ppca() -> None:
    """Tipping & Bishop: σ² is the mean of the discarded eigenvalues, A Aᵀ + σ² I keeps the others."""
    X = random_mfa(1, 10, 3, sigma=0.5).sample(500, rng=0, dtype=np.float64)[0]
    est = mfakit.MixtureOfFactorAnalyzers(1, 3, tol=1e-12, max_iter=1000).fit(X)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    sigma2 = values[:7].mean()
    covariance = (vectors[:, 7:] * values[7:]) @ vectors[:, 7:].T + sigma2 * vectors[:, :7] @ vectors[:, :7].T
    np.testing.assert_allclose(est.mfa_.noise_variance, sigma2, rtol=1e-6)
    close(est.mfa_.dense()[2][0], covariance, rtol=1e-5, atol=1e-6)


def test_recovers_a_known_model(noise: str) -> None:
    truth = random_mfa(3, 8, 2, noise=noise, sigma=0.4, spread=5.0)
    X = truth.sample(20_000, rng=1, dtype=np.float64)[0]
    est = mfakit.MixtureOfFactorAnalyzers(3, 2, noise=noise, random_state=0, tol=1e-5, max_iter=500).fit(X)
    held_out = truth.sample(20_000, rng=2, dtype=np.float64)[0]
    assert est.score(held_out) == pytest.approx(truth.log_prob(held_out).mean(), abs=0.02)
    order = np.array([np.linalg.norm(est.mfa_.means - mean, axis=1).argmin() for mean in truth.means])
    assert sorted(order) == [0, 1, 2]
    close(est.mfa_.weights[order], truth.weights, atol=0.02)
    close(est.mfa_.means[order], truth.means, atol=0.15)
    close(est.mfa_.noise_variance[order], truth.noise_variance, rtol=0.15)
    covariances, expected = est.mfa_.dense()[2][order], truth.dense()[2]
    assert (np.linalg.norm(covariances - expected, axis=(1, 2)) < 0.1 * np.linalg.norm(expected, axis=(1, 2))).all()


def with_a_lost_component(noise: str) -> tuple[mfakit.MFA, Array]:
    """Two groups of samples, two components on the first group's place, and one out of reach of all."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(100, 4)), 30 + rng.normal(size=(100, 4))])
    variances = np.ones(3) if noise == "isotropic" else np.ones((3, 4))
    means = np.array([[0.0] * 4, [0.5] * 4, [1e5] * 4])
    return mfakit.MFA([0.4, 0.4, 0.2], means, 0.1 * rng.normal(size=(3, 4, 1)), variances), X


def test_a_component_without_samples_starts_again_and_it_is_logged(
    noise: str, caplog: pytest.LogCaptureFixture
) -> None:
    mfa, X = with_a_lost_component(noise)
    with caplog.at_level(logging.WARNING, logger="mfakit"):
        result = fit_em(mfa, Source.from_array(X), floor=1e-6, tol=1e-6, max_iter=100, progress=False)
    assert result.events[0] == {"iteration": 1, "event": "reseeded", "component": 2, "donor": result.events[0]["donor"]}
    assert any("component 2 has lost its samples" in record.message for record in caplog.records)
    assert result.mfa.weights[2] > 0.01
    values = np.diff(result.log_likelihood)
    reseeded = {event["iteration"] for event in result.events}
    assert all(rise > -1e-8 or i + 1 in reseeded for i, rise in enumerate(values))


def test_a_new_start_is_at_the_worst_sample_in_the_shape_of_its_component(noise: str) -> None:
    mfa, X = with_a_lost_component(noise)
    stats = Statistics.zeros(mfa).add(X)
    worst = _reference.log_prob(X, *parameters(mfa)).argmin()
    reseeds = np.zeros(3, np.int64)
    new, events = em.reseed_lost(mfa, stats, reseeds, 5)
    donor = events[0]["donor"]
    assert donor == _reference.component_log_prob(X[[worst]], *parameters(mfa)).argmax()
    np.testing.assert_array_equal(new.means[2], X[worst])
    np.testing.assert_array_equal(new.loadings[2], mfa.loadings[donor])
    assert new.weights[2] == new.weights[donor]
    assert reseeds.tolist() == [0, 0, 1]
    # Not for ever: data may have fewer groups than the mixture has components.
    assert em.reseed_lost(mfa, stats, np.full(3, em.MOST_RESEEDS), 6) == (mfa, [])


def test_a_component_that_stays_empty_keeps_finite_parameters(noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(em, "MOST_RESEEDS", 0)
    mfa, X = with_a_lost_component(noise)
    result = fit_em(mfa, Source.from_array(X), floor=1e-6, tol=1e-4, max_iter=200, progress=False)
    assert result.mfa.weights[2] == 0
    np.testing.assert_array_equal(result.mfa.means[2], mfa.means[2])
    assert np.isfinite(result.lower_bound)
    assert result.converged


def test_a_fall_ends_the_fit_with_the_better_mixture(caplog: pytest.LogCaptureFixture) -> None:
    """It takes data that changes between passes."""
    mfa, X, _ = case(2, 4, 1, "isotropic")
    passes: list[int] = []

    def blocks() -> Iterator[Array]:
        passes.append(len(passes))
        yield X if len(passes) < 5 else X + 100.0

    with caplog.at_level(logging.WARNING, logger="mfakit"):
        result = fit_em(mfa, Source.from_blocks(blocks), floor=1e-6, tol=0.0, max_iter=50, progress=False)
    assert result.n_iter == 2
    assert not result.converged
    assert [event["event"] for event in result.events] == ["fell"]
    assert "lowered the log-likelihood" in caplog.text
    assert result.lower_bound == result.log_likelihood[-1] == max(result.log_likelihood)
    again = expectation(result.mfa, Source.from_array(X)).mean_log_likelihood
    assert result.lower_bound == pytest.approx(again, rel=1e-12)
