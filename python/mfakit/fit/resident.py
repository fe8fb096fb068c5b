"""EM on a device: the sums of a step stay there, and so does the mixture that the M-step makes of them. What is read
has a number or a small matrix for each component.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from .._threads.process import single_threaded_products
from ..backends.cuda_arrays import Cuda
from ..backends.host_arrays import Host
from ..mixture.factors import component_parts
from ..mixture.mfa import MFA
from ..mixture.resident import PART_VALUES, ResidentMFA
from .statistics import Statistics

__all__ = ["on_host", "place", "resident_maximization"]

Array = Any
_logger = logging.getLogger("mfakit")

# Arrays as large as the loadings, in float64, that a step holds at its peak: loadings and W of the old model and of the
# new one; the sums, those of a block and of its parts; and what is between them.
COPIES = 10


def place(mfa: MFA, arrays: Host) -> MFA:
    """The mixture on the device that `arrays` are of, if a step of EM fits there; else, and on the host, itself."""
    if not isinstance(arrays, Cuda) or isinstance(mfa, ResidentMFA):
        return mfa
    values = mfa.n_components * (mfa.n_factors + 2) * mfa.n_features
    with arrays.active():
        if 8 * COPIES * values > arrays.engine.free_bytes():
            _logger.info("EM: the model is too large to stay on %s", arrays.name)
            return mfa
        try:
            return ResidentMFA.of(mfa, arrays)
        except arrays.out_of_memory:
            _logger.warning("%s is out of memory: the M-step of EM is computed on the host", arrays.name)
    return mfa


def on_host(mfa: MFA) -> MFA:
    """The mixture as one that has nothing to do with a device."""
    return mfa.plain() if isinstance(mfa, ResidentMFA) else mfa


def resident_maximization(stats: Statistics, floor: float, moments: Array, inverse: Array) -> ResidentMFA | None:
    """The M-step on the device that the sums are on, see :mod:`.em`; `moments` [c, l, l] are S_zz of the components
    that have samples. None where the device is out of memory.
    """
    arrays = stats.arrays
    assert isinstance(arrays, Cuda)
    try:
        with arrays.active(), single_threaded_products():
            return _maximization(stats, floor, moments, inverse, arrays)
    except arrays.out_of_memory:
        _logger.warning("%s is out of memory: an M-step is computed on the host", arrays.name)
    arrays.release()
    return None


def _maximization(stats: Statistics, floor: float, moments: Array, inverse: Array, arrays: Cuda) -> ResidentMFA:
    """All components alike: those without samples have zeros for moments and inverse, and keep what they had."""
    old, xp = stats.mfa, arrays.xp
    assert isinstance(old, ResidentMFA)
    means, rows, noise = old.there
    (k, l, d), present = rows.shape, stats.present
    share, S, S_inverse = np.zeros(k), np.zeros((k, l, l)), np.zeros((k, l, l))
    share[present], S[present], S_inverse[present] = 1.0 / stats.weight[present], moments, inverse
    there, share, z, S, S_inverse = (
        arrays.asarray(a) for a in (share[:, None] > 0, share[:, None], stats.sum_z * share[:, None], S, S_inverse)
    )
    means, rows, noise = means.copy(), rows.copy(), xp.maximum(noise, floor)
    for p in component_parts(k, max(l, 1) * d, PART_VALUES):
        shift = stats.sum_x[p] * share[p]
        S_zx = stats.sum_xz[p] * share[p][:, :, None] - z[p][:, :, None] * shift[:, None, :]
        A = xp.matmul(S_inverse[p], S_zx)
        A += xp.matmul(S_inverse[p], S_zx - xp.matmul(S[p], A))
        residual = stats.sum_xx[p] * share[p] - shift**2 - (A * S_zx).sum(axis=1)
        if old.is_isotropic:
            residual = residual.mean(axis=1)[:, None]
        means[p] += shift
        rows[p] = xp.where(there[p][:, :, None], A, rows[p])
        noise[p] = xp.where(there[p], xp.maximum(residual, floor), noise[p])
    return ResidentMFA(stats.weight / stats.weight.sum(), means, rows, noise, arrays)
