"""What the backends make of the operation table: one says what an operation takes, the others bind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_type_hints

from . import numpy_ops

__all__ = ["bind", "operations", "written"]


def operations(backend: str) -> list[str]:
    """The names of the operations that a backend has."""
    only = numpy_ops.ONLY
    return [name for name in numpy_ops.__all__ if backend == "numpy" or backend in only.get(name, (backend,))]


def written(name: str) -> list[str]:
    """The parameters of an operation that it writes to; it reads the others."""
    hints = get_type_hints(getattr(numpy_ops, name), include_extras=True)
    return [parameter for parameter, hint in hints.items() if "written" in getattr(hint, "__metadata__", ())]


def bind(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """The operation `name` with the readable one's signature and docstring, done by ``run(n_threads, *arguments)``."""
    described = getattr(numpy_ops, name)
    parameters = list(inspect.signature(described).parameters)
    count = len(parameters)

    @wraps(described)
    def operation(*args: Any, n_threads: int = 1, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) == count:  # n_threads came by position
            args, n_threads = args[:-1], args[-1]
        if kwargs:
            args = (*args, *(kwargs[parameter] for parameter in parameters[len(args) : -1]))
        return run(n_threads, *args)

    return operation
