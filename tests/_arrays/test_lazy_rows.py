"""Arrays of dask in, arrays of dask out, on dask's schedulers of one process; clusters are in test_clusters.py."""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import blobs, close, random_mfa

import mfakit
from mfakit._arrays import tasks
from mfakit._arrays.lazy_rows import map_rows
from mfakit._threads import limits

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

Array = NDArray[Any]
Use = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def scheduler() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def lazy(X: Array, rows: Any = 30, columns: int = 4) -> Any:
    return da.from_array(X, chunks=(rows, columns))


MFA = random_mfa(3, 6, 2)
X, y = blobs(100)
BAYES = mfakit.BayesClassifier([MFA, random_mfa(2, 6, 1, seed=1)])
THREE = mfakit.BayesClassifier([*BAYES.mixtures, random_mfa(2, 6, 1, seed=2)])
GAPS = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
GAPS[:, 0] = X[:, 0]
ESTIMATOR = mfakit.MixtureOfFactorAnalyzers(2, 1, random_state=0, tol=1.0).fit(X)
NAMED = mfakit.MFAClassifier(1, 1, random_state=0, tol=1.0).fit(X, np.array(["left", "right"])[y])
SVM = mfakit.classifiers.LinearSVM().fit(X, y)

ROWS: dict[str, Use] = {
    "log_prob": MFA.log_prob,
    "log_prob, in one block": lambda X: MFA.log_prob(X, block_rows=7, n_threads=2),
    "component_log_prob": MFA.component_log_prob,
    "responsibilities": MFA.responsibilities,
    "grad_log_prob": MFA.grad_log_prob,
    "reconstruct": MFA.reconstruct,
    "distances": lambda X: mfakit.point_subspace_distances(X, MFA),
    "class_log_prob": BAYES.class_log_prob,
    "decision_function": BAYES.decision_function,
    "decision_function of three": THREE.decision_function,
    "decision_gradient of three": THREE.decision_gradient,
    "predict": BAYES.predict,
    "predict_proba": BAYES.predict_proba,
    "predict_log_proba": BAYES.predict_log_proba,
    "score_samples": ESTIMATOR.score_samples,
    "components": ESTIMATOR.predict,
    "transform": ESTIMATOR.transform,
    "shares": ESTIMATOR.predict_proba,
    "labels": NAMED.predict,
    "label shares": NAMED.predict_proba,
    "SVM's labels": SVM.predict,
    "SVM's decision": SVM.decision_function,
}


