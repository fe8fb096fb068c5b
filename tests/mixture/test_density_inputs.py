"""What the density takes and refuses, and what its results do not depend on: layouts, blocks, threads, `out`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from density_cases import FUNCTIONS, REAL_DTYPES, Array, result_shape, samples
from support import close, random_mfa, rtol

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
    close(got[others], expected[others], dtype, rtol=rtol(dtype), atol=atol)


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
        close(got, expected, dtype, rtol=rtol(dtype), atol=atol)


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
