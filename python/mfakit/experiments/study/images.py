"""The paper's real images: digits, faces by attribute, and CIFAR-10 by pairs of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..._lazy import lazy
from .data import DataSet, Samples

__all__ = [
    "CIFAR10", "RealImages", "by_faces_and_digits", "celeba_images", "cifar10_images", "faces_and_digits",
    "mnist_images", "sizes",
]  # fmt: skip

Array = NDArray[Any]
C = TypeVar("C")

# The paper's pairs of digits.
DIGITS = ((0, 6), (2, 7), (4, 5))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class RealImages(DataSet):
    """Images of two classes, as a loader has them; as many of either class, drawn at random where there are more.

    Parameters
    ----------
    name : str
    classes : (str, str)
    load : callable
        Returns X_train, y_train, X_test, y_test, as bytes or in [0, 1]; called on first use.
    n_train, n_test : int
        At most so many images of each part.
    seed : int
    """

    def __init__(
        self, name: str, classes: tuple[str, str], load: Callable[[], tuple[Array, Array, Array, Array]], *,
        n_train: int, n_test: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(name, classes)
        self._load, self._n, self._seed = load, (n_train, n_test), seed

    @lazy
    def _loaded(self) -> tuple[Array, Array, Array, Array]:
        return self._load()

    def _make(self, part: int) -> Samples:
        X, y = self._loaded[2 * part : 2 * part + 2]
        rng = np.random.default_rng([self._seed, part, *self.name.encode()])
        each = [rng.permutation(np.flatnonzero(y == c)) for c in (0, 1)]
        count = min(*map(len, each), max(self._n[part] // 2, 1))
        rows = np.sort(np.concatenate([of_class[:count] for of_class in each]))  # in the order of the file
        order = rng.permutation(len(rows))
        images = np.asarray(X[rows])
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / 255
        return images[order], np.asarray(y[rows])[order]

    def _key(self, part: int) -> dict[str, Any]:
        X, y = self.test_samples if part else self.training_samples
        digest = hashlib.sha256(np.ascontiguousarray(X).tobytes())
        digest.update(np.ascontiguousarray(y).tobytes())
        return {"images": digest.hexdigest()[:16]}


def mnist_images(digits: tuple[int, int], root: Path | None, **sizes: int) -> RealImages:
    """Two of MNIST's digits, called as the shipped pairs are."""
    from ...datasets import load_mnist

    first, second = digits
    return RealImages(
        f"mnist-{first}{second}", (str(first), str(second)),
        lambda: load_mnist(root, classes=digits, as_uint8=True), **sizes,
    )  # fmt: skip


def celeba_images(attribute: str, root: Path | None, **sizes: int) -> RealImages:
    """CelebA's faces without (class 0) and with (1) an attribute."""
    from ...datasets import load_celeba

    word = attribute.replace("_", " ").lower()
    return RealImages(
        f"celeba-{attribute}", (f"not {word}", word),
        lambda: load_celeba(root, attribute, as_uint8=True, progress=False), **sizes,
    )  # fmt: skip


def cifar10_images(first: int, root: Path | None, **sizes: int) -> RealImages:
    """CIFAR-10's class `first` against the next one."""
    from ...datasets import load_cifar10

    return RealImages(
        f"cifar10-{first}{first + 1}", (CIFAR10[first], CIFAR10[first + 1]),
        lambda: load_cifar10(root, classes=(first, first + 1), as_uint8=True), **sizes,
    )  # fmt: skip


def sizes(config: Any) -> dict[str, int]:
    """How many images a configuration with `n_train`, `n` and `seed` takes."""
    return {"n_train": config.n_train, "n_test": config.n, "seed": config.seed}


def faces_and_digits(config: Any, root: Path | None) -> list[RealImages]:
    """CelebA's faces by each of a configuration's `attributes`, and MNIST's pairs of digits, where it has `digits`."""
    faces = [celeba_images(name, root, **sizes(config)) for name in config.attributes]
    digits = DIGITS if config.digits else ()
    return [*faces, *(mnist_images(pair, root, **sizes(config)) for pair in digits)]


def by_faces_and_digits(config: C) -> list[C]:
    """Configurations of single attributes, and one of all digits, whose parts are those of all."""
    one: Any = config
    faces = [replace(one, attributes=(name,), digits=False) for name in one.attributes]
    return [*faces, replace(one, attributes=())] if one.digits else faces
