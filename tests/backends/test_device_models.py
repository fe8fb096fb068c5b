"""Models on a CUDA device: they compute there, return its arrays and stay there when copied."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import numpy as np
import pytest
from emulator.engine import EmulatedEngine
from emulator.fake_cupy import Waits
from support import close, random_mfa

import mfakit
from mfakit import theory
from mfakit._arrays.rows import is_cupy
from mfakit.backends import cuda_arrays
from mfakit.backends._cuda import engine as _cuda_engine
from mfakit.backends._cuda import runtime as _cuda_runtime
from mfakit.backends.cuda_arrays import Cuda
from mfakit.mixture.mfa import common_device
from mfakit.mixture.subspaces import there


def _pair() -> tuple[mfakit.MFA, mfakit.MFA]:
    return random_mfa(4, 20, 3, seed=1), random_mfa(5, 20, 2, seed=2)


def _classifier() -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(3, 12, 2, seed=s, spread=0.4) for s in (1, 2)])


def _apart(mfa: mfakit.MFA, device: str) -> mfakit.MFA:
    """The model as it is after to(device), on a machine that has more devices than this one."""
    return mfa._placed(device)


def _launched(device: Any, kernel: str) -> bool:
    return not isinstance(device, EmulatedEngine) or kernel in {launch[0] for launch in device.launches}


@pytest.mark.parametrize("reduce", [None, "row_min", "smallest", "histogram"])
def test_subspace_distances_run_where_the_models_lie(device: Any, reduce: str | None) -> None:
    mfa0, mfa1 = _pair()
    expected = mfakit.subspace_distances(mfa0, mfa1, reduce=reduce)
    got = mfakit.subspace_distances(mfa0.to("cuda"), mfa1.to("cuda"), reduce=reduce)
    assert _launched(device, "pair_distances")
    assert isinstance(got, tuple) == isinstance(expected, tuple)
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for a, b in pairs:
        assert is_cupy(a)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(device.to_host(a), b, rtol=1e-10)


def test_the_nearest_pair_is_python_numbers(device: Any) -> None:
    mfa0, mfa1 = _pair()
    there = mfa0.to("cuda"), mfa1.to("cuda")
    distance, pair = mfakit.subspace_distances(*there, reduce="min")
    assert (distance, pair) == mfakit.subspace_distances(mfa0, mfa1, reduce="min")
    with pytest.raises(ValueError, match=r"method='pruned' computes on the host.*to\('cpu'\)"):
        mfakit.subspace_distances(*there, reduce="min", method="pruned")


@pytest.mark.parametrize("reduce", [None, "min", "row_min", "smallest", "histogram"])
def test_subspace_distances_are_reduced_there(device: Any, monkeypatch: Any, reduce: str | None) -> None:
    """Over many tiles, with components without weight, equal ones, and pairs that are solved by themselves; what comes
    to the host of all pairs are some."""
    mfa0, mfa1 = random_mfa(40, 20, 2, seed=1), random_mfa(50, 20, 2, seed=2)
    means, loadings = mfa1.means.copy(), mfa1.loadings.copy()
    means[7], loadings[7] = means[6], loadings[6]
    loadings[9] = mfa0.loadings[3]  # the same directions: a suspect
    weights = np.where(np.arange(50) % 11 == 4, 0.0, 1.0)
    mfa1 = mfa1.replace(means=means, loadings=loadings, weights=weights / weights.sum())
    monkeypatch.setattr(Cuda, "tile_bytes", 8 * 9 * 17**2)
    how: dict[str, Any] = {"reduce": reduce, "n_smallest": 30}
    expected = mfakit.subspace_distances(mfa0, mfa1, **how)
    there = mfa0.to("cuda"), mfa1.to("cuda")
    for models, options in ((there, {}), ((mfa0, mfa1), {"backend": "cuda"})):
        before = Waits.read
        got = mfakit.subspace_distances(*models, **how, **options)
        if isinstance(device, EmulatedEngine) and (reduce or not options):
            assert Waits.read - before < 8 * 40 * 50
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        for a, b in pairs:
            np.testing.assert_allclose(device.to_host(a) if is_cupy(a) else a, b, rtol=1e-12)


def test_a_large_matrix_of_distances_comes_beside_its_computation(device: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(cuda_arrays, "DOWNLOAD_BYTES", 0)
    monkeypatch.setattr(there, "STRIP_BYTES", 8 * 5 * 7)
    mfa0, mfa1 = random_mfa(31, 20, 3, seed=1), random_mfa(5, 20, 2, seed=2)
    close(mfakit.subspace_distances(mfa0, mfa1, backend="cuda"), mfakit.subspace_distances(mfa0, mfa1))
    if isinstance(device, EmulatedEngine):
        assert device.uploads == [*["bring 7"] * 4, "bring 3", "closed"]


def test_subspace_distances_take_bin_edges_from_the_device(device: Any) -> None:
    there = [mfa.to("cuda") for mfa in _pair()]
    edges = np.linspace(0.0, 40.0, 7)
    counts, got = mfakit.subspace_distances(*there, reduce="histogram", bins=device.asarray(edges))
    np.testing.assert_array_equal(device.to_host(got), edges)
    expected = mfakit.subspace_distances(*_pair(), reduce="histogram", bins=edges)[0]
    assert expected.sum() > 0
    np.testing.assert_array_equal(device.to_host(counts), expected)


def test_host_models_streamed_give_numpy(device: Any) -> None:
    got = mfakit.subspace_distances(*_pair(), backend="cuda")
    assert _launched(device, "pair_distances")
    assert isinstance(got, np.ndarray)


def test_models_apart_are_an_error_that_names_both(device: Any) -> None:
    mfa0, mfa1 = _pair()
    there = mfa0.to("cuda")
    with pytest.raises(ValueError, match=r"mfa0 is on cuda:0 and mfa1 on the host.*mfa0\.to\(\"cpu\"\)"):
        mfakit.subspace_distances(there, mfa1)
    with pytest.raises(ValueError, match="mfa0 is on the host and mfa1 on cuda:0"):
        mfakit.subspace_distances(mfa1, there, backend="cuda")
    with pytest.raises(ValueError, match=r"mfa0 is on cuda:0 and mfa1 on cuda:1.*mfa0\.to\(\"cuda:1\"\)"):
        mfakit.subspace_distances(there, _apart(mfa1, "cuda:1"))
    with pytest.raises(ValueError, match=r"on cuda:0 and backend='native' computes on the host"):
        mfakit.subspace_distances(there, mfa1.to("cuda"), backend="native")
    assert common_device({"a": there, "b": there}) == "cuda:0"
    assert common_device({"a": mfa0, "b": mfa1}) is None


@pytest.mark.parametrize("how", ["replace", "copy", "deepcopy", "pickle"])
def test_copies_stay_on_the_device(device: Any, how: str) -> None:
    makers: dict[str, Any] = {
        "replace": lambda m: m.replace(noise_variance=0.2),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    }
    mfa = _pair()[0]
    there = makers[how](mfa.to("cuda"))
    assert there.device == "cuda:0"
    assert is_cupy(there.sample(3, rng=0)[0])
    assert makers[how](mfa).device is None
    np.testing.assert_array_equal(there.means, mfa.means)


def test_replaced_parameters_are_what_is_computed_with(device: Any) -> None:
    """Nothing that was computed for the model before comes along."""
    mfa = _pair()[0]
    there = mfa.to("cuda")
    X = mfa.sample(5, rng=0, dtype=np.float64)[0]
    there.log_prob(device.asarray(X))
    got = there.replace(noise_variance=0.3).log_prob(device.asarray(X))
    close(device.to_host(got), mfa.replace(noise_variance=0.3).log_prob(X), rtol=1e-10)


def test_variants_of_a_classifier_stay_on_the_device(device: Any) -> None:
    clf = _classifier()
    for variant in (clf.to("cuda").symmetric(0.1), clf.to("cuda").asymmetric(direction=2)):
        assert [m.device for m in variant.mixtures] == ["cuda:0", "cuda:0"]
        assert is_cupy(variant.sample(4, rng=0)[0])


def test_a_pickle_opens_where_there_is_no_device(
    device: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mfa = _pair()[0]
    data = pickle.dumps(mfa.to("cuda"))
    monkeypatch.setattr(_cuda_engine, "_installed", None)
    monkeypatch.setattr(_cuda_runtime, "why_not", lambda: "no CUDA device")
    with caplog.at_level(logging.WARNING, "mfakit"):
        here = pickle.loads(data)
    assert "was on cuda:0 is on the host from here on: cuda: no CUDA device" in caplog.text
    assert here.device is None
    X = here.sample(4, rng=0)[0]
    assert isinstance(X, np.ndarray)
    np.testing.assert_array_equal(here.log_prob(X), mfa.log_prob(X))


def test_distances_of_theory_come_to_the_host(device: Any) -> None:
    clf = _classifier()
    X, y = clf.sample(9, rng=0, dtype=np.float64)
    there, labels = device.asarray(X), device.asarray(y)
    for model in (clf, clf.to("cuda")):
        got = theory.own_and_other_distances(model, there, labels)
        for a, b in zip(got, theory.own_and_other_distances(clf, X, y), strict=True):
            assert isinstance(a, np.ndarray)
            close(a, b, rtol=1e-10)
    means = [device.asarray(m.means[0]) for m in clf.mixtures]
    expected = theory.theorem1_radius(*(m.means[0] for m in clf.mixtures))
    assert theory.theorem1_radius(*means) == expected


def test_theorem_2_of_models_on_a_device(device: Any) -> None:
    clf = _classifier().symmetric(0.1)
    there = clf.to("cuda")
    expected, got = theory.theorem2_radius(clf), theory.theorem2_radius(there)
    assert (got.classes, got.components) == (expected.classes, expected.components)
    close(got.points, expected.points)
    check, check_there = theory.check_theorem2(clf, n=20), theory.check_theorem2(there, n=20)
    assert _launched(device, "mixture_epilogue")
    for name, value in vars(check).items():
        assert getattr(check_there, name) == pytest.approx(value, rel=1e-9), name


def test_asymmetric_models_from_samples_on_the_device(device: Any) -> None:
    clf = _classifier()
    X = clf.sample(40, rng=0, dtype=np.float64)[0]
    for rows, dtype in ((40, np.float64), (9, np.float64), (40, np.int64)):  # more and fewer than d, and no floats
        part = X[:rows].round().astype(dtype) if dtype is np.int64 else X[:rows]
        expected = clf.asymmetric(part, direction=2)
        got = clf.asymmetric(device.asarray(part), direction=2)
        for a, b in zip(got.mixtures, expected.mixtures, strict=True):
            close(a.means, b.means, rtol=1e-10, atol=1e-10)
    asym = clf.asymmetric(X, direction=2)
    y = clf.predict(X)
    radius = theory.asymmetric_radius(asym, device.asarray(X), device.asarray(y))
    assert isinstance(radius, np.ndarray)
    close(radius, theory.asymmetric_radius(asym, X, y), rtol=1e-9, atol=1e-12)
    assert radius.max() > 0


def _fitted(X: Any, **options: Any) -> mfakit.MixtureOfFactorAnalyzers:
    how: dict[str, Any] = {"n_components": 2, "n_factors": 1, "random_state": 0, "tol": 1.0, "max_iter": 5, **options}
    return mfakit.MixtureOfFactorAnalyzers(**how).fit(X)


def test_a_fit_stays_where_its_samples_lie(device: Any) -> None:
    X = random_mfa(2, 8, 1, seed=6).sample(60, rng=1, dtype=np.float64)[0]
    there = device.asarray(X)
    est = _fitted(there)
    assert est.mfa_.device == "cuda:0"
    assert all(map(is_cupy, est.sample(4)))
    assert is_cupy(est.score_samples(there))
    score = est.score(there)
    with pytest.raises(ValueError, match="X is on the host and the model on cuda:0"):
        est.score_samples(X)
    est.mfa_ = est.mfa_.to("cpu")
    assert est.score(X) == pytest.approx(score, rel=1e-10)
    blocks = est.fit_blocks([there[:30], there[30:]])
    assert blocks.mfa_.device == "cuda:0"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_variances_of_features_are_summed_where_the_samples_lie(device: Any, dtype: Any) -> None:
    X = random_mfa(2, 8, 1, seed=6).sample(60, rng=1, dtype=dtype)[0]
    X[:, 3] = 0.1
    w = np.arange(60) % 4
    expected = mfakit.fit.Source.from_array(X, w).feature_variances()
    there = mfakit.fit.Source.from_blocks(
        [(device.asarray(X[:20]), w[:20]), (device.asarray(X[20:]), w[20:])], weighted=True
    )
    close(there.feature_variances(), expected, rtol=1e-12)
    assert there.feature_variances()[3] == 0


def test_a_fit_of_host_samples_stays_on_the_host(device: Any) -> None:
    X = random_mfa(2, 8, 1, seed=6).sample(60, rng=1, dtype=np.float64)[0]
    est = _fitted(X, backend="cuda", warm_start=True)
    assert est.mfa_.device is None
    assert isinstance(est.sample(4)[0], np.ndarray)
    est.set_params(backend="auto").fit(device.asarray(X))
    assert est.mfa_.device == "cuda:0"
    assert est.fit(X).mfa_.device is None


def test_latent_returns_one_kind_of_array(device: Any) -> None:
    mfa = _pair()[0]
    X = mfa.sample(6, rng=0, dtype=np.float64)[0]
    expected = mfa.latent(X)
    for a, b in zip(mfa.latent(device.asarray(X)), expected, strict=True):
        assert is_cupy(a)
        np.testing.assert_allclose(device.to_host(a), b, rtol=1e-9, atol=1e-12)
    assert all(isinstance(a, np.ndarray) for a in mfa.latent(X, backend="cuda"))
