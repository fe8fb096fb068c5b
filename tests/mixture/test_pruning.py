"""Components that are bounded before they are scored: the answer, bad input, blocks and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from density_cases import FUNCTIONS, REAL_DTYPES, samples
from pruning_cases import HARD, hard_model, mixture
from support import close, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit._arrays.options import Options
from mfakit.backends import get_backend
from mfakit.mixture import choose, pruning
from mfakit.mixture.evaluator import Evaluator
from mfakit.mixture.pruning import Pruner

# --- the answer


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("spread", [2.0, 0.1], ids=["apart", "overlapping"])
@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (4, 12, 0), (1, 12, 3), (3, 1, 1), (3, 2, 4), (9, 100, 3)])
def test_float64_is_the_oracle(backend: str, k: int, d: int, l: int, spread: float, noise: str) -> None:
    mfa = random_mfa(k, d, l, spread=spread, noise=noise)
    X, model = samples(mfa), parameters(mfa)
    options: dict[str, Any] = {"backend": backend, "method": "pruned"}
    tolerance = rtol(np.float64, d)
    np.testing.assert_allclose(mfa.log_prob(X, **options), _reference.log_prob(X, *model), rtol=tolerance)
    resp = mfa.responsibilities(X, **options)
    np.testing.assert_allclose(resp, _reference.responsibilities(X, *model), rtol=0, atol=1e-10)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-13)
    expected = _reference.grad_log_prob(X, *model)
    error = np.linalg.norm(mfa.grad_log_prob(X, **options) - expected, axis=1)
    assert (error <= tolerance * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("name", HARD)
def test_hard_models_have_the_residuals_answer(backend: str, name: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    mfa = hard_model(name, rng, dtype)
    X = samples(mfa, 40, dtype)
    got, exact = (mfa.log_prob(X, backend=backend, method=m) for m in ("pruned", "residual"))
    # NumPy's products of W, whose rows are known to ‖A‖/σ roundings, depend on how many samples they are of.
    sigma = np.sqrt(mfa.noise_variance).reshape(mfa.n_components, -1, 1)
    length = np.linalg.norm(mfa.loadings / sigma, axis=(1, 2))
    product = 0.0 if backend == "native" else np.finfo(float).eps * length.max()
    np.testing.assert_allclose(got, exact, rtol=rtol(dtype) + product)
    shares = mfa.responsibilities(X, backend=backend, method="pruned")
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    dense = mfa.responsibilities(X, backend=backend, method="residual")
    np.testing.assert_allclose(shares, dense, rtol=0, atol=1e-10 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("noise", ["isotropic", "diagonal", "both"])
def test_a_classifiers_classes_share_a_projection(dtype: str, noise: str) -> None:
    kinds = ("isotropic", "diagonal", "isotropic") if noise == "both" else (noise,) * 3
    classes = [random_mfa(6, 30, 3, seed=s, spread=0.3, noise=kind) for s, kind in enumerate(kinds)]
    X = np.concatenate([samples(m, 10, dtype) for m in classes])
    for clf in (mfakit.BayesClassifier(classes), mfakit.BayesClassifier(classes[:2])):
        for function in ("decision_function", "predict", "predict_proba", "decision_gradient"):
            got, dense = (getattr(clf, function)(X, method=m) for m in ("pruned", "dense"))
            scale = float(np.abs(dense).max())
            np.testing.assert_allclose(got, dense, rtol=rtol(dtype), atol=rtol(dtype) * scale)


def test_most_components_are_left_out() -> None:
    rng = np.random.default_rng(0)
    mfa = mixture(None, rng.normal(size=(60, 80)), 0.3 * rng.normal(size=(60, 80, 3)), 1e-4)
    X = mfa.sample(200, rng=1, dtype=np.float64)[0]
    resp = mfa.responsibilities(X, method="pruned")
    assert (resp > 0).sum() == len(X)
    evaluator = Evaluator(
        mfa.factors, get_backend("auto"), np.float64, len(X), Options(n_threads=1), Pruner.of([mfa.factors])
    )
    assert len(X) <= len(evaluator(X).rows) < 1.5 * len(X)


# --- bad input, blocks and threads


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "component_log_prob"])
def test_empty_and_single_rows(backend: str, function: str) -> None:
    mfa = random_mfa(5, 12, 3)
    X = samples(mfa)
    call = getattr(mfa, function)
    assert len(call(X[:0], backend=backend, method="pruned")) == 0
    many = call(X, backend=backend, method="pruned")
    one = call(X[3:4], backend=backend, method="pruned")
    np.testing.assert_allclose(one, many[3:4], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_rows(backend: str, bad: float) -> None:
    mfa = random_mfa(5, 12, 3)
    X = samples(mfa)
    expected = mfa.log_prob(X)
    X[4, 2] = bad
    options: dict[str, Any] = {"backend": backend, "method": "pruned"}
    with pytest.raises(ValueError, match="NaN or inf, first in row 4"):
        mfa.log_prob(X, **options)
    got = mfa.log_prob(X, check_finite=False, **options)
    assert np.isnan(got[4])
    np.testing.assert_allclose(np.delete(got, 4), np.delete(expected, 4), rtol=1e-12)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("distance", [1e6, 1e18, 1e30, 1e300])
def test_far_samples_are_the_dense_paths(backend: str, distance: float, dtype: str) -> None:
    if distance > float(np.finfo(dtype).max):
        pytest.skip("no float32")
    mfa = random_mfa(5, 12, 3)
    X = samples(mfa).astype(dtype)
    X[::2] = (X[::2] * distance).astype(dtype)
    for function in ("log_prob", "responsibilities"):
        got = getattr(mfa, function)(X, backend=backend, method="pruned")
        dense = getattr(mfa, function)(X, backend=backend, method="dense")
        np.testing.assert_allclose(got, dense, rtol=rtol(dtype), atol=1e-9)


def test_a_far_sample_of_a_tiny_noise_finds_its_component(backend: str) -> None:
    """Squared lengths of 1e40 overflow float32: what is then known of a component is no reason to leave it out."""
    means = np.zeros((2, 6))
    means[1, 0] = 3e7
    mfa = mixture(None, means, np.zeros((2, 6, 1)), 1e-24, np.float32)
    X = np.full((3, 6), 1e8, np.float32)
    X[:, 0] = 4e7
    shares = mfa.responsibilities(X, backend=backend, method="pruned")
    np.testing.assert_array_equal(shares, np.eye(2)[[1, 1, 1]])


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_bits_depend_on_neither_threads_nor_blocks(dtype: str) -> None:
    mfa = random_mfa(20, 60, 3, spread=0.2)
    X = samples(mfa, 300, dtype)
    for function in ("log_prob", "responsibilities"):
        call = getattr(mfa, function)
        expected = call(X, method="pruned", n_threads=1)
        for options in ({"n_threads": 2}, {"n_threads": 7}, {"block_rows": 1}, {"block_rows": 37}):
            np.testing.assert_array_equal(call(X, method="pruned", **options), expected)


@pytest.mark.parametrize("method", ["dense", "pruned"])
@pytest.mark.parametrize("offset", [1e4, 1e7])
def test_float64_samples_in_a_float32_product(backend: str, offset: float, method: str) -> None:
    """Rounded before the centre is subtracted, nothing would be left of them at the larger offset."""
    rng = np.random.default_rng(0)
    mfa = mixture(None, offset + 0.3 * rng.normal(size=(30, 60)), 0.05 * rng.normal(size=(30, 60, 2)), 1e-4)
    X = mfa.sample(60, rng=1, dtype=np.float64)[0]
    options: dict[str, Any] = {"method": method, "precision": "float32", "backend": backend}
    np.testing.assert_allclose(mfa.log_prob(X, **options), mfa.log_prob(X, method="residual"), rtol=1e-10)
    close(mfa.responsibilities(X, **options), mfa.responsibilities(X), atol=1e-12, rtol=0)


def test_an_unknown_method_is_refused() -> None:
    mfa = random_mfa(4, 12, 3)
    with pytest.raises(ValueError, match="method must be one of"):
        mfa.log_prob(samples(mfa), method="cut")


def test_auto_says_that_a_projection_does_not_pay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(choose, "LEAST_STEPS", 1)
    mfa = random_mfa(4, 100, 3)
    caplog.set_level("INFO", "mfakit")
    mfa.log_prob(samples(mfa))
    assert "takes the dense product: its 16 columns are too few for a projection to pay" in caplog.text


def test_a_set_up_without_room_says_what_it_wanted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(pruning, "projections_of", no_room)
    monkeypatch.setattr(choose, "LEAST_STEPS", 1)
    monkeypatch.setattr(choose, "FEW_COLUMNS", 1)
    mfa = random_mfa(40, 12, 3)
    X = samples(mfa)
    with pytest.raises(MemoryError, match=r"bounds of 40 components take about \d+ MiB .* use method=\"dense\""):
        mfa.log_prob(X, method="pruned")
    caplog.set_level("INFO", "mfakit")
    np.testing.assert_array_equal(mfa.log_prob(X), mfa.log_prob(X, method="dense"))
    assert "method auto takes the dense product: bounds of 40 components take about" in caplog.text


def test_auto_takes_the_same_way_twice_and_says_which(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "LEAST_STEPS", 2**20)
    rng = np.random.default_rng(0)
    mfa = mixture(None, rng.normal(size=(200, 150)), 0.3 * rng.normal(size=(200, 150, 4)), 1e-4, np.float32)
    X = mfa.sample(1500, rng=1)[0]
    caplog.set_level("INFO", "mfakit")
    first, second = mfa.log_prob(X), mfa.log_prob(X, n_threads=1)
    np.testing.assert_array_equal(first, second)
    said = [r.message for r in caplog.records if r.message.startswith("method auto")]
    assert len(said) == 2
    assert said[0] == said[1]
    assert "candidates per sample" in said[0]


def test_functions_that_return_every_component_leave_none_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where "auto" takes bounds for a density, it takes the dense product for these."""
    for name, value in {"LEAST_STEPS": 1, "FEW_COLUMNS": 1, "WORTH": 1e9}.items():
        monkeypatch.setattr(choose, name, value)
    mfa, X = random_mfa(9, 100, 3, spread=2.0), np.zeros((40, 100))
    caplog.set_level("INFO", "mfakit")
    mfa.log_prob(X)
    assert "method auto bounds components" in caplog.text
    caplog.clear()
    scores = mfa.component_log_prob(X)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, mfa.component_log_prob(X, method="dense"))
    np.testing.assert_array_equal(
        mfakit.point_subspace_distances(X, mfa), mfakit.point_subspace_distances(X, mfa, method="dense")
    )
    assert "method auto" not in caplog.text  # nor is a pilot block looked at
    for call in (mfa.component_log_prob, lambda X, **options: mfakit.point_subspace_distances(X, mfa, **options)):
        with pytest.raises(ValueError, match="returns a value of every component"):
            call(X, method="pruned")
