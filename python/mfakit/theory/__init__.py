"""Theorems 1 to 3 and Lemmas A.1 and A.2 as functions that return numbers: radii, how far a model is from their
assumptions, and what certified radii do as σ → 0.

Lemma A.2 is about classes given as tables over quantized features: tables p₀ and p₁ hold the probability of every
combination of levels, such as [100, 100] for the two features of Figure 3. If one feature of class 0 nearly always has
the same level, and class 1 has some probability everywhere, then almost every point of class 0 is one level away from
the optimal boundary (appendix A.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .discrete import concentrate_feature, random_discrete_classes
    from .gaps import GapCauses, GapSweep, explain_gaps, sweep_gaps
    from .lemma_a2 import LemmaA2Check, LemmaA2Validation, check_lemma_a2, levels_to_boundary, validate_lemma_a2
    from .radii import (
        Theorem2Check,
        Theorem2Radius,
        asymmetric_radius,
        check_theorem2,
        own_and_other_distances,
        theorem1_radius,
        theorem2_radius,
    )
    from .theorem1 import Theorem1Validation, validate_theorem1
    from .theorem2 import Theorem2Validation, validate_theorem2
    from .theorem3 import Theorem3Validation, validate_theorem3

# Loaded on first use: the validations certify samples, which needs the attacks.
_LAZY_NAMES = {
    "GapCauses": "gaps",
    "GapSweep": "gaps",
    "LemmaA2Check": "lemma_a2",
    "LemmaA2Validation": "lemma_a2",
    "Theorem1Validation": "theorem1",
    "Theorem2Check": "radii",
    "Theorem2Radius": "radii",
    "Theorem2Validation": "theorem2",
    "Theorem3Validation": "theorem3",
    "asymmetric_radius": "radii",
    "check_lemma_a2": "lemma_a2",
    "check_theorem2": "radii",
    "concentrate_feature": "discrete",
    "explain_gaps": "gaps",
    "levels_to_boundary": "lemma_a2",
    "own_and_other_distances": "radii",
    "random_discrete_classes": "discrete",
    "sweep_gaps": "gaps",
    "theorem1_radius": "radii",
    "theorem2_radius": "radii",
    "validate_lemma_a2": "lemma_a2",
    "validate_theorem1": "theorem1",
    "validate_theorem2": "theorem2",
    "validate_theorem3": "theorem3",
}

__all__ = [
    "GapCauses",
    "GapSweep",
    "LemmaA2Check",
    "LemmaA2Validation",
    "Theorem1Validation",
    "Theorem2Check",
    "Theorem2Radius",
    "Theorem2Validation",
    "Theorem3Validation",
    "asymmetric_radius",
    "check_lemma_a2",
    "check_theorem2",
    "concentrate_feature",
    "explain_gaps",
    "levels_to_boundary",
    "own_and_other_distances",
    "random_discrete_classes",
    "sweep_gaps",
    "theorem1_radius",
    "theorem2_radius",
    "validate_lemma_a2",
    "validate_theorem1",
    "validate_theorem2",
    "validate_theorem3",
]


__getattr__ = lazy_names(__name__, _LAZY_NAMES)


def __dir__() -> list[str]:
    return sorted(__all__)
