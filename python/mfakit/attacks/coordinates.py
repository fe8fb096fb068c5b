"""A Bayes classifier of isotropic mixtures in factor coordinates (see csrc/include/mfakit/coordinates.hpp).

∇ log N(x; μ_j) lies in the span of x - μ_j and A_j, so a walk along such gradients never leaves x₀ + span of all
columns [U_1, μ_1 - c, U_2, ...]. The Gram matrix of the columns is computed once per classifier, and a sample's inner
products with them once per sample; no array has length d after that until x_adv = c + α (x₀ - c) + w · columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._arrays.gram import gram
from .._arrays.rows import array_module
from .._threads.process import errstate
from ..backends.host_arrays import Host
from ..bayes.classifier import BayesClassifier
from ..mixture.factors import thin_svd
from .rounding import ROUNDING, normaliser_sizes, tilt

__all__ = ["GRAM_BYTES", "FactorCoordinates", "gram_bytes", "why_not"]

Array = Any  # NumPy's or, on a device, CuPy's

# The Gram matrix and its columns may take this much; set it higher where there is memory, see `gram_bytes`.
GRAM_BYTES = 4 * 2**30
# Factor coordinates are used if inner products round log-densities by at most this many nats near a component's own
# samples; otherwise the d features are, where distances are taken from each mean.
MOST_NATS = 0.1
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class FactorCoordinates:
    """What the kernels in factor coordinates read; all float64. K components of all classes, C = K (l + 1) columns.

    Attributes
    ----------
    center : [d]
    columns : [C, d]
        Of component j: l orthonormal rows U_j spanning A_j, then μ_j - center. Rows with S² below a quarter of a
        rounding of σ² are zero: they change log p by less than ROUNDING covers.
    gram : [C, C]
    offset : [C]
        Of the Gram matrix, each column's inner product with its component's μ - center.
    variance : [K]
        σ².
    gain, spread : [K, l]
        1/σ² - 1/(S² + σ²) and 1/(S² + σ²), S the singular values of A_j.
    log_const : [K]
        log prior + log weight - ½ log det(2π (A Aᵀ + σ² I)).
    first : int64 [n_classes + 1]
        Where each class's components begin.
    tilt, size : [K]
        How far rounding moves log p, see :mod:`mfakit.attacks.rounding`.
    reach : float
        The most that ‖μ - center‖ and a component's longest loading come to together, in units of its σ.
    """

    center: Array
    columns: Array
    gram: Array
    offset: Array
    variance: Array
    gain: Array
    spread: Array
    log_const: Array
    first: Array
    tilt: Array
    size: Array
    reach: float
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, clf: BayesClassifier) -> FactorCoordinates:
        """The coordinates of a classifier, computed once and kept with it."""
        if clf._coordinates is None:
            clf._coordinates = cls._make(clf)
        kept: FactorCoordinates = clf._coordinates
        return kept

    @classmethod
    def _make(cls, clf: BayesClassifier) -> FactorCoordinates:
        first = np.cumsum([0, *(m.n_components for m in clf.mixtures)])
        K, l, d = int(first[-1]), max(m.n_factors for m in clf.mixtures), clf.n_features
        center = sum(p * m.factors.center for p, m in zip(clf.priors, clf.mixtures, strict=True))
        columns = np.zeros((K, l + 1, d))
        variance, singular, log_const = np.empty(K), np.zeros((K, l)), np.empty(K)
        tilts, sizes = np.zeros(K), np.empty(K)
        with errstate(divide="ignore"):
            for log_prior, begin, m in zip(np.log(clf.priors), first, clf.mixtures, strict=False):
                part = slice(begin, begin + m.n_components)
                variance[part] = m.factors.noise[:, 0]
                for j in (begin + m.live).tolist():  # without weight the parameters may be anything
                    columns[j, :l], singular[j], tilts[j] = _spanning_rows(
                        m.loadings[j - begin], l, variance[j : j + 1]
                    )
                columns[part, l] = m.factors.means - center
                log_const[part] = m.factors.log_norm + log_prior
                sizes[part] = normaliser_sizes(m, float(np.exp(log_prior)))
        flat = columns.reshape(-1, d)
        spread = 1.0 / (singular**2 + variance[:, None])
        gain = singular**2 * spread / variance[:, None]
        lengths = np.linalg.norm(columns[:, l], axis=1) + singular.max(axis=1, initial=0.0)
        reach = float((lengths / np.sqrt(variance))[log_const > -np.inf].max(initial=0.0))
        products, means = gram(flat), np.repeat(np.arange(K) * (l + 1) + l, l + 1)
        offset = products[np.arange(len(flat)), means]
        return cls(
            np.asarray(center), flat, products, offset, variance, gain, spread, log_const, first.astype(np.int64),
            tilts, sizes, reach,
        )  # fmt: skip

    def on(self, arrays: Host) -> FactorCoordinates:
        """The same on the device of a backend's arrays; the copy is made once per device."""
        if not arrays.is_device:
            return self
        if arrays.name not in self.cache:
            names = ("center", "columns", "gram", "offset", "variance", "gain", "spread", "log_const", "first")
            there = {name: arrays.asarray(getattr(self, name)) for name in names}
            arrays.synchronize()  # other streams may be the next to read them
            self.cache[arrays.name] = replace(self, **there, cache={})
        kept: FactorCoordinates = self.cache[arrays.name]
        return kept

    @property
    def kernel_arguments(self) -> tuple[Array, ...]:
        """gram, offset, variance, gain, spread, log_const, first: how every kernel in these coordinates begins."""
        return self.gram, self.offset, self.variance, self.gain, self.spread, self.log_const, self.first

    def project(self, X: Array) -> tuple[Array, Array]:
        """Inner products [n, C] of X - center with the columns, and squared lengths [n]; X [n, d] float64."""
        V = X - self.center
        return V @ self.columns.T, array_module(V).einsum("nd,nd->n", V, V)

    def points(self, X: Array, alpha: Array, w: Array) -> Array:
        """center + α (X - center) + w · columns, [n, d]."""
        P = w @ self.columns
        P += alpha[:, None] * (X - self.center)
        return P + self.center


