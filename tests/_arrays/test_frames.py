"""Frames: what is read of them, and results that come back with pandas' index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import StackingClassifier
from sklearn.metrics import get_scorer
from support import random_mfa

import mfakit
from mfakit._arrays.containers import to_numpy

Array = NDArray[Any]

MFA = random_mfa(d=4)
CLF = mfakit.BayesClassifier([MFA, random_mfa(d=4, seed=1)])
THREE = mfakit.BayesClassifier([*CLF.mixtures, random_mfa(d=4, seed=2)])

# Results by the rows of X: of those that have X's columns too, of others, and of those that stay NumPy's.
SAME_COLUMNS: dict[str, Callable[[Any], Any]] = {
    "grad_log_prob": MFA.grad_log_prob,
    "reconstruct": MFA.reconstruct,
    "impute": lambda X: MFA.impute(X, np.eye(6, 4, dtype=bool)),
    "decision_gradient": CLF.decision_gradient,
}
ROWS: dict[str, Callable[[Any], Any]] = {
    "log_prob": MFA.log_prob,
    "component_log_prob": MFA.component_log_prob,
    "responsibilities": MFA.responsibilities,
    "latent": lambda X: MFA.latent(X)[0],
    "component": lambda X: MFA.latent(X)[2],
    "distances": lambda X: mfakit.point_subspace_distances(X, MFA),
    "decision_function": CLF.decision_function,
    "decision_function of three": THREE.decision_function,
    "predict": CLF.predict,
    "predict_proba": CLF.predict_proba,
    "predict_log_proba": THREE.predict_log_proba,
}
PLAIN: dict[str, Callable[[Any], Any]] = {
    "class_log_prob": CLF.class_log_prob,
    "decision_gradient of three": THREE.decision_gradient,
    "covariance": lambda X: MFA.latent(X)[1],
}


def samples(n: int = 6) -> Array:
    return np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)


class Series:
    """As much of pandas' as results of one axis need."""

    def __init__(self, values: Array, index: Any, copy: bool) -> None:
        self.values, self.index, self.dtype, self.ndim = values, index, values.dtype, values.ndim

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.asarray(self.values, dtype)


class DataFrame(Series):
    """And with columns, of one dtype."""

    def __init__(self, values: Array, index: Any, columns: Any = None, copy: bool = False) -> None:
        super().__init__(values, index, copy)
        self.columns = range(values.shape[1]) if columns is None else columns
        self.dtypes, self.shape = [values.dtype] * values.shape[1], values.shape


Series.__module__ = DataFrame.__module__ = "pandas"


