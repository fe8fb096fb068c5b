"""EM on samples with missing features, beside an E-step by dense conditional Gaussians."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from support import close, random_mfa

import mfakit
from mfakit._arrays.options import Options
from mfakit._arrays.rows import RowBlocks
from mfakit.fit import Statistics, maximization
from mfakit.fit.observed import ObservedSource, observed_expectation

Array = NDArray[Any]
SUMS = ("weight", "sum_x", "sum_xx", "sum_z", "sum_zz", "sum_xz")


def samples(mfa: mfakit.MFA, n: int, share: float = 0.4) -> Array:
    """Of which a share of the features is missing at random, some rows have all, and two rows have the same ones."""
    rng = np.random.default_rng(0)
    X = mfa.sample(n, rng=1, dtype=np.float64)[0]
    missing = rng.random(X.shape) < share
    missing[:3], missing[4] = False, missing[3]
    missing[:, 0] &= ~missing.all(axis=1)
    return np.where(missing, np.nan, X)


def dense_statistics(mfa: mfakit.MFA, X: Array, weights: Array) -> Statistics:
    """The expected sums of :class:`Statistics`, from E[(x, z) (x, z)ᵀ | x_O] of the joint Gaussian of x and z."""
    stats = Statistics.zeros(mfa)
    d, l = mfa.n_features, mfa.n_factors
    _, means, covariances = mfa.dense()
    for x, w in zip(X, weights, strict=True):
        seen = ~np.isnan(x)
        parts = [(means[j][seen], covariances[j][np.ix_(seen, seen)]) for j in range(mfa.n_components)]
        log_joint = np.log(mfa.weights) + [multivariate_normal.logpdf(x[seen], *part) for part in parts]
        log_total = logsumexp(log_joint)
        stats.log_likelihood += w * log_total
        stats.total_weight += w
        for j in range(mfa.n_components):
            share, A = w * np.exp(log_joint[j] - log_total), mfa.loadings[j]
            joint = np.block([[covariances[j], A], [A.T, np.eye(l)]])
            known = np.append(seen, np.zeros(l, bool))
            gain = np.linalg.solve(joint[np.ix_(known, known)], joint[known]).T
            mean = gain @ (x[seen] - means[j][seen])
            second = joint - gain @ joint[known] + np.outer(mean, mean)
            stats.weight[j] += share
            stats.sum_x[j] += share * mean[:d]
            stats.sum_xx[j] += share * np.diag(second)[:d]
            stats.sum_z[j] += share * mean[d:]
            full = np.linalg.inv(np.eye(l) + A.T @ (A / np.broadcast_to(mfa.noise_variance[j], d)[:, None]))
            stats.sum_zz[j] += share * (second[d:, d:] - full)
            stats.sum_xz[j] += share * second[d:, :d]
    return stats


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("l", [2, 0])
def test_sums_are_those_of_dense_conditionals(noise: str, l: int) -> None:
    mfa = random_mfa(3, 6, l, noise=noise, spread=0.5)
    X = samples(mfa, 30)
    weights = np.random.default_rng(2).uniform(0, 2, 30)
    weights[7] = 0.0
    expected = dense_statistics(mfa, X, weights)
    for threads, rows in ((1, None), (2, 4)):
        options = Options(n_threads=threads, block_rows=rows)
        got = observed_expectation(mfa, ObservedSource.from_array(X, weights, options))
        for name in (*SUMS, "log_likelihood", "total_weight"):
            np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-9, atol=1e-10, err_msg=name)
        assert np.isfinite(got.worst.rows).all()
    whole = mfa.sample(30, rng=1, dtype=np.float64)[0]
    complete = observed_expectation(mfa, ObservedSource.from_array(whole, weights))
    usual = Statistics.zeros(mfa).add(whole, weights)
    for name in SUMS:
        np.testing.assert_allclose(getattr(complete, name), getattr(usual, name), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_no_step_lowers_the_likelihood_of_what_is_known(noise: str) -> None:
    true = random_mfa(3, 8, 2, noise=noise, spread=0.8)
    source = ObservedSource.from_array(samples(true, 200))
    mfa, found = random_mfa(3, 8, 2, noise=noise, seed=5), []
    for _ in range(40):
        stats = observed_expectation(mfa, source)
        found.append(stats.mean_log_likelihood)
        mfa = maximization(stats, 1e-9)
    assert (np.diff(found) > -1e-12 * np.abs(found[0])).all()
    assert found[-1] - found[0] > 1


def test_the_estimator_fits_scores_and_describes_what_is_known() -> None:
    true = random_mfa(2, 8, 2, spread=3.0)
    whole = true.sample(600, rng=1, dtype=np.float64)[0]
    X = np.where(np.random.default_rng(0).random(whole.shape) < 0.2, np.nan, whole)
    X = X[~np.isnan(X).all(axis=1)]
    est = mfakit.MixtureOfFactorAnalyzers(2, 2, missing="marginal", random_state=0, tol=1e-4, max_iter=300)
    est.fit(X)
    history = est.history_["log_likelihood"]
    assert (np.diff(history) > -1e-9).all()
    assert est.converged_
    held_out = true.sample(2000, rng=2, dtype=np.float64)[0]
    assert est.score(held_out) > float(true.log_prob(held_out).mean()) - 0.1
    close(est.score_samples(X), est.mfa_.log_prob(X, missing="marginal"))
    close(est.predict_proba(X).sum(axis=1), np.ones(len(X)))
    assert est.predict(X).shape == (len(X),)
    assert np.isfinite(est.transform(X)).all()
    assert est.__sklearn_tags__().input_tags.allow_nan
    blocks = mfakit.MixtureOfFactorAnalyzers(2, 2, missing="marginal", init=est.mfa_, max_iter=1, tol=0.0)
    with pytest.warns(match="not converged"):
        blocks.fit_blocks([X[:250], X[250:]])
    with pytest.warns(match="not converged"):
        once = mfakit.MixtureOfFactorAnalyzers(2, 2, missing="marginal", init=est.mfa_, max_iter=1, tol=0.0).fit(X)
    close(blocks.means_, once.means_, rtol=1e-9, atol=1e-9)


def test_the_start_knows_each_feature_by_the_rows_that_have_it() -> None:
    X = samples(random_mfa(2, 6, 1), 50)
    X[:20, 1] = np.nan
    X[20:, 1] += 1e8
    X[:, 2] = np.where(np.isnan(X[:, 2]), np.nan, 0.1)
    weights = np.random.default_rng(0).uniform(0.5, 2, 50)
    for parts in ([X], [X[:20], X[20:]]):
        source = ObservedSource(lambda parts=parts: _with_weights(parts, weights), Options(block_rows=7))
        for i, values in enumerate(X.T):
            known = ~np.isnan(values)
            mean = np.average(values[known], weights=weights[known])
            variance = np.average((values[known] - mean) ** 2, weights=weights[known])
            close(source.survey.mean[i], mean, rtol=1e-12)
            close(source.feature_variances()[i], 0.0 if i == 2 else variance, rtol=1e-6)
        filled = source.sample(np.random.default_rng(0), 1)[0]
        close(filled, np.where(np.isnan(X), source.survey.mean, X), rtol=1e-12)


def _with_weights(parts: list[Array], weights: Array) -> Any:
    first = 0
    for X in parts:
        yield RowBlocks(X), weights[first : first + len(X)]
        first += len(X)


def test_what_cannot_be_fitted_is_one_sentence() -> None:
    X = np.random.default_rng(0).normal(size=(20, 4))

    def fit(X: Array, **settings: Any) -> None:
        mfakit.MixtureOfFactorAnalyzers(1, 1, **{"missing": "marginal", **settings}).fit(X)

    def gap(rows: Any, columns: Any, value: float = np.nan) -> Array:
        Y = X.copy()
        Y[rows, columns] = value
        return Y

    with pytest.raises(ValueError, match=r'first in row 3; drop such rows, .*or pass missing="marginal"'):
        fit(gap(3, 1), missing="error")
    with pytest.raises(ValueError, match="X has a row without any known feature, first row 5; leave such rows out"):
        fit(gap(5, slice(None)))
    with pytest.raises(ValueError, match=r"feature 2 is missing in every row; leave it out \(1 of 4 are\)"):
        fit(gap(slice(None), 2))
    with pytest.raises(ValueError, match="X has inf, first in row 4; what is not known is NaN"):
        fit(gap(4, 1, np.inf))
    with pytest.raises(ValueError, match=r'missing="marginal" is fitted by solver="em"'):
        fit(gap(3, 1), solver="sgd")
    with pytest.raises(ValueError, match="missing features computes on the host"):
        fit(gap(3, 1), backend="cuda")
    with pytest.raises(ValueError, match=r"missing must be .*'marginal'"):
        fit(gap(3, 1), missing="drop")
    with pytest.raises(ValueError, match="sample_weight must sum to 1e-15 or more"):
        mfakit.MixtureOfFactorAnalyzers(missing="marginal").fit(X, sample_weight=np.full(20, 1e-30))
    with pytest.raises(ValueError, match="feature 2 is missing in every row with a positive weight"):
        mfakit.MixtureOfFactorAnalyzers(missing="marginal").fit(gap(slice(1, None), 2), sample_weight=np.arange(20))
    with pytest.raises(ValueError, match="sample_weight is zero for every row"):
        mfakit.MixtureOfFactorAnalyzers(missing="marginal").fit(X, sample_weight=np.zeros(20))
