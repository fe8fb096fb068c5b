"""MixtureOfFactorAnalyzers as a scikit-learn estimator: its checks, its methods, its state."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import close, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit.fit import em

Array = NDArray[Any]
Estimator = mfakit.MixtureOfFactorAnalyzers

# What scikit-learn expects and mfakit does otherwise, with the reason.
FIRST_OF_ALL = "mfakit promises a TypeError that names the dtype for all its array arguments"
EXPECTED_FAILURES = {
    "check_complex_data": f"expects a ValueError for complex data; {FIRST_OF_ALL}",
    "check_dtype_object": f"expects object arrays to be converted; {FIRST_OF_ALL}",
}
SEVERAL_COMPONENTS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "with several components the random start depends on the rows, as that of scikit-learn's own KMeans; from one "
        "start weights equal repetition, see test_data"
    )
}


def expected_failures(estimator: Any) -> dict[str, str]:
    return {**EXPECTED_FAILURES, **(SEVERAL_COMPONENTS if estimator.n_components > 1 else {})}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:.* features have no variance:UserWarning")
@parametrize_with_checks(
    [
        Estimator(),
        Estimator(noise="diagonal", n_factors=0),
        Estimator(n_components=2, max_iter=5),
        Estimator(missing="marginal"),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def X() -> Array:
    return random_mfa(3, 6, 2, spread=3.0).sample(300, rng=0, dtype=np.float64)[0]


@pytest.fixture(scope="module")
def fitted(X: Array) -> Any:
    return Estimator(3, 2, random_state=0, max_iter=500).fit(X)


def test_methods_are_those_of_the_mixture(fitted: Any, X: Array) -> None:
    model = parameters(fitted.mfa_)
    joint = _reference.component_log_prob(X, *model)
    close(fitted.score_samples(X), _reference.log_prob(X, *model), rtol=rtol(np.float64))
    close(fitted.predict_proba(X), _reference.responsibilities(X, *model), atol=1e-10)
    np.testing.assert_array_equal(fitted.predict(X), joint.argmax(axis=1))
    assert fitted.score(X) == pytest.approx(_reference.log_prob(X, *model).mean())
    np.testing.assert_array_equal(clone(fitted).fit_predict(X), fitted.predict(X))
    assert fitted.score_samples(X.astype(np.float32)).dtype == np.float32
    assert fitted.score_samples(X[:0]).shape == (0,)


def test_attributes(fitted: Any, X: Array) -> None:
    values = fitted.history_["log_likelihood"]
    assert fitted.converged_
    assert len(values) == fitted.n_iter_ + 1
    assert fitted.lower_bound_ == values[-1] == pytest.approx(fitted.score(X), rel=1e-12)
    assert values[-1] - values[-2] < fitted.tol
    assert (np.diff(values)[:-1] >= fitted.tol).all()
    assert fitted.history_["events"] == []
    assert fitted.n_features_in_ == 6
    assert fitted.mfa_.means.dtype == np.float64


@pytest.mark.parametrize(("noise", "per_component"), [("isotropic", 6 + 12 - 1 + 1), ("diagonal", 6 + 12 - 1 + 6)])
def test_information_criteria_count_free_parameters(noise: str, per_component: int, X: Array) -> None:
    est = Estimator(3, 2, noise=noise, random_state=0, max_iter=500).fit(X)
    total, p = est.score_samples(X).sum(), 2 + 3 * per_component
    assert est.bic(X) == pytest.approx(-2 * total + p * np.log(300))
    assert est.aic(X) == pytest.approx(-2 * total + 2 * p)


def test_criteria_prefer_the_right_number_of_components(X: Array) -> None:
    criteria = {k: Estimator(k, 2, random_state=0, max_iter=500).fit(X).bic(X) for k in (1, 2, 3, 5)}
    assert min(criteria, key=lambda k: criteria[k]) == 3


def test_samples_are_the_mixtures(fitted: Any) -> None:
    X, component = fitted.sample(1000)
    np.testing.assert_array_equal(fitted.sample(1000)[0], X)
    assert (fitted.sample(1000, random_state=5)[0] != X).any()
    assert component.max() < 3
    assert fitted.score(X) == pytest.approx(fitted.score(fitted.sample(20_000, random_state=1)[0]), abs=0.3)


def test_parameters_are_the_mixtures(fitted: Any) -> None:
    for name in ("weights", "means", "loadings", "noise_variance"):
        np.testing.assert_array_equal(getattr(fitted, f"{name}_"), getattr(fitted.mfa_, name))
        assert not hasattr(Estimator(), f"{name}_")


def test_transform_is_the_latent_or_the_responsibilities(fitted: Any, X: Array) -> None:
    np.testing.assert_array_equal(fitted.transform(X), fitted.mfa_.latent(X)[0])
    assert fitted.get_feature_names_out().tolist() == ["latent0", "latent1"]
    shares = clone(fitted).set_params(transform_to="responsibilities").fit(X)
    np.testing.assert_array_equal(shares.transform(X), shares.predict_proba(X))
    assert shares.get_feature_names_out().tolist() == ["component0", "component1", "component2"]
    with pytest.raises(ValueError, match="transform_to must be one of 'latent', 'responsibilities'"):
        Estimator(transform_to="means").fit(X)


def test_transform_gives_data_frames_on_request(fitted: Any, X: Array) -> None:
    pytest.importorskip("pandas")
    frame = copy.copy(fitted).set_output(transform="pandas").transform(X)
    assert list(frame.columns) == ["latent0", "latent1"]
    np.testing.assert_array_equal(frame.to_numpy(), fitted.transform(X))


def test_score_is_weighted(fitted: Any, X: Array) -> None:
    weights = np.arange(300) % 3
    expected = (weights * fitted.score_samples(X)).sum() / weights.sum()
    assert fitted.score(X, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="sample_weight is zero for every row"):
        fitted.score(X, sample_weight=np.zeros(300))
    with pytest.raises(ValueError, match="one weight per row"):
        fitted.score(X, sample_weight=np.ones(3))


def test_before_fit() -> None:
    est = Estimator()
    for call in (est.score_samples, est.predict, est.predict_proba, est.bic):
        with pytest.raises(NotFittedError):
            call(np.ones((2, 2)))
    with pytest.raises(NotFittedError):
        est.sample()


def test_width_and_names_are_checked_after_fit(fitted: Any, X: Array) -> None:
    with pytest.raises(ValueError, match="X has 4 features, but MixtureOfFactorAnalyzers is expecting 6"):
        fitted.predict(X[:, :4])
    with pytest.raises(ValueError, match=r"must be \[n, 6\], got shape \(6,\)"):
        fitted.predict(X[0])


def test_data_frames_leave_their_names(X: Array) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    est, plain = (Estimator(2, 1, random_state=0, max_iter=500).fit(values) for values in (frame, X))
    assert est.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(est.score_samples(frame), plain.score_samples(X))
    with pytest.raises(ValueError, match="feature names"):
        est.predict(frame[list("fedcba")])
    est.fit_blocks([X])
    assert not hasattr(est, "feature_names_in_")


def test_a_fit_that_fails_leaves_no_trace(X: Array) -> None:
    pandas = pytest.importorskip("pandas")
    est = Estimator(2, 1, random_state=0, max_iter=500).fit(X)
    before = dict(vars(est))
    mixed = pandas.DataFrame(X[:, :4] + 1, columns=["a", "b", 3, 4])
    with pytest.raises(TypeError, match="Feature names are only supported"):
        est.fit(mixed)
    with pytest.raises(ValueError, match="NaN or inf"):
        est.fit(np.full((10, 4), np.nan))
    assert vars(est) == before


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_components", 0), ("n_components", 1.5), ("n_components", True), ("n_factors", -1), ("max_iter", -1),
        ("n_init", 0), ("batch_size", 0), ("tol", -1.0), ("tol", np.nan), ("tol", None), ("noise_floor", 0.0),
        ("noise_floor", np.inf), ("learning_rate", 0), ("noise", "full"), ("solver", "adam"), ("init", "zeros"),
        ("block_rows", 0), ("n_threads", -1), ("tol", True), ("noise_floor", "1e-4"), ("warm_start", "no"),
        ("progress", "no"), ("noise", ["diagonal"]), ("random_state", -1),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{parameter} must be"):
        Estimator(**{parameter: value}).fit(np.ones((5, 3)))


def test_an_unknown_backend_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(mfakit.BackendUnavailable, match="available:"):
        Estimator(backend="abacus").fit(np.ones((5, 3)))


@pytest.mark.parametrize("init", ["kmeans", "random"])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_one_seed_gives_one_model(init: str, noise: str, X: Array) -> None:
    def bytes_of(state: Any) -> bytes:
        est = Estimator(4, 2, noise=noise, init=init, random_state=state, n_init=2, tol=1e-2, max_iter=500)
        est.fit(X.astype(np.float32))
        return b"".join(value.tobytes() for value in parameters(est.mfa_))

    assert bytes_of(7) == bytes_of(7)
    assert bytes_of(7) != bytes_of(8)
    assert bytes_of(np.random.RandomState(3)) == bytes_of(np.random.RandomState(3))
    assert bytes_of(np.random.default_rng(3)) == bytes_of(np.random.default_rng(3))


def test_the_global_random_state_is_untouched(X: Array) -> None:
    before = np.random.get_state()  # noqa: NPY002
    for state in (None, 0):
        Estimator(2, 1, random_state=state, max_iter=500).fit(X).sample(3)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_the_best_of_several_starts_is_kept(X: Array) -> None:
    kwargs: dict[str, Any] = {"n_components": 5, "n_factors": 1, "init": "random", "max_iter": 500}
    rng = np.random.default_rng(0)
    singles = [Estimator(**kwargs, random_state=rng).fit(X).lower_bound_ for _ in range(4)]
    best = Estimator(**kwargs, random_state=np.random.default_rng(0), n_init=4).fit(X)
    assert len(set(singles)) > 1
    assert best.lower_bound_ == max(singles)


def test_warm_start_goes_on(X: Array) -> None:
    whole = Estimator(3, 2, random_state=0, tol=0, max_iter=6)
    halves = Estimator(3, 2, random_state=0, tol=0, max_iter=3, warm_start=True)
    with pytest.warns(ConvergenceWarning, match="after 6 steps: .*raise max_iter or tol"):
        whole.fit(X)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            halves.fit(X)
    for left, right in zip(parameters(halves.mfa_), parameters(whole.mfa_), strict=True):
        np.testing.assert_array_equal(left, right)
    assert halves.history_["log_likelihood"] == whole.history_["log_likelihood"][3:]
    halves.set_params(noise_floor=10.0, max_iter=0).fit(X)
    assert halves.mfa_.noise_variance.min() > whole.mfa_.noise_variance.max()
    with pytest.raises(ValueError, match=r"goes on from MFA\(k=3, d=6, l=2.*k=3, d=5, l=2"):
        halves.fit(X[:, :5])
    with pytest.raises(ValueError, match="diagonal noise is asked for"):
        halves.set_params(noise="diagonal").fit(X)


def test_no_steps_is_the_start(X: Array) -> None:
    est = Estimator(3, 2, random_state=0, max_iter=0).fit(X)
    assert (est.n_iter_, est.converged_) == (0, False)
    assert est.history_["log_likelihood"] == [est.lower_bound_]


def test_pickle_and_copy_keep_the_model(fitted: Any, X: Array) -> None:
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(other.score_samples(X), fitted.score_samples(X))


@pytest.mark.parametrize("when", [1, 3])
def test_an_interrupted_fit_leaves_no_trace(when: int, X: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    est = Estimator(3, 2, random_state=0, max_iter=500).fit(X)
    before = dict(vars(est))
    calls = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == when:
            raise KeyboardInterrupt
        return original(*args)

    original = em.maximization
    monkeypatch.setattr(em, "maximization", interrupted)
    with pytest.raises(KeyboardInterrupt):
        est.fit(X[:, :4])
    assert vars(est) == before
    fresh = Estimator(3, 2)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(X)
    assert vars(fresh) == vars(Estimator(3, 2))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_ctrl_c_is_heard_within_half_a_second() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 256), dtype=np.float32)
    est = Estimator(20, 5, tol=0, max_iter=100_000, random_state=0, init="random")
    sent: list[float] = []

    def interrupt(*_: Any) -> None:
        sent.append(time.perf_counter())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            est.fit(X)
        delay = time.perf_counter() - sent[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert delay < 0.5
    assert not hasattr(est, "mfa_")


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_bar(progress: bool | None, shown: bool, X: Array, capsys: pytest.CaptureFixture[str]) -> None:
    Estimator(2, 1, random_state=0, max_iter=500, progress=progress).fit(X)
    captured = capsys.readouterr()
    assert ("EM" in captured.err) is shown
    assert captured.out == ""


def test_fitting_is_loaded_on_first_use() -> None:
    code = (
        "import sys, mfakit; assert 'sklearn' not in sys.modules; mfakit.MixtureOfFactorAnalyzers; "
        "assert 'sklearn' in sys.modules; assert 'torch' not in sys.modules"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


@pytest.mark.data
def test_the_defaults_converge_on_a_shipped_pairs_digits() -> None:
    """A ConvergenceWarning is an error here."""
    for digit in (0, 6):
        X = mfakit.datasets.load_mnist(classes=(digit,))[0]
        est = mfakit.MixtureOfFactorAnalyzers(25, 6, random_state=0).fit(X)
        assert est.converged_
        assert est.n_iter_ < 100


@pytest.mark.data
def test_digits_one_iteration_raises_the_likelihood_in_both_precisions() -> None:
    """On real images float32 products change the path by rounding only, because what counts is refined in float64."""
    digits = mfakit.datasets.load_mnist(classes=(0,))[0][:2000]
    histories = []
    for data in (digits, digits.astype(np.float64)):
        est = Estimator(5, 4, random_state=0, max_iter=3, tol=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            histories.append(est.fit(data).history_["log_likelihood"])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-6)
    assert (np.diff(histories[0]) > 0).all()
