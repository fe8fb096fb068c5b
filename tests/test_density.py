"""The density, its components, responsibilities and gradient: against the oracle, and on every kind of input."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import logsumexp
from support import parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit._arrays import RowBlocks
from mfakit.backends import BACKENDS, get_backend, why_missing

Array = NDArray[Any]

FUNCTIONS = ("log_prob", "component_log_prob", "responsibilities", "grad_log_prob")
# k, d, l
SHAPES = [(4, 12, 3), (4, 12, 1), (4, 12, 0), (1, 12, 3), (3, 1, 1), (1, 1, 0), (3, 2, 4), (5, 100, 3)]
REAL_DTYPES = ["float32", "float64"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    reason = why_missing(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    name: str = request.param
    return name


@pytest.fixture(params=["isotropic", "diagonal"])
def noise(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def result_shape(function: str, n: int, mfa: mfakit.MFA) -> tuple[int, ...]:
    width = {"log_prob": (), "grad_log_prob": (mfa.n_features,)}.get(function, (mfa.n_components,))
    return (n, *width)


def samples(mfa: mfakit.MFA, n: int = 12, dtype: Any = np.float64) -> Array:
    """Samples of the model, and as many points between and beside its components."""
    rng = np.random.default_rng(9)
    between = rng.dirichlet(np.ones(mfa.n_components), n) @ mfa.means
    beside = between + rng.normal(scale=0.5, size=(n, mfa.n_features))
    return np.concatenate([mfa.sample(n, rng=rng, dtype=np.float64)[0], beside]).astype(dtype)


# --- the values


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
@pytest.mark.parametrize("spread", [2.0, 0.1], ids=["apart", "overlapping"])
@pytest.mark.parametrize(("k", "d", "l"), SHAPES)
def test_float64_is_the_oracle(backend: str, noise: str, k: int, d: int, l: int, spread: float, method: str) -> None:
    mfa = random_mfa(k, d, l, noise=noise, spread=spread)
    X, model = samples(mfa), parameters(mfa)
    options: dict[str, Any] = {"backend": backend, "method": method}
    tolerance = rtol(np.float64, d)
    np.testing.assert_allclose(mfa.log_prob(X, **options), _reference.log_prob(X, *model), rtol=tolerance)
    np.testing.assert_allclose(
        mfa.component_log_prob(X, **options), _reference.component_log_prob(X, *model), rtol=tolerance
    )
    resp = mfa.responsibilities(X, **options)
    np.testing.assert_allclose(resp, _reference.responsibilities(X, *model), rtol=0, atol=1e-10)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-13)
    expected = _reference.grad_log_prob(X, *model)
    # Relative to the gradient of the sample: single features of it may cancel to zero.
    error = np.linalg.norm(mfa.grad_log_prob(X, **options) - expected, axis=1)
    assert (error <= tolerance * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_row_is_that_row_of_many(backend: str, noise: str, function: str) -> None:
    mfa = random_mfa(noise=noise)
    X = samples(mfa)
    one = getattr(mfa, function)(X[3:4], backend=backend)
    many = getattr(mfa, function)(X, backend=backend)
    assert one.shape == result_shape(function, 1, mfa)
    np.testing.assert_allclose(one, many[3:4], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
def test_gradient_is_the_slope_of_log_prob(backend: str, noise: str, method: str) -> None:
    mfa = random_mfa(5, 8, 2, noise=noise, spread=0.5)
    X, h = samples(mfa), 1e-5
    slope = np.empty_like(X)
    for j, step in enumerate(h * np.eye(8)):
        slope[:, j] = (mfa.log_prob(X + step, backend=backend) - mfa.log_prob(X - step, backend=backend)) / (2 * h)
    gradient = mfa.grad_log_prob(X, backend=backend, method=method)
    # Central differences err by h² times the third derivative, and by rounding over h: 1e-10 and 1e-10 of these values.
    np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-7 * np.abs(gradient).max())


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
    np.testing.assert_allclose(mfa.log_prob(X, backend=backend), rest.log_prob(X, backend=backend), rtol=1e-12)
    assert np.isneginf(mfa.component_log_prob(X, backend=backend)[:, 2]).all()
    assert (mfa.responsibilities(X, backend=backend)[:, 2] == 0).all()
    gradient, expected = (m.grad_log_prob(X, backend=backend) for m in (mfa, rest))
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


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
    np.testing.assert_allclose(mfa.responsibilities(X, backend=backend), resp, atol=1e-6)


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
    assert (np.abs(got - exact) <= 4 * np.finfo(dtype).eps * cancels).all()
    best = exact.argmax(axis=1)[:, None]
    best_got, best_exact = (np.take_along_axis(values, best, axis=1) for values in (got, exact))
    np.testing.assert_allclose(best_got, best_exact, rtol=rtol(dtype, 3072))


@pytest.mark.parametrize("precision", REAL_DTYPES)
@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", ["log_prob", "responsibilities", "grad_log_prob"])
def test_precision_is_how_and_not_what(backend: str, noise: str, function: str, dtype: str, precision: str) -> None:
    mfa = random_mfa(noise=noise, sigma=0.01)
    X = mfa.sample(30, rng=0, dtype=dtype)[0]
    exact = getattr(mfa, function)(X.astype(np.float64), method="residual", backend=backend)
    got = getattr(mfa, function)(X, precision=precision, backend=backend)
    assert got.dtype == dtype
    # What is refined is right whatever the product ran in; a gradient may be the product back and is as good as that.
    worst = "float32" if "float32" in (dtype, precision) and function == "grad_log_prob" else dtype
    np.testing.assert_allclose(got, exact, rtol=rtol(worst), atol=1e-3 * rtol(worst) * np.abs(exact).max())


# --- numbers at the edge


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_units_of_the_data(backend: str, noise: str, scale: float, dtype: str) -> None:
    mfa = random_mfa(noise=noise)
    scaled = mfakit.MFA(mfa.weights, mfa.means * scale, mfa.loadings * scale, mfa.noise_variance * scale**2)
    X = (samples(mfa) * scale).astype(dtype)
    unscaled = X.astype(np.float64) / scale
    expected = mfa.log_prob(unscaled, backend=backend) - 12 * np.log(scale)
    np.testing.assert_allclose(scaled.log_prob(X, backend=backend), expected, rtol=rtol(dtype))
    # d log(scale) is in every component's value and cancels here.
    resp = mfa.responsibilities(unscaled, backend=backend)
    atol = 1e-10 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(scaled.responsibilities(X, backend=backend), resp, rtol=0, atol=atol)
    gradient = mfa.grad_log_prob(unscaled, backend=backend)
    error = np.linalg.norm(scaled.grad_log_prob(X, backend=backend).astype(np.float64) * scale - gradient, axis=1)
    assert (error <= rtol(dtype) * np.linalg.norm(gradient, axis=1)).all()


def test_a_sample_whose_squares_overflow_is_impossible_not_nan(backend: str, noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X = np.tile(mfa.means[:1], (3, 1))
    X[1] = 1e160
    got = mfa.log_prob(X, backend=backend)
    np.testing.assert_allclose(got[::2], mfa.log_prob(X[::2], backend=backend), rtol=1e-12)
    assert np.isneginf(got[1])
    np.testing.assert_array_equal(mfa.responsibilities(X, backend=backend)[1], 0.25)


def test_a_sample_too_far_for_float32_is_impossible_not_nan(backend: str, noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X = np.tile(mfa.means[:1], (3, 1)).astype(np.float32)
    X[1] = 1e20  # log p is -1e42 and more
    got = mfa.log_prob(X, backend=backend)
    np.testing.assert_allclose(got[::2], mfa.log_prob(X[::2], backend=backend), rtol=rtol(np.float32))
    assert np.isneginf(got[1])
    assert np.isfinite(mfa.log_prob(X.astype(np.float64), backend=backend)).all()
    assert np.isfinite(mfa.responsibilities(X, backend=backend)).all()


def test_log_sum_exp(backend: str) -> None:
    inf = np.inf
    rows = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [-inf, -inf, -inf], [-inf, 2.5, -inf]])
    out = np.empty(5)
    get_backend(backend).log_sum_exp(rows, out)
    np.testing.assert_array_equal(out, [1e4, -1e4 + np.log(3.0), 1e4 + np.log(3.0), -inf, 2.5])


def test_many_components(backend: str) -> None:
    k, rng = 100_000, np.random.default_rng(0)
    means, variance = rng.normal(size=(k, 2)), rng.uniform(0.5, 1.0, k)
    mfa = mfakit.MFA(np.full(k, 1 / k), means, np.empty((k, 2, 0)), variance)
    X = rng.normal(size=(5, 2))
    distances = ((X[:, None] - means) ** 2).sum(axis=2)
    expected = logsumexp(-0.5 * distances / variance - np.log(2 * np.pi * variance) - np.log(k), axis=1)
    np.testing.assert_allclose(mfa.log_prob(X, backend=backend), expected, rtol=1e-10)


# --- inputs that are refused


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block_rows", [None, 4])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_and_inf_name_the_row(backend: str, function: str, block_rows: int | None, bad: float) -> None:
    mfa = random_mfa()
    X = samples(mfa, 10)
    X[13, 2] = X[17, 5] = bad
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 13;"):
        getattr(mfa, function)(X, backend=backend, block_rows=block_rows)


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_unchecked_nan_stays_in_its_row(
    backend: str, noise: str, function: str, bad: float, dtype: str, method: str
) -> None:
    mfa = random_mfa(noise=noise)
    X = samples(mfa, 10, dtype)
    expected = getattr(mfa, function)(X, backend=backend, method=method)
    X[13, 2] = bad
    got = getattr(mfa, function)(X, backend=backend, method=method, check_finite=False)
    assert np.isnan(got[13]).all()
    others = np.arange(len(X)) != 13
    # To rounding: a product with one row fewer may add in another order.
    atol = rtol(dtype) * np.abs(expected[others]).max()
    np.testing.assert_allclose(got[others], expected[others], rtol=rtol(dtype), atol=atol)


@pytest.mark.parametrize("dtype", ["bool", "object", "str", "complex64", "datetime64[s]"])
def test_no_real_numbers(dtype: str) -> None:
    X = np.zeros((2, 12), dtype)
    with pytest.raises(TypeError, match=r"X must be real numbers \(float or integer\), got dtype"):
        random_mfa().log_prob(X)


@pytest.mark.parametrize("shape", [(12,), (2, 11), (2, 12, 1), (), (12, 2)])
def test_wrong_shape_says_expected_and_got(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"X must be \[n, 12\].*got") as raised:
        random_mfa().log_prob(np.zeros(shape))
    assert str(shape) in str(raised.value)


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
def test_sparse_says_what_to_do(make: Any) -> None:
    with pytest.raises(TypeError, match=r"X is a sparse matrix; pass X.toarray\(\)"):
        random_mfa().log_prob(make(np.zeros((2, 12))))


def test_masked_arrays_are_not_read_through_their_mask() -> None:
    with pytest.raises(TypeError, match="masked"):
        random_mfa().log_prob(np.ma.masked_array(np.zeros((2, 12)), mask=True))


@pytest.mark.parametrize(
    "options", [{"method": "fast"}, {"precision": "float16"}, {"block_rows": 0}, {"n_threads": -1}, {"block_rows": 2.5}]
)
def test_unknown_options_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be .*got"):
        random_mfa().log_prob(np.zeros((2, 12)), **options)


# --- inputs that are taken


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int64", "uint16"])
def test_other_numbers_are_computed_in_float32(function: str, dtype: str) -> None:
    mfa = random_mfa(spread=50.0)
    X = np.abs(samples(mfa)).clip(0, 120).astype(dtype)
    got = getattr(mfa, function)(X)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, getattr(mfa, function)(X.astype(np.float32)))


def layouts(X: Array, folder: Path) -> Iterator[tuple[str, Array]]:
    """The values of X in every layout that NumPy has."""
    n, d = X.shape
    yield "fortran", np.asfortranarray(X)
    wide = np.zeros((2 * n, 3 * d), X.dtype)
    wide[::2, 1::3] = X
    yield "strided", wide[::2, 1::3]
    yield "rows strided", np.repeat(X, 2, axis=0)[::2]
    yield "negative strides", np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]
    yield "byte-swapped", X.astype(X.dtype.newbyteorder())
    raw = np.zeros(X.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(X.dtype).reshape(n, d)
    misaligned[:] = X
    yield "misaligned", misaligned
    frozen = X.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    X.tofile(folder / "X.bin")
    yield "memmap", np.memmap(folder / "X.bin", X.dtype, "r", shape=(n, d))


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_layouts_give_the_bits_of_the_contiguous_copy(
    backend: str, noise: str, function: str, dtype: str, tmp_path: Path
) -> None:
    mfa = random_mfa(noise=noise, spread=0.5)
    X = samples(mfa, 10, dtype)
    score = getattr(mfa, function)
    expected = {None: score(X, backend=backend), 6: score(X, backend=backend, block_rows=6)}
    for name, array in layouts(X, tmp_path):
        before = array.tobytes()
        for block_rows, value in expected.items():
            got = score(array, backend=backend, block_rows=block_rows)
            np.testing.assert_array_equal(got, value, err_msg=name, strict=True)
        assert array.tobytes() == before, f"{name}: the input was changed"


def test_broadcast_rows(backend: str) -> None:
    mfa = random_mfa()
    X = np.broadcast_to(samples(mfa)[0], (20, 12))
    got = mfa.log_prob(X, backend=backend)
    np.testing.assert_array_equal(got, mfa.log_prob(X.copy(), backend=backend))


def test_long_double_is_computed_in_float64() -> None:
    mfa = random_mfa()
    X = samples(mfa)
    np.testing.assert_array_equal(mfa.log_prob(X.astype(np.longdouble)), mfa.log_prob(X), strict=True)


def test_nested_lists() -> None:
    mfa = random_mfa()
    X = samples(mfa)
    np.testing.assert_array_equal(mfa.log_prob(X.tolist()), mfa.log_prob(X))


# --- blocks, threads, out


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_blocks_do_not_matter(backend: str, noise: str, function: str, dtype: str) -> None:
    mfa = random_mfa(5, 60, 3, noise=noise, spread=0.5)
    X = samples(mfa, 20, dtype)
    expected = getattr(mfa, function)(X, backend=backend)
    atol = rtol(dtype) * np.abs(expected).max()
    for block_rows in (1, 7, 1000):
        got = getattr(mfa, function)(X, backend=backend, block_rows=block_rows)
        np.testing.assert_allclose(got, expected, rtol=rtol(dtype), atol=atol)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_threads_do_not_matter(backend: str, noise: str, function: str) -> None:
    mfa = random_mfa(8, 500, 4, noise=noise, spread=0.2)
    X = samples(mfa, 300)
    one = getattr(mfa, function)(X, backend=backend, n_threads=1)
    for n_threads in (2, 16):
        np.testing.assert_array_equal(getattr(mfa, function)(X, backend=backend, n_threads=n_threads), one)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_out(backend: str, function: str, order: Any) -> None:
    mfa = random_mfa()
    X = samples(mfa)
    out = np.full(result_shape(function, len(X), mfa), np.nan, order=order)
    assert getattr(mfa, function)(X, out=out, backend=backend, block_rows=5) is out
    np.testing.assert_array_equal(out, getattr(mfa, function)(X, backend=backend, block_rows=5))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_that_does_not_fit(function: str) -> None:
    mfa = random_mfa()
    X = samples(mfa)
    shape = result_shape(function, len(X), mfa)
    read_only = np.zeros(shape)
    read_only.flags.writeable = False
    for out in (np.zeros((*shape, 1)), np.zeros((shape[0] + 1, *shape[1:])), np.zeros(shape, np.float32), read_only):
        with pytest.raises(ValueError, match="out must be a writeable float64 array of shape"):
            getattr(mfa, function)(X, out=out)


# --- torch


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_torch_in_torch_out(function: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    X = samples(mfa, dtype=dtype)
    tensor = torch.from_numpy(X)
    got = getattr(mfa, function)(tensor)
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), getattr(mfa, function)(X), strict=True)
    transposed = torch.from_numpy(np.ascontiguousarray(X.T)).T
    np.testing.assert_array_equal(getattr(mfa, function)(transposed).numpy(), got.numpy())
    out = torch.zeros(result_shape(function, len(X), mfa), dtype=tensor.dtype)
    assert getattr(mfa, function)(tensor, out=out) is out
    np.testing.assert_array_equal(out.numpy(), got.numpy())


def test_torch_tensors_are_not_copied() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(5, 12)
    assert np.shares_memory(RowBlocks(tensor).block(1, 4), tensor.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "uint8"])
def test_other_torch_numbers_are_computed_in_float32(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    tensor = torch.from_numpy(np.abs(samples(mfa))).to(getattr(torch, dtype))
    got = mfa.log_prob(tensor, block_rows=5)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), mfa.log_prob(tensor.float().numpy(), block_rows=5))


def test_torch_tensors_that_are_refused() -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    X = torch.zeros(2, 12)
    with pytest.raises(TypeError, match=r"requires grad.*X\.detach\(\)"):
        mfa.log_prob(X.clone().requires_grad_())
    with pytest.raises(TypeError, match="real numbers"):
        mfa.log_prob(X.bool())
    with pytest.raises(TypeError, match="real numbers"):
        mfa.log_prob(X.to(torch.complex64))
    with pytest.raises(TypeError, match="dense"):
        mfa.log_prob(X.to_sparse())
    with pytest.raises(mfakit.BackendUnavailable, match="meta"):
        mfa.log_prob(X.to("meta"))
    with pytest.raises(ValueError, match=r"X must be \[n, 12\]"):
        mfa.log_prob(X[:, :3])


def test_global_settings_of_torch_change_nothing(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa(6, 300, 4, sigma=0.01)
    tensor = torch.from_numpy(mfa.sample(50, rng=0)[0])
    expected = [getattr(mfa, function)(tensor, backend=backend) for function in FUNCTIONS]
    precision, default = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)
        for function, value in zip(FUNCTIONS, expected, strict=True):
            got = getattr(mfa.replace(), function)(tensor, backend=backend)
            assert got.dtype == torch.float32
            np.testing.assert_array_equal(got.numpy(), value.numpy())
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(default)


# --- the process around us


def run(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


DENORMALS = """
import sys
import numpy as np, mfakit
def kept():
    return bool(np.array([5e-324]) * 1 > 0) and bool(np.array([1e-45], np.float32) * np.float32(1) > 0)
