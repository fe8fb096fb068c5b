"""All claims, in the order of the paper."""

from __future__ import annotations

from . import learned, optimal, theorems
from .claim import Claim

__all__ = ["CLAIMS"]

CLAIMS: tuple[Claim, ...] = (*theorems.CLAIMS, *optimal.CLAIMS, *learned.CLAIMS)
