"""The mixtures of the two variants of a Bayes classifier (appendix B.2), and the scales that they take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..mixture.rescaling import as_range
from .parameters import OUTLIER

if TYPE_CHECKING:
    from ..mixture.mfa import MFA
    from .classifier import BayesClassifier

__all__ = ["asymmetric_mixtures", "rescaled_parts", "symmetric_mixtures"]

Array = NDArray[Any]

# A component of at most this weight pads a model; the paper's code makes the same distinction.
PADDING_WEIGHT = 1e-10


def symmetric_mixtures(clf: BayesClassifier, sigma: float, uniform_weights: bool) -> list[MFA]:
    """The classes' mixtures with noise σ²; see :meth:`BayesClassifier.symmetric`."""
    variance = _as_sigma(sigma) ** 2
    return [
        m.replace(weights=_uniform(m.weights) if uniform_weights else m.weights, noise_variance=variance)
        for m in clf.mixtures
    ]


def asymmetric_mixtures(clf: BayesClassifier, X_train: Any, scale: float, sigma: float, direction: int) -> list[MFA]:
    """The classes' mixtures with an outlier component each; see :meth:`BayesClassifier.asymmetric`."""
    from .outliers import outlier_step, with_outlier  # on first use: few need it

    if clf.n_classes != 2:
        raise ValueError(f"the asymmetric variant is defined for two classes, got {clf.n_classes}")
    sigma = _as_sigma(sigma)
    if not math.isfinite(_as_float(scale)):
        raise ValueError(f"scale must be a finite number, got {scale!r}")
    mean, step = outlier_step(clf, X_train, direction)
    step = float(scale) * step
    return [with_outlier(m, mean + sign * step, sigma) for m, sign in zip(clf.mixtures, (1, -1), strict=True)]


def rescaled_parts(clf: BayesClassifier, low: float, high: float) -> tuple[list[MFA], dict[str, Array]]:
    """The classes' mixtures and the extras in other units; see :meth:`BayesClassifier.rescaled`."""
    start, width = as_range(low, high)
    extras, (mean, step, _) = clf.extras, OUTLIER
    if mean in extras:
        extras[mean] = (extras[mean].astype(np.float64) - start) / width
    if step in extras:
        extras[step] = extras[step].astype(np.float64) / width
    return [m.rescaled(low, high) for m in clf.mixtures], extras


def _uniform(weights: Array) -> Array:
    """Equal weights for the components that are not padding, which keeps its own."""
    used = weights > PADDING_WEIGHT
    values = np.where(used, 1.0 / used.sum(), weights)
    return np.asarray(values / values.sum())


def _as_float(value: Any) -> float:
    """A real number of any kind as a float, which comparisons with Python's numbers need; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _as_sigma(sigma: Any) -> float:
    value = _as_float(sigma)
    if not 1e-150 <= value <= 1e150:
        raise ValueError(
            f"sigma must be positive, a number from 1e-150 to 1e150, got {sigma!r}; the limit σ → 0 is what "
            "subspace_distances computes"
        )
    return value
