"""Attacks on classifiers. Every attack returns evidence, an :class:`AttackResult` verified on the points it returns."""

from __future__ import annotations

from .gradient import gradient_attack
from .minimal import MinimalResult, minimal_perturbation
from .result import AttackResult

__all__ = ["AttackResult", "MinimalResult", "gradient_attack", "minimal_perturbation"]