before = kept()
mfakit.MFA([1.0], np.zeros((1, 3)), np.ones((1, 3, 1)), 1.0).log_prob(np.zeros((2, 3)), backend=sys.argv[1])
print(before, kept())
"""


def test_denormal_numbers_stay(backend: str) -> None:
    assert run(DENORMALS, backend) == "True True"


def test_the_global_random_state_is_untouched(backend: str) -> None:
    mfa = random_mfa()
    # the legacy state is what must not change
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    for function in FUNCTIONS:
        getattr(mfa, function)(samples(mfa), backend=backend)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


def sparse_file(path: Path, shape: tuple[int, int], dtype: Any) -> Array:
    """A memory map of zeros that takes no disk."""
    with path.open("wb") as file:
        file.truncate(shape[0] * shape[1] * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=shape)


def test_memory_is_one_block(backend: str, tmp_path: Path) -> None:
    mfa = random_mfa(3, 2048, 2)
    X = sparse_file(tmp_path / "X", (100_000, 2048), np.float32)  # 800 MB
    mfa.log_prob(X[:100], backend=backend)  # factors, panel, compiled kernels
    peaks = []
    for n in (50_000, 100_000):
        tracemalloc.start()
        try:
            scores = mfa.log_prob(X[:n], backend=backend)
            peaks.append(tracemalloc.get_traced_memory()[1] - scores.nbytes)
        finally:
            tracemalloc.stop()
        np.testing.assert_allclose(scores, scores[0], rtol=rtol(np.float32))
    assert peaks[1] < X.nbytes / 8
    assert peaks[1] - peaks[0] < 2**20


CAPPED = """
import resource, sys
import numpy as np, mfakit
path, backend = sys.argv[1:]
X = np.memmap(path, np.uint8, "r", shape=(300_000, 8192))
rng = np.random.default_rng(0)
mfa = mfakit.MFA([1.0], np.zeros((1, 8192)), rng.normal(size=(1, 8192, 1)), 1.0)
mfa.log_prob(X[:64], backend=backend)
resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))  # less than half of X
scores = mfa.log_prob(X[:20_000], backend=backend)
try:
    mfa.grad_log_prob(X, backend=backend)  # 9.8 GB
except MemoryError:
    print("MemoryError", len(scores), bool(np.allclose(scores, scores[0], rtol=1e-6)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds mapped memory on Linux only")
def test_under_a_memory_cap(backend: str, tmp_path: Path) -> None:
    sparse_file(tmp_path / "X", (300_000, 8192), np.uint8)
    assert run(CAPPED, str(tmp_path / "X"), backend) == "MemoryError 20000 True"


def test_more_elements_than_32_bits_count(tmp_path: Path) -> None:
    n, d = 33_000, 65_536
    assert n * d > 2**31
    X = sparse_file(tmp_path / "X", (n, d), np.uint8)
    X[n - 2] = np.arange(d) % 251
    rng = np.random.default_rng(0)
    mfa = mfakit.MFA([1.0], rng.normal(size=(1, d)), rng.normal(size=(1, d, 1)), 1.0)
    scores = mfa.log_prob(X)
    np.testing.assert_allclose(scores[n - 2], mfa.log_prob(X[n - 2][None].astype(float))[0], rtol=rtol(np.float32))
    zeros = np.delete(scores, n - 2)
    np.testing.assert_allclose(zeros, mfa.log_prob(np.zeros((1, d)))[0], rtol=rtol(np.float32))
