"""Random classifiers of few features whose scales differ by many orders of magnitude, and samples to certify."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfakit

Array = NDArray[Any]

KINDS = ("plain", "wild", "long columns", "shared", "far means", "mixed noise", "narrow", "thin")


def scaled_classifier(seed: int, diagonal: bool = False) -> tuple[mfakit.BayesClassifier, Array, str]:
    """A classifier, samples X [n, d] and its kind. What most of them have in common: differences between the classes
    that are of the order of the noise, beside parameters that are many orders of magnitude larger.
    """
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    d, n_classes = int(rng.integers(1, 4)), int(rng.choice([2, 2, 3, 4]))
    if kind == "thin":
        return *_thin(rng), kind
    unit = {"plain": 1.0}.get(kind, 10.0 ** rng.uniform(-8, 3))  # the least noise
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0] if rng.random() < 0.7 else np.eye(d)
    l_shared = int(rng.integers(0, d + 1))
    base_length = (
        10.0 ** rng.uniform(-8, 8, d) if kind in ("long columns", "shared") else unit * 10.0 ** rng.uniform(0, 2, d)
    )
    offset = rng.normal(size=d) * (10.0 ** rng.uniform(0, 6) if kind == "far means" else 0.0)
    mixtures = []
    for _ in range(n_classes):
        k, l = int(rng.integers(1, 4)), l_shared if rng.random() < 0.7 else int(rng.integers(0, d + 1))
        loadings = np.zeros((k, d, l))
        for j in range(k):
            own = (
                turn
                if rng.random() < 0.6
                else np.linalg.qr(turn + rng.normal(size=(d, d)) * 10.0 ** rng.uniform(-14, 0))[0]
            )
            lengths = (
                10.0 ** rng.uniform(-8, 8, d)
                if kind == "wild"
                else base_length * (1 if kind == "shared" and rng.random() < 0.5 else 10.0 ** rng.uniform(-1, 1, d))
            )
            loadings[j] = (own * lengths)[:, :l]
        if l and rng.random() < 0.2:
            loadings[rng.integers(k), :, rng.integers(l)] = 0.0
        if l > 1 and rng.random() < 0.2:
            loadings[0, :, 1] = loadings[0, :, 0] * rng.choice([1.0, -2.0])
        sigma = unit * (
            10.0 ** rng.uniform(-1, 1, k)
            if kind == "mixed noise"
            else 10.0 ** rng.uniform(0, 6, k)
            if kind == "narrow"
            else np.ones(k) * rng.choice([1, 1, 2])
        )
        if kind == "wild":
            sigma = 10.0 ** rng.uniform(-8, 3, k)
        means = offset + rng.normal(size=(k, d)) * unit * 10.0 ** rng.uniform(0, 1.5)
        if kind == "far means":
            means += rng.normal(size=(k, d)) * (rng.random((k, 1)) < 0.3) * 1e6
        if kind == "wild":
            means = rng.normal(size=(k, d)) * 10.0 ** rng.uniform(-8, 6)
        noise = np.asarray(sigma) ** 2
        if diagonal:
            noise = noise[:, None] * 10.0 ** (rng.uniform(-3, 3, (k, d)) * (1 if kind != "plain" else 0.3))
        weights = rng.dirichlet(np.ones(k))
        if k > 1 and rng.random() < 0.15:
            weights[rng.integers(k)] = 0.0
            weights /= weights.sum()
        mixtures.append(mfakit.MFA(weights, means, loadings, noise))
    if rng.random() < 0.05:
        mixtures[1] = mixtures[0]  # ties
    priors = rng.dirichlet(np.ones(n_classes)) if rng.random() < 0.5 else None
    clf = mfakit.BayesClassifier(mixtures, priors)
    X = [m.means[rng.integers(m.n_components)] for m in mixtures]
    for m in mixtures:
        j = rng.integers(m.n_components)
        noise_j = np.sqrt(np.broadcast_to(np.asarray(m.noise_variance).reshape(m.n_components, -1)[j], (d,)))
        X.append(m.means[j] + m.loadings[j] @ rng.normal(size=m.n_factors) + noise_j * rng.normal(size=d))
        X.append(m.means[j] + noise_j * rng.normal(size=d))
    X.append(
        X[0]
        + (rng.normal(size=d) if rng.random() < 0.5 else 1e3 * rng.normal(size=d)) * unit * 10.0 ** rng.uniform(0, 4)
    )
    pick = rng.permutation(len(X))[:3]
    return clf, np.array(X)[pick], kind


def _thin(rng: np.random.Generator) -> tuple[mfakit.BayesClassifier, Array]:
    """Both classes share a long direction; in another one, of the size of what separates them, only one has a column,
    and next to no noise of its own.
    """
    d, unit = int(rng.integers(2, 4)), 10.0 ** rng.uniform(-6, 2)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0] if rng.random() < 0.6 else np.eye(d)
    long = unit * 10.0 ** rng.uniform(2, 13)
    both = np.stack([long * turn[0], unit * turn[1]], axis=1)
    one = both * [1.0, 0.0]
    means = np.array([-3.0, 3.0])[:, None] * unit * turn[1]
    noise = unit**2, (unit * 10.0 ** rng.uniform(-9, -1)) ** 2
    mixtures = [mfakit.MFA([1.0], m[None], A[None], v) for m, A, v in zip(means, (one, both), noise, strict=True)]
    mixtures = mixtures[:: rng.choice([1, -1])]
    spread = unit * 10.0 ** rng.uniform(-2, 0.5)
    X = np.concatenate(
        [means, means[:1] + spread * rng.normal(size=(1, d)), means[1:] + long * rng.normal() * turn[:1]]
    )
    return mfakit.BayesClassifier(mixtures), X[rng.permutation(4)[:3]]
