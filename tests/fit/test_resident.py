"""EM that stays on a device: its factors and its steps are the host's, and little is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.engine import EmulatedEngine
from emulator.fake_cupy import Waits
from support import random_mfa

import mfakit
from mfakit._arrays.options import Options
from mfakit.backends import get_arrays, get_backend
from mfakit.fit import Source, Statistics, expectation, fit_em, maximization, resident
from mfakit.fit.checkpoint import Checkpoint
from mfakit.mixture.resident import ResidentMFA, orthogonalize

EPS = np.finfo(np.float64).eps


def arrays_of_the_device() -> Any:
    return get_arrays(get_backend("cuda"), None)


def hard_rows(k: int, l: int, d: int) -> np.ndarray[Any, Any]:
    """Rows that depend on each other exactly and nearly, that vanish, and whose squares no float holds."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(k, l, d))
    rows[0, 2] = 0.0
    rows[1, 1] = 3.0 * rows[1, 0]
    rows[1, 3] = rows[1, 0] - rows[1, 2] + 1e-9 * rows[1, 3]
    rows[2, 1] *= 1e170
    rows[2, 2] *= 1e-170
    rows[3] = rows[3, :1] * np.arange(1, l + 1)[:, None]
    return rows


@pytest.mark.parametrize("d", [3, 40])
def test_orthogonalized_rows(d: int) -> None:
    """rows = Rᵀ Q to rounding of each row; Q's rows are orthonormal, or zero where a row depends on others."""
    rows = hard_rows(5, 4, d)
    Q = rows.copy()
    R = orthogonalize(Q, np)
    assert (np.tril(R, -1) == 0).all()
    scale = np.abs(rows).max(axis=2, keepdims=True)
    scale[scale == 0] = 1.0
    error = np.abs(np.swapaxes(R, 1, 2) @ Q - rows) / scale
    assert error.max() <= 20 * EPS
    products = Q @ np.swapaxes(Q, 1, 2)
    expected = np.zeros_like(products)
    index = np.arange(4)
    expected[:, index, index] = np.abs(Q).max(axis=2) > 0
    assert np.abs(products - expected).max() <= 20 * EPS
    ranks = (np.abs(Q).max(axis=2) > 0).sum(axis=1)
    assert ranks[0] == 3
    assert (ranks <= min(d, 4)).all()
    assert ranks[4] == min(d, 4)


def same_factors(got: Any, expected: Any, rtol: float = 1e-10) -> None:
    """What does not depend on the choice of orthonormal vectors: Wᵀ W, Z Zᵀ, Z W and the numbers of components."""
    for name in ("center", "means", "noise", "log_norm", "inv_noise", "mean_norm"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=rtol, atol=rtol, err_msg=name)
    root = np.sqrt(expected.noise)[:, None, :]
    W, W0 = got.whitened * root, expected.whitened * root
    Z, Z0 = got.latent_map, expected.latent_map
    for a, b in ((W, W0), (np.swapaxes(Z, 1, 2), np.swapaxes(Z0, 1, 2))):
        np.testing.assert_allclose(np.swapaxes(a, 1, 2) @ a, np.swapaxes(b, 1, 2) @ b, atol=rtol)
    np.testing.assert_allclose(Z @ W, Z0 @ W0, atol=rtol)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("case", ["usual", "dependent", "vanishing", "few features", "no factors", "dead"])
