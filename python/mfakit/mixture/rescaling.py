"""A change of the data's unit and origin, as a change of the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .mfa import MFA

__all__ = ["as_range", "rescaled"]


def as_range(low: Any, high: Any) -> tuple[float, float]:
    """The numbers low and high - low of a change of variables x → (x - low) / (high - low).

    Raises
    ------
    ValueError
        For anything but two finite numbers with low < high.
    """
    if np.ndim(low) or np.ndim(high):
        raise ValueError(
            "rescaled needs two numbers low and high, because a scale of its own for each feature would deform the "
            f"balls that radii measure, got shapes {np.shape(low)} and {np.shape(high)}"
        )
    try:
        start, width = float(low), float(high) - float(low)
    except (TypeError, ValueError):
        start = width = math.nan
    if not (math.isfinite(start) and 0.0 < width < math.inf):
        raise ValueError(f"rescaled needs finite numbers with low < high, got {low!r} and {high!r}")
    return start, width


def rescaled(mfa: MFA, low: float, high: float) -> MFA:
    """The density of (x - low) / (high - low) for samples x of the mixture: its means move, and means, loadings and
    the noise's standard deviations are divided by the width.

    Parameters
    ----------
    mfa : MFA
    low, high : float
        What becomes 0 and 1.

    Returns
    -------
    MFA
        With parameters in float64, on the same device.

    Raises
    ------
    ValueError
        For anything but two finite numbers with low < high.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([1.0], [[0.0, 255.0]], np.zeros((1, 2, 0)), 255.0**2)
    >>> unit = mfa.rescaled(0, 255)
    >>> unit.means, unit.noise_variance
    (array([[0., 1.]]), array([1.]))
    """
    start, width = as_range(low, high)
    return mfa.replace(
        means=(mfa.means.astype(np.float64) - start) / width,
        loadings=mfa.loadings.astype(np.float64) / width,
        noise_variance=mfa.noise_variance / width**2,
    )