@pytest.fixture(params=["pandas", "stand-in"])
def pandas(request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library where it is installed, and what this package needs of it."""
    if request.param == "pandas":
        return pytest.importorskip("pandas")
    stand_in = SimpleNamespace(DataFrame=DataFrame, Series=Series)
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    return stand_in


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_results_of_rows_have_the_index(pandas: Any, dtype: Any) -> None:
    index, columns = ["a", "b", "b", "c", "", "d"], list("wxyz")
    X = (3 * samples()).astype(dtype)
    frame = pandas.DataFrame(X, index=index, columns=columns)
    for name, use in {**SAME_COLUMNS, **ROWS}.items():
        expected, got = use(X), use(frame)
        assert type(got) is (pandas.Series if expected.ndim == 1 else pandas.DataFrame), name
        np.testing.assert_array_equal(np.asarray(got), expected, err_msg=name)
        assert np.asarray(got).dtype == expected.dtype, name
        assert list(got.index) == index, name
        if expected.ndim == 2:
            assert list(got.columns) == (columns if name in SAME_COLUMNS else list(range(expected.shape[1]))), name
    for name, use in PLAIN.items():
        got = use(frame)
        assert type(got) is np.ndarray, name
        np.testing.assert_array_equal(got, use(X), err_msg=name)
    out = np.empty(6, np.float64 if dtype == np.float64 else np.float32)
    assert MFA.log_prob(frame, out=out) is out
    assert CLF.score(frame, [0] * 6) == CLF.score(X, [0] * 6)
    none = pandas.DataFrame(X[:0], index=[], columns=columns)
    assert (list(MFA.log_prob(none).index), np.asarray(MFA.reconstruct(none)).shape) == ([], (0, 4))


def test_a_mask_may_be_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(samples(), index=list("abcdef"))
    frame.iloc[2, 1] = np.nan
    filled = MFA.impute(frame, frame.isna())
    np.testing.assert_array_equal(filled, MFA.impute(frame.to_numpy(), np.isnan(frame.to_numpy())))
    assert list(filled.index) == list("abcdef")


def test_scikit_learns_tools_slice_what_estimators_return() -> None:
    """They index predictions as arrays, whatever the samples are: a DataFrame of probabilities would be an error."""
    pandas = pytest.importorskip("pandas")
    X, y = samples(60), np.arange(60) % 2
    frame = pandas.DataFrame(X, index=np.arange(60) + 7, columns=list("wxyz"))
    clf, plain = (mfakit.MFAClassifier(max_iter=2, random_state=0).fit(given, y) for given in (frame, X))
    est = mfakit.MixtureOfFactorAnalyzers(max_iter=0, random_state=0).fit(frame)
    answers = {est: ("predict", "predict_proba", "transform")}
    answers[clf] = ("predict", "predict_proba", "predict_log_proba", "decision_function", "decision_gradient")
    for model, names in answers.items():
        assert {type(getattr(model, name)(frame)) for name in names} == {np.ndarray}
    assert est.score_samples(frame).equals(est.mfa_.log_prob(frame))
    assert list(est.score_samples(frame).index) == list(frame.index)
    for scorer in map(get_scorer, ("roc_auc", "neg_brier_score")):
        assert scorer(clf, frame, y) == scorer(plain, X, y)
    stacked = StackingClassifier([("mfa", clf)], stack_method="predict_proba", cv=2).fit(frame, y)
    assert type(stacked.predict(frame)) is np.ndarray


def test_frames_with_nullable_columns() -> None:
    pandas = pytest.importorskip("pandas")
    X, mfa = samples(), MFA
    for dtype, computed in (("Float32", np.float32), ("Float64", np.float64), ("Int64", np.float32)):
        values = X.round() if dtype == "Int64" else X
        frame = pandas.DataFrame(values.astype(np.float64)).astype(dtype)
        np.testing.assert_array_equal(mfa.log_prob(frame), mfa.log_prob(values.astype(computed)))
        assert mfa.log_prob(frame).dtype == computed
        frame.iloc[3, 1] = pandas.NA
        with pytest.raises(ValueError, match="X has NaN or inf, first in row 3"):
            mfa.log_prob(frame)
        assert np.isnan(mfa.log_prob(frame, check_finite=False)).tolist() == [False] * 3 + [True] + [False] * 2
    mixed = pandas.DataFrame(X, columns=list("abcd")).assign(b=X[:, 1] > 0)
    for frame in (mixed, mixed.astype({"b": "boolean"})):
        with pytest.raises(TypeError, match=r"X must be real numbers \(float or integer\), got columns b \(bool"):
            mfa.log_prob(frame)
    labels = pandas.Series([0, 1], dtype="Int64")
    assert to_numpy(labels, "y").dtype == np.int64
    with pytest.raises(ValueError, match="y has missing values, first in row 1"):
        CLF.score(X[:2], pandas.Series([0, None], dtype="Int64"))


def test_frames_whose_columns_have_one_name_are_checked_column_by_column() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.concat([pandas.DataFrame(samples() > 0), pandas.DataFrame(samples())], axis=1)
    with pytest.raises(TypeError, match=r"got columns 0 \(bool\), 1 \(bool\)"):
        random_mfa(d=8).log_prob(frame)


def test_frames_of_polars() -> None:
    polars = pytest.importorskip("polars")
    X, mfa = samples(), MFA
    np.testing.assert_array_equal(mfa.log_prob(polars.DataFrame(X)), mfa.log_prob(X))
    flags = polars.DataFrame(X).with_columns(polars.Series("column_1", X[:, 1] > 0))
    with pytest.raises(TypeError, match=r"got columns column_1 \(Boolean\)"):
        mfa.log_prob(flags)