def _spanning_rows(A: Array, width: int, variance: Array) -> tuple[Array, Array, float]:
    """Orthonormal rows [width, d] that span A [d, l], its singular values [width] and the tilt of the rows by rounding;
    zeros for singular values that are negligible beside the noise's `variance` [1].
    """
    rows, values = np.zeros((width, len(A))), np.zeros(width)
    if not A.shape[1]:
        return rows, values, 0.0
    A = np.asarray(A, np.float64)
    U, S, Vt = thin_svd(A)
    used = int((0.25 * EPS * variance < S * S).sum())
    rows[:used], values[:used] = U.T[:used], S[:used]
    return rows, values, tilt(A, variance, U, S / np.sqrt(variance), Vt)


def gram_bytes(clf: BayesClassifier) -> int:
    """Memory that the factor coordinates of a classifier need."""
    size = sum(m.n_components for m in clf.mixtures) * (max(m.n_factors for m in clf.mixtures) + 1)
    return 8 * size * (size + clf.n_features)


def why_not(clf: Any) -> str | None:
    """None if a classifier has factor coordinates, else one sentence."""
    if not isinstance(clf, BayesClassifier):
        return f"{type(clf).__name__} is not a BayesClassifier"
    if not all(m.is_isotropic for m in clf.mixtures):
        return "its noise is diagonal, so gradients leave the span of the loadings"
    needed = gram_bytes(clf)
    if needed > GRAM_BYTES:
        return (
            f"the Gram matrix of its columns and the columns need {needed / 2**30:.1f} GiB, over the limit of "
            f"{GRAM_BYTES / 2**30:.1f} GiB (mfakit.attacks.coordinates.GRAM_BYTES)"
        )
    reach = FactorCoordinates.of(clf).reach
    if not ROUNDING * reach**2 <= MOST_NATS:
        return (
            f"its means and loadings reach {reach:.1e} noise standard deviations from their centre, so inner products "
            "round its log-densities too much"
        )
    return None
