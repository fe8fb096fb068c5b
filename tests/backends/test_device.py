"""Arrays on a CUDA device: the same results as on the host, in the device's arrays; on a real one where there is one,
and everywhere on the emulator, whose arrays are as strict about mixing with NumPy's as CuPy's are.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.engine import EmulatedEngine
from support import close, device_model, parameters, random_mfa

import mfakit
from mfakit import _reference
from mfakit._arrays.rows import is_cupy
from mfakit.attacks.gradient import resident, walk
from mfakit.backends._cuda import engine as _cuda_engine
from mfakit.backends._cuda import runtime as _cuda_runtime
from mfakit.mixture import choose

METHODS = ("log_prob", "component_log_prob", "responsibilities", "grad_log_prob")


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", METHODS)
def test_densities_on_the_device(device: Any, name: str, dtype: str, noise: str) -> None:
    mfa, X = device_model(noise, dtype)
    got = getattr(mfa, name)(device.asarray(X))
    close(got, getattr(mfa, name)(X), dtype, like=device.asarray(X))


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("name", METHODS)
def test_host_arrays_are_streamed(device: Any, name: str, noise: str) -> None:
    mfa, X = device_model(noise)
    got = getattr(mfa, name)(X, backend="cuda", block_rows=5)
    close(got, getattr(mfa, name)(X), "float64")
    if isinstance(device, EmulatedEngine):  # one block ahead, never more, and every place given back
        assert device.uploads[:3] == ["start 0", "start 1", "done 0"]
        assert device.uploads[-2:] == ["done 0", "close"]


def test_log_prob_never_holds_all_components(device: Any) -> None:
    """The fused path lists candidates; the [n, k] epilogue does not run."""
    mfa, X = device_model()
    if not isinstance(device, EmulatedEngine):
        pytest.skip("the emulator counts launches")
    mfa.log_prob(device.asarray(X))
    names = [launch[0] for launch in device.launches]
    assert "list_candidates" in names
    assert "mixture_epilogue" not in names


def test_tf32_keeps_the_bound_of_float32(device: Any) -> None:
    mfa = random_mfa(6, 600, 4, sigma=0.01, seed=2, spread=0.05)
    X = mfa.sample(20, rng=3)[0]
    expected = _reference.log_prob(X.astype(np.float64), *parameters(mfa))
    bound = 4 * np.finfo(np.float32).eps * np.abs(expected) + 1e-3
    for precision in ("tf32", None, "float32"):
        got = device.to_host(mfa.log_prob(device.asarray(X), precision=precision))
        assert (np.abs(got - expected) <= bound).all()
        gradient = device.to_host(mfa.grad_log_prob(device.asarray(X), precision=precision))
        close(gradient, mfa.grad_log_prob(X), np.float32, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())
    with pytest.raises(ValueError, match='precision="tf32" needs a CUDA device'):
        mfa.log_prob(X, precision="tf32")


def test_factors_that_are_cut_off_lose_no_candidate(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor cores may truncate where ours on the emulator round; the bound holds for both."""
    if not isinstance(device, EmulatedEngine):
        pytest.skip("how a device rounds is not ours to say")
    matmul = device.matmul

    def cut(A: Any, B: Any, out: Any, tf32: bool) -> None:
        if tf32:
            kept = np.uint32(0xFFFFE000)
            A, B = (device.asarray((device.to_host(M).copy().view(np.uint32) & kept).view(np.float32)) for M in (A, B))
        matmul(A, B, out, False)

    monkeypatch.setattr(device, "matmul", cut)
    mfa = random_mfa(6, 600, 4, sigma=0.01, seed=2, spread=0.05)
    X = mfa.sample(20, rng=3)[0]
    expected = _reference.log_prob(X.astype(np.float64), *parameters(mfa))
    got = device.to_host(mfa.log_prob(device.asarray(X), precision="tf32"))
    assert (np.abs(got - expected) <= 4 * np.finfo(np.float32).eps * np.abs(expected) + 1e-3).all()


