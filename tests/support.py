"""What the tests share: random models, labelled samples, and the one rule for tolerances."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfakit
from mfakit._arrays.containers import to_numpy

Array = NDArray[Any]

# Whether tests of the CUDA backend run on the emulator; see conftest.
EMULATE = os.environ.get("MFAKIT_EMULATE") == "1"


def random_mfa(
    k: int = 4,
    d: int = 12,
    l: int = 3,
    *,
    noise: str = "isotropic",
    sigma: float = 0.3,
    seed: int = 0,
    spread: float = 2.0,
) -> mfakit.MFA:
    """A mixture with distinct components; sigma is the typical standard deviation of the noise."""
    rng = np.random.default_rng(seed)
    shape = (k,) if noise == "isotropic" else (k, d)
    return mfakit.MFA(
        rng.dirichlet(np.full(k, 5.0)),
        rng.normal(size=(k, d)) * spread,
        rng.normal(size=(k, d, l)),
        sigma**2 * rng.uniform(0.5, 2.0, shape),
    )


def blobs(n: int = 120, d: int = 6, n_classes: int = 2, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Normal samples around a corner of its own for each class, and the classes in turn."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, d)) + 2 * np.eye(n_classes, d)[y]).astype(dtype), y


def parameters(mfa: mfakit.MFA) -> tuple[Array, Array, Array, Array]:
    """What the functions of ``mfakit._reference`` take."""
    return mfa.weights, mfa.means.astype(float), mfa.loadings.astype(float), mfa.noise_variance


def rtol(dtype: Any, d: int = 100) -> float:
    """Relative tolerance of a result by its dtype and size: float64 results meet 1e-10 up to d = 100 and beyond it by
    √d; float32 ones a few roundings of the value itself, since what cancels is recomputed in float64.
    """
    if np.dtype(dtype) == np.float64:
        return 1e-10 * max(1.0, d / 100) ** 0.5
    return 4 * float(np.finfo(np.float32).eps)


def device_model(noise: str = "isotropic", dtype: Any = np.float64, n: int = 23) -> tuple[mfakit.MFA, Any]:
    """A mixture and samples of it, for the device's tests."""
    mfa = random_mfa(5, 37, 3, noise=noise, seed=4, spread=0.4)
    return mfa, mfa.sample(n, rng=1, dtype=np.float64)[0].astype(dtype)


def n_colours(pixels: Array) -> int:
    """How many colours a picture [h, w, channels] of values from 0 to 1 has."""
    return len(np.unique(np.rint(255 * pixels.astype(np.float64)) @ 256.0 ** np.arange(pixels.shape[2])))


def place(array: Any) -> tuple[str, str]:
    """The library of an array, and the device that holds it."""
    if isinstance(array, np.ndarray | np.generic | float):
        return "numpy", "host"
    return type(array).__module__.partition(".")[0], str(getattr(array.device, "id", array.device))


def _by_the_rule(expected: Array, dtype: Any) -> tuple[float, float]:
    """rtol and atol, relative to the largest value."""
    return rtol(dtype), rtol(dtype) * float(np.abs(expected[np.isfinite(expected)]).max(initial=1.0))


def close(
    got: Any,
    expected: Any,
    dtype: Any = np.float64,
    *,
    like: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """`got` has the library and device of `like` (NumPy's if None), the shape of `expected` and this dtype; then its
    values, by the one rule or, where tolerances are given, by those alone.
    """
    assert place(got) == (("numpy", "host") if like is None else place(like))
    values, expected = np.asarray(to_numpy(got)), np.asarray(to_numpy(expected))
    assert (values.shape, values.dtype) == (expected.shape, np.dtype(dtype))
    if rtol is None and atol is None:
        rtol, atol = _by_the_rule(expected, dtype)
    np.testing.assert_allclose(values, expected, rtol=rtol or 0.0, atol=atol or 0.0)
