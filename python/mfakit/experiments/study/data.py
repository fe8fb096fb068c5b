"""What a data set of the experiments is, and the samples of symmetric pairs; real images are in images.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._lazy import lazy
from ...bayes.classifier import BayesClassifier
from ..pairs import captions_of
from ..resumable import digest_of_model

__all__ = ["BOX", "DataSet", "Samples", "SymmetricPair", "symmetric_pairs"]

Array = NDArray[Any]
Samples = tuple[Array, Array]

BOX = (0.0, 1.0)


class DataSet(ABC):
    """Two classes of samples, made when they are first asked for.

    Attributes
    ----------
    name : str
        In tables and files.
    classes : tuple of str
        What the two classes are called in pictures.
    model : BayesClassifier or None
        The optimal classifier, where the density is known.
    """

    model: BayesClassifier | None = None

    def __init__(self, name: str, classes: tuple[str, str]) -> None:
        self.name, self.classes = name, classes

    @lazy
    def training_samples(self) -> Samples:
        """X [n, d] and y [n], in random order."""
        return self._make(0)

    @lazy
    def test_samples(self) -> Samples:
        """X [n, d] and y [n], none of them a training sample."""
        return self._make(1)

    @lazy
    def training_key(self) -> dict[str, Any]:
        """All that the training samples depend on; a classifier that is given fewer takes the first of them."""
        return {"set": self.name, "training": self._key(0)}

    @lazy
    def test_key(self) -> dict[str, Any]:
        """All that the test samples depend on."""
        return {"set": self.name, "test": self._key(1)}

    @abstractmethod
    def _make(self, part: int) -> Samples:
        """The samples to train on (part 0) or to test on (1)."""

    @abstractmethod
    def _key(self, part: int) -> dict[str, Any]:
        """What they depend on."""


class SymmetricPair(DataSet):
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
    classes : (str, str), optional
        None: what the name says.
    """

    model: BayesClassifier

    def __init__(
        self, name: str, base: BayesClassifier, *, sigma: float, n_train: int, n_test: int, seed: int,
        clip: bool = False, classes: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, captions_of(name) if classes is None else classes)
        self.model = base.symmetric(sigma)
        self._n, self._seed, self._clip = (n_train, n_test), seed, clip

    def _key(self, part: int) -> dict[str, Any]:
        return {
            "model": digest_of_model(self.model), "seed": self._seed, "clip": self._clip, "drawn": self._n[part],
        }  # fmt: skip

    def _make(self, part: int) -> Samples:
        # A pair's samples depend on the seed and its name, and not on which other pairs are run.
        rng = np.random.default_rng([self._seed, part, *self.name.encode()])
        X, y = self.model.sample(self._n[part], rng=rng, balanced=True)
        return (np.clip(X, *BOX, out=X) if self._clip else X), y


def symmetric_pairs(config: Any, bases: Mapping[str, BayesClassifier]) -> list[SymmetricPair]:
    """Samples of each pair, as a configuration with `sigma`, `n_train`, `n`, `seed`, and perhaps `clip`, says."""
    settings = {
        "n_train": config.n_train,
        "n_test": config.n,
        "seed": config.seed,
        "clip": getattr(config, "clip", False),
    }
    return [SymmetricPair(name, base, sigma=config.sigma, **settings) for name, base in bases.items()]
