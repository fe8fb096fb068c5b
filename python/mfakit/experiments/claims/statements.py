"""All claims, in the order of the paper."""

from __future__ import annotations

from . import learned, optimal, theorems, toys
from .claim import Claim

__all__ = ["CLAIMS"]

CLAIMS: tuple[Claim, ...] = (*toys.CLAIMS, *theorems.CLAIMS, *optimal.CLAIMS, *learned.CLAIMS)
