"""Beside the libraries that a user would otherwise take: who computes the same thing, how fast, in how much memory and
how exactly, all in one run.

Comparisons are data, a file for each subject. ``--checkout NAME=FOLDER`` names the folder of a library that is not
installed (torch-mfa: a checkout; VAMM: a folder with its package and its compiled modules). Goal: at n = 1,024,
d = 12,288, k = 100, l = 10 log_prob at least 220 times faster than torch.distributions. How both grow with n, d, k and
l is in benchmarks/growth.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mfakit.bench import Case

from . import attacks, density, em, svm
from .comparison import Comparison
from .libraries import LIBRARIES
from .table import draw, markdown, table

__all__ = ["CASES", "CHECKOUTS", "COMPARISONS", "FOLDER", "draw", "markdown", "table", "with_checkouts"]

# Its results have a folder of their own.
FOLDER = "peers"
CHECKOUTS = tuple(library.name for library in LIBRARIES if library.package is None)
COMPARISONS: tuple[Comparison, ...] = (
    *density.COMPARISONS, *em.COMPARISONS, *attacks.COMPARISONS, *svm.COMPARISONS,
)  # fmt: skip


def with_checkouts(folders: Mapping[str, Path]) -> tuple[Case, ...]:
    """All comparisons as cases, with the folders of libraries by name."""
    return tuple(comparison.case(folders) for comparison in COMPARISONS)


CASES = with_checkouts({})
