"""Arrays of dask in, arrays of dask out: what is asked of rows is asked of each block of them, when dask computes it.

The model is one node of the graph, named by its contents; what dask's workers do with it and a block is in
:mod:`mfakit._arrays.tasks`. Nothing here loads dask: an array of its own comes from a program that has.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from operator import getitem
from typing import Any, TypeVar, cast

import numpy as np

from .._version import __version__
from .containers import is_dask
from .tasks import adding, calling, pack, passing

__all__ = ["as_lazy_rows", "by_blocks", "map_rows", "sum_over_blocks"]

F = TypeVar("F", bound=Callable[..., Any])

# What ``call(model, block, start, *aligned)`` is: it gives a block's result, `start` being the number of its first row.
Call = Callable[..., Any]


def by_blocks(method: F) -> F:
    """A decorator of a method whose first argument is samples X [n, d], and whose result has a row for each of them, or
    is a tuple of such results and others: of an array of dask it is computed block by block, see :func:`map_rows`.
    """

    @wraps(method)
    def call(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        if is_dask(X):
            return map_rows(self, method.__name__, X, args, options)
        return method(self, X, *args, **options)

    return cast("F", call)


def as_lazy_rows(X: Any, name: str = "X") -> Any:
    """An array of dask [n, d] whose blocks have all features; what is known of it is checked.

    Raises
    ------
    ValueError
        For another rank, and for blocks of unknown size.
    """
    if X.ndim != 2:
        flat = f"flatten each sample, {name}.reshape(len({name}), -1)"
        remedy = flat if X.ndim > 2 else f"a single sample is {name}[None, :]"
        raise ValueError(f"{name} must be [n, d], got an array of dask of shape {X.shape}; {remedy}")
    if np.isnan(X.shape).any():
        raise ValueError(
            f"{name} has blocks of unknown size, and a row's number is not known then; call "
            f"{name}.compute_chunk_sizes() first"
        )
    return X if X.numblocks[1] == 1 else X.rechunk({1: -1})


def map_rows(model: Any, name: str, X: Any, args: Sequence[Any] = (), options: Mapping[str, Any] | None = None) -> Any:
    """``getattr(model, name)(X, *args, **options)`` of an array of dask [n, d], computed when the result is.

    The method is called once with no rows: that finds what is wrong with the arguments before anything is computed, and
    gives the results' dtypes and shapes. Arrays of dask among the arguments that have X's number of rows, and arrays of
    NumPy that have X's shape, go along by rows; other arrays of dask are computed at once.

    Returns
    -------
    dask.array.Array, or a tuple
        In X's blocks of rows. Of a method that returns a tuple, what has no rows is NumPy's.

    Raises
    ------
    ValueError
        As :func:`as_lazy_rows`.
    TypeError
        For ``out``.
    """
    from dask.base import tokenize

    X, named = as_lazy_rows(X), options or {}
    if named.get("out") is not None:
        raise TypeError(f"{name} of an array of dask takes no out: its result is lazy; write it by dask.array.store")
    arguments: dict[Any, Any] = {**dict(enumerate(args)), **named}
    aligned = {place: rows for place, value in arguments.items() if (rows := _aligned(value, X)) is not None}
    others = {place: value for place, value in arguments.items() if place not in aligned}
    given = {place: value.compute() if is_dask(value) else value for place, value in others.items()}
    call = _Method(name, given, tuple(aligned))
    # The device is the workers': no rows are computed anywhere.
    tried = replace(call, given={**given, "backend": "auto"}) if given.get("backend") == "cuda" else call
    none = tried(model, _no_rows(X), 0, *(_no_rows(rows) for rows in aligned.values()))
    node, rows = _node(model), tuple(aligned.values())
    token = f"mfakit-{name}-{tokenize(X.name, node.key, call, [part.name for part in rows])}"
    if not isinstance(none, tuple):
        return _mapped(X, node, call, rows, token, none)
    whole = _mapped(X, node, call, rows, f"{token}-all", np.empty(0, object))
    return tuple(part if len(part) else _part(whole, i, f"{token}-{i}", part) for i, part in enumerate(none))


def sum_over_blocks(X: Any, model: Any, call: Call, aligned: Sequence[Any] = ()) -> Any:
    """The sum of ``call(model, block, start, *aligned)`` over the blocks of X, computed now by dask's scheduler, in an
    order that the blocks alone decide. What is added has ``+``, which makes a new object, and ``+=``.
    """
    import uuid

    import dask.array as da

    name = f"mfakit-sum-{uuid.uuid4().hex}"
    parts = _mapped(X, _node(model), call, aligned, name, np.empty(0, object))
    total = da.reduction(
        parts, chunk=passing(), aggregate=adding(), axis=0, dtype=object, concatenate=False, meta=np.empty((), object)
    )
    with _unwarned():
        return total.to_delayed().item().compute()


def _unwarned() -> AbstractContextManager[Any]:
    """Without dask's warning of large graphs: these have one copy of a model."""
    if "distributed" not in sys.modules:  # the end of the block would take all of its configuration away
        return nullcontext()
    import dask

    context: AbstractContextManager[Any] = dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"})
    return context


