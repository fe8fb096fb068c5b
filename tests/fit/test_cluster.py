"""Fits to arrays of dask: those to the same rows in memory, whichever worker computes the blocks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import random_mfa

import mfakit
from mfakit.fit import cluster, em, source
from mfakit.fit.cluster import ClusterSource

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

Array = NDArray[Any]

PARAMETERS = ("weights_", "means_", "loadings_", "noise_variance_")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def scheduler() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def samples(n: int = 400, dtype: Any = np.float64) -> Array:
    X: Array = random_mfa(4, 8, 2, seed=3).sample(n, rng=0, dtype=np.float64)[0].astype(dtype)
    return X


def agree(got: mfakit.MixtureOfFactorAnalyzers, expected: mfakit.MixtureOfFactorAnalyzers) -> None:
    history = expected.history_["log_likelihood"]
    np.testing.assert_allclose(got.history_["log_likelihood"], history, rtol=1e-9)
    for name in PARAMETERS:
        value = getattr(expected, name)
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-9, atol=1e-9 * np.abs(value).max())
    assert (got.n_iter_, got.converged_) == (expected.n_iter_, expected.converged_)
    assert got.history_["events"] == expected.history_["events"]


@pytest.mark.parametrize(
    ("noise", "dtype", "method", "weights"),
    [
        ("isotropic", np.float64, "auto", "none"),
        ("diagonal", np.float32, "auto", "on the client"),
        ("isotropic", np.float32, "pruned", "lazy"),
        ("diagonal", np.float64, "residual", "lazy"),
    ],
)
def test_the_fit_in_memory(noise: Any, dtype: Any, method: Any, weights: str) -> None:
    X = samples(dtype=dtype)
    w = None if weights == "none" else np.random.default_rng(1).uniform(0.0, 2.0, len(X))
    if w is not None:
        w[:60] = 0.0
    lazy = da.from_array(X, chunks=((1, 130, 269), 3))
    settings = {"noise": noise, "random_state": 0, "max_iter": 4, "tol": 0.0, "method": method}
    expected = mfakit.MixtureOfFactorAnalyzers(4, 2, **settings).fit(X, sample_weight=w)
    got = mfakit.MixtureOfFactorAnalyzers(4, 2, **settings)
    predicted = got.fit_predict(lazy, sample_weight=da.from_array(w, chunks=50) if weights == "lazy" else w)
    agree(got, expected)
    assert got.history_["method"] == ["dense" if method == "auto" else method] * 5
    np.testing.assert_array_equal(predicted.compute(), expected.predict(X))


def test_a_start_is_a_sample_of_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SAMPLE_ROWS", 50)
    monkeypatch.setattr(source, "SAMPLE_VALUES", 8 * 50)
    X = samples()
    for init in ("kmeans", "random"):
        est = mfakit.MixtureOfFactorAnalyzers(3, 1, init=init, random_state=5, max_iter=0)
        means = est.fit(X).means_.copy()
        np.testing.assert_array_equal(est.fit(da.from_array(X, chunks=(77, 8))).means_, means)
    np.testing.assert_array_equal(est.set_params(means_init=X[:3]).fit(da.from_array(X, chunks=(77, 8))).means_, X[:3])


def test_blocks_and_threads_change_rounding_alone() -> None:
    X = samples()
    est = mfakit.MixtureOfFactorAnalyzers(4, 2, random_state=0, max_iter=4, tol=0.0)
    lazy = da.from_array(X, chunks=(30, 8))
    found = []
    for how in ({"scheduler": "threads", "num_workers": 3}, {"scheduler": "synchronous"}):
        with dask.config.set(how):
            found.append(est.fit(lazy).means_.tobytes())
    assert found[0] == found[1]  # which thread had which block decides nothing


def test_a_source_gives_its_rows() -> None:
    X, w = samples(100), np.arange(100.0)
    rows_of = ClusterSource.from_array(da.from_array(X, chunks=(40, 8)), w)
    parts = list(rows_of.parts())
    np.testing.assert_array_equal(np.concatenate([rows.block(0, len(rows)) for rows, _ in parts]), X)
    np.testing.assert_array_equal(np.concatenate([weights for _, weights in parts if weights is not None]), w)
    assert (rows_of.survey.n_rows, rows_of.n_read) == (99, 100)


def test_what_is_refused() -> None:
    lazy = da.from_array(samples(40), chunks=(20, 8))

    def fit(X: Any = lazy, w: Any = None, **settings: Any) -> None:
        mfakit.MixtureOfFactorAnalyzers(2, 1, max_iter=1, **settings).fit(X, sample_weight=w)

    with pytest.raises(ValueError, match=r"array of dask, and solver='sgd' fits to .* pass X\.compute\(\), or solver="):
        fit(solver="sgd")
    with pytest.raises(ValueError, match="array of dask, and missing='marginal' fits to arrays on one machine alone"):
        fit(missing="marginal")
    with pytest.raises(ValueError, match='runs on the host: pass backend="auto"'):
        fit(backend="cuda")
    with pytest.raises(ValueError, match="blocks of unknown size"):
        fit(lazy[lazy[:, 0] > 0])
    with pytest.raises(ValueError, match="X has no rows"):
        fit(lazy[:0])
    with pytest.raises(ValueError, match="one weight per row, shape"):
        fit(w=da.ones(39))
    with pytest.raises(ValueError, match=r"sample_weight from row 20 on must be finite .*, got -1\.0 in row 5"):
        fit(w=da.from_array(np.where(np.arange(40) == 25, -1.0, 1.0), chunks=10))
    bad = samples(40)
    bad[33] = np.inf
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 33; drop"):
        fit(da.from_array(bad, chunks=(20, 8)))


def _count_models() -> None:
    """On a worker: count what is opened there."""
    from mfakit._arrays import tasks

    class Counted(dict[Any, Any]):
        opened = 0

        def setdefault(self, *args: Any) -> Any:
            type(self).opened += 1
            return super().setdefault(*args)

    tasks._open = Counted(tasks._open)


def _models() -> tuple[int, int]:
    """On a worker: how many were opened, and are."""
    from mfakit._arrays import tasks

    return tasks._open.opened, len(tasks._open)  # type: ignore[attr-defined]


def _set_version(version: str) -> None:
    from mfakit import _version

    _version.__version__ = version


def _lose_package() -> None:
    """On a worker: as if mfakit was not installed."""
    import sys

    class Missing:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name.partition(".")[0] == "mfakit":
                raise ModuleNotFoundError(f"No module named {name!r}")

    for name in [name for name in sys.modules if name.partition(".")[0] == "mfakit"]:
        del sys.modules[name]
    sys.meta_path.insert(0, Missing)  # type: ignore[arg-type]


def _find_package() -> None:
    import sys

    del sys.meta_path[0]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes of one thread each."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as processes,
        distributed.Client(processes) as client,
    ):
        yield client


@pytest.fixture
def as_client(scheduler: None, client: Any) -> Iterator[Any]:
    with dask.config.set(scheduler="distributed"):
        yield client


@pytest.mark.slow  # processes take seconds to start
class TestCluster:
    """On processes."""

    def test_the_model_travels_once_to_every_worker(self, as_client: Any) -> None:
        as_client.run(_count_models)
        X, mfa = samples(4000), random_mfa(4, 8, 2)
        lazy = da.from_array(X, chunks=(400, 8)).persist()
        found, _ = dask.compute(mfa.log_prob(lazy), mfa.responsibilities(lazy))
        np.testing.assert_allclose(found, mfa.log_prob(X), rtol=1e-12)
        assert all(opened == 1 for opened, _ in as_client.run(_models).values())
        mfakit.MixtureOfFactorAnalyzers(2, 1, random_state=0, max_iter=3, tol=0.0).fit(lazy)
        # The survey, and the E-steps of the start and of three others.
        assert all(opened <= 1 + 5 for opened, _ in as_client.run(_models).values())
        assert sum(opened for opened, _ in as_client.run(_models).values()) > 1 + 5

    def test_a_worker_with_another_version_or_none_says_so(self, as_client: Any) -> None:
        lazy, mfa = da.from_array(samples(40), chunks=(20, 8)), random_mfa(4, 8, 2)
        as_client.run(_set_version, "0.0.7")
        try:
            with pytest.raises(RuntimeError, match=f"has mfakit 0.0.7 and the client mfakit {mfakit.__version__};"):
                mfa.log_prob(lazy).compute()
        finally:
            as_client.run(_set_version, mfakit.__version__)
        as_client.run(_lose_package)
        try:
            with pytest.raises(RuntimeError, match=f"has no mfakit and the client mfakit {mfakit.__version__};"):
                mfa.grad_log_prob(lazy).compute()
        finally:
            as_client.run(_find_package)
        assert mfa.log_prob(lazy + 0).compute().shape == (40,)

    @pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")  # which is asked for
    def test_a_worker_is_killed_in_mid_fit(self, as_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        X = samples(4000)
        est = mfakit.MixtureOfFactorAnalyzers(4, 2, random_state=0, max_iter=5, tol=0.0)
        expected = mfakit.MixtureOfFactorAnalyzers(**est.get_params()).fit(X)
        lazy = da.from_array(X, chunks=(400, 8))
        with dask.config.set(scheduler="synchronous"):
            whole = est.fit(lazy).means_.tobytes()
        killed: list[int] = []
        step = cluster.cluster_expectation

        def with_a_loss(mfa: Any, source: Any, bounds: Any) -> Any:
            if bounds._step == 2:
                killed.append(min(as_client.run(os.getpid).values()))
                threading.Timer(0.05, os.kill, (killed[0], signal.SIGKILL)).start()
            return step(mfa, source, bounds)

        monkeypatch.setattr(em, "cluster_expectation", with_a_loss)
        agree(est.fit(lazy.persist()), expected)
        assert len(killed) == 1
        assert est.means_.tobytes() == whole
        as_client.wait_for_workers(2, 60)
        assert killed[0] not in as_client.run(os.getpid).values()
