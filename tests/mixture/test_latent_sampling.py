"""Samples of a mixture, the posterior of their factors, reconstruction and imputation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm
from support import close, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit.mixture import sampling

Array = NDArray[Any]

REAL_DTYPES = ["float32", "float64"]
# A false alarm once in 10^9 runs of a test, were its seed not fixed; split over the values that it looks at.
FALSE_ALARM = 1e-9


def between(mfa: mfakit.MFA, n: int = 12) -> Array:
    """Points between and beside the components, so that several of them matter."""
    rng = np.random.default_rng(5)
    return rng.dirichlet(np.ones(mfa.n_components), n) @ mfa.means + rng.normal(size=(n, mfa.n_features))


# --- sample


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (1, 1, 0), (2, 3, 5)])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_shapes_and_dtypes(noise: str, n: int, k: int, d: int, l: int, dtype: str) -> None:
    X, component = random_mfa(k, d, l, noise=noise).sample(n, rng=0, dtype=dtype)
    assert X.shape == (n, d)
    assert X.dtype == dtype
    assert component.shape == (n,)
    assert component.dtype == np.int64
    assert ((component >= 0) & (component < k)).all()


def test_samples_are_float32_unless_asked() -> None:
    assert random_mfa().sample(2)[0].dtype == np.float32


def test_the_seed_decides(noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X, component = mfa.sample(100, rng=7)
    for rng in (7, np.random.default_rng(7), np.int64(7)):
        again, same = mfa.sample(100, rng=rng)
        np.testing.assert_array_equal(again, X)
        np.testing.assert_array_equal(same, component)
    assert (mfa.sample(100, rng=8)[0] != X).any()
    assert (mfa.sample(100)[0] != mfa.sample(100)[0]).any()
    rounded = mfa.sample(100, rng=7, dtype=np.float64)[0].astype(np.float32)
    close(X, rounded, np.float32, rtol=1e-6, atol=1e-6)


def test_the_global_random_state_is_neither_used_nor_touched() -> None:
    mfa = random_mfa()
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(1)  # noqa: NPY002
        before = np.random.get_state()[1].tobytes()  # noqa: NPY002
        first = mfa.sample(10, rng=3)[0]
        assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002
        np.random.seed(2)  # noqa: NPY002
        np.testing.assert_array_equal(mfa.sample(10, rng=3)[0], first)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_moments(noise: str) -> None:
    n = 400_000
    mfa = random_mfa(3, 6, 2, noise=noise, sigma=0.8)
    X, component = mfa.sample(n, rng=0, dtype=np.float64)
    weights, means, covariances = mfa.dense()
    counts = np.bincount(component, minlength=3)
    assert ((counts - n * weights) ** 2 / (n * weights)).sum() < chi2.isf(FALSE_ALARM, 2)
    for j in range(3):
        part, m = X[component == j], int(counts[j])
        # m (x̄ - μ)ᵀ Σ⁻¹ (x̄ - μ) is χ² with d degrees of freedom, exactly.
        offset = part.mean(axis=0) - means[j]
        assert m * offset @ np.linalg.solve(covariances[j], offset) < chi2.isf(FALSE_ALARM / 3, 6)
        # Around the known mean, entry (a, b) of the sample covariance has variance (Σ_aa Σ_bb + Σ_ab²) / m.
        centered = part - means[j]
        variance = np.diag(covariances[j])
        deviation = np.sqrt((np.outer(variance, variance) + covariances[j] ** 2) / m)
        z = (centered.T @ centered / m - covariances[j]) / deviation
        assert np.abs(z).max() < norm.isf(FALSE_ALARM / (3 * 36 * 2))


def test_residuals_in_units_of_the_noise_are_standard_normal(noise: str) -> None:
    n = 8000
    mfa = random_mfa(2, 50, 2, noise=noise, sigma=0.2)
    X, component = mfa.sample(n, rng=0, dtype=np.float64)
    on_subspaces, same = mfa.sample(n, rng=0, dtype=np.float64, noise=False)
    np.testing.assert_array_equal(same, component)
    scale = np.sqrt(np.broadcast_to(mfa.noise_variance.reshape(2, -1), (2, 50)))[component]
    squares = (((X - on_subspaces) / scale) ** 2).sum(axis=0)
    # Each feature to within 10%, and all together to within 1.4%.
    for total, degrees in ((squares, n), (squares.sum(), 50 * n)):
        low, high = chi2.interval(1 - FALSE_ALARM / np.size(total), degrees)
        assert np.all((total > low) & (total < high))


def test_without_noise_samples_lie_on_their_subspaces(noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X, component = mfa.sample(30, rng=0, noise=False, dtype=np.float64)
    for x, j in zip(X, component, strict=True):
        distance = _reference.point_subspace_distance(x, mfa.means[j], mfa.loadings[j])
        assert distance < 1e-13 * np.linalg.norm(x)


def test_pieces_add_up_to_all(monkeypatch: pytest.MonkeyPatch, noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X, component = mfa.sample(100, rng=0)
    monkeypatch.setattr(sampling, "CHUNK_VALUES", 12 * 7)
    pieces, same = mfa.sample(100, rng=0)
    np.testing.assert_array_equal(same, component)
    # A component's points are one product per piece: equal to rounding.
    close(pieces, X, np.float32, rtol=1e-6, atol=1e-6)


def test_a_component_of_weight_zero_is_not_drawn() -> None:
    mfa = random_mfa(3).replace(weights=[0.5, 0.0, 0.5])
    assert set(mfa.sample(500, rng=0)[1]) == {0, 2}


@pytest.mark.parametrize("n", [-1, 2.0, "3", None])
def test_no_number_of_samples(n: Any) -> None:
    with pytest.raises(ValueError, match="n must be an integer of at"):
        random_mfa().sample(n)


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex128"])
def test_no_dtype_of_samples(dtype: str) -> None:
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got"):
        random_mfa().sample(3, dtype=dtype)


# --- latent and reconstruct


@pytest.mark.parametrize("block_rows", [None, 5])
@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (1, 12, 1), (3, 12, 0), (3, 2, 4), (3, 80, 5)])
def test_latent_is_the_oracle(backend: str, noise: str, k: int, d: int, l: int, block_rows: int | None) -> None:
    mfa = random_mfa(k, d, l, noise=noise)
    X = between(mfa)
    mean, covariance, component = mfa.latent(X, backend=backend, block_rows=block_rows)
    np.testing.assert_array_equal(component, _reference.component_log_prob(X, *parameters(mfa)).argmax(axis=1))
    assert component.dtype == np.int64
    assert mean.shape == (len(X), l)
    assert covariance.shape == (k, l, l)
    for i, j in enumerate(component):
        expected = _reference.latent_posterior(X[i], mfa.means[j], mfa.loadings[j], mfa.noise_variance[j])
        close(mean[i], expected[0], rtol=1e-10, atol=1e-12)
        close(covariance[j], expected[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (3, 12, 0), (3, 2, 4), (3, 80, 5)])
def test_reconstruct_is_the_mean_of_the_latent(backend: str, noise: str, k: int, d: int, l: int) -> None:
    mfa = random_mfa(k, d, l, noise=noise)
    X = between(mfa)
    component = _reference.component_log_prob(X, *parameters(mfa)).argmax(axis=1)
    got = mfa.reconstruct(X, backend=backend, block_rows=5)
    for x, j, row in zip(X, component, got, strict=True):
        z = _reference.latent_posterior(x, mfa.means[j], mfa.loadings[j], mfa.noise_variance[j])[0]
        close(row, mfa.means[j] + mfa.loadings[j] @ z, rtol=1e-10, atol=1e-11)


def test_small_noise_gives_the_factors_back(backend: str, noise: str) -> None:
    # Samples without noise: as σ → 0 the posterior mean of z is the z they were made of.
    mfa = random_mfa(3, 40, 4, noise=noise, sigma=1e-4)
    X, component = mfa.sample(20, rng=0, noise=False, dtype=np.float64)
    np.testing.assert_array_equal(mfa.latent(X, backend=backend)[2], component)
    close(mfa.reconstruct(X, backend=backend), X, atol=1e-7)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_latent_side_at_float32_and_small_noise(backend: str, dtype: str) -> None:
    mfa = random_mfa(4, 3072, 5, sigma=0.01)
    X = mfa.sample(20, rng=0, dtype=dtype)[0]
    exact = mfa.latent(X.astype(np.float64), backend=backend, method="residual")
    mean, _, component = mfa.latent(X, backend=backend)
    assert mean.dtype == dtype
    np.testing.assert_array_equal(component, exact[2])
    close(mean, exact[0], dtype, rtol=rtol(dtype, 3072), atol=rtol(dtype, 3072))
    reconstructed = mfa.reconstruct(X, backend=backend)
    assert reconstructed.dtype == dtype
    exact_rows = mfa.reconstruct(X.astype(np.float64), backend=backend, method="residual")
    close(reconstructed, exact_rows, dtype, rtol=rtol(dtype, 3072), atol=rtol(dtype, 3072))


@pytest.mark.parametrize("function", ["latent", "reconstruct"])
def test_latent_side_of_bad_input(backend: str, function: str) -> None:
    mfa = random_mfa()
    X = between(mfa)
    score = getattr(mfa, function)
    with pytest.raises(ValueError, match=r"X must be \[n, 12\] .* got \(12, 11\)"):
        score(X[:, :11])
    with pytest.raises(TypeError, match="real numbers"):
        score(X > 0)
    with pytest.raises(mfakit.BackendUnavailable, match="abacus"):
        score(X, backend="abacus")
    expected = score(X, backend=backend)
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 7"):
        score(X, backend=backend, block_rows=5)
    got = score(X, backend=backend, check_finite=False)
    others = np.arange(12) != 7
    if function == "latent":
        got, expected = got[0], expected[0]
    assert np.isnan(got[7]).all()
    # To rounding: a product with one row fewer may add in another order.
    close(got[others], expected[others], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_latent_side_of_nothing_and_of_torch(backend: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    X = between(mfa).astype(dtype)
    mean, _, component = mfa.latent(X[:0], backend=backend)
    assert mean.shape == (0, 3)
    assert mean.dtype == dtype
    assert component.shape == (0,)
    assert mfa.reconstruct(X[:0], backend=backend).shape == (0, 12)
    got = mfa.latent(torch.from_numpy(X), backend=backend)
    expected = mfa.latent(X, backend=backend)
    assert isinstance(got[0], torch.Tensor)
    np.testing.assert_array_equal(got[0].numpy(), expected[0], strict=True)
    np.testing.assert_array_equal(np.asarray(got[2]), expected[2])
    out = np.empty_like(X)
    assert mfa.reconstruct(X, out=out, backend=backend) is out
    np.testing.assert_array_equal(mfa.reconstruct(torch.from_numpy(X), backend=backend).numpy(), out, strict=True)


# --- impute


def masks(n: int, d: int) -> Array:
    """A mask per row, most of them shared by several rows: none missing, one feature seen, any half."""
    rng = np.random.default_rng(1)
    kinds = rng.uniform(size=(5, d)) < 0.5
    kinds[0], kinds[1] = False, True
    kinds[1:, d // 2] = False
    return kinds[np.arange(n) % 5]


def impute_oracle(X: Array, mask: Array, mfa: mfakit.MFA) -> Array:
    return np.stack([_reference.impute(x, m, *parameters(mfa)) for x, m in zip(X, mask, strict=True)])


@pytest.mark.parametrize("spread", [2.0, 0.2], ids=["apart", "overlapping"])
@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (1, 12, 1), (3, 12, 0), (3, 2, 4), (3, 70, 5)])
def test_impute_is_the_oracle(backend: str, noise: str, k: int, d: int, l: int, spread: float) -> None:
    mfa = random_mfa(k, d, l, noise=noise, spread=spread)
    X, mask = between(mfa, 23), masks(23, d)
    got = mfa.impute(np.where(mask, np.nan, X), mask, backend=backend)
    close(got, impute_oracle(X, mask, mfa), rtol=1e-10, atol=1e-11)
    np.testing.assert_array_equal(got[~mask], X[~mask])


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_impute_by_blocks(backend: str, noise: str, block_rows: int) -> None:
    mfa = random_mfa(noise=noise, spread=0.5)
    X, mask = between(mfa, 23), masks(23, 12)
    got = mfa.impute(X, mask, backend=backend, block_rows=block_rows)
    close(got, impute_oracle(X, mask, mfa), rtol=1e-10, atol=1e-11)


def test_one_mask_for_all_rows(backend: str, noise: str) -> None:
    mfa = random_mfa(noise=noise, spread=0.5)
    X = between(mfa, 9)
    mask = np.arange(12) % 3 == 1
    got = mfa.impute(X, mask, backend=backend)
    np.testing.assert_array_equal(got, mfa.impute(X, np.tile(mask, (9, 1)), backend=backend))
    close(got, impute_oracle(X, np.tile(mask, (9, 1)), mfa), rtol=1e-10, atol=1e-11)


def test_nothing_missing_and_everything_missing(backend: str, noise: str) -> None:
    mfa = random_mfa(noise=noise)
    X, mask = between(mfa), np.zeros((12, 12), bool)
    np.testing.assert_array_equal(mfa.impute(X, mask[0], backend=backend), X)
    mask[7] = True
    for given in ((X, mask), (np.where(mask, np.nan, X),)):
        with pytest.raises(ValueError, match="X has a row without any known feature, first row 7; leave such rows out"):
            mfa.impute(*given, backend=backend, block_rows=5)


def test_nan_is_the_mask_and_bounds_clip_what_is_filled_in(noise: str) -> None:
    mfa = random_mfa(noise=noise, spread=0.5)
    X, mask = between(mfa, 23), masks(23, 12)
    filled = mfa.impute(X, mask)
    np.testing.assert_array_equal(mfa.impute(np.where(mask, np.nan, X)), filled)
    low, high = np.quantile(filled[mask], [0.3, 0.7])
    bounded = mfa.impute(X, mask, bounds=(low, high))
    np.testing.assert_array_equal(bounded, np.where(mask, np.clip(filled, low, high), X))
    with pytest.raises(ValueError, match="bounds must be"):
        mfa.impute(X, mask, bounds=(1, 0))
    with pytest.raises(ValueError, match="X has inf, first in row 3; what is not known is NaN"):
        mfa.impute(np.where((np.arange(23) == 3)[:, None], np.inf, X))


@pytest.mark.parametrize("missing", [np.nan, np.inf, 1e30])
def test_what_is_missing_is_not_read(backend: str, missing: float) -> None:
    mfa = random_mfa()
    X, mask = between(mfa, 10), masks(10, 12)
    given = np.where(mask, missing, X)
    before = given.tobytes()
    np.testing.assert_array_equal(mfa.impute(given, mask, backend=backend), mfa.impute(X, mask, backend=backend))
    assert given.tobytes() == before


def test_nan_in_an_observed_feature(backend: str) -> None:
    mfa = random_mfa()
    X, mask = between(mfa, 20), np.arange(12) % 3 == 1
    expected = mfa.impute(X, mask, backend=backend)
    X[13, 0] = np.nan
    for block_rows in (None, 6):
        with pytest.raises(ValueError, match="X has NaN or inf in an observed feature, first in row 13"):
            mfa.impute(X, mask, backend=backend, block_rows=block_rows)
    got = mfa.impute(X, mask, backend=backend, check_finite=False)
    others = np.arange(20) != 13
    close(got[others], expected[others], rtol=1e-12, atol=1e-13)
    assert np.isnan(got[13, mask]).all()
    np.testing.assert_array_equal(got[13, ~mask], X[13, ~mask])


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_impute_keeps_dtype_and_container(backend: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa(3, 200, 4, sigma=0.01)
    X, mask = mfa.sample(15, rng=0, dtype=dtype)[0], masks(15, 200)
    got = mfa.impute(X, mask, backend=backend)
    exact = mfa.impute(X.astype(np.float64), mask, backend=backend)
    assert got.dtype == dtype
    close(got, exact, dtype, rtol=rtol(dtype), atol=rtol(dtype))
    tensor = mfa.impute(torch.from_numpy(X), torch.from_numpy(mask), backend=backend)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), got, strict=True)
    out = np.empty_like(X)
    assert mfa.impute(X, mask, out=out, backend=backend) is out
    np.testing.assert_array_equal(out, got)
    assert mfa.impute(X[:0], mask[:0], backend=backend).shape == (0, 200)


@pytest.mark.parametrize("shape", [(3, 12), (11,), (4, 11), (4, 12, 1), ()])
def test_a_mask_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mask must be bool \(True = missing\) of shape \(4, 12\) or \(12,\), got"):
        random_mfa().impute(np.zeros((4, 12)), np.zeros(shape, bool))


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_a_mask_of_another_dtype(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"mask must be bool .* got {dtype}"):
        random_mfa().impute(np.zeros((4, 12)), np.zeros((4, 12), dtype))


def test_impute_needs_its_backend() -> None:
    with pytest.raises(mfakit.BackendUnavailable, match="abacus"):
        random_mfa().impute(np.zeros((0, 12)), np.zeros(12, bool), backend="abacus")


@pytest.mark.parametrize("rng", [-1, 1.5, "a"])
def test_a_seed_that_is_none_is_named(rng: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"rng must be a non-negative integer, .* or None, got"):
        random_mfa().sample(2, rng=rng)
