"""Lemma A.2 as numbers: classes as tables over quantized features, and how many levels each cell is from the boundary.

The tables p₀ and p₁ hold the probability of every combination of levels, such as [100, 100] for the two features of
Figure 3. If one feature of class 0 nearly always has the same level, and class 1 has some probability everywhere, then
almost every point of class 0 is one level away from the optimal boundary (appendix A.4).
"""

from __future__ import annotations

from .lemma import LemmaA2Check, LemmaA2Validation, check_lemma_a2, levels_to_boundary, validate_lemma_a2
from .tables import concentrate_feature, random_discrete_classes

__all__ = [
    "LemmaA2Check",
    "LemmaA2Validation",
    "check_lemma_a2",
    "concentrate_feature",
    "levels_to_boundary",
    "random_discrete_classes",
    "validate_lemma_a2",
]
