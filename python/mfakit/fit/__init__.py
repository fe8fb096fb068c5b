"""Fitting a mixture of factor analyzers to data: EM and SGD, their start, and the scikit-learn estimator on top."""

from __future__ import annotations

from .classifier import MFAClassifier
from .em import fit_em, maximization
from .estimator import MixtureOfFactorAnalyzers
from .initialize import initial_mfa
from .source import Source
from .statistics import Statistics
from .workers import expectation

__all__ = [
    "MFAClassifier",
    "MixtureOfFactorAnalyzers",
    "Source",
    "Statistics",
    "expectation",
    "fit_em",
    "initial_mfa",
    "maximization",
]


def __dir__() -> list[str]:
    return sorted(__all__)
