"""A classifier as the path in the d features needs it: components of all classes are numbered through, K in all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...bayes.classifier import BayesClassifier
from ...mixture.factors import thin_svd
from ..rounding import ROUNDING, normaliser_sizes, tilt

__all__ = ["Components", "Side", "log_sum_exp"]

Array = NDArray[Any]


def log_sum_exp(values: Array) -> Array:
    """Log Σ exp over the last axis; -inf where all are."""
    top = values.max(axis=-1, initial=-np.inf)
    safe = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(np.exp(values - safe[..., None]).sum(axis=-1)))


class Components:
    """The K components of a classifier.

    Attributes
    ----------
    means, inv_noise : [K, d]
        μ and 1/D.
    log_const : [K]
        log prior + log weight - ½ log det(2π Σ); -inf for a component that does not occur.
    whitened_by_class : tuple of [k, l, d]
        W of each class's components.
    steepness : [K]
        √max 1/D: how fast the root of a Mahalanobis distance can change along a unit vector, at most.
    tilt, size : [K]
        How far rounding moves log p, see :mod:`mfakit.attacks.rounding`; and l of each component with it.
    owner, first : int64 [K], [C + 1]
        The class of each component, and where each class's components begin.
    compiled : bool
        Whether compiled code computes with them where there is some.
    """

    def __init__(self, clf: BayesClassifier, compiled: bool = False) -> None:
        self.compiled = compiled
        factors = [m.factors for m in clf.mixtures]
        counts = [m.n_components for m in clf.mixtures]
        self.first = np.cumsum([0, *counts])
        self.owner = np.repeat(np.arange(len(counts)), counts)
        self.means = np.concatenate([f.means for f in factors])
        d = self.means.shape[1]
        self.inv_noise = np.concatenate([np.broadcast_to(1.0 / f.noise, (len(f.noise), d)) for f in factors])
        with np.errstate(divide="ignore"):
            log_priors = np.log(clf.priors)
        self.log_const = np.concatenate([f.log_norm + p for f, p in zip(factors, log_priors, strict=True)])
        self.steepness = np.sqrt(self.inv_noise.max(axis=1))
        self.whitened_by_class = tuple(f.whitened for f in factors)  # [k, l, d] by class, not copied
        self.tilt = np.array([_tilt(A, D) if weight > 0 else 0.0 for m, f in zip(clf.mixtures, factors, strict=True)
                              for weight, A, D in zip(m.weights, m.loadings, f.noise, strict=True)])  # fmt: skip
        sizes = [normaliser_sizes(m, float(p)) for m, p in zip(clf.mixtures, clf.priors, strict=True)]
        l = np.repeat([m.n_factors for m in clf.mixtures], counts)
        self.size = np.concatenate(sizes) + l * self.tilt / ROUNDING

    def members(self, c: int) -> Array:
        """The components of class c that occur."""
        numbers = np.arange(self.first[c], self.first[c + 1])
        return numbers[self.log_const[numbers] > -np.inf]

    def same_density(self, s: int, t: int) -> bool:
        """Whether two components have the same parameters, so that log p_t - log p_s is the same everywhere."""
        parts = ((self.means[s], self.means[t]), (self.inv_noise[s], self.inv_noise[t]))
        return all(map(np.array_equal, *zip(*parts, strict=True))) and np.array_equal(
            self.whitened(s), self.whitened(t)
        )

    def whitened(self, j: int) -> Array:
        """W_j [l, d]."""
        c = self.owner[j]
        return np.asarray(self.whitened_by_class[c][j - self.first[c]])

    def latents(self, v: Array) -> list[Array]:
        """W_j v by class, [k, l] each, for v [d]."""
        return [(W.reshape(-1, W.shape[2]) @ v).reshape(W.shape[:2]) for W in self.whitened_by_class]

    def own_latents(self, v: Array) -> list[Array]:
        """W_j v_j by class, [k, l] each, for v [K, d]."""
        parts = np.split(v, self.first[1:-1])
        return [(W @ part[:, :, None])[:, :, 0] for W, part in zip(self.whitened_by_class, parts, strict=True)]

    def squared_latents(self, v: Array) -> Array:
        """‖W_j v‖² [n, K] for v [n, d]."""
        parts = [(v @ W.reshape(-1, W.shape[2]).T).reshape(len(v), *W.shape[:2]) for W in self.whitened_by_class]
        return np.concatenate([np.einsum("nkl,nkl->nk", y, y) for y in parts], axis=1)

    def back(self, y: list[Array]) -> Array:
        """W_jᵀ y_j [K, d] of what :meth:`own_latents` returns."""
        return np.concatenate([(part[:, None] @ W)[:, 0] for W, part in zip(self.whitened_by_class, y, strict=True)])

    def class_totals(self, log_prob: Array) -> Array:
        """Log p of every class, [..., C], from log p of the components, [..., K]."""
        parts = [log_sum_exp(log_prob[..., a:b]) for a, b in zip(self.first[:-1], self.first[1:], strict=True)]
        return np.stack(parts, axis=-1)


class Side(NamedTuple):
    """Which points count as flips: those that are not decided for class `cls` or, with the sign -1, that are."""

    cls: int
    sign: float = 1.0

    def lead(self, totals: Array) -> Array:
        """By how much a flip is ahead, [...], nats, from log p of the classes [..., C]."""
        others = totals.copy()
        others[..., self.cls] = -np.inf
        return np.asarray(self.sign * (others.max(axis=-1) - totals[..., self.cls]))

    def winner(self, totals: Array) -> int:
        """The class that a flip is decided for, from log p of the classes [C]."""
        others = totals.copy()
        others[self.cls] = -np.inf
        return int(others.argmax()) if self.sign > 0.0 else self.cls


def _tilt(A: Array, noise: Array) -> float:
    """How far rounding tilts the whitened loadings of A [d, l] that :func:`mfakit.mixture.factors.factorize` makes."""
    if not A.shape[1]:
        return 0.0
    U, S, Vt = thin_svd(np.asarray(A, np.float64) / np.sqrt(noise)[:, None])
    return tilt(A, noise, U, S, Vt)
