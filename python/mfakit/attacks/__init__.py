"""Attacks on classifiers. Every attack returns evidence, an :class:`AttackResult` verified on the points it returns."""

from __future__ import annotations

from .carlini_wagner.attack import carlini_wagner_l2
from .evaluate import evaluate
from .external import run_external
from .gradient.attack import gradient_attack
from .minimal.accuracy import CertifiedAccuracy, certified_accuracy
from .minimal.attack import minimal_perturbation
from .result import AttackResult, MinimalResult

__all__ = [
    "AttackResult",
    "CertifiedAccuracy",
    "MinimalResult",
    "carlini_wagner_l2",
    "certified_accuracy",
    "evaluate",
    "gradient_attack",
    "minimal_perturbation",
    "run_external",
]


def __dir__() -> list[str]:
    return sorted(__all__)
