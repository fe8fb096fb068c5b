"""A pass over the data by several threads: the same sums, the same bytes each time, and nothing left behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import parameters, random_mfa
from threadpoolctl import threadpool_info

import mfakit
from mfakit._arrays.options import Options
from mfakit.fit import Source, Statistics, expectation, workers

Array = NDArray[Any]

NAMES = ("weight", "sum_x", "sum_xx", "sum_z", "sum_zz", "sum_xz", "log_likelihood", "total_weight")


@pytest.fixture(autouse=True)
def threads_for_small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WORKER_STEPS", 1)


def case(noise: str = "isotropic") -> tuple[mfakit.MFA, Array, Array]:
    mfa = random_mfa(3, 7, 2, noise=noise, spread=0.7)
    return mfa, mfa.sample(101, rng=0, dtype=np.float64)[0], np.random.default_rng(1).uniform(0, 2, 101)


def product_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("n_threads", [2, 3, 16])
def test_threads_find_the_sums_of_one(backend: str, noise: str, n_threads: int) -> None:
    mfa, X, w = case(noise)
    one = Statistics.zeros(mfa).add(X, w)
    options = Options(backend=backend, n_threads=n_threads)
    for source in (
        Source.from_array(X, w, options),
        Source.from_blocks(
            [(X[:50], w[:50]), (X[50:53], w[50:53]), (X[53:].astype(np.float32), w[53:])],
            options,
            weighted=True,
        ),
    ):
        many, again = expectation(mfa, source), expectation(mfa, source)
        single = any(rows.dtype == np.float32 for rows, _ in source.parts())
        for name in NAMES:
            np.testing.assert_array_equal(getattr(again, name), getattr(many, name))
            np.testing.assert_allclose(
                getattr(many, name), getattr(one, name), rtol=1e-12, atol=1e-5 if single else 1e-10, err_msg=name
            )
        assert len(many.worst.log_prob) == workers.Statistics.zeros(mfa).add(X).worst.log_prob.size


def test_sums_that_do_not_fit_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mfa, X, _ = case()
    source = Source.from_array(X, options=Options(n_threads=4))
    assert workers._plan(mfa, source)[0] == 4
    monkeypatch.setattr(workers, "WORKER_BYTES", 1000)
    assert workers._plan(mfa, source)[0] == 1
    assert workers._plan(mfa, Source.from_array(X, options=Options(n_threads=1)))[0] == 1


def test_products_get_their_threads_back() -> None:
    mfa, X, _ = case()
    before = product_threads()
    source = Source.from_array(X, options=Options(n_threads=2))
    expectation(mfa, source)
    assert product_threads() == before
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: expectation(mfa, source).log_likelihood, range(40)))
    assert len(set(found)) == 1
    assert product_threads() == before
    bad = Source.from_array(X, options=Options(n_threads=2))
    X[[70, 20]] = np.nan
    with pytest.raises(ValueError, match="first in row 20;"):
        expectation(mfa, bad)
    assert product_threads() == before


def test_an_interrupted_pass_ends_its_threads_with_their_block(monkeypatch: pytest.MonkeyPatch) -> None:
    mfa, X, _ = case()
    source = Source.from_array(X, options=Options(n_threads=2, block_rows=2))
    added: list[int] = []

    def slow(self: Statistics, scores: Any, *_: Any) -> None:
        added.append(len(scores.X))
        if len(added) == 5:
            raise KeyboardInterrupt
        time.sleep(0.01)

    monkeypatch.setattr(Statistics, "add_block", slow)
    alive = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        expectation(mfa, source)
    assert sum(added) < len(X)
    assert threading.active_count() == alive


def test_the_same_model_from_fits_side_by_side() -> None:
    _, X, _ = case()
    X = np.repeat(X, 5, axis=0) + np.random.default_rng(2).normal(scale=0.1, size=(505, 7))

    def fit(_: int) -> bytes:
        est = mfakit.MixtureOfFactorAnalyzers(3, 2, random_state=0, n_threads=2, tol=1e-2, max_iter=500, init="random")
        return b"".join(value.tobytes() for value in parameters(est.fit(X).mfa_))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fit, range(8)))) == 1
