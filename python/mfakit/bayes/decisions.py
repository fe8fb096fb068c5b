"""Which class a far sample belongs to, where rounding of the log-densities hides it; see :mod:`mfakit.mixture.far`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.options import Options
from .._arrays.rows import RowBlocks, array_module, to_numpy
from .._threads.process import errstate
from ..backends import get_backend
from ..mixture.evaluator import Evaluator
from ..mixture.far import UNCERTAIN_NATS, Gaussian, RoundedPairs, relative_log_prob
from ..mixture.observed import distinct
from ..mixture.subsets import marginal

if TYPE_CHECKING:
    from .classifier import BayesClassifier

__all__ = ["relative_class_log_prob", "settle"]

Array = NDArray[Any]

# Far samples at a time.
FAR_ROWS = 256
# Log-densities below this, without their sign, are not rounded by more than the tolerance.
FAR_NATS = UNCERTAIN_NATS["float64"] / float(np.finfo(np.float64).eps)


def settle(joint: Any, clf: BayesClassifier, X: Any) -> None:
    """Replace the rows of log prior_c p_c(x) [n, C] whose rounding may hide which class is ahead, or by how much, by
    values less a number for each row.
    """
    xp = array_module(joint)
    top = joint.max(axis=1)
    with errstate(invalid="ignore"):
        # A lead larger than this is rounded by no more than the tolerance times itself.
        width = xp.abs(top) / FAR_NATS
        close = (joint >= (top - width)[:, None]).sum(axis=1) > 1
    rows = xp.nonzero(close & (width > 1.0))[0]
    for start in range(0, len(rows), FAR_ROWS):
        part = rows[start : start + FAR_ROWS]
        far = to_numpy(RowBlocks(X).take(to_numpy(part))).astype(np.float64)
        joint[part] = xp.asarray(_by_patterns(clf, far))


def _by_patterns(clf: BayesClassifier, X: Array) -> Array:
    """:func:`relative_class_log_prob` of samples with missing features, NaN: of the marginal classifiers."""
    patterns, number = distinct(~np.isnan(X))
    joint = np.empty((len(X), clf.n_classes))
    for u, some in enumerate(patterns):
        rows = np.flatnonzero(number == u)
        its = clf if some.all() else type(clf)([marginal(mfa, some) for mfa in clf.mixtures], clf.priors)
        joint[rows] = relative_class_log_prob(its, X[np.ix_(rows, some)])
    return joint


def relative_class_log_prob(clf: BayesClassifier, X: Array) -> Array:
    """log prior_c p_c(x) less a number for each of n samples X [n, d] on the host, [n, C]: from the differences between
    all the components that have a share in their class.
    """
    n, C, mixtures = len(X), clf.n_classes, [m.factors for m in clf.mixtures]
    with errstate(divide="ignore"):
        log_priors = np.log(clf.priors)
    first = np.cumsum([0, *(f.shape[0] for f in mixtures)])
    log_norm = np.concatenate([f.log_norm + p for f, p in zip(mixtures, log_priors, strict=True)])
    labels = np.repeat(np.arange(C), np.diff(first))
    parts = []
    for c, factors in enumerate(mixtures):
        evaluator = Evaluator(factors, get_backend("auto"), np.float64, n, Options(check_finite=False))
        part = evaluator.pairs(evaluator(X))
        parts.append((part.rows, part.components + first[c], part.log_prob + log_priors[c], part.error))
    pairs = RoundedPairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    pairs = pairs.take(pairs.live(log_norm, pairs.rows * C + labels[pairs.components])[0])

    def component(j: int) -> Gaussian:
        c = int(labels[j])
        return mixtures[c].component(j - int(first[c]))

    joint = np.full((n, C), -np.inf)
    relative = relative_log_prob(X, pairs, log_norm, component)
    np.logaddexp.at(joint, (pairs.rows, labels[pairs.components]), relative)
    return joint
