"""The compiled backend: mfakit._native (csrc/cpu) under the table's names and signatures; see numpy_ops for
meanings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _native
from .._threads.process import forked
from .binding import bind, operations

__all__ = operations("native")


def _by(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """The module sees only forks after it was loaded."""
    return lambda n_threads, *arguments: compiled(*arguments, 1 if forked() else n_threads)


globals().update({name: bind(name, _by(getattr(_native, name))) for name in __all__})