def test_factors_made_on_the_device(device: Any, case: str, noise: str) -> None:
    """As exact as the host's SVD where loadings depend on each other or vanish, at a noise σ of 1e-8 of them."""
    k, d, l = 3, 3 if case == "few features" else 30, 0 if case == "no factors" else 4
    mfa = random_mfa(k, d, l, noise=noise, seed=1)
    loadings, weights = np.array(mfa.loadings, np.float64), np.array(mfa.weights)
    if case == "dependent":
        loadings[0, :, 1] = 2.0 * loadings[0, :, 0]
        loadings[1, :, 3] = loadings[1, :, 0] - loadings[1, :, 2]
        mfa = mfakit.MFA(weights, mfa.means, loadings, mfa.noise_variance * 1e-16)
    elif case == "vanishing":
        loadings[0, :, 2] = 0.0
        loadings[1] *= 1e-9
        mfa = mfakit.MFA(weights, mfa.means, loadings, mfa.noise_variance)
    elif case == "dead":
        mfa = mfakit.MFA([0.25, 0.0, 0.75], mfa.means, loadings, mfa.noise_variance)
    there = ResidentMFA.of(mfa, arrays_of_the_device())
    # Rounding of the loadings, in units of the noise: so much may either of the two be off.
    longest = float(np.sqrt((mfa.loadings.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0))
    rounded = 8 * EPS * longest / float(np.sqrt(mfa.noise_variance.min()))
    same_factors(there.factors, mfa.factors, max(rounded, 1e-10))
    assert max(rounded, 1e-10) < 1e-5
    assert there.factors.shape == mfa.factors.shape
    assert there.is_isotropic == mfa.is_isotropic
    safe, exact = (one.factors.largest_safe_norm(np.float32) for one in (there, mfa))
    assert (safe > 0.0) == (exact > 0.0)
    assert safe <= exact * (1 + 1e-12)
    X = mfa.sample(12, rng=2, dtype=np.float64)[0]
    np.testing.assert_allclose(
        device.to_host(there.log_prob(device.asarray(X))), mfa.log_prob(X), rtol=1e-9 if case != "dependent" else 1e-6
    )
    assert there.plain() is mfa
    for name in ("weights", "means", "loadings", "noise_variance"):
        np.testing.assert_array_equal(getattr(there, name), getattr(mfa, name).astype(np.float64), err_msg=name)


def test_loadings_that_overflow_are_named(device: Any) -> None:
    mfa = mfakit.MFA([0.5, 0.5], np.zeros((2, 3)), np.ones((2, 3, 1)) * np.array([1.0, 1e200])[:, None, None], 1e-300)
    with pytest.raises(ValueError, match="component 1: loadings / sqrt") as there:
        ResidentMFA.of(mfa, arrays_of_the_device())
    with pytest.raises(ValueError, match="component 1: loadings / sqrt") as here:
        mfa.factors  # noqa: B018
    assert str(there.value) == str(here.value)


@pytest.mark.parametrize(("noise", "dtype"), [("isotropic", np.float32), ("diagonal", np.float64)])
def test_steps_are_the_hosts(device: Any, noise: str, dtype: Any) -> None:
    """The same history and mixture, weighted, streamed in several parts or there."""
    X = random_mfa(3, 15, 2, noise=noise, seed=6, spread=0.5).sample(50, rng=1, dtype=dtype)[0]
    w = np.random.default_rng(2).random(len(X))
    start = random_mfa(3, 15, 2, noise=noise, seed=7, spread=0.5)
    how: dict[str, Any] = {"floor": 1e-6, "tol": 0.0, "max_iter": 4, "progress": False}
    host = fit_em(start, Source.from_array(X, w), **how)
    there = fit_em(start, Source.from_array(device.asarray(X), w), **how)
    parts = [(X[:20], w[:20]), (X[20:], w[20:])]
    streamed = fit_em(start, Source.from_blocks(parts, Options(backend="cuda", block_rows=17), weighted=True), **how)
    for got in (there, streamed):
        np.testing.assert_allclose(got.log_likelihood, host.log_likelihood, rtol=0, atol=1e-6)
        assert type(got.mfa) is mfakit.MFA
        for name in ("weights", "means", "loadings", "noise_variance"):
            np.testing.assert_allclose(getattr(got.mfa, name), getattr(host.mfa, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_a_checkpoint_goes_on_there(device: Any, noise: str, tmp_path: Path) -> None:
    """The sums go back to the device, and the steps that follow are those of an uninterrupted fit."""
    X = random_mfa(3, 15, 2, noise=noise, seed=6, spread=0.5).sample(50, rng=1, dtype=np.float64)[0]
    source, path = Source.from_array(device.asarray(X)), tmp_path / "fit.safetensors"
    start = random_mfa(3, 15, 2, noise=noise, seed=7, spread=0.5)
    how: dict[str, Any] = {"floor": 1e-6, "tol": 0.0, "progress": False}
    expected = fit_em(start, source, max_iter=4, **how)
    fit_em(start, source, max_iter=2, **how, checkpoint=Checkpoint(path, 0.0, {}))
    found = fit_em(None, source, max_iter=4, **how, checkpoint=Checkpoint(path, 0.0, {}))
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=0, atol=1e-9)
    for name in ("weights", "means", "loadings", "noise_variance"):
        np.testing.assert_allclose(getattr(found.mfa, name), getattr(expected.mfa, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_the_same_fixed_point(device: Any, noise: str) -> None:
    X = random_mfa(2, 12, 2, noise=noise, seed=6, spread=1.0).sample(100, rng=1, dtype=np.float64)[0]
    start = random_mfa(2, 12, 2, noise=noise, seed=7, spread=1.0)
    how: dict[str, Any] = {"floor": 1e-6, "progress": False}
    host = fit_em(start, Source.from_array(X), tol=1e-7, max_iter=3000, **how)
    assert host.converged
    there = fit_em(host.mfa, Source.from_array(device.asarray(X)), tol=0.0, max_iter=2, **how)
    assert np.ptp([host.lower_bound, *there.log_likelihood]) < 1e-6


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("k", [3, 25])
def test_a_step_reads_little_and_waits_a_fixed_number_of_times(
    device: Any, k: int, noise: str, monkeypatch: Any
) -> None:
    """E-step, M-step and factors together: 8 waits whatever k, and nothing that has a number per feature."""
    if not isinstance(device, EmulatedEngine):
        pytest.skip("the emulator counts")
    d, l = 4000, 2
    X = device.asarray(random_mfa(k, d, l, noise=noise, seed=4).sample(20, rng=1, dtype=np.float64)[0])
    source = Source.from_array(X)
    mfa = resident.place(random_mfa(k, d, l, noise=noise, seed=4), source.arrays)
    stats = expectation(mfa, source)
    sizes: list[int] = []
    to_host = device.to_host

    def noted(array: Any) -> Any:
        sizes.append(int(np.prod(array.shape)))
        return to_host(array)

    monkeypatch.setattr(device, "to_host", noted)
    before = Waits.count
    for _ in range(2):
        mfa = maximization(stats, 1e-6)
        assert isinstance(mfa, ResidentMFA)
        stats = expectation(mfa, source)
    assert Waits.count - before <= 2 * 8
    pairs, worst_rows = 4 * k * len(X), 16 * (d + 1)
    assert max(sizes) <= max(k * (l * l + l + 8), pairs, worst_rows)
    assert k * d not in sizes


def _no_memory(device: Any) -> BaseException:
    """The device's own error; CuPy's is of sizes."""
    kind: type[BaseException] = device.out_of_memory[0]
    try:
        return kind("no memory")
    except TypeError:
        return kind(1, 1)


def test_without_memory_the_m_step_is_the_hosts(device: Any, monkeypatch: Any, caplog: Any) -> None:
    X = random_mfa(2, 12, 2, seed=6).sample(60, rng=1, dtype=np.float64)[0]
    start, how = random_mfa(2, 12, 2, seed=7), {"floor": 1e-6, "tol": 0.0, "max_iter": 3, "progress": False}
    expected = fit_em(start, Source.from_array(X), **how).log_likelihood
    original, calls = resident._maximization, []

    def full(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise _no_memory(device)
        return original(*args)

    monkeypatch.setattr(resident, "_maximization", full)
    with caplog.at_level(logging.WARNING, "mfakit"):
        got = fit_em(start, Source.from_array(device.asarray(X)), **how).log_likelihood
    assert "an M-step is computed on the host" in caplog.text
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    monkeypatch.setattr(resident, "COPIES", 10**9)  # no room: sums stay on the device, the mixture does not
    calls.clear()
    got = fit_em(start, Source.from_array(device.asarray(X)), **how).log_likelihood
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert not calls


def test_a_lost_component_starts_again(device: Any) -> None:
    X = random_mfa(2, 10, 1, seed=3, spread=2.0).sample(80, rng=1, dtype=np.float64)[0]
    good = random_mfa(2, 10, 1, seed=3, spread=2.0)
    means = np.concatenate([good.means, np.full((1, 10), 1e3)])
    loadings = np.concatenate([good.loadings, good.loadings[:1]])
    start = mfakit.MFA([0.4, 0.4, 0.2], means, loadings, 0.1)
    how: dict[str, Any] = {"floor": 1e-6, "tol": 0.0, "max_iter": 5, "progress": False}
    host, there = (fit_em(start, Source.from_array(rows), **how) for rows in (X, device.asarray(X)))
    assert [e["event"] for e in host.events][:1] == ["reseeded"]
    assert there.events == host.events
    np.testing.assert_allclose(there.log_likelihood, host.log_likelihood, rtol=1e-9)


def test_public_statistics_are_on_the_host(device: Any) -> None:
    mfa = random_mfa(3, 12, 2, seed=6)
    X = mfa.sample(50, rng=1, dtype=np.float64)[0]
    expected = Statistics.zeros(mfa).add(X)
    source = Source.from_array(device.asarray(X), options=Options(block_rows=20))
    for got in (Statistics.zeros(mfa).add(device.asarray(X)), expectation(mfa, source)):
        for name in ("weight", "sum_x", "sum_xx", "sum_z", "sum_zz", "sum_xz"):
            assert isinstance(getattr(got, name), np.ndarray)
            np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-9, atol=1e-9)
        assert got.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
        np.testing.assert_allclose(got.worst.rows, expected.worst.rows)
