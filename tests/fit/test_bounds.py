"""EM whose E-step bounds components: the history and the fixed point of the dense one, whatever is remembered."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from support import EMULATE, close, random_mfa

import mfakit
from mfakit._arrays.options import Options
from mfakit._threads.rows import open_crew
from mfakit.fit import Source, em, expectation, fit_em, workers
from mfakit.fit import bounds as bounds_module
from mfakit.fit.bounds import Bounds
from mfakit.mixture import choose, factors, pruning
from mfakit.mixture.directions import Directions

pytestmark = pytest.mark.skipif(EMULATE, reason="components are bounded on the host only")

Array = NDArray[Any]

NAMES = ("weight", "sum_x", "sum_xx", "sum_z", "sum_zz", "sum_xz", "log_likelihood", "total_weight")
SHARED = ("weights", "means", "loadings", "noise_variance")


def data(k: int, d: int = 30, l: int = 2, n: int = 400, seed: int = 1, spread: float = 0.6) -> Array:
    return random_mfa(k, d, l, seed=seed, spread=spread).sample(n, rng=seed, dtype=np.float64)[0]


def both(start: mfakit.MFA, X: Array, steps: int = 25, weights: Array | None = None) -> tuple[Any, Any]:
    """The fits by the two methods from one start."""
    return tuple(
        fit_em(start, Source.from_array(X, weights, Options(method=method)), floor=1e-4, tol=0.0, max_iter=steps,
               progress=False)
        for method in ("pruned", "dense")
    )  # fmt: skip


def same_fit(pruned: Any, dense: Any) -> None:
    assert set(pruned.methods) == {"pruned"}
    assert set(dense.methods) == {"dense"}
    assert len(pruned.log_likelihood) == len(dense.log_likelihood)
    np.testing.assert_allclose(pruned.log_likelihood, dense.log_likelihood, rtol=0, atol=1e-6)
    for name in SHARED:
        close(getattr(pruned.mfa, name), getattr(dense.mfa, name), rtol=1e-5, atol=1e-7)


# --- the dense E-step's history and fixed point


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("k", "spread"), [(1, 0.6), (4, 0.05), (12, 0.6), (40, 0.2)])
def test_history_and_fixed_point_are_the_dense_ones(k: int, spread: float, seed: int, dtype: str) -> None:
    X = data(k, seed=seed, spread=spread).astype(dtype)
    start = random_mfa(k, 30, 2, seed=seed + 10, spread=spread, sigma=0.5)
    same_fit(*both(start, X))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_near_duplicate_components(dtype: str) -> None:
    X = data(3).astype(dtype)
    one = random_mfa(3, 30, 2, seed=5)
    shift = 1e-5 * np.random.default_rng(0).normal(size=(9, 30))
    start = mfakit.MFA(
        np.full(9, 1 / 9), np.repeat(one.means, 3, axis=0) + shift, np.repeat(one.loadings, 3, axis=0),
        np.repeat(one.noise_variance, 3),
    )  # fmt: skip
    same_fit(*both(start, X))


@pytest.mark.parametrize("reseeds", [0, 3])
def test_a_component_that_empties(reseeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left empty it gets weight zero, with a constant table; put on a bad sample, it is that of no sample yet."""
    monkeypatch.setattr(em, "MOST_RESEEDS", reseeds)
    start, X = random_mfa(5, 30, 2, seed=4, sigma=0.5), data(4)
    means = start.means.copy()
    means[2] += 1e4
    pruned, dense = both(start.replace(means=means), X, 15)
    assert (pruned.mfa.weights[2] == 0) == (reseeds == 0)
    assert [event["event"] for event in pruned.events] == [event["event"] for event in dense.events]
    same_fit(pruned, dense)


def test_weights_and_zero_weights() -> None:
    w = np.random.default_rng(0).uniform(0, 2, 400)
    w[::7] = 0
    same_fit(*both(random_mfa(12, 30, 2, seed=9, sigma=0.5), data(12), 15, w))