@pytest.mark.parametrize("name", ["log_prob", "responsibilities", "grad_log_prob"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tf32_is_left_where_it_leaves_too_many_candidates(
    device: Any, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    """The first block says so, and is done again; samples of float64 go in float32 only as far as TF32 goes."""
    rng = np.random.default_rng(0)  # long loadings in common, and means that hardly differ
    loadings = np.broadcast_to(rng.normal(size=(200, 3)), (30, 200, 3))
    mfa = mfakit.MFA(np.full(30, 1 / 30), 0.01 * rng.normal(size=(30, 200)), loadings, 0.003**2)
    X = mfa.sample(24, rng=1, dtype=dtype)[0]
    asked: list[tuple[bool, str]] = []
    matmul = device.matmul

    def noted(A: Any, B: Any, out: Any, tf32: bool) -> None:
        asked.append((tf32, str(out.dtype)))
        matmul(A, B, out, tf32)

    monkeypatch.setattr(device, "matmul", noted)
    compute = getattr(mfa, name)
    got = device.to_host(compute(device.asarray(X), block_rows=8))
    close(got, compute(X), dtype, rtol=1e-4 if dtype == "float32" else None)
    assert asked == [(True, "float32"), (False, dtype), (False, dtype), (False, dtype)]
    asked.clear()
    compute(device.asarray(X), block_rows=8, precision="tf32")
    assert asked == [(True, "float32")] * 3


@pytest.mark.parametrize("method", ["auto", "dense"])
def test_tf32_of_gradients_and_components(device: Any, method: str) -> None:
    """With more candidates than pairs are worth, gradients go by the product: TF32 may choose candidates only."""
    mfa = random_mfa(30, 200, 3, sigma=0.3, seed=2, spread=0.05)
    X = mfa.sample(20, rng=3)[0]
    for compute in (mfa.grad_log_prob, mfa.component_log_prob):
        exact = compute(X.astype(np.float64))
        error = {}
        for precision in ("tf32", "float32"):
            got = device.to_host(compute(device.asarray(X), precision=precision, method=method))
            error[precision] = np.abs(got - exact).max() / np.abs(exact).max()
        assert error["tf32"] <= 2 * error["float32"] + np.finfo(np.float32).eps


def test_non_finite_rows(device: Any) -> None:
    mfa, X = device_model()
    X[7, 3] = np.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 7"):
        mfa.log_prob(device.asarray(X))
    got = device.to_host(mfa.log_prob(device.asarray(X), check_finite=False))
    assert np.isnan(got).tolist() == (np.arange(len(X)) == 7).tolist()


def test_empty_and_strided(device: Any) -> None:
    mfa, X = device_model()
    assert mfa.log_prob(device.asarray(X[:0])).shape == (0,)
    wide = device.asarray(np.repeat(X, 2, axis=1))
    close(mfa.log_prob(wide[::2, ::2]), mfa.log_prob(X[::2]), "float64", like=device.asarray(X))


def test_out(device: Any) -> None:
    mfa, X = device_model()
    out = device.xp.empty(len(X))
    assert mfa.log_prob(device.asarray(X), out=out) is out
    close(out, mfa.log_prob(X), "float64", like=device.asarray(X))
    with pytest.raises(ValueError, match="X is on cuda:0 and out on the host"):
        mfa.log_prob(device.asarray(X), out=np.empty(len(X)))
    with pytest.raises(ValueError, match="X is on the host and out on cuda:0"):
        mfa.log_prob(X, out=out)


def test_backends_of_the_host_refuse_device_arrays(device: Any) -> None:
    mfa, X = device_model()
    with pytest.raises(ValueError, match=r"the array is on cuda:0 and backend='native' computes on the host"):
        mfa.log_prob(device.asarray(X), backend="native")


def test_a_model_on_a_device(device: Any) -> None:
    mfa, X = device_model()
    there = mfa.to("cuda")
    assert (there.device, mfa.device, there.to("cpu").device) == ("cuda:0", None, None)
    close(there.log_prob(device.asarray(X)), mfa.log_prob(X), "float64", like=device.asarray(X))
    close(there.log_prob(X, backend="cuda"), mfa.log_prob(X), "float64")
    with pytest.raises(ValueError, match="X is on the host and the model on cuda:0"):
        there.log_prob(X)
    with pytest.raises(ValueError, match='device must be "cpu", "cuda"'):
        mfa.to("tpu")


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_sampling(device: Any, noise: str) -> None:
    mfa = random_mfa(2, 7, 2, noise=noise, seed=4)
    there = mfa.to("cuda")
    points, component = there.sample(40, rng=3, noise=False)
    expected, expected_component = mfa.sample(40, rng=3, noise=False)
    np.testing.assert_array_equal(device.to_host(component), expected_component)
    close(device.to_host(points), expected, np.float32, rtol=1e-5, atol=1e-6)
    X, component = (device.to_host(a) for a in there.sample(3000, rng=5, dtype=np.float64))
    again = device.to_host(there.sample(3000, rng=5, dtype=np.float64)[0])
    assert X.tobytes() == again.tobytes()
    clean = device.to_host(there.sample(3000, rng=5, noise=False, dtype=np.float64)[0])
    eta = (X - clean) / np.sqrt(mfa.factors.noise)[component]
    # 21,000 standard normals: means within 5 deviations, and no correlation between neighbours.
    assert abs(eta.mean()) < 5 / eta.size**0.5
    assert abs(eta.var() - 1) < 5 * (2 / eta.size) ** 0.5
    assert np.abs(np.corrcoef(eta.T) - np.eye(7)).max() < 5 / len(eta) ** 0.5
    assert abs((eta**4).mean() - 3) < 5 * (96 / eta.size) ** 0.5


def test_bayes_classifier(device: Any) -> None:
    clf = mfakit.BayesClassifier([random_mfa(3, 20, 2, seed=s, spread=0.4) for s in (1, 2, 3)])
    X, y = clf.sample(30, rng=0, dtype=np.float64)
    there = device.asarray(X)
    for name in ("decision_function", "predict", "predict_proba", "predict_log_proba", "decision_gradient"):
        got = getattr(clf, name)(there)
        expected = getattr(clf, name)(X)
        close(got, expected, expected.dtype, like=there)
    assert clf.score(there, device.asarray(y)) == clf.score(X, y)
    moved = clf.to("cuda")
    samples, labels = moved.sample(10, rng=0)
    assert is_cupy(samples)
    assert is_cupy(labels)


def test_subspaces(device: Any) -> None:
    mfa0, mfa1 = random_mfa(4, 30, 3, seed=1), random_mfa(5, 30, 2, seed=2)
    X = mfa0.sample(9, rng=0, dtype=np.float64)[0]
    got = mfakit.point_subspace_distances(device.asarray(X), mfa0)
    close(got, mfakit.point_subspace_distances(X, mfa0), "float64", like=device.asarray(X))
    close(mfakit.subspace_distances(mfa0, mfa1, backend="cuda"), mfakit.subspace_distances(mfa0, mfa1), "float64")


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_fitting(device: Any, noise: str) -> None:
    X = random_mfa(2, 12, 2, seed=6).sample(60, rng=1, dtype=np.float64)[0]
    how: dict[str, Any] = {
        "n_components": 2,
        "n_factors": 2,
        "noise": noise,
        "random_state": 0,
        "tol": 0,
        "max_iter": 3,
    }
    with pytest.warns(match="EM has not converged"):
        host = mfakit.MixtureOfFactorAnalyzers(**how).fit(X)
    with pytest.warns(match="EM has not converged"):
        there = mfakit.MixtureOfFactorAnalyzers(**how).fit(device.asarray(X))
    with pytest.warns(match="EM has not converged"):
        streamed = mfakit.MixtureOfFactorAnalyzers(**how, backend="cuda", block_rows=17).fit(X)
    for est in (there, streamed):
        np.testing.assert_allclose(est.history_["log_likelihood"], host.history_["log_likelihood"], rtol=1e-9)
        close(est.mfa_.means, host.mfa_.means, rtol=1e-7, atol=1e-8)
    assert is_cupy(there.score_samples(device.asarray(X)))
    assert is_cupy(there.predict(device.asarray(X)))
    assert there.score(device.asarray(X)) == pytest.approx(host.score(X), rel=1e-9)


def test_latents(device: Any) -> None:
    mfa, X = device_model("diagonal")
    mean, covariance, component = mfa.latent(device.asarray(X))
    expected = mfa.latent(X)
    close(mean, expected[0], "float64", like=device.asarray(X))
    close(covariance, expected[1], "float64", like=device.asarray(X))
    np.testing.assert_array_equal(device.to_host(component), expected[2])
    close(mfa.reconstruct(device.asarray(X)), mfa.reconstruct(X), "float64", like=device.asarray(X))
    mask = np.arange(37) < 9
    close(mfa.impute(device.asarray(X), mask), mfa.impute(X, mask), "float64", like=device.asarray(X))
    close(mfa.impute(X, mask, backend="cuda"), mfa.impute(X, mask), "float64")
    out = device.asarray(np.zeros_like(X))
    assert mfa.impute(device.asarray(X), mask, out=out) is out
    close(out, mfa.impute(X, mask), "float64", like=device.asarray(X))


@pytest.mark.parametrize("kind", ["symmetric", "own sigmas", "diagonal"])
@pytest.mark.parametrize("path", ["factor", "features"])
def test_gradient_attack(device: Any, path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps between the same components, and the same points, wherever the samples lie."""
    for module in (walk, resident):
        monkeypatch.setattr(module, "BISECTIONS", 4)  # one is like another, and takes the emulator long
    noise = "diagonal" if kind == "diagonal" else "isotropic"
    clf = mfakit.BayesClassifier([random_mfa(2, 15, 2, noise=noise, seed=s, spread=0.6) for s in (1, 2)])
    clf = clf.symmetric(0.1) if kind == "symmetric" else clf
    if kind == "diagonal" and path == "factor":
        pytest.skip("factor coordinates are for isotropic noise")
    X, y = clf.sample(7, rng=3, dtype=np.float64)
    how: dict[str, Any] = {"step_size": 0.2, "max_steps": 60, "polish": True, "path": path}
    expected = mfakit.attacks.gradient_attack(clf, X, y, **how)
    assert expected.success.any()
    there = mfakit.attacks.gradient_attack(clf, device.asarray(X), device.asarray(y), **how)
    streamed = mfakit.attacks.gradient_attack(clf, X, y, **how, backend="cuda", block_rows=9)
    assert is_cupy(there.x_adv)
    assert isinstance(streamed.x_adv, np.ndarray)
    for got in (there, streamed):
        for name in ("success", "n_steps", "source", "target", "y_adv", "reason"):
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)
        close(got.l2, expected.l2, rtol=1e-9)
    close(device.to_host(there.x_adv), expected.x_adv, rtol=1e-9, atol=1e-9)


def test_attacks_with_bounds_and_in_float32(device: Any) -> None:
    clf = mfakit.BayesClassifier([random_mfa(2, 10, 2, seed=s, spread=0.6) for s in (1, 2)]).symmetric(0.1)
    X, y = clf.sample(6, rng=3)
    limits = (float(X.min()), float(X.max()))
    expected = mfakit.attacks.gradient_attack(clf, X, y, step_size=0.2, max_steps=60, bounds=limits)
    got = mfakit.attacks.gradient_attack(clf, device.asarray(X), y, step_size=0.2, max_steps=60, bounds=limits)
    assert got.x_adv.dtype == np.float32
    np.testing.assert_array_equal(got.success, expected.success)
    close(got.l2, expected.l2, rtol=1e-5)
    with pytest.raises(ValueError, match=r"X must lie within bounds \[0, 1\]"):
        mfakit.attacks.gradient_attack(clf, device.asarray(X * 9), y, bounds=(0, 1))


def test_what_computes_on_the_host_says_so(device: Any) -> None:
    clf = mfakit.BayesClassifier([random_mfa(2, 10, 2, seed=s) for s in (1, 2)])
    X, y = clf.sample(6, rng=3)
    from sklearn.linear_model import LogisticRegression

    linear = LogisticRegression().fit(X, np.arange(6) % 2)
    limits = (float(X.min()), float(X.max()))
    for victim, how in ((clf, {}), (clf, {"bounds": limits}), (clf, {"target": 1 - clf.predict(X)}), (linear, {})):
        own = {} if victim is linear else how
        labels = y if not own else clf.predict(X)
        for name, extra in (("minimal_perturbation", ()), ("certified_accuracy", ([0.1],))):
            call = getattr(mfakit.attacks, name)
            with pytest.raises(ValueError, match=f"{name} computes on the host, and X is on cuda:0; pass X.get"):
                call(victim, device.asarray(X), labels, *extra, **own)
            with pytest.raises(ValueError, match=f'{name} computes on the host, and backend="cuda" is a device'):
                call(victim, X, labels, *extra, backend="cuda", **own)
    gaps = np.where(np.arange(X.size).reshape(X.shape) % 7 == 0, np.nan, X)
    est = mfakit.MixtureOfFactorAnalyzers(2, 1, missing="marginal")
    with pytest.raises(ValueError, match="EM of samples with missing features computes on the host, and X is on"):
        est.fit(device.asarray(gaps))
    with pytest.raises(ValueError, match="EM of samples with missing features computes on the host, and backend="):
        est.set_params(backend="cuda").fit(gaps)
    with pytest.raises(ValueError, match="a LogisticRegression is attacked on the host"):
        mfakit.attacks.gradient_attack(linear, device.asarray(X))


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_components_are_bounded_on_the_device(device: Any, dtype: str, noise: str) -> None:
    """With the densities of all components, of which few are refined."""
    mfa, other = (random_mfa(k, 60, l, noise=noise, seed=k, spread=2.0) for k, l in ((20, 3), (12, 2)))
    clf, X = mfakit.BayesClassifier([mfa, other]), mfa.sample(12, rng=2, dtype=np.dtype(dtype))[0]
    there = device.asarray(X)
    for model, name in (
        (mfa, "log_prob"),
        (mfa, "grad_log_prob"),
        (mfa, "responsibilities"),
        (clf, "decision_function"),
    ):
        call = getattr(model, name)
        if isinstance(device, EmulatedEngine):
            device.launches.clear()
        got, expected = device.to_host(call(there, method="pruned")), call(X, method="dense")
        close(got, expected, dtype, rtol=1e-5 if dtype == "float32" else 1e-9, atol=1e-5 * np.abs(expected).max())
        close(call(X, method="pruned", backend="cuda", block_rows=7), got, dtype, rtol=1e-6, atol=1e-6)
        if isinstance(device, EmulatedEngine):
            launched = {launch[0] for launch in device.launches}
            assert {"bound_components", "highest_bounds", "tighten_bounds"} <= launched
            assert not {"mark_candidates", "mixture_epilogue"} & launched


def test_what_a_device_does_with_the_method(device: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    mfa, X = device_model(n=40)
    est = mfakit.MixtureOfFactorAnalyzers(2, 2, method="pruned", backend="cuda")
    with pytest.raises(ValueError, match=r'method="pruned" is for fits on the host: .*; use method="dense"'):
        est.fit(X)
    monkeypatch.setattr(choose, "LEAST_STEPS", 1)
    with caplog.at_level(logging.INFO, "mfakit"):
        mfa.log_prob(device.asarray(X))
    assert "method auto takes the dense product: on a device its cost has not been compared yet" in caplog.text


def test_samples_with_missing_features_come_from_the_device_and_go_back(device: Any) -> None:
    mfa, X = device_model(n=9)
    X[0, 3] = X[2, :5] = np.nan
    clf = mfakit.BayesClassifier([mfa, random_mfa(2, X.shape[1], 2, seed=5)])
    there = device.asarray(X)
    names = [(mfa, name) for name in ("log_prob", "component_log_prob", "responsibilities")]
    for model, name in [*names, (clf, "predict_proba"), (clf, "predict"), (clf, "decision_function")]:
        call = getattr(model, name)
        expected = call(X, missing="marginal")
        close(call(there, missing="marginal"), expected, expected.dtype, like=there)
        close(call(X, missing="marginal", backend="cuda"), expected, expected.dtype)
    close(mfa.impute(there), mfa.impute(X), "float64", like=there)


def test_files_and_iterators_on_the_device(device: Any, tmp_path: Path) -> None:
    mfa, X = device_model()
    np.save(tmp_path / "X.npy", X)
    for name in METHODS:
        call = getattr(mfa, name)
        close(call(tmp_path / "X.npy", backend="cuda", block_rows=9), call(X), "float64")
        parts = list(call(iter([device.asarray(X[:20]), device.asarray(X[20:])])))
        assert all(map(is_cupy, parts))
        close(np.concatenate([device.to_host(part) for part in parts]), call(X), "float64")
        assert len(list(call(iter([X[:20], X[20:]]), backend="cuda"))) == 2
    mfa.log_prob(tmp_path / "X.npy", out=tmp_path / "out.npy", backend="cuda")
    close(np.load(tmp_path / "out.npy"), mfa.log_prob(X), "float64")


@pytest.mark.parametrize("how", ["bounds", "target"])
def test_attacks_within_bounds_and_to_a_class(device: Any, how: str) -> None:
    """Arrays of bounds and targets may be on the host or on the device."""
    clf = mfakit.BayesClassifier([random_mfa(2, 10, 2, seed=s, spread=0.6) for s in (1, 2, 3)])
    X, _ = clf.sample(3, rng=3, dtype=np.float64)
    y = clf.predict(X)
    limits = X.min(axis=0) - 0.5, X.max(axis=0) + 0.5
    options: dict[str, Any] = {"bounds": limits} if how == "bounds" else {"target": (y + 1) % 3}
    there = {"bounds": tuple(map(device.asarray, limits)), "target": device.asarray((y + 1) % 3)}
    steps = {"step_size": 0.6, "max_steps": 6, "polish": False}
    expected = mfakit.attacks.gradient_attack(clf, X, y, **steps, **options)
    assert expected.success.any()
    for got in (
        mfakit.attacks.gradient_attack(clf, device.asarray(X), y, **steps, **{how: there[how]}),
        mfakit.attacks.gradient_attack(clf, X, y, **steps, **options, backend="cuda"),
    ):
        np.testing.assert_array_equal(got.y_adv, expected.y_adv)
        close(device.to_host(got.x_adv), expected.x_adv, rtol=1e-9, atol=1e-9)


def test_points_of_others_are_evaluated_where_they_are(device: Any) -> None:
    clf = mfakit.BayesClassifier([random_mfa(2, 10, 2, seed=s, spread=0.6) for s in (1, 2)])
    X, y = clf.sample(5, rng=3, dtype=np.float64)
    expected = mfakit.attacks.evaluate(clf, X, X[::-1], y)
    got = mfakit.attacks.evaluate(clf, device.asarray(X), device.asarray(X[::-1]), device.asarray(y))
    assert is_cupy(got.x_adv)
    np.testing.assert_array_equal(got.success, expected.success)


def test_the_readmes_example(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[2] / "README.md"
    if not readme.is_file():
        pytest.skip("the README is not here")
    block = readme.read_text("utf-8").split("## On a GPU")[1].split("```python\n")[1].split("```")[0]
    monkeypatch.setitem(sys.modules, "cupy", device.xp)
    mfa, X = device_model(dtype=np.float32)
    lines = [line for line in block.splitlines() if line.startswith("mfa.")]
    assert len(lines) == 3
    for line in lines:
        names: dict[str, Any] = {"cupy": device.xp, "mfa": mfa, "X": X}
        exec(f"result = {line}", names)
        like = device.asarray(X) if "cupy." in line else None
        close(names["result"], mfa.log_prob(X), "float32", like=like)


def test_without_a_device_it_says_what_is_missing() -> None:
    reason = _cuda_engine.why_missing()
    if reason is None:
        pytest.skip("there is a device")
    mfa, X = device_model()
    with pytest.raises(mfakit.BackendUnavailable, match=r"cuda: .*(CuPy|driver|device)"):
        mfa.log_prob(X, backend="cuda")
    with pytest.raises(mfakit.BackendUnavailable):
        mfa.to("cuda")


def _in_child(queue: Any) -> None:
    mfa, X = device_model()
    try:
        mfa.log_prob(X, backend="cuda")
    except Exception as error:
        queue.put((isinstance(error, RuntimeError), str(error)))
    else:
        queue.put((False, "worked"))


def test_a_fork_after_cuda_asks_for_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda_runtime, "_process", os.getpid())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    is_runtime_error, message = queue.get(timeout=30)
    child.join()
    assert is_runtime_error
    assert "CUDA was used before this process was forked" in message
    assert "spawn" in message
