"""Threads, interrupts, forks, and the limits that they obey.

``_blas_libraries`` is here for whatever checks that their threads are left as they were.
"""

from __future__ import annotations

from .process import _blas_libraries

__all__ = ["_blas_libraries"]
