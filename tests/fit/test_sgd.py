"""``solver="sgd"``: its log-density against the oracle, and that training approaches what EM finds."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from support import close, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference

torch = pytest.importorskip("torch")

from mfakit.fit import sgd as sgd_module  # noqa: E402
from mfakit.torch.trainable import log_density  # noqa: E402

Array = NDArray[Any]
Estimator = mfakit.MixtureOfFactorAnalyzers


def tensors(mfa: mfakit.MFA) -> list[Any]:
    noise = mfa.noise_variance.reshape(mfa.n_components, -1)
    arrays = (np.log(mfa.weights) + 3.0, mfa.means, mfa.loadings, noise)
    return [torch.tensor(np.array(a), dtype=torch.float64, requires_grad=True) for a in arrays]


@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (1, 3, 1), (2, 1, 1), (3, 4, 0)])
def test_log_density_is_the_oracles(noise: str, k: int, d: int, l: int) -> None:
    mfa = random_mfa(k, d, l, noise=noise)
    X = mfa.sample(20, rng=0, dtype=np.float64)[0]
    ours = log_density(torch.from_numpy(X), *tensors(mfa)).detach().numpy()
    close(ours, _reference.log_prob(X, *parameters(mfa)), rtol=rtol(np.float64))


def test_its_gradient_is_right_in_every_parameter(noise: str) -> None:
    mfa = random_mfa(2, 4, 2, noise=noise)
    X = torch.from_numpy(mfa.sample(3, rng=0, dtype=np.float64)[0])
    assert torch.autograd.gradcheck(lambda *theta: log_density(X, *theta), tensors(mfa))


def data(noise: str = "isotropic") -> Array:
    return random_mfa(3, 8, 2, noise=noise, spread=1.0, sigma=0.5).sample(1000, rng=0, dtype=np.float64)[0]


def sgd(**options: Any) -> Any:
    return Estimator(
        **{"n_components": 3, "n_factors": 2, "solver": "sgd", "max_iter": 30, "random_state": 0, **options}
    )


def test_training_improves_and_comes_near_em(noise: str) -> None:
    X = data(noise)
    em = Estimator(3, 2, noise=noise, random_state=0, tol=1e-4, max_iter=1000).fit(X)
    est = sgd(noise=noise, batch_size=100).fit(X)
    values = est.history_["log_likelihood"]
    assert values[0] < em.lower_bound_ - 0.5
    assert est.lower_bound_ == max(values) == pytest.approx(est.score(X), rel=1e-9)
    assert abs(est.lower_bound_ - em.lower_bound_) < 0.03


def test_it_ends_when_it_no_longer_improves() -> None:
    X = data()
    est = sgd(tol=0.05, max_iter=500).fit(X)
    assert est.converged_
    assert est.n_iter_ < 100
    assert len(est.history_["log_likelihood"]) == est.n_iter_ + 1


def test_one_seed_gives_one_model_and_leaves_torch_alone() -> None:
    X = data()[:300]

    def bytes_of(seed: int) -> bytes:
        return b"".join(v.tobytes() for v in parameters(sgd(random_state=seed, max_iter=3).fit(X).mfa_))

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = bytes_of(0)
    assert bytes_of(1) != first
    precision = torch.get_float32_matmul_precision()
    torch.set_default_dtype(torch.float16)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.no_grad():
            assert bytes_of(0) == first
        with torch.inference_mode():
            assert bytes_of(0) == first
        assert torch.get_default_dtype() == torch.float16
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_one_learning_rate_suits_all_units(noise: str, scale: float) -> None:
    X = data(noise)[:500]
    est, scaled = (sgd(noise=noise, max_iter=3).fit(X * s) for s in (1.0, scale))
    assert scaled.lower_bound_ == pytest.approx(est.lower_bound_ - 8 * np.log(scale), rel=1e-6)


def test_the_noise_floor_holds() -> None:
    X = np.tile(np.random.default_rng(0).normal(size=(4, 5)), (20, 1))
    est = sgd(noise_floor=1e-3, max_iter=20).fit(X)
    floor = 1e-3 * X.var(axis=0).mean()
    assert est.mfa_.noise_variance.min() >= floor * (1 - 1e-12)
    assert all(np.isfinite(value).all() for value in parameters(est.mfa_))


def test_weights_count_and_blocks_train() -> None:
    X = data()
    near = np.linalg.norm(X - X[0], axis=1) < 6
    assert 0 < near.sum() < len(X)
    kwargs: dict[str, Any] = {"n_components": 1, "n_factors": 1, "max_iter": 5}
    weighted = sgd(**kwargs).fit(X, sample_weight=near.astype(float))
    alone = sgd(**kwargs).fit(X[near])
    close(weighted.mfa_.means, alone.mfa_.means, rtol=1e-9, atol=1e-9)
    blocks = sgd(**kwargs).fit_blocks([X[:350], X[350:]])
    assert blocks.lower_bound_ == pytest.approx(sgd(**kwargs).fit(X).lower_bound_, abs=0.05)


def test_warm_start_from_em() -> None:
    X = data()
    est = Estimator(3, 2, random_state=0, max_iter=2, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        before = est.fit(X).lower_bound_
    est.set_params(solver="sgd").fit(X)
    assert est.history_["log_likelihood"][0] == pytest.approx(before, rel=1e-9)
    assert est.lower_bound_ >= before


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install mfakit\[torch\]"):
        sgd().fit(data())


@pytest.mark.parametrize("rate", [1.0, 100.0, 1e4, 1e300])
def test_training_that_diverges_keeps_the_best_mixture_and_says_so(noise: str, rate: float) -> None:
    X = np.random.default_rng(0).normal(size=(200, 5))
    est = Estimator(2, 2, noise=noise, solver="sgd", learning_rate=rate, max_iter=10, random_state=0)
    with pytest.warns(
        ConvergenceWarning, match=r"training diverged: .* lower learning_rate \(learning_rate="
    ) as raised:
        est.fit(X)
    assert len(raised) == 1
    assert not est.converged_
    assert est.lower_bound_ == max(est.history_["log_likelihood"]) == pytest.approx(est.score(X), rel=1e-9)


def test_training_that_overflows_keeps_an_earlier_epochs_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(model: Any, optimizer: Any, batches: Any, mean_weight: float) -> Any:
        calls.append(1)
        return original(model, optimizer, batches, mean_weight) if len(calls) < 3 else None

    calls: list[int] = []
    original = sgd_module._epoch
    monkeypatch.setattr(sgd_module, "_epoch", overflow)
    est = sgd()
    with pytest.warns(ConvergenceWarning, match="in epoch 3 its parameters overflowed; the best mixture, that after 2"):
        est.fit(data())
    assert est.history_["events"] == [{"iteration": 3, "event": "diverged"}]
    assert est.lower_bound_ == est.history_["log_likelihood"][2]


def test_a_start_that_comes_back_is_said_unless_it_is_an_optimum() -> None:
    X = data()
    with pytest.warns(ConvergenceWarning, match="did not improve on its start: 3 epochs gained .* raise learning_rate"):
        slow = sgd(learning_rate=1e-12).fit(X)
    assert not slow.converged_
    # One component's start is PPCA, the maximum of the likelihood.
    assert sgd(n_components=1, learning_rate=1e-12).fit(X).converged_
