"""Attributes that are computed on first use and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["lazy"]

T = TypeVar("T")


class lazy(Generic[T]):
    """An attribute that its function computes on first use, kept in the object's ``__dict__``.

    Unlike :class:`functools.cached_property` it has no lock, which on Python 3.10 and 3.11 is one for all objects, and
    which a child forked while another thread holds it would wait for forever. Two threads may both compute the value;
    all of them get the one that was stored first.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        # One step of the interpreter: nothing can come between the question and the answer.
        return instance.__dict__.setdefault(self.name, self.compute(instance))
