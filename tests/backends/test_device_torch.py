"""Torch's CUDA tensors: the CPU's results as tensors on their device, in the order of torch's stream, not copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from density_cases import FUNCTIONS, result_shape
from support import random_mfa, rtol

import mfakit
from mfakit._arrays.rows import RowBlocks
from mfakit.attacks import gradient_attack

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a torch that was built for CUDA, and a device"),
]
CUDA = "cuda:0"
REAL_DTYPES = ["float32", "float64"]
# Matrix products that keep a stream busy for tens of milliseconds: much longer than a warm call takes to be issued.
BUSY_SIZE, BUSY_PRODUCTS = 4096, 40


def model(noise: str = "isotropic") -> mfakit.MFA:
    return random_mfa(5, 37, 3, noise=noise, seed=4, spread=0.4)


def classifier() -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(2, 15, 2, seed=s, spread=0.6) for s in (1, 2)]).symmetric(0.1)


def samples(mfa: Any, n: int = 23, dtype: str = "float64") -> Any:
    """Samples of a mixture or classifier as a tensor on the CPU."""
    return torch.from_numpy(mfa.sample(n, rng=1, dtype=np.float64)[0]).to(getattr(torch, dtype))


def assert_is(got: Any, expected: Any) -> None:
    """A tensor on the device with the dtype, shape and values of the CPU's."""
    assert isinstance(got, torch.Tensor)
    assert str(got.device) == CUDA
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    there, here = got.detach().cpu().numpy(), expected.detach().numpy()
    tolerance = rtol(there.dtype) if there.dtype.kind == "f" else 0.0
    np.testing.assert_allclose(there, here, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(here).max())))


def assert_same(got: Any, expected: Any) -> None:
    """Values of two runs on the device, to rounding."""
    assert_is(got, expected.cpu())


def distances(mfa: mfakit.MFA) -> Callable[[Any], Any]:
    return lambda X: mfakit.point_subspace_distances(X, mfa)


# --- the values


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_densities(function: str, dtype: str, noise: str) -> None:
    mfa = model(noise)
    X, score = samples(mfa, dtype=dtype), getattr(mfa, function)
    assert_is(score(X.to(CUDA)), score(X))
    assert_is(score(X.to(CUDA), block_rows=5), score(X))
    assert score(X[:0].to(CUDA)).shape == result_shape(function, 0, mfa)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "uint8"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_other_numbers_are_computed_in_float32(function: str, dtype: str) -> None:
    mfa = model()
    X, score = samples(mfa).abs().to(getattr(torch, dtype)), getattr(mfa, function)
    assert_is(score(X.to(CUDA), block_rows=7), score(X.float()))