def test_blocks_of_any_sizes_are_one_array() -> None:
    X, start = data(12), random_mfa(12, 30, 2, seed=9, sigma=0.5)
    options: dict[str, Any] = {"floor": 1e-4, "tol": 0.0, "max_iter": 8, "progress": False}
    whole = fit_em(start, Source.from_array(X, options=Options(method="pruned")), **options)
    parts = [X[:7], X[7:8], X[8:300], X[300:]]
    blocks = fit_em(start, Source.from_blocks(parts, Options(method="pruned")), **options)
    np.testing.assert_allclose(blocks.log_likelihood, whole.log_likelihood, rtol=1e-11)


def test_float32_blocks_after_float64_ones() -> None:
    X, start = data(12), random_mfa(12, 30, 2, seed=9, sigma=0.5)
    parts = [X[:150], X[150:].astype(np.float32)]
    found = [
        expectation(start, source, Bounds(source)).log_likelihood
        for source in (Source.from_blocks(parts, Options(method=method)) for method in ("pruned", "dense"))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-7)


# --- what is remembered


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_wrong_reference_changes_no_sum(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORKER_STEPS", 1)
    X, mfa = data(40, spread=0.2), random_mfa(40, 30, 2, seed=1, spread=0.2)
    source = Source.from_array(X, options=Options(method="pruned", n_threads=n_threads))
    bounds = Bounds(source)
    first, known = expectation(mfa, source, bounds), expectation(mfa, source, bounds)
    assert bounds._best is not None
    best = np.argmax(mfa.component_log_prob(X, method="residual"), axis=1)
    np.testing.assert_array_equal(bounds._best, best)
    bounds._best = np.random.default_rng(0).integers(0, 40, len(X)).astype(np.int32)
    wrong = expectation(mfa, source, bounds)
    np.testing.assert_array_equal(bounds._best, best)
    assert wrong.candidates > known.candidates
    for name in NAMES:
        for other in (known, wrong):
            np.testing.assert_allclose(getattr(other, name), getattr(first, name), rtol=1e-10, atol=1e-10)


def test_any_projection_gives_the_same_sums() -> None:
    X, mfa = data(40, spread=0.2), random_mfa(40, 30, 2, seed=1, spread=0.2)
    source = Source.from_array(X, options=Options(method="pruned"))
    bounds = Bounds(source)
    first = expectation(mfa, source, bounds)
    assert bounds._rows is not None
    rows = np.ascontiguousarray(np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0][:20])
    bounds._rows = Directions(rows, np.zeros(20, int), np.zeros(30, int))
    bounds._sizes = (16, 20)
    other = expectation(mfa, source, bounds)
    for name in NAMES:
        np.testing.assert_allclose(getattr(other, name), getattr(first, name), rtol=1e-10, atol=1e-10)


def test_the_projection_is_made_anew_where_candidates_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = pruning.leading_directions
    monkeypatch.setattr(pruning, "leading_directions", lambda *a: made.append(1) or original(*a))
    X = data(12)
    for grown, expected in ((1e9, 1), (-1.0, 7)):
        start = random_mfa(12, 30, 2, seed=9, sigma=0.5)  # whose factors keep a projection
        monkeypatch.setattr(bounds_module, "GROWN", grown)
        made.clear()
        pruned, dense = both(start, X, 6)
        assert len(made) == expected
        same_fit(pruned, dense)


def test_bounds_are_tried_again_after_dense_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(bounds_module, "choose_pruner", lambda *_: asked.append(len(asked)))
    source = Source.from_array(data(12))
    bounds, mfa = Bounds(source), random_mfa(12, 30, 2, seed=9)
    steps = []
    for step in range(17):
        before = len(asked)
        expectation(mfa, source, bounds)
        if len(asked) > before:
            steps.append(step)
    assert steps == [0, 1, 2, 4, 8, 16]


