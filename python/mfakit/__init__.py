"""Mixtures of factor analyzers at image scale, and the robustness of the Bayes-optimal classifiers they define.

The letters are the same everywhere: ``n`` samples, ``k`` components, ``d`` features, ``l`` factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import BackendUnavailable
from ._lazy import lazy_names
from ._version import __version__
from .bayes.classifier import BayesClassifier
from .mixture.mfa import MFA

if TYPE_CHECKING:
    from . import attacks, classifiers, datasets, experiments, fit, plots, theory, torch
    from .fit import MFAClassifier, MixtureOfFactorAnalyzers
    from .mixture.subspaces import point_subspace_distances, subspace_distances

# Loaded on first use, so that `import mfakit` stays below 0.15 s.
_LAZY_MODULES = ("attacks", "classifiers", "datasets", "experiments", "fit", "plots", "theory", "torch")
_LAZY_NAMES = {
    "MFAClassifier": "fit",
    "MixtureOfFactorAnalyzers": "fit",
    "point_subspace_distances": "mixture.subspaces",
    "subspace_distances": "mixture.subspaces",
}

__all__ = [
    "MFA",
    "BackendUnavailable",
    "BayesClassifier",
    "MFAClassifier",
    "MixtureOfFactorAnalyzers",
    "__version__",
    "attacks",
    "classifiers",
    "datasets",
    "experiments",
    "fit",
    "plots",
    "point_subspace_distances",
    "subspace_distances",
    "theory",
    "torch",
]


__getattr__ = lazy_names(__name__, _LAZY_NAMES, _LAZY_MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)
