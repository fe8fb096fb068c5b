"""What fitting accepts as data: containers, blocks, weights, degenerate values, and what it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from support import close, parameters, random_mfa

import mfakit
from mfakit._arrays.options import Options
from mfakit.fit import MixtureOfFactorAnalyzers, Source, Statistics, source

Array = NDArray[Any]


def data(n: int = 90, d: int = 6, dtype: Any = np.float64) -> Array:
    """Samples of three groups that overlap: a few steps of EM are not enough."""
    return random_mfa(3, d, 2, spread=0.7, sigma=0.6).sample(n, rng=0, dtype=dtype)[0]


def fit(X: Any, sample_weight: Any = None, **options: Any) -> MixtureOfFactorAnalyzers:
    """A few steps, of which nobody expects convergence, to data of which some do not vary."""
    est = MixtureOfFactorAnalyzers(**{"n_components": 3, "n_factors": 2, "max_iter": 5, "random_state": 0, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", ".* features have no variance", UserWarning)
        return est.fit(X, sample_weight=sample_weight)


def assert_same(a: mfakit.MFA, b: mfakit.MFA, rtol: float = 0.0) -> None:
    for left, right in zip(parameters(a), parameters(b), strict=True):
        close(left, right, rtol=rtol, atol=rtol)


def misaligned(X: Array) -> Array:
    raw = np.zeros(X.nbytes + 1, np.uint8)[1:].view(X.dtype).reshape(X.shape)
    raw[:] = X
    return raw


CONTAINERS: dict[str, Callable[[Array], Any]] = {
    "fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X: X[::-1].copy()[::-1],
    "byte-swapped": lambda X: X.astype(X.dtype.newbyteorder()),
    "misaligned": misaligned,
    "list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_any_container_gives_the_same_model(container: str) -> None:
    X = data()
    other = CONTAINERS[container](X)
    before = X.copy()
    assert_same(fit(other).mfa_, fit(X).mfa_)
    np.testing.assert_array_equal(X, before)


def test_torch_tensors_and_read_only_memory_maps(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    X = data(dtype=np.float32)
    np.save(tmp_path / "X.npy", X)
    expected = fit(X).mfa_
    assert_same(fit(np.load(tmp_path / "X.npy", mmap_mode="r")).mfa_, expected)
    est = fit(torch.from_numpy(X))
    assert_same(est.mfa_, expected)
    assert isinstance(est.score_samples(torch.from_numpy(X)), torch.Tensor)
    assert isinstance(est.predict(torch.from_numpy(X)), torch.Tensor)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_other_real_types_are_their_float32_values(dtype: Any) -> None:
    X = np.abs(data()).astype(dtype)
    assert_same(fit(X).mfa_, fit(X.astype(np.float32)).mfa_)


@pytest.mark.parametrize("sizes", [[90], [1, 89], [30, 30, 30], [50, 0, 39, 1]])
def test_blocks_give_the_model_of_the_whole(noise: str, sizes: list[int]) -> None:
    X = data()
    edges = np.cumsum([0, *sizes])
    parts = [X[a:b] for a, b in pairwise(edges)]
    whole = fit(X, noise=noise, tol=0)
    est = MixtureOfFactorAnalyzers(3, 2, noise=noise, max_iter=5, random_state=0, tol=0)
    for blocks in (parts, lambda: iter(parts)):
        with pytest.warns(ConvergenceWarning):
            est.fit_blocks(blocks)
        assert est.n_features_in_ == 6
        assert_same(est.mfa_, whole.mfa_, rtol=1e-9)
        np.testing.assert_allclose(est.history_["log_likelihood"], whole.history_["log_likelihood"], rtol=1e-11)


def test_weighted_blocks() -> None:
    X, w = data(), np.random.default_rng(1).uniform(0, 2, 90)
    w[::7] = 0
    expected = fit(X, w, tol=0)
    est = MixtureOfFactorAnalyzers(3, 2, max_iter=5, random_state=0, tol=0)
    with pytest.warns(ConvergenceWarning):
        est.fit_blocks([(X[:40], w[:40]), (X[40:], w[40:])], weighted=True)
    assert_same(est.mfa_, expected.mfa_, rtol=1e-9)


def test_blocks_that_cannot_be_read_again_are_refused() -> None:
    X = data()
    est = MixtureOfFactorAnalyzers()
    with pytest.raises(TypeError, match="more than once"):
        est.fit_blocks(iter([X]))
    with pytest.raises(TypeError, match="more than once"):
        est.fit_blocks(3)
    used_up = iter([X])
    with pytest.raises(ValueError, match=r"90 rows at first and 0 later"):
        est.fit_blocks(lambda: used_up)
    with pytest.raises(ValueError, match=r"block 1 must be \[n, 6\]"):
        est.fit_blocks([X, X[:, :3]])
    with pytest.raises(ValueError, match="no rows"):
        est.fit_blocks([])


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_block_size_and_threads_change_rounding_only(block_rows: int) -> None:
    X = data()
    expected = fit(X, tol=0)
    assert_same(fit(X, block_rows=block_rows, tol=0).mfa_, expected.mfa_, rtol=1e-9)
    assert_same(fit(X, n_threads=1, tol=0).mfa_, fit(X, n_threads=3, tol=0).mfa_, rtol=1e-9)


def test_memory_is_one_block_and_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory map of 16 MB, with a sample of 1/32 of it: what Python allocates stays far below the data."""
    import tracemalloc

    n, d = 16_384, 256
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(n, d))
    for start in range(0, n, 4096):
        X[start : start + 4096] = np.random.default_rng(start).standard_normal((4096, d), dtype=np.float32)
    monkeypatch.setattr(source, "SAMPLE_VALUES", n * d // 32)
    fit(data(), max_iter=1)  # imports are not part of it
    tracemalloc.start()
    fit(X, max_iter=1, block_rows=512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 4


def test_the_start_is_from_the_same_rows_whatever_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SAMPLE_ROWS", 40)
    X = data()
    w = np.tile([1.0, 0.0, 2.0], 30)
    parts = [(X[:20], w[:20]), (X[20:], w[20:])]
    sources = (Source.from_array(X, w), Source.from_blocks(parts, weighted=True), Source.from_array(X[w > 0], w[w > 0]))
    samples = [s.sample(np.random.default_rng(5), least=10) for s in sources]
    assert len(samples[0][0]) == 40
    for rows, weights in samples[1:]:
        np.testing.assert_array_equal(rows, samples[0][0])
        np.testing.assert_array_equal(weights, samples[0][1])
    again = Source.from_array(X, w).sample(np.random.default_rng(6), least=10)[0]
    assert (again != samples[0][0]).any()


def test_survey_is_the_weighted_mean_and_variance() -> None:
    X, w = data() + 1e3, np.random.default_rng(1).uniform(0, 2, 90)
    w[:5] = 0
    survey = Source.from_array(X, w, Options(block_rows=7)).survey
    assert (survey.n_rows, survey.dtype) == (85, np.float64)
    assert survey.total_weight == pytest.approx(w.sum())
    mean = w @ X / w.sum()
    close(survey.mean, mean, rtol=1e-12)
    assert survey.variance == pytest.approx((w @ (X - mean) ** 2).mean() / w.sum(), rel=1e-9)
    assert survey.mean_square == pytest.approx((w @ X**2).mean() / w.sum(), rel=1e-9)


def test_zero_weight_rows_are_absent_and_double_weight_is_twice(noise: str) -> None:
    X = data()
    w = np.tile([1.0, 0.0, 2.0], 30)
    spoiled = np.where(w[:, None] > 0, X, 1e6)
    whole = fit(spoiled, w, noise=noise, tol=0)
    assert_same(whole.mfa_, fit(X[w > 0], w[w > 0], noise=noise, tol=0).mfa_, rtol=1e-9)
    # From one start, because a random start of other rows is another start.
    twice = MixtureOfFactorAnalyzers(3, 2, noise=noise, max_iter=5, tol=0, warm_start=True)
    weighted = MixtureOfFactorAnalyzers(3, 2, noise=noise, max_iter=5, tol=0, warm_start=True)
    twice.mfa_ = weighted.mfa_ = random_mfa(3, 6, 2, noise=noise, seed=8)
    with pytest.warns(ConvergenceWarning):
        twice.fit(np.repeat(X, w.astype(int), axis=0))
    with pytest.warns(ConvergenceWarning):
        weighted.fit(X, sample_weight=w)
    assert_same(weighted.mfa_, twice.mfa_, rtol=1e-9)


def test_a_row_of_weight_zero_may_have_no_density(noise: str) -> None:
    """Its log-density is -inf by overflow, and 0 times that would be NaN."""
    mfa, X = random_mfa(3, 6, 2, noise=noise), data()
    far = np.concatenate([X, np.full((1, 6), 1e200)])
    plain, weighted = Statistics.zeros(mfa).add(X), Statistics.zeros(mfa).add(far, np.append(np.ones(len(X)), 0.0))
    assert weighted.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-12)
    close(weighted.sum_xx, plain.sum_xx, rtol=1e-12)


def test_the_scale_of_the_weights_does_not_matter() -> None:
    X, w = data(), np.random.default_rng(1).uniform(0, 2, 90)
    for scale in (1e-9, 1e-15, 1e15 / w.max()):
        assert_same(fit(X, w, tol=0).mfa_, fit(X, scale * w, tol=0).mfa_, rtol=1e-9)
    with pytest.raises(ValueError, match="must sum to 1e-15"):
        MixtureOfFactorAnalyzers().fit_blocks([(X, np.full(90, 1e-300))] * 2, weighted=True)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(5), ValueError, r"shape \(90,\), got \(5,\)"),
        (np.ones((90, 1)), ValueError, r"shape \(90,\)"),
        (np.zeros(90), ValueError, "zero for every row"),
        (np.full(90, 1e-300), ValueError, "must sum to 1e-15 or more, got 9e-299; only ratios of weights matter"),
        (np.r_[1.0, np.full(89, 1e300)], ValueError, r"at most 1e\+15, got 1e\+300 in row 1; only ratios of weights"),
        (np.r_[1.0, -1.0, np.ones(88)], ValueError, "got -1.0 in row 1"),
        (np.r_[1.0, 1.0, np.nan, np.ones(87)], ValueError, "got nan in row 2"),
        (np.full(90, "a"), TypeError, "sample_weight must be real numbers"),
    ],
)
def test_bad_weights(weights: Array, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit(data(), weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_first_bad_row_is_named(value: float, dtype: Any) -> None:
    X = data(dtype=dtype)
    X[70, 2] = X[41, 3] = value
    with pytest.raises(ValueError, match=r"X has NaN or inf, first in row 41;"):
        fit(X, block_rows=10)
    with pytest.raises(ValueError, match=r"first in row 41;"):
        MixtureOfFactorAnalyzers().fit_blocks([X[:30], X[30:60], X[60:]])
    with pytest.raises(ValueError, match=r"X has NaN or inf, first in row 41;"):
        fit(data()).score_samples(X)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.empty((0, 6)), ValueError, "no rows"),
        (np.ones(6), ValueError, "Reshape your data"),
        (np.ones((2, 3, 4)), ValueError, r"must be \[n, d\], got shape \(2, 3, 4\)"),
        (np.ones((5, 0)), ValueError, "0 feature"),
        (np.ones((5, 3), bool), TypeError, "bool"),
        (np.ones((5, 3), complex), TypeError, "complex"),
        (np.ones((5, 3), object), TypeError, "object"),
        (scipy.sparse.csr_array(np.ones((5, 3))), TypeError, "sparse"),
        (np.diag([1e200, -1e200, 1e200]), ValueError, "rescale"),
    ],
)
def test_bad_data(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit(X)


def test_more_components_than_rows_or_factors_than_features() -> None:
    X = data(n=4)
    with pytest.raises(ValueError, match=r"n_components=5 needs .* got 4 rows"):
        fit(X, n_components=5)
    with pytest.raises(ValueError, match=r"n_components=4 needs .* got 3 rows"):
        fit(X, np.array([1.0, 1.0, 0.0, 1.0]), n_components=4)
    with pytest.raises(ValueError, match=r"n_factors=7 must be at most .* 6"):
        fit(X, n_factors=7)


def degenerate(name: str) -> Array:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 5))
    if name == "constant columns":
        X[:, [1, 3]] = 0.1
    elif name == "duplicates":
        X = np.repeat(X[:3], 20, axis=0)
    elif name == "two distinct rows":
        X = np.repeat(X[:2], [50, 1], axis=0)
    elif name == "all rows equal":
        X = np.tile(X[:1], (40, 1))
    elif name == "all zero":
        X = np.zeros((40, 5))
    elif name == "more features than rows":
        X = rng.normal(size=(8, 30))
    elif name == "one outlier":
        X[7] = 1e6
    elif name == "a small feature":
        X[:, 2] *= 1e-12
    elif name == "far from the origin":
        X += 1e6
    else:
        X *= float(name)
    return X


