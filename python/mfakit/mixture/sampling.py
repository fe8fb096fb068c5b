"""Samples of a mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._checks import as_generator, check_integers
from .._threads.process import interruptible, single_threaded_products

if TYPE_CHECKING:
    from .mfa import MFA

__all__ = ["as_count", "sample"]

# Values drawn at a time: bounds the float64 temporaries to 64 MiB whatever n is.
CHUNK_VALUES = 2**23
# Components and factors are drawn at once, which for more values than this takes tenths of a second.
LONG_DRAW = 2**22


def sample(
    mfa: MFA, n: int, *, rng: Any = None, noise: bool = True, dtype: Any = np.float32
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw x = A z + μ + η.

    Parameters
    ----------
    mfa : MFA
    n : int
        Number of samples.
    rng : numpy.random.Generator, int or None
        Randomness; the same seed gives the same samples. The global random state is never touched.
    noise : bool
        False leaves out η: points on the components' subspaces.
    dtype : {float32, float64}
        Of the samples; drawn in float64 either way.

    Returns
    -------
    X : [n, d]
    component : int64 [n]
        Which component each sample came from. Both are CuPy arrays for a model on a device (:meth:`mfakit.MFA.to`):
        components and factors are then those of the host, the noise is drawn on the device by a counter-based
        generator from the same `rng`.

    Raises
    ------
    ValueError
        For a negative or fractional n or another dtype.
    """
    n = as_count(n)
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    generator = as_generator(rng, "rng")
    d, l = mfa.n_features, mfa.n_factors
    X = None if mfa.device else np.empty((n, d), dtype)  # first: what does not fit is to fail here
    draw = interruptible if n * (l + 1) > LONG_DRAW else _at_once
    component = draw(generator.choice, mfa.n_components, size=n, p=mfa.weights).astype(np.int64)
    z = draw(generator.standard_normal, (n, l))
    if X is None:
        return _on_device(mfa, component, z, int(generator.integers(2**63)), noise, dtype)
    scale = np.sqrt(mfa.factors.noise)
    step = max(1, CHUNK_VALUES // d)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        X[part] = _points(mfa, component[part], z[part])
        if noise:
            X[part] += generator.standard_normal((part.stop - start, d)) * scale[component[part]]
    return X, component


def _at_once(action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return action(*args, **kwargs)


def as_count(n: Any) -> int:
    """A number of samples, checked.

    Raises
    ------
    ValueError
        For anything but a whole number, negative or beyond any array.
    """
    check_integers({"n": n}, 0, 2**63 - 1)
    return int(n)


def _on_device(mfa: MFA, component: Any, z: Any, key: int, noise: bool, dtype: Any) -> tuple[Any, Any]:
    """The samples of these components and factors on the model's device, with noise from the stream `key`."""
    from ..backends import get_arrays, get_backend
    from ..backends.operands import Parameters

    ops = get_backend("cuda", mfa.device)
    arrays: Any = get_arrays(ops, mfa.device)
    with arrays.active():
        factors = arrays.factors(mfa.factors)
        loadings = factors.keep("loadings", lambda: mfa.loadings.astype(np.float64))
        X, component = arrays.xp.empty((len(z), mfa.n_features), dtype), arrays.asarray(component)
        parameters = Parameters(factors.means, loadings, factors.noise)
        ops.sample_points(component, arrays.asarray(z), parameters, key, noise, X)
        return X, component


def _points(mfa: MFA, component: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    """μ + A z [n, d], one product per component present."""
    points = np.empty((len(z), mfa.n_features))
    with single_threaded_products():  # thin ones, for which threads that wait for a core are no gain
        for j in np.unique(component):
            rows = component == j
            points[rows] = mfa.means[j] + z[rows] @ mfa.loadings[j].T.astype(np.float64, copy=False)
    return points