def test_distances_and_latents(noise: str) -> None:
    mfa = model(noise)
    X = samples(mfa)
    for function in (distances(mfa), mfa.reconstruct):
        assert_is(function(X.to(CUDA)), function(X))
    for got, expected in zip(mfa.latent(X.to(CUDA)), mfa.latent(X), strict=True):
        if isinstance(expected, torch.Tensor):
            np.testing.assert_allclose(got.cpu(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_classifier(dtype: str) -> None:
    clf = classifier()
    X = samples(clf, dtype=dtype)
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function", "decision_gradient"):
        assert_is(getattr(clf, name)(X.to(CUDA)), getattr(clf, name)(X))
    y = clf.predict(X.to(CUDA))
    assert y.dtype == torch.int64
    assert clf.score(X.to(CUDA), y) == 1.0


@pytest.mark.parametrize("path", ["factor", "features"])
def test_gradient_attack(path: str) -> None:
    clf = classifier()
    X, how = samples(clf, 7), {"step_size": 0.2, "max_steps": 60, "polish": True, "path": path}
    y = clf.predict(X)
    expected, got = gradient_attack(clf, X, y, **how), gradient_attack(clf, X.to(CUDA), y.to(CUDA), **how)
    assert expected.success.any()
    for name in ("success", "n_steps", "source", "target", "y_adv"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(got.l2, expected.l2, rtol=1e-9)
    assert str(got.x_adv.device) == CUDA
    np.testing.assert_allclose(got.x_adv.cpu(), expected.x_adv, rtol=1e-9, atol=1e-9)


# --- layouts, out, what is refused


@pytest.mark.parametrize("function", FUNCTIONS)
def test_layouts(function: str) -> None:
    mfa = model()
    X = samples(mfa).to(CUDA)
    score, wide = getattr(mfa, function), torch.zeros(2 * len(X), 3 * X.shape[1], dtype=X.dtype, device=CUDA)
    wide[::2, 1::3] = X
    expected = score(X)
    for layout in (X.T.contiguous().T, wide[::2, 1::3], X[:, None].expand(-1, 2, -1)[:, 1]):
        np.testing.assert_array_equal(score(layout).cpu(), expected.cpu())
    repeated = score(X[:1].expand(9, -1))
    np.testing.assert_allclose(repeated.cpu(), expected[:1].expand(repeated.shape).cpu(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_out(function: str, dtype: str) -> None:
    mfa = model()
    X, score = samples(mfa, dtype=dtype), getattr(mfa, function)
    out = torch.full(result_shape(function, len(X), mfa), torch.nan, dtype=X.dtype, device=CUDA)
    place = out.data_ptr()
    assert score(X.to(CUDA), out=out) is out
    assert out.data_ptr() == place
    assert_is(out, score(X))
    with pytest.raises(ValueError, match="X is on cuda:0 and out on the host"):
        score(X.to(CUDA), out=torch.empty_like(out, device="cpu"))
    with pytest.raises(ValueError, match="X is on the host and out on cuda:0"):
        score(X, out=out)


def test_what_is_refused() -> None:
    mfa = model()
    X = samples(mfa).to(CUDA)
    with pytest.raises(TypeError, match=r"requires grad.*X\.detach\(\)"):
        mfa.log_prob(X.clone().requires_grad_())
    with pytest.raises(TypeError, match="real numbers"):
        mfa.log_prob(X > 0)
    with pytest.raises(ValueError, match=r"the array is on cuda:0 and backend='numpy' computes on the host"):
        mfa.log_prob(X, backend="numpy")
    X[7, 3] = torch.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 7"):
        mfa.log_prob(X)


# --- modules


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_mfa_module(dtype: str, noise: str) -> None:
    mfa = model(noise)
    module, results = mfakit.torch.MFAModule(mfa), []
    X = samples(mfa, dtype=dtype)
    for there in (X.to(CUDA), X.clone()):
        there.requires_grad_()
        log_prob = module.to(there.device)(there)
        (log_prob * torch.arange(len(X), device=there.device)).sum().backward()
        results.append((log_prob, there.grad))
    (got, gradient), (expected, expected_gradient) = results
    assert_is(got, expected)
    assert gradient.dtype == X.dtype
    if dtype in REAL_DTYPES:
        assert_is(gradient, expected_gradient)
    else:  # rounded to a half, which may go either way
        eps = torch.finfo(X.dtype).eps
        torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=2 * eps, atol=eps)


@pytest.mark.parametrize("logits", ["log_likelihood", "scaled"])
def test_classifier_module(logits: str) -> None:
    clf = classifier()
    net = mfakit.torch.BayesClassifierModule(clf, logits)
    X = samples(clf)
    here, there = X.clone().requires_grad_(), X.to(CUDA).requires_grad_()
    expected = net(here)
    got = net.to(CUDA)(there)
    assert_is(got, expected)
    for z in (expected, got):
        (z[:, 1] - z[:, 0]).sum().backward()
    assert_is(there.grad, here.grad)


# --- streams and memory


def keep_busy() -> None:
    """Give torch's current stream work for a while."""
    A = torch.full((BUSY_SIZE, BUSY_SIZE), 1.0 / BUSY_SIZE, device=CUDA)
    for _ in range(BUSY_PRODUCTS):
        A = A @ A


def test_calls_wait_for_the_stream_and_the_stream_for_them() -> None:
    """X is written on torch's stream just before a call, and overwritten just behind it."""
    mfa, clf = model(), classifier()
    module = mfakit.torch.MFAModule(mfa).to(CUDA)
    calls = [(getattr(mfa, function), mfa) for function in FUNCTIONS]
    calls += [(distances(mfa), mfa), (clf.predict, clf), (clf.decision_function, clf), (module, mfa)]
    stream = torch.cuda.Stream(CUDA)
    for function, source in calls:
        X = samples(source, 500).to(CUDA)
        expected = function(X)  # kernels are compiled and factors copied, so that nothing below waits for that
        late = torch.full_like(X, torch.nan)
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            keep_busy()
            late.copy_(X)
            got = function(late)
            late.fill_(torch.nan)
            doubled = 2 * got
        stream.synchronize()
        assert_same(doubled, 2 * expected)


def test_out_is_ready_for_the_stream() -> None:
    mfa = random_mfa(20, 2000, 5, seed=4)
    X = samples(mfa, 4000, "float32").to(CUDA)
    expected = mfa.log_prob(X)
    out = torch.empty_like(expected)
    stream = torch.cuda.Stream(CUDA)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        keep_busy()
        out.fill_(torch.nan)
        doubled = 2 * mfa.log_prob(X, out=out)
    stream.synchronize()
    assert_same(doubled, 2 * expected)


@pytest.mark.parametrize("name", ["log_prob", "grad_log_prob"])
def test_converted_blocks_are_kept_until_they_were_read(name: str) -> None:
    """bfloat16 becomes float32 by torch, whose allocator gives a block's memory to the next block's on its stream."""
    mfa = random_mfa(20, 2000, 5, seed=4)
    X, score = samples(mfa, 4000, "bfloat16").to(CUDA), getattr(mfa, name)
    expected = score(X, block_rows=250)
    stream = torch.cuda.Stream(CUDA)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(5):
            got = score(X, block_rows=250)
            assert_same(got, expected)


def test_backward_on_another_stream() -> None:
    mfa = model()
    module = mfakit.torch.MFAModule(mfa).to(CUDA)
    X = samples(mfa, 500).to(CUDA)
    expected = mfa.grad_log_prob(X)
    module(X.clone().requires_grad_()).sum().backward()
    stream = torch.cuda.Stream(CUDA)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = torch.full_like(X, torch.nan)
        keep_busy()
        late.copy_(X)
        late.requires_grad_()
        (gradient,) = torch.autograd.grad(module(late).sum(), late)
        doubled = 2 * gradient
    stream.synchronize()
    assert_same(doubled, 2 * expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_are_not_copied(dtype: str) -> None:
    X = torch.zeros(5, 12, dtype=getattr(torch, dtype), device=CUDA)
    view = RowBlocks(X)._array
    assert view.data.ptr == X.data_ptr()
    assert view.shape == X.shape
    if dtype in REAL_DTYPES:
        assert RowBlocks(X).block(1, 4).data.ptr == X[1].data_ptr()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_torch_allocates_nothing(function: str) -> None:
    mfa = model()
    X = samples(mfa, 1000).to(CUDA)
    before = X.clone()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    result = getattr(mfa, function)(X)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated() == held
    assert result.shape == result_shape(function, 1000, mfa)
    assert torch.equal(X, before)
