"""Where fitting starts: groups of a random sample, each described by the truncated PPCA of its members."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..mixture.mfa import MFA
from .groups import group_rows
from .ppca import truncated_ppca
from .source import Source

__all__ = ["initial_mfa"]

Array = NDArray[Any]


def initial_mfa(
    source: Source, k: int, l: int, *, isotropic: bool, method: str, floor: float, rng: np.random.Generator
) -> MFA:
    """A mixture to start from: a seeded sample of the rows in k groups, each described by :func:`truncated_ppca`.

    The groups are those of k-means (``method="kmeans"``) or of the nearest of k random samples (``"random"``).
    A group that l factors describe without error (too few distinct samples) takes over the noise of the others.
    """
    X, weights = source.sample(rng, least=4 * k * (l + 1))
    w = np.ones(len(X)) if weights is None else weights
    labels, seeds = group_rows(X, w, k, method, rng)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=k))[:-1])
    groups = [rows if len(rows) else seeds[j : j + 1] for j, rows in enumerate(members)]
    means, loadings, noise = truncated_ppca(X, groups, w, l, rng)
    mass, left = np.bincount(labels, w, minlength=k), noise.sum(axis=1)
    reliable = left > 1e-10 * (left + (loadings**2).sum(axis=(1, 2)))
    loadings[~reliable] = 0.0
    share = mass * reliable
    noise[~reliable] = share @ noise / share.sum() if share.any() else source.survey.variance
    noise = np.maximum(noise.mean(axis=1) if isotropic else noise, floor)
    _fill_loadings(loadings, noise.reshape(k, -1).mean(axis=1), rng)
    mass = np.maximum(mass, w.sum() / len(w))  # an empty group gets the weight of one sample
    return MFA(mass / mass.sum(), means, loadings, noise)


def _fill_loadings(loadings: Array, noise: Array, rng: np.random.Generator) -> None:
    """Give columns of zeros, which EM would never leave, a random direction of a tenth of the noise's deviation."""
    for j, a in np.argwhere(~loadings.any(axis=1)):
        direction = rng.standard_normal(loadings.shape[1])
        loadings[j, :, a] = 0.1 * np.sqrt(noise[j]) * direction / np.linalg.norm(direction)
