"""The density on torch's tensors: what is taken, what is refused, and what torch's settings may not do."""

from __future__ import annotations

import numpy as np
import pytest
from density_cases import FUNCTIONS, REAL_DTYPES, result_shape, samples
from support import random_mfa

import mfakit
from mfakit._arrays.rows import RowBlocks


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_torch_in_torch_out(function: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    X = samples(mfa, dtype=dtype)
    tensor = torch.from_numpy(X)
    got = getattr(mfa, function)(tensor)
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), getattr(mfa, function)(X), strict=True)
    transposed = torch.from_numpy(np.ascontiguousarray(X.T)).T
    np.testing.assert_array_equal(getattr(mfa, function)(transposed).numpy(), got.numpy())
    out = torch.zeros(result_shape(function, len(X), mfa), dtype=tensor.dtype)
    assert getattr(mfa, function)(tensor, out=out) is out
    np.testing.assert_array_equal(out.numpy(), got.numpy())


def test_torch_tensors_are_not_copied() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(5, 12)
    assert np.shares_memory(RowBlocks(tensor).block(1, 4), tensor.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "uint8"])
def test_other_torch_numbers_are_computed_in_float32(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    tensor = torch.from_numpy(np.abs(samples(mfa))).to(getattr(torch, dtype))
    got = mfa.log_prob(tensor, block_rows=5)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), mfa.log_prob(tensor.float().numpy(), block_rows=5))


def test_torch_tensors_that_are_refused() -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    X = torch.zeros(2, 12)
    with pytest.raises(TypeError, match=r"requires grad.*X\.detach\(\)"):
        mfa.log_prob(X.clone().requires_grad_())
    with pytest.raises(TypeError, match="real numbers"):
        mfa.log_prob(X.bool())
    with pytest.raises(TypeError, match="real numbers"):
        mfa.log_prob(X.to(torch.complex64))
    with pytest.raises(TypeError, match="dense"):
        mfa.log_prob(X.to_sparse())
    with pytest.raises(mfakit.BackendUnavailable, match="meta"):
        mfa.log_prob(X.to("meta"))
    with pytest.raises(ValueError, match=r"X must be \[n, 12\]"):
        mfa.log_prob(X[:, :3])


def test_global_settings_of_torch_change_nothing(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa(6, 300, 4, sigma=0.01)
    tensor = torch.from_numpy(mfa.sample(50, rng=0)[0])
    expected = [getattr(mfa, function)(tensor, backend=backend) for function in FUNCTIONS]
    precision, default = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)
        for function, value in zip(FUNCTIONS, expected, strict=True):
            got = getattr(mfa.replace(), function)(tensor, backend=backend)
            assert got.dtype == torch.float32
            np.testing.assert_array_equal(got.numpy(), value.numpy())
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(default)


def test_tensors_without_values() -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa()
    X = torch.empty(3, mfa.n_features, device="meta")
    with pytest.raises(mfakit.BackendUnavailable, match="X is on meta, where tensors have no values"):
        mfa.log_prob(X)
    clf = mfakit.BayesClassifier([mfa, random_mfa(seed=1)])
    with pytest.raises(mfakit.BackendUnavailable, match=r"got a tensor of shape \(3,\) on meta"):
        clf.score(np.zeros((3, mfa.n_features)), X[:, 0])
