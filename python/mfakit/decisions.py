"""Which class a far sample belongs to, where the rounding of the log-densities hides it; see :mod:`mfakit.far`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._options import Options
from .backends import get_backend
from .evaluator import Evaluator
from .factors import Factors
from .far import UNCERTAIN_NATS, Gaussian, Pairs, relative_log_prob

__all__ = ["relative_class_log_prob", "undecided_rows"]

Array = NDArray[Any]


def undecided_rows(joint: Any, xp: Any) -> Any:
    """The rows of log prior_c p_c(x) [n, C] in which the rounding of the largest may be more than UNCERTAIN_NATS, also
    relative to its lead.
    """
    top = joint.max(axis=1)
    with np.errstate(invalid="ignore"):
        width = xp.abs(top) * (np.finfo(np.float64).eps / UNCERTAIN_NATS)
        close = (joint >= (top - width)[:, None]).sum(axis=1) > 1
    return xp.nonzero(close & (width > 1.0))[0]


def relative_class_log_prob(mixtures: Sequence[Factors], log_priors: Array, X: Array) -> Array:
    """log prior_c p_c(x) less a number for each of n samples X [n, d] on the host, [n, C]: from the differences between
    all the components that have a share in their class.
    """
    n, C = len(X), len(mixtures)
    first = np.cumsum([0, *(f.shape[0] for f in mixtures)])
    log_norm = np.concatenate([f.log_norm + p for f, p in zip(mixtures, log_priors, strict=True)])
    labels = np.repeat(np.arange(C), np.diff(first))
    parts = []
    for c, factors in enumerate(mixtures):
        evaluator = Evaluator(factors, get_backend("auto"), np.float64, n, Options(check_finite=False))
        part = evaluator.pairs(evaluator(X))
        parts.append((part.rows, part.components + first[c], part.log_prob + log_priors[c], part.error))
    pairs = Pairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    pairs = pairs.take(pairs.live(log_norm, pairs.rows * C + labels[pairs.components])[0])

    def component(j: int) -> Gaussian:
        c = labels[j]
        return mixtures[c].component(j - first[c])

    joint = np.full((n, C), -np.inf)
    relative = relative_log_prob(X, pairs, log_norm, component)
    np.logaddexp.at(joint, (pairs.rows, labels[pairs.components]), relative)
    return joint