def test_the_same_bytes_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORKER_STEPS", 1)
    X, start = data(12), random_mfa(12, 30, 2, seed=9, sigma=0.5)
    for n_threads in (1, 2, 3):
        source = Source.from_array(X, options=Options(method="pruned", n_threads=n_threads))
        fits = [fit_em(start, source, floor=1e-4, tol=0.0, max_iter=6, progress=False) for _ in range(2)]
        assert fits[0].log_likelihood == fits[1].log_likelihood
        for name in SHARED:
            np.testing.assert_array_equal(getattr(fits[0].mfa, name), getattr(fits[1].mfa, name))


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_that_share_components_change_no_bit(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "PART_VALUES", 200)
    alone, shared = random_mfa(40, 30, 2, seed=1), random_mfa(40, 30, 2, seed=1)
    tables, directions = [], Directions(np.eye(30)[:20], np.zeros(20, int), np.zeros(30, int))
    with open_crew(n_threads) as crew:
        shared.factorize(crew.share)
        for mfa, share in ((alone, factors.alone), (shared, crew.share)):
            pruner = pruning.Pruner([mfa.factors], directions, (16, 20), {})
            pruner.prepare(np.float32, share)
            tables.append(pruner.tables(mfa.factors, np.float32))
    for name in ("whitened", "latent_map", "log_norm", "center"):
        np.testing.assert_array_equal(getattr(shared.factors, name), getattr(alone.factors, name))
    for one, other in zip(*tables, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_bad_component_is_named_by_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "PART_VALUES", 200)
    mfa = random_mfa(40, 30, 2, seed=1)
    loadings = mfa.loadings.copy()
    loadings[23] *= 1e300
    bad = mfa.replace(loadings=loadings, noise_variance=np.full(40, 1e-30))
    with pytest.raises(ValueError, match="component 23: "), open_crew(3) as crew:
        bad.factorize(crew.share)


# --- the estimator


def test_the_estimator_says_what_it_took(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choose, "LEAST_STEPS", 2**18)
    monkeypatch.setattr(choose, "FEW_COLUMNS", 1)
    monkeypatch.setattr(choose, "WORTH", np.inf)
    X = random_mfa(60, 80, 3, seed=1, spread=1.0, sigma=0.02).sample(1500, rng=1)[0]
    caplog.set_level("INFO", "mfakit")
    settings: dict[str, Any] = {"random_state": 0, "max_iter": 3, "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        auto, dense, pruned = (
            mfakit.MixtureOfFactorAnalyzers(60, 3, method=method, **settings).fit(X)
            for method in ("auto", "dense", "pruned")
        )
    assert auto.history_["method"] == ["pruned"] * 4
    assert dense.history_["method"] == ["dense"] * 4
    assert len(auto.history_["candidates"]) == len(auto.history_["log_likelihood"]) == 4
    assert all(1 <= c < 20 for c in auto.history_["candidates"])
    for other in (auto, pruned):
        np.testing.assert_allclose(
            other.history_["log_likelihood"], dense.history_["log_likelihood"], rtol=0, atol=1e-6
        )
    said = [r.message for r in caplog.records]
    assert sum(m.startswith("method auto bounds components") for m in said) == 1
    assert sum("candidates per sample (pruned)" in m for m in said) == 6


def test_diagonal_noise_is_bounded_in_groups() -> None:
    start = random_mfa(12, 30, 2, seed=9, noise="diagonal", sigma=0.5)
    pruned, dense = both(start, data(12), 6)
    same_fit(pruned, dense)
    assert set(pruned.methods) == {"pruned"}


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        mfakit.MixtureOfFactorAnalyzers(3, 1, method="cut").fit(data(3))


def test_an_unconverged_fit_says_the_last_gain_and_what_to_do() -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        est = mfakit.MixtureOfFactorAnalyzers(4, 2, max_iter=2, tol=1e-9, random_state=0).fit(data(4))
    gain = est.history_["log_likelihood"][-1] - est.history_["log_likelihood"][-2]
    (text,) = [str(w.message) for w in caught]
    assert text == (
        f"EM has not converged after 2 steps: the last one raised the log-likelihood by {gain:.3g} nats per sample, "
        f"and tol is 1e-09; raise max_iter or tol"
    )


def test_progress_shows_candidates_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    mfakit.MixtureOfFactorAnalyzers(4, 2, max_iter=500, random_state=0, method="pruned", progress=True).fit(data(4))
    shown = capsys.readouterr().err
    assert "nats, " in shown
    assert "candidates (pruned), " in shown
    assert " s" in shown.rpartition("candidates (pruned), ")[2]
