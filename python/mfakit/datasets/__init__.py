"""Image data as ``(X_train, y_train, X_test, y_test)``, and the models that travel with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .celeba import load_celeba
    from .cifar10 import load_cifar10
    from .mnist import load_mnist
    from .shipped import available_bayes_pairs, load_bayes_pair

# Loaded on first use: a user of the shipped models never pays for the loaders, nor the other way round.
_LAZY_NAMES = {
    "available_bayes_pairs": "shipped",
    "load_bayes_pair": "shipped",
    "load_celeba": "celeba",
    "load_cifar10": "cifar10",
    "load_mnist": "mnist",
}

__all__ = ["available_bayes_pairs", "load_bayes_pair", "load_celeba", "load_cifar10", "load_mnist"]


__getattr__ = lazy_names(__name__, _LAZY_NAMES)


def __dir__() -> list[str]:
    return sorted(__all__)
