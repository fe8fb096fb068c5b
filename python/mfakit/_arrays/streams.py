"""Samples that are not one array in memory: the path of a file, or an iterator of blocks; and results in a file.

One decorator for every public function of samples: what stands below it sees arrays alone.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from .._io.mapped import NewArray, is_path, map_array, new_array, split_name
from .containers import as_host_array

__all__ = ["Form", "opened", "same_form", "streamed"]

P = ParamSpec("P")
R = TypeVar("R")
# Of a block: its shape without rows, and its dtype.
Form = tuple[tuple[int, ...], str]


def opened(X: Any, name: str = "X") -> Any:
    """The array of a .npy or .safetensors file, mapped read-only, where X is the path of one, ``data.npy``,
    ``data.safetensors`` or ``data.safetensors::tensor``; everything else comes back as it is.

    Raises
    ------
    TypeError
        For such a path where no file is.
    ValueError
        For a file that is cut short, or does not say which array is meant.
    """
    if not is_path(X):
        return X
    file = split_name(X)[0]
    if not Path(file).is_file():
        raise TypeError(f"{name} must be an array, got a {type(X).__name__}, and there is no file {file}")
    try:
        return map_array(X)
    except ValueError as error:
        raise ValueError(f"{name} is a path, and {error}") from None


def streamed(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: the function's argument X may be a path, see :func:`opened`, or an iterator of blocks [n_i, d], for
    which the result is an iterator of the blocks' results, each computed when it is asked for; and its ``out`` may be
    the path of a .npy file, which is whole or absent, and comes back mapped read-only.

    With an iterator an argument y, which goes with the rows, is an iterator, too, or an array [n] of all rows.
    """
    code = inspect.unwrap(function).__code__
    positions = code.co_varnames[: code.co_argcount]
    at = positions.index("X")
    y_at = positions.index("y") if "y" in positions else None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        X = kwargs["X"] if "X" in kwargs else args[at] if len(args) > at else None
        out = kwargs.get("out")
        if not (isinstance(X, str | os.PathLike | Iterator) or isinstance(out, str | os.PathLike)):
            return function(*args, **kwargs)
        if isinstance(X, Iterator):
            if out is not None:
                raise TypeError("out is one array, and an iterator of blocks has a result for each; leave it out")
            return _each(function, X, args, kwargs, at, y_at)
        X = opened(X)
        args, kwargs = _with(args, kwargs, "X", at, X)
        if not isinstance(out, str | os.PathLike):
            return function(*args, **kwargs)
        read = getattr(X, "filename", None)
        if read is not None and Path(out).exists() and Path(out).samefile(read):
            raise ValueError(f"out must be another file than {read}, which X is read from")
        with new_array(out) as file:
            found = function(*args, **{**kwargs, "out": file})
        return _read(found, file, map_array(out))

    result: Any = call
    result.__kwdefaults__ = getattr(function, "__kwdefaults__", None)  # which wraps leaves out
    return cast("Callable[P, R]", result)


def _with(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, at: int, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with another value for one of them."""
    if name in kwargs or len(args) <= at:
        return args, {**kwargs, name: value}
    return (*args[:at], value, *args[at + 1 :]), kwargs


def _read(found: Any, file: NewArray, array: Any) -> Any:
    """A result in which the file stands for what is in it."""
    if isinstance(found, tuple):
        return tuple(array if part is file else part for part in found)
    return array if found is file else found


def _each(
    function: Callable[..., Any], blocks: Iterator[Any], args: tuple[Any, ...], kwargs: dict[str, Any], at: int,
    y_at: int | None,
) -> Iterator[Any]:  # fmt: skip
    given = kwargs["y"] if "y" in kwargs else args[y_at] if y_at is not None and len(args) > y_at else None
    labels = None if given is None else _Labels(given)
    for i, block in enumerate(_checked(blocks)):
        own_args, own = _with(args, kwargs, "X", at, block)
        if labels is not None:
            own_args, own = _with(own_args, own, "y", y_at or 0, labels.next(len(block), i))
        try:
            found = function(*own_args, **own)
        except (TypeError, ValueError) as error:
            if type(error) not in (TypeError, ValueError):
                raise
            raise type(error)(f"block {i}: {error}") from error
        yield found
    if labels is not None:
        labels.end()


class _Labels:
    """The labels of blocks: an iterator of its own blocks, or an array of all, taken in turn."""

    def __init__(self, given: Any) -> None:
        self._rows = given if isinstance(given, Iterator) else as_host_array(given, "y")
        self._first = 0

    def next(self, n: int, i: int) -> Any:
        """That of block i, of n rows."""
        if isinstance(self._rows, Iterator):
            found = next(self._rows, None)
            if found is None:
                raise ValueError(f"y ends before X does: it has {i} blocks, and X more")
            return found
        found = self._rows[self._first : self._first + n]
        if len(found) < n:
            raise ValueError(f"y has {len(self._rows)} entries, and X has more rows than that")
        self._first += n
        return found

    def end(self) -> None:
        """Raise where some are left."""
        if not isinstance(self._rows, Iterator) and self._first < len(self._rows):
            raise ValueError(f"y has {len(self._rows)} entries, and the blocks of X {self._first} rows")


def _checked(blocks: Any) -> Iterator[Any]:
    """Blocks of rows, all of them of the width and the dtype of the first one.

    Raises
    ------
    TypeError
        For a block that is a pair, such as samples with their labels.
    ValueError
        For a block of another width or dtype.
    """
    before: Form | None = None
    for i, block in enumerate(blocks):
        if isinstance(block, tuple):
            raise TypeError(
                f"block {i} is a tuple of {len(block)}, and blocks are arrays [n_i, d]; pass the samples alone, as in "
                "(X for X, y in blocks)"
            )
        before = same_form(f"block {i}", block, before)
        yield block


def same_form(name: str, block: Any, before: Form | None, *, any_float: bool = False) -> Form:
    """The shape of a block without its rows, and its dtype; of floats just that they are some, where these may differ.

    Raises
    ------
    ValueError
        Where they are not those of the blocks `before` it.
    """
    dtype = str(getattr(block, "dtype", "numbers")).removeprefix("torch.")
    dtype = "floats" if any_float and "float" in dtype else dtype
    form = tuple(getattr(block, "shape", ()))[1:], dtype
    if before is not None and form != before:
        now, then = (f"[n, {', '.join(map(str, shape))}] of {dtype}" for shape, dtype in (form, before))
        raise ValueError(f"{name} is {now}, and those before it are {then}; all blocks must be alike")
    return form
