"""The compiled backend: mfakit._native (csrc/cpu) under the table's names and signatures; see numpy_ops for
meanings.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

from .. import _native
from .._threads.process import forked
from . import numpy_ops
from .table import TABLE

__all__ = list(TABLE)


def _bind(name: str) -> Any:
    """The compiled operation with the readable one's signature and docstring: one place says what an operation
    takes.
    """
    described, compiled = getattr(numpy_ops, name), getattr(_native, name)
    parameters = list(inspect.signature(described).parameters)

    @wraps(described)
    def operation(*args: Any, n_threads: int = 1, **kwargs: Any) -> None:
        if len(args) + len(kwargs) == len(parameters):  # n_threads came by position
            args, n_threads = args[:-1], args[-1]
        # The module sees only forks after it was loaded.
        compiled(*args, *(kwargs[p] for p in parameters[len(args) : -1]), 1 if forked() else n_threads)

    return operation


center_rows = _bind("center_rows")
mixture_epilogue = _bind("mixture_epilogue")
refine = _bind("refine")
log_sum_exp = _bind("log_sum_exp")
softmax = _bind("softmax")
accumulate_gradient = _bind("accumulate_gradient")
point_distances = _bind("point_distances")
pair_distances = _bind("pair_distances")
attack_step = _bind("attack_step")
factor_walk = _bind("factor_walk")
accumulate_statistics = _bind("accumulate_statistics")
