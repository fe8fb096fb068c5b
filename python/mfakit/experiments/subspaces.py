"""Pairs of mixtures with any number of subspaces a side: drawn, fitted by EM, or fitted to neighbourhoods of images.

The first components of a pair of k are those of every smaller pair: what changes with k is k.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import load_mnist
from ..mixture.factors import thin_svd
from ..mixture.mfa import MFA
from .pairs import open_pairs

__all__ = ["DIGITS", "RANDOM", "first_of", "most_components", "open_sides", "random_dimension"]

Array = NDArray[Any]

# Names of pairs that are made: "random-784" has 784 features; the other has even and odd MNIST digits on its sides.
RANDOM, DIGITS = "random-", "digits"
# Standard deviation of a feature of the random means, about that of images' pixels.
SPREAD = 0.25
# Components that are drawn by one generator, and made together.
BLOCK = 100
# Images of a neighbourhood over its factors.
NEIGHBOURS = 3
# Values of the means of a side: 1,017 components of 49,152 features.
MOST_VALUES = 50_000_000
DIGIT_FEATURES, DIGITS_A_SIDE = 784, 29_000


def random_dimension(name: str) -> int | None:
    """The number of features of a random pair by its name; None for other pairs."""
    digits = name.removeprefix(RANDOM)
    if digits == name:
        return None
    if not digits.isdecimal() or not 1 <= int(digits) <= MOST_VALUES:
        raise ValueError(f"models such as {RANDOM}784 end in the number of features, got {name!r}")
    return int(digits)


def most_components(name: str) -> int:
    """The largest k of a pair."""
    d = random_dimension(name)
    if d is not None:
        return max(1, MOST_VALUES // d)
    if name == DIGITS:
        return DIGITS_A_SIDE
    (clf,) = open_pairs([name]).values()
    return min(m.n_components for m in clf.mixtures)


def open_sides(name: str, k: int, l: int, seed: int, data: Path | None) -> list[MFA]:
    """Both sides of a pair with k components each, equally likely; `l` factors where they are made here.

    Raises
    ------
    ValueError
        For a name that is no pair.
    FileNotFoundError
        Without the images.
    """
    d = random_dimension(name)
    if d is not None:
        return [_mixture(_drawn(d, k, l, seed, side)) for side in (0, 1)]
    if name == DIGITS:
        X, y, *_ = load_mnist(data)
        return [_mixture(_neighbourhoods(X[y % 2 == side], k, l, seed)) for side in (0, 1)]
    (clf,) = open_pairs([name]).values()
    return [first_of(m, k) for m in clf.mixtures]


def first_of(mfa: MFA, k: int) -> MFA:
    """The first k components, equally likely."""
    return mfa.replace(
        weights=np.full(k, 1 / k), means=mfa.means[:k], loadings=mfa.loadings[:k],
        noise_variance=mfa.noise_variance[:k],
    )  # fmt: skip


def _mixture(blocks: Iterator[tuple[Array, Array]]) -> MFA:
    means, loadings = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return MFA(np.full(len(means), 1 / len(means)), means, loadings, 1.0)


def _drawn(d: int, k: int, l: int, seed: int, side: int) -> Iterator[tuple[Array, Array]]:
    """Normal means, and loadings in random directions with a length of about 1."""
    for start in range(0, k, BLOCK):
        rng = np.random.default_rng([seed, side, start])
        means = SPREAD * rng.standard_normal((BLOCK, d), np.float32)
        loadings = rng.standard_normal((BLOCK, d, l), np.float32) / np.float32(d**0.5)
        count = min(BLOCK, k - start)
        yield means[:count], loadings[:count]


def _neighbourhoods(X: Array, k: int, l: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Mean and leading directions of the images nearest to each of k images, which are drawn."""
    chosen = np.random.default_rng(seed).permutation(len(X))[:k]
    sq, size = np.einsum("nd,nd->n", X, X), NEIGHBOURS * l + 2
    for start in range(0, k, BLOCK):
        some = chosen[start : start + BLOCK]
        near = np.argpartition(sq - 2.0 * X[some] @ X.T, size, axis=1)[:, :size]
        images = X[near].astype(np.float64)
        means = images.mean(axis=1)
        _, S, Vt = thin_svd(images - means[:, None])
        yield means, (Vt[:, :l] * (S[:, :l, None] / size**0.5)).swapaxes(1, 2)
