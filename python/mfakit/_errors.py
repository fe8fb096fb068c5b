"""Errors that mfakit raises beyond Python's own."""

from __future__ import annotations

__all__ = ["BackendUnavailable"]


class BackendUnavailable(RuntimeError):
    """The backend asked for cannot run here; the message says what is missing and what is available."""
