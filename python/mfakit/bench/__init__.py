"""How fast this machine does it, and how near its own limit: what ``mfakit bench`` and ``python -m benchmarks`` run.

A :class:`Case` is data: a name, a size, what the result is checked against, how far off it may be, the measured limit
that bounds it, and a function that builds and checks the work. :mod:`.runner` times it in turn with what it is compared
with, :mod:`.results` has the one JSON layout, :mod:`.provenance` says where a number comes from. :mod:`.core` has the
cases of ``mfakit bench``; longer ones are in the repository's folder ``benchmarks/``.
"""

from __future__ import annotations

from .cases import SIZES, Case, Size, Skipped, Timed, Work
from .core import core_cases, run
from .limits import Limits
from .provenance import provenance
from .results import Measurement, Report, Timing, read_report
from .runner import Machine, run_cases

__all__ = [
    "SIZES", "Case", "Limits", "Machine", "Measurement", "Report", "Size", "Skipped", "Timed", "Timing", "Work",
    "core_cases", "provenance", "read_report", "run", "run_cases",
]  # fmt: skip
