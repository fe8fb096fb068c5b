"""Attributes that are computed on first use and kept, and names that are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar, overload

__all__ = ["lazy", "lazy_names"]

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


def lazy_names(package: str, names: Mapping[str, str], modules: Collection[str] = ()) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package: `names` and the module of the package that each comes from, and `modules` that
    are names themselves.
    """

    def find(name: str) -> Any:
        if name in modules:
            return import_module(f".{name}", package)
        if name in names:
            return getattr(import_module(f".{names[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