DEGENERATE = (
    "constant columns", "duplicates", "two distinct rows", "all rows equal", "all zero", "more features than rows",
    "one outlier", "a small feature", "far from the origin", "1e-20", "1e18",
)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("init", ["kmeans", "random"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data(noise: str, name: str, init: str, dtype: Any) -> None:
    X = degenerate(name).astype(dtype)
    est = fit(X, noise=noise, init=init, max_iter=30, noise_floor=1e-6)
    for value in parameters(est.mfa_):
        assert np.isfinite(value).all()
    floor = 1e-6 * Source.from_array(X).survey.scale
    assert floor > 0
    assert est.mfa_.noise_variance.min() >= floor
    values = np.array(est.history_["log_likelihood"])
    reseeded = {event["iteration"] for event in est.history_["events"] if event["event"] == "reseeded"}
    for i, (before, after) in enumerate(pairwise(values)):
        assert after >= before - 1e-9 * max(abs(before), X.shape[1]) or i + 1 in reseeded
    assert not any(event["event"] == "fell" for event in est.history_["events"])
    assert np.isfinite(est.score_samples(X)).all()


@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_units_do_not_matter(noise: str, scale: float) -> None:
    """The same model in other units, and log-densities that differ by d log scale."""
    X = data()
    est, scaled = fit(X, noise=noise, tol=0), fit(X * scale, noise=noise, tol=0)
    np.testing.assert_allclose(scaled.mfa_.means / scale, est.mfa_.means, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaled.mfa_.noise_variance / scale**2, est.mfa_.noise_variance, rtol=1e-6)
    assert scaled.lower_bound_ == pytest.approx(est.lower_bound_ - 6 * np.log(scale), rel=1e-9)


@pytest.mark.parametrize(("n", "k", "d", "l"), [(1, 1, 1, 0), (1, 1, 1, 1), (1, 1, 4, 2), (4, 4, 3, 1), (30, 2, 3, 0)])
def test_smallest_shapes(noise: str, n: int, k: int, d: int, l: int) -> None:
    est = fit(np.random.default_rng(0).normal(size=(n, d)), noise=noise, n_components=k, n_factors=l)
    assert est.mfa_.loadings.shape == (k, d, l)
    assert np.isfinite(est.lower_bound_)


def test_batches_are_one_epoch_in_an_order_of_the_seed() -> None:
    torch = pytest.importorskip("torch")
    X, w = data(), np.tile([1.0, 0.0, 2.0], 30)
    for make in (
        lambda: Source.from_array(X, w),
        lambda: Source.from_blocks([(X[:31], w[:31]), (X[31:], w[31:])], weighted=True),
    ):
        epochs = [list(make().batches(16, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)]
        for epoch in epochs:
            rows = np.concatenate([batch for batch, _ in epoch])
            np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(X[w > 0], axis=0))
            assert max(len(batch) for batch, _ in epoch) == 16
        np.testing.assert_array_equal(epochs[0][0][0], epochs[1][0][0])
        assert (epochs[0][0][0] != epochs[2][0][0]).any()
