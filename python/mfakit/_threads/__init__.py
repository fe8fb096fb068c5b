"""Threads, interrupts, forks, and the limits that they obey."""

from __future__ import annotations

from .process import _blas_libraries

__all__ = ["_blas_libraries"]
