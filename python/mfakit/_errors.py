"""Errors that mfakit raises beyond Python's own."""

from __future__ import annotations

__all__ = ["BackendUnavailable"]


class BackendUnavailable(RuntimeError):
    """The backend asked for cannot run here; the message says what is missing and what is available.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([1.0], [[0.0]], [[[1.0]]], 0.1)
    >>> try:
    ...     mfa.log_prob(np.zeros((2, 1)), backend="cuda")
    ... except (mfakit.BackendUnavailable, ValueError):
    ...     print("computed on the host instead", mfa.log_prob(np.zeros((2, 1))).shape)
    computed on the host instead (2,)
    """
