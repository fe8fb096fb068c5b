"""The theorems put to the test: samples drawn anew at each σ, their smallest perturbations certified, and compared with
what the theorem says of the limit. Reached as :mod:`mfakit.theory`.
"""

from __future__ import annotations

from .gaps import GapCauses, GapSweep, explain_gaps, sweep_gaps
from .theorem1 import Theorem1Validation, validate_theorem1
from .theorem2 import Theorem2Validation, validate_theorem2
from .theorem3 import Theorem3Validation, validate_theorem3

__all__ = [
    "GapCauses",
    "GapSweep",
    "Theorem1Validation",
    "Theorem2Validation",
    "Theorem3Validation",
    "explain_gaps",
    "sweep_gaps",
    "validate_theorem1",
    "validate_theorem2",
    "validate_theorem3",
]