@dataclass(frozen=True)
class _Method:
    """A method by its name, with its arguments by place or name; those at `places` come by blocks."""

    name: str
    given: Mapping[int | str, Any]
    places: tuple[int | str, ...]

    def streams(self, model: Any) -> bool:
        """Whether blocks on the host are computed on a device."""
        return bool(self.given.get("backend", getattr(model, "backend", None)) == "cuda")

    def __call__(self, model: Any, block: Any, start: int, *aligned: Any) -> Any:
        arguments = {**self.given, **dict(zip(self.places, aligned, strict=True))}
        args = [arguments[place] for place in sorted(place for place in arguments if isinstance(place, int))]
        options = {place: value for place, value in arguments.items() if isinstance(place, str)}
        try:
            return getattr(model, self.name)(block, *args, **options)
        except ValueError as error:
            if start and "row" in str(error):
                raise ValueError(
                    f"{error} (in the block of X that begins with row {start}, counted from there)"
                ) from None
            raise


def _aligned(value: Any, X: Any) -> Any:
    """An argument that has X's rows in blocks like X's; None for others."""
    import dask.array as da

    if is_dask(value) and value.shape[:1] == X.shape[:1]:
        return value.rechunk({0: X.chunks[0], **dict.fromkeys(range(1, value.ndim), -1)})
    if isinstance(value, np.ndarray) and value.shape == X.shape:
        return da.from_array(value, chunks=X.chunks)
    return None


def _no_rows(X: Any) -> Any:
    """An array of no rows, of the library, dtype and width of the blocks of X."""
    return np.empty_like(X._meta, shape=(0, *X.shape[1:]))


def _node(model: Any) -> Any:
    """The model as a node of a graph, by a name that its contents decide: once in a graph, and once on every worker."""
    from dask.base import tokenize
    from dask.delayed import delayed

    return delayed(pack(model), name=f"mfakit-model-{tokenize(model, __version__)}", traverse=False)


def _mapped(X: Any, node: Any, call: Call, aligned: Sequence[Any], name: str, none: Any) -> Any:
    """``call(model, block, start, *aligned)`` for each block of X, as an array of dask like `none`, which has no
    rows.
    """
    import dask.array as da

    edges = np.cumsum((0, *X.chunks[0][:-1]))
    tail = tuple(range(2, 1 + none.ndim))
    others: list[Any] = []
    for rows in aligned:
        others += [rows, (0, *range(100, 99 + rows.ndim))]
    return da.blockwise(
        calling(), (0, *tail), X, (0, 1), da.from_array(edges, chunks=1), (0,), node, None, pickle.dumps(call), None,
        *others, name=name, new_axes=dict(zip(tail, none.shape[1:], strict=True)), dtype=none.dtype, meta=none,
        align_arrays=False, concatenate=False,
    )  # fmt: skip


def _part(whole: Any, i: int, name: str, none: Any) -> Any:
    """The i-th entry of blocks that are tuples, as an array of dask like `none`."""
    import dask.array as da

    tail = tuple(range(1, none.ndim))
    return da.blockwise(
        getitem, (0, *tail), whole, (0,), i, None, name=name, new_axes=dict(zip(tail, none.shape[1:], strict=True)),
        dtype=none.dtype, meta=none,
    )  # fmt: skip
