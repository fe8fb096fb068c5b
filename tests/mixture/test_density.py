"""The density, its components, responsibilities and gradient: against the oracle, and at the edge of numbers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from density_cases import FUNCTIONS, REAL_DTYPES, Array, result_shape, samples
from scipy.special import logsumexp
from support import EMULATE, close, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit.backends import get_arrays, get_backend

# k, d, l
SHAPES = [(4, 12, 3), (4, 12, 1), (4, 12, 0), (1, 12, 3), (3, 1, 1), (1, 1, 0), (3, 2, 4), (5, 100, 3)]


# --- the values


@cache
def oracle(k: int, d: int, l: int, noise: str, spread: float) -> tuple[mfakit.MFA, Array, dict[str, Array]]:
    """A mixture, samples, and all functions of the density there by dense covariances."""
    mfa = random_mfa(k, d, l, noise=noise, spread=spread)
    X, model = samples(mfa), parameters(mfa)
    return mfa, X, {function: getattr(_reference, function)(X, *model) for function in FUNCTIONS}


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
@pytest.mark.parametrize("spread", [2.0, 0.1], ids=["apart", "overlapping"])
@pytest.mark.parametrize(("k", "d", "l"), SHAPES)
def test_float64_is_the_oracle(backend: str, noise: str, k: int, d: int, l: int, spread: float, method: str) -> None:
    mfa, X, expected = oracle(k, d, l, noise, spread)
    found = {function: getattr(mfa, function)(X, backend=backend, method=method) for function in FUNCTIONS}
    tolerance = rtol(np.float64, d)
    for function in ("log_prob", "component_log_prob"):
        close(found[function], expected[function], rtol=tolerance, atol=0)
    close(found["responsibilities"], expected["responsibilities"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["responsibilities"].sum(axis=1), 1.0, rtol=1e-13)
    # Relative to the gradient of the sample: single features of it may cancel to zero.
    gradient = expected["grad_log_prob"]
    error = np.linalg.norm(found["grad_log_prob"] - gradient, axis=1)
    assert (error <= tolerance * np.linalg.norm(gradient, axis=1)).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_row_is_that_row_of_many(backend: str, noise: str, function: str) -> None:
    mfa = random_mfa(noise=noise)
    X = samples(mfa)
    one = getattr(mfa, function)(X[3:4], backend=backend)
    many = getattr(mfa, function)(X, backend=backend)
    assert one.shape == result_shape(function, 1, mfa)
    close(one, many[3:4], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
def test_gradient_is_the_slope_of_log_prob(backend: str, noise: str, method: str) -> None:
    mfa = random_mfa(5, 8, 2, noise=noise, spread=0.5)
    X, h = samples(mfa), 1e-5
    slope = np.empty_like(X)
    for j, step in enumerate(h * np.eye(8)):
        slope[:, j] = (mfa.log_prob(X + step, backend=backend) - mfa.log_prob(X - step, backend=backend)) / (2 * h)
    gradient = mfa.grad_log_prob(X, backend=backend, method=method)
    # Central differences err by h² times the third derivative, and by rounding over h: 1e-10 and 1e-10 of these values.
    close(gradient, slope, rtol=1e-6, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_rows(backend: str, noise: str, function: str, dtype: str) -> None:
    mfa = random_mfa(noise=noise)
    result = getattr(mfa, function)(np.empty((0, 12), dtype), backend=backend)
    assert result.shape == result_shape(function, 0, mfa)
    assert result.dtype == dtype


def test_a_component_of_weight_zero_is_not_there(backend: str, noise: str) -> None:
    mfa = random_mfa(3, noise=noise)
    weights = np.array([0.25, 0.75, 0.0])
    rest = mfakit.MFA(weights[:2], mfa.means[:2], mfa.loadings[:2], mfa.noise_variance[:2])
    mfa = mfa.replace(weights=weights)
    X = np.concatenate([samples(rest), mfa.means[2:]])
    close(mfa.log_prob(X, backend=backend), rest.log_prob(X, backend=backend), rtol=1e-12)
    assert np.isneginf(mfa.component_log_prob(X, backend=backend)[:, 2]).all()
    assert (mfa.responsibilities(X, backend=backend)[:, 2] == 0).all()
    gradient, expected = (m.grad_log_prob(X, backend=backend) for m in (mfa, rest))
    close(gradient, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def assert_float32_is_right(mfa: mfakit.MFA, X: Array, backend: str) -> None:
    """log_prob to float32 rounding of its value, and the same component wins, as in float64 on the same numbers."""
    exact = mfa.log_prob(X.astype(np.float64), backend=backend)
    got = mfa.log_prob(X, backend=backend)
    assert got.dtype == np.float32
    bound = 4 * np.finfo(np.float32).eps * np.abs(exact) + 1e-3
    assert (np.abs(got - exact) <= np.minimum(bound, 0.02)).all()
    winners = mfa.component_log_prob(X.astype(np.float64), backend=backend).argmax(axis=1)
    np.testing.assert_array_equal(mfa.component_log_prob(X, backend=backend).argmax(axis=1), winners)


def test_float32_at_small_noise(backend: str, noise: str) -> None:
    mfa = random_mfa(6, 3072, 4, sigma=0.01, noise=noise)
    assert_float32_is_right(mfa, mfa.sample(40, rng=0)[0], backend)


def test_float32_at_the_size_of_an_image(backend: str) -> None:
    mfa = random_mfa(20, 12288, 10, sigma=0.01)
    assert_float32_is_right(mfa, mfa.sample(60, rng=0)[0], backend)


def test_float32_gradient_and_responsibilities_at_small_noise(backend: str, noise: str) -> None:
    mfa = random_mfa(6, 3072, 4, sigma=0.01, noise=noise)
    X = mfa.sample(20, rng=0)[0]
    exact = mfa.grad_log_prob(X.astype(np.float64), backend=backend)
    error = np.linalg.norm(mfa.grad_log_prob(X, backend=backend) - exact, axis=1)
    assert (error <= rtol(np.float32) * np.linalg.norm(exact, axis=1)).all()
    resp = mfa.responsibilities(X.astype(np.float64), backend=backend)
    close(mfa.responsibilities(X, backend=backend), resp, np.float32, atol=1e-6)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_components_that_do_not_matter_are_right_to_what_cancels(backend: str, noise: str, dtype: str) -> None:
    mfa = random_mfa(6, 3072, 4, sigma=0.01, noise=noise)
    X = mfa.sample(20, rng=0, dtype=dtype)[0]
    exact = mfa.component_log_prob(X.astype(np.float64), backend=backend, method="residual")
    got = mfa.component_log_prob(X, backend=backend)
    f, variance = mfa.factors, np.broadcast_to(mfa.factors.noise, (6, 3072))
    R = X - f.center
    # What cancels in ‖x - μ‖² - ‖W (x - μ)‖², x - μ being (x - c) - (μ - c): four terms, each without its sign.
    square, cross = (R**2) @ (1 / variance).T, R @ (f.centered_means / variance).T
    explained = square - 2 * cross + f.mean_norm + 2 * (exact - f.log_norm)
    cancels = square + 2 * np.abs(cross) + f.mean_norm + explained
    # Both round in float64, too: sums of d terms, as in support.rtol.
    eps = np.finfo(dtype).eps * (1.0 if dtype == "float32" else (3072 / 100) ** 0.5)
    assert (np.abs(got - exact) <= 4 * eps * cancels).all()
    best = exact.argmax(axis=1)[:, None]
    best_got, best_exact = (np.take_along_axis(values, best, axis=1) for values in (got, exact))
    close(best_got, best_exact, dtype, rtol=rtol(dtype, 3072))


@pytest.mark.parametrize("precision", REAL_DTYPES)
@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", ["log_prob", "responsibilities", "grad_log_prob"])
def test_precision_is_how_and_not_what(backend: str, noise: str, function: str, dtype: str, precision: str) -> None:
    mfa = random_mfa(noise=noise, sigma=0.01)
    X = mfa.sample(30, rng=0, dtype=dtype)[0]
    exact = getattr(mfa, function)(X.astype(np.float64), method="residual", backend=backend)
    got = getattr(mfa, function)(X, precision=precision, backend=backend)
    assert got.dtype == dtype
    # What is refined is right whatever the product ran in.
    close(got, exact, dtype, rtol=rtol(dtype), atol=1e-3 * rtol(dtype) * np.abs(exact).max())


# --- numbers at the edge


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_units_of_the_data(backend: str, noise: str, scale: float, dtype: str) -> None:
    mfa = random_mfa(noise=noise)
    scaled = mfakit.MFA(mfa.weights, mfa.means * scale, mfa.loadings * scale, mfa.noise_variance * scale**2)
    X = (samples(mfa) * scale).astype(dtype)
    unscaled = X.astype(np.float64) / scale
    expected = mfa.log_prob(unscaled, backend=backend) - 12 * np.log(scale)
    close(scaled.log_prob(X, backend=backend), expected, dtype, rtol=rtol(dtype))
    # d log(scale) is in every component's value and cancels here.
    resp = mfa.responsibilities(unscaled, backend=backend)
    atol = 1e-10 if dtype == "float64" else 1e-6
    close(scaled.responsibilities(X, backend=backend), resp, dtype, rtol=0, atol=atol)
    gradient = mfa.grad_log_prob(unscaled, backend=backend)
    error = np.linalg.norm(scaled.grad_log_prob(X, backend=backend).astype(np.float64) * scale - gradient, axis=1)
    assert (error <= rtol(dtype) * np.linalg.norm(gradient, axis=1)).all()


def test_a_sample_whose_squares_overflow_is_impossible_not_nan(backend: str, noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X = np.tile(mfa.means[:1], (3, 1))
    X[1] = 1e160
    got = mfa.log_prob(X, backend=backend)
    close(got[::2], mfa.log_prob(X[::2], backend=backend), rtol=1e-12)
    assert np.isneginf(got[1])
    resp = mfa.responsibilities(X, backend=backend)[1]  # the component whose covariance is largest that way
    np.testing.assert_array_equal(resp, np.eye(4)[np.argmin([np.linalg.inv(S).sum() for S in mfa.dense()[2]])])


def test_a_sample_too_far_for_float32_is_impossible_not_nan(backend: str, noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X = np.tile(mfa.means[:1], (3, 1)).astype(np.float32)
    X[1] = 1e20  # log p is -1e42 and more
    got = mfa.log_prob(X, backend=backend)
    close(got[::2], mfa.log_prob(X[::2], backend=backend), np.float32, rtol=rtol(np.float32))
    assert np.isneginf(got[1])
    assert np.isfinite(mfa.log_prob(X.astype(np.float64), backend=backend)).all()
    assert np.isfinite(mfa.responsibilities(X, backend=backend)).all()


def test_log_sum_exp(backend: str) -> None:
    inf = np.inf
    rows = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [-inf, -inf, -inf], [-inf, 2.5, -inf]])
    ops = get_backend(backend)
    arrays = get_arrays(ops)
    out = arrays.asarray(np.empty(5))
    ops.log_sum_exp(arrays.asarray(rows), out)
    np.testing.assert_array_equal(arrays.to_host(out), [1e4, -1e4 + np.log(3.0), 1e4 + np.log(3.0), -inf, 2.5])


def test_many_components(backend: str) -> None:
    if backend == "cuda" and EMULATE:
        pytest.skip("ten minutes on the emulator")
    k, rng = 100_000, np.random.default_rng(0)
    means, variance = rng.normal(size=(k, 2)), rng.uniform(0.5, 1.0, k)
    mfa = mfakit.MFA(np.full(k, 1 / k), means, np.empty((k, 2, 0)), variance)
    X = rng.normal(size=(5, 2))
    distances = ((X[:, None] - means) ** 2).sum(axis=2)
    expected = logsumexp(-0.5 * distances / variance - np.log(2 * np.pi * variance) - np.log(k), axis=1)
    close(mfa.log_prob(X, backend=backend), expected, rtol=1e-10)
