"""The cases of ``mfakit bench`` at both sizes for a host, each beside its bare product.

Goal: at n = 4096, d = 12,288, k = 100, l = 10 in float32, log_prob at 75% or more of the rate of ``X @ P``.
"""

from __future__ import annotations

from mfakit.bench import SIZES, core_cases

CASES = (*core_cases(SIZES["faces"]), *core_cases(SIZES["digits"]))