@pytest.mark.parametrize("use", ROWS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_results_are_lazy_and_those_of_the_rows(use: str, dtype: Any) -> None:
    rows = X.astype(dtype)
    got, expected = ROWS[use](lazy(rows, (1, 50, 49))), ROWS[use](rows)
    assert isinstance(got, da.Array)
    assert (got.chunks[0], got.shape, got.dtype) == ((1, 50, 49), expected.shape, expected.dtype)
    if expected.dtype.kind == "f":
        close(got.compute(), expected, expected.dtype)
    else:
        np.testing.assert_array_equal(got.compute(), expected)


def test_what_networks_answer() -> None:
    pytest.importorskip("torch")
    cnn = mfakit.classifiers.CNN((2, 3, 1), width=2, depth=1, epochs=1, random_state=0).fit(X, y)
    for method in ("predict", "decision_function", "decision_gradient", "predict_proba"):
        got = getattr(cnn, method)(lazy(X))
        assert isinstance(got, da.Array)
        np.testing.assert_allclose(got.compute(), getattr(cnn, method)(X), rtol=1e-5, atol=1e-6)


def test_torch_computes_a_task_in_one_thread() -> None:
    torch = pytest.importorskip("torch")

    class Asked:
        def ask(self, block: Array) -> Array:
            return np.full(len(block), torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert map_rows(Asked(), "ask", lazy(X)).compute().tolist() == [1] * 100
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_device_is_asked_for_where_blocks_are_computed() -> None:
    if mfakit.backends.why_missing("cuda") is None:
        pytest.skip("there is a device")
    got = MFA.log_prob(lazy(X), backend="cuda")
    assert (got.shape, got.dtype) == ((100,), np.float64)
    with pytest.raises(mfakit.BackendUnavailable, match="cuda"):
        got.compute()


def test_results_with_and_without_rows() -> None:
    mean, covariance, component = MFA.latent(lazy(X))
    expected = MFA.latent(X)
    assert isinstance(covariance, np.ndarray)
    for got, value in zip(dask.compute(mean, covariance, component), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-12)


@pytest.mark.parametrize("mask", ["none", "rows", "lazy rows", "features", "lazy features"])
def test_masks_go_along(mask: str) -> None:
    rows, missing = (X, np.arange(6) == 3) if mask.endswith("features") else (GAPS, np.isnan(GAPS))
    given = None if mask == "none" else da.from_array(missing, chunks=2) if mask.startswith("lazy") else missing
    got = MFA.impute(lazy(rows), given, bounds=(-1.0, 1.0))
    close(got.compute(), MFA.impute(rows, missing, bounds=(-1.0, 1.0)))


def test_densities_of_what_is_known() -> None:
    close(MFA.log_prob(lazy(GAPS), missing="marginal").compute(), MFA.log_prob(GAPS, missing="marginal"))


def test_scores_are_computed_at_once() -> None:
    assert BAYES.score(lazy(X), da.from_array(y, chunks=20)) == BAYES.score(X, y)
    assert SVM.score(lazy(X), y) == SVM.score(X, y)
    labels = NAMED.predict(X)
    assert NAMED.score(lazy(X), labels) == 1.0
    weights = np.linspace(0.0, 1.0, len(X))
    for w in (weights, da.from_array(weights, chunks=33)):
        np.testing.assert_allclose(ESTIMATOR.score(lazy(X), sample_weight=w), ESTIMATOR.score(X, sample_weight=weights))
    np.testing.assert_allclose(ESTIMATOR.bic(lazy(X)), ESTIMATOR.bic(X))


def test_no_rows_have_no_results() -> None:
    empty = da.from_array(np.empty((0, 6), np.float32))
    close(MFA.log_prob(empty).compute(), np.empty(0), np.float32)
    close(MFA.grad_log_prob(empty).compute(), np.empty((0, 6)), np.float32)


def test_what_is_wrong_with_the_call_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"X must be \[n, 6\] \(this model has d=6\)"):
        MFA.log_prob(lazy(X[:, :5]))
    with pytest.raises(ValueError, match=r"X must be \[n, d\], got .* of shape \(100, 2, 3\); .*X\.reshape"):
        MFA.log_prob(da.from_array(X.reshape(100, 2, 3)))
    with pytest.raises(TypeError, match="X must be real numbers"):
        MFA.log_prob(lazy(X > 0))
    with pytest.raises(TypeError, match="unexpected keyword argument 'block_row'"):
        MFA.log_prob(lazy(X), block_row=3)
    with pytest.raises(TypeError, match=r"log_prob of an array of dask takes no out.*dask\.array\.store"):
        MFA.log_prob(lazy(X), out=np.empty(100))
    with pytest.raises(ValueError, match=r"X has blocks of unknown size.*X\.compute_chunk_sizes\(\)"):
        MFA.log_prob(lazy(X)[lazy(X)[:, 0] > 0])


def test_a_bad_row_is_named_by_its_block() -> None:
    bad = X.copy()
    bad[70, 2] = np.nan
    got = MFA.log_prob(lazy(bad))
    with pytest.raises(ValueError, match=r"NaN or inf, first in row 10; .*block of X that begins with row 60, counted"):
        got.compute()
    values = MFA.log_prob(lazy(bad), check_finite=False).compute()
    assert np.flatnonzero(np.isnan(values)).tolist() == [70]


def test_what_takes_no_lazy_array_says_what_to_pass() -> None:
    uses: list[Use] = [
        lambda X: mfakit.attacks.gradient_attack(BAYES, X),
        lambda X: mfakit.MFAClassifier().fit(X, y),
        lambda X: mfakit.classifiers.LinearSVM().fit(X, y),
        lambda X: BAYES.asymmetric(X, direction=2),
    ]
    for use in uses:
        with pytest.raises(
            TypeError, match=r"X.* is an array of dask, which this function does not take; pass X.*\.comp"
        ):
            use(lazy(X))
    with pytest.raises(TypeError, match=r"X is dask's Delayed\w*; pass X\.compute\(\)"):
        MFA.log_prob(dask.delayed(X))


def test_names_are_the_contents() -> None:
    """Equal calls are one computation in dask's eyes; anything that makes a difference makes another."""
    rows = lazy(X)
    copy = mfakit.MFA(*MFA.__getstate__().values())
    assert MFA.log_prob(rows).name == copy.log_prob(rows).name
    assert dask.base.tokenize(BAYES) == dask.base.tokenize(mfakit.BayesClassifier([copy, BAYES.mixtures[1]]))
    others = [
        MFA.replace(noise_variance=MFA.noise_variance * 2).log_prob(rows), MFA.log_prob(rows, check_finite=False),
        MFA.log_prob(rows + 0), BAYES.mixtures[1].log_prob(rows),
    ]  # fmt: skip
    assert len({one.name for one in (MFA.log_prob(rows), *others)}) == 5
    assert dask.base.tokenize(BAYES) != dask.base.tokenize(BAYES.replace(priors=[0.4, 0.6]))


def test_the_model_is_one_node_and_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    opened: list[str] = []
    loads, before = pickle.loads, len(tasks._open)

    class Counted:
        dumps = pickle.dumps

        @staticmethod
        def loads(data: Any) -> Any:
            found = loads(data)
            opened.append(type(found).__name__)
            return found

    monkeypatch.setattr(tasks, "pickle", Counted)
    rows = lazy(X, 10)
    both = MFA.log_prob(rows), MFA.responsibilities(rows)
    nodes = {key for one in both for key in dict(one.dask) if "model" in str(key)}
    assert len(nodes) == 1
    with dask.config.set(num_workers=1):
        dask.compute(*both)
    assert opened.count("MFA") == 1
    assert len(tasks._open) == before + 1
    del both
    gc.collect()
    assert len(tasks._open) <= before  # what the graphs are gone with


def test_tasks_compute_in_one_thread_unless_told_otherwise() -> None:
    class Asked:
        def ask(self, block: Array, backend: str = "auto") -> Array:
            return np.full(len(block), limits._is_single())

    assert map_rows(Asked(), "ask", lazy(X)).compute().all()
    assert not map_rows(Asked(), "ask", lazy(X), (), {"backend": "cuda"}).compute().any()  # threads feed a device
    assert not limits._is_single()


def test_a_machine_without_this_mfakit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    task = pickle.loads(pickle.dumps(tasks.calling("9.9")))
    arguments = X, np.array([0]), tasks.pack(MFA), b""
    with pytest.raises(RuntimeError, match=r"has mfakit 0\..* and the client mfakit 9\.9; install mfakit 9\.9 where"):
        task(*arguments)
    monkeypatch.setitem(sys.modules, "mfakit._version", None)
    with pytest.raises(RuntimeError, match=r"has no mfakit and the client mfakit 9\.9"):
        task(*arguments)
