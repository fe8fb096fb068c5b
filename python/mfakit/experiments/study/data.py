"""The data sets of the experiments: samples of symmetric pairs, and real images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..._lazy import lazy
from ...bayes.classifier import BayesClassifier
from ..pairs import captions_of
from ..resumable import digest_of_model

__all__ = ["BOX", "DataSet", "RealImages", "SymmetricPair"]

Array = NDArray[Any]
Samples = tuple[Array, Array]

BOX = (0.0, 1.0)


class DataSet(Protocol):
    """Two classes of samples.

    Attributes
    ----------
    name : str
        In tables and files.
    classes : tuple of str
        What the two classes are called in pictures.
    model : BayesClassifier or None
        The optimal classifier, where the density is known.
    training_key, test_key : dict
        All that the samples of either part depend on.
    training_samples, test_samples : (X [n, d], y [n])
    """

    name: str
    classes: tuple[str, str]
    model: BayesClassifier | None

    @property
    def training_key(self) -> dict[str, Any]: ...
    @property
    def test_key(self) -> dict[str, Any]: ...
    @property
    def training_samples(self) -> Samples: ...
    @property
    def test_samples(self) -> Samples: ...


class SymmetricPair:
    """Fresh samples of a pair in its symmetric variant.

    Parameters
    ----------
    name : str
    base : BayesClassifier
    sigma : float
        Noise of the symmetric variant.
    n_train, n_test : int
        Samples drawn, half of each class.
    seed : int
    clip : bool
        Clip all samples to [0, 1], which moves them off their own manifolds.
    """

    def __init__(
        self, name: str, base: BayesClassifier, *, sigma: float, n_train: int, n_test: int, seed: int, clip: bool = False
    ) -> None:  # fmt: skip
        self.name, self.classes, self.model = name, captions_of(name), base.symmetric(sigma)
        self._n, self._seed, self._clip = (n_train, n_test), seed, clip

    @lazy
    def _key(self) -> dict[str, Any]:
        return {"set": self.name, "model": digest_of_model(self.model), "seed": self._seed, "clip": self._clip}

    @property
    def training_key(self) -> dict[str, Any]:
        """All that the training samples depend on; a classifier that is given fewer takes the first of them."""
        return {**self._key, "drawn": self._n[0]}

    @property
    def test_key(self) -> dict[str, Any]:
        """All that the test samples depend on."""
        return {**self._key, "tested": self._n[1]}

    @lazy
    def training_samples(self) -> Samples:
        """X [n, d] and y [n]."""
        return self._drawn(0)

    @lazy
    def test_samples(self) -> Samples:
        """X [n, d] and y [n], fresh ones."""
        return self._drawn(1)

    def _drawn(self, stream: int) -> Samples:
        # A pair's samples depend on the seed and its name, and not on which other pairs are run.
        rng = np.random.default_rng([self._seed, stream, *self.name.encode()])
        X, y = self.model.sample(self._n[stream], rng=rng, balanced=True)
        return (np.clip(X, *BOX, out=X) if self._clip else X), y


class RealImages:
    """Images of two classes, as a loader has them.

    Parameters
    ----------
    name : str
    classes : (str, str)
    load : callable
        Returns X_train, y_train, X_test, y_test; called on first use.
    n_train, n_test : int
        At most so many images of each part, drawn at random where there are more.
    seed : int
    """

    model: BayesClassifier | None = None

    def __init__(
        self, name: str, classes: tuple[str, str], load: Callable[[], tuple[Array, Array, Array, Array]], *,
        n_train: int, n_test: int, seed: int,
    ) -> None:  # fmt: skip
        self.name, self.classes = name, classes
        self._load, self._n, self._seed = load, (n_train, n_test), seed

    @lazy
    def _parts(self) -> tuple[Samples, Samples]:
        X, y, X_test, y_test = self._load()
        return self._some(X, y, 0), self._some(X_test, y_test, 1)

    def _some(self, X: Array, y: Array, part: int) -> Samples:
        rng = np.random.default_rng([self._seed, part, *self.name.encode()])
        rows = rng.permutation(len(X))[: self._n[part]]
        return np.asarray(X[rows]), np.asarray(y[rows])

    @lazy
    def training_key(self) -> dict[str, Any]:
        """All that the training samples depend on: the images themselves."""
        return {"set": self.name, "images": _digest(*self.training_samples)}

    @lazy
    def test_key(self) -> dict[str, Any]:
        """The test images."""
        return {"set": self.name, "tested": _digest(*self.test_samples)}

    @property
    def training_samples(self) -> Samples:
        """X [n, d] and y [n], in random order."""
        return self._parts[0]

    @property
    def test_samples(self) -> Samples:
        """X [n, d] and y [n] of the loader's test part."""
        return self._parts[1]


def _digest(X: Array, y: Array) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(X).tobytes())
    digest.update(np.ascontiguousarray(y).tobytes())
    return digest.hexdigest()[:16]
