"""What a task of dask does on a worker: it opens the model, once per process, and computes in one thread.

Beside the rows a task gets a *packed* model, an array of bytes that is one node of the graph: it travels once to every
worker and stays there as long as a task needs it. The functions that dask calls travel by value: a machine without
mfakit can run them, and they say that it is missing.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._threads.limits import one_thread
from .._version import __version__

__all__ = ["Task", "adding", "calling", "pack", "passing"]

Packed = NDArray[np.uint8]

# The models that are open in this process, by the number of the array that they came in.
_open: dict[int, Any] = {}


class Task:
    """A function that is pickled by value, also by tools that know references only."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.__name__ = function, function.__name__

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function(*args, **options)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        import cloudpickle

        return pickle.loads, (cloudpickle.dumps(self.function),)


def calling(version: str = __version__) -> Task:
    """The task ``(block, start, packed, call, *aligned)``: what :func:`call_model` gives, where `version` of mfakit
    is installed.
    """

    # A nested function has no name that a worker could import: cloudpickle sends its code.
    def call_block(block: Any, start: Any, packed: Any, call: bytes, *aligned: Any) -> Any:
        try:
            from mfakit._version import __version__ as here
        except ImportError:
            here = ""
        if here != version:
            import socket

            found = f"mfakit {here}" if here else "no mfakit"
            raise RuntimeError(
                f"a worker on {socket.gethostname()} has {found} and the client mfakit {version}; install mfakit "
                f"{version} where dask's workers run"
            )
        from mfakit._arrays.tasks import call_model

        return call_model(block, start, packed, call, aligned)

    return Task(call_block)


def adding() -> Task:
    """The task ``(parts)``: their sum in the order of the list, in an object of its own. Options are dask's, and have
    no meaning here.
    """

    def add_parts(parts: list[Any], **_: Any) -> Any:
        if len(parts) == 1:
            return parts[0]
        total = parts[0] + parts[1]
        for part in parts[2:]:
            total += part
        return total

    return Task(add_parts)


def passing() -> Task:
    """The task ``(part)``, which is that part."""

    def pass_part(part: Any, **_: Any) -> Any:
        return part

    return Task(pass_part)


def pack(model: Any) -> Packed:
    """A model as bytes, which :func:`call_model` opens."""
    import cloudpickle

    return np.frombuffer(cloudpickle.dumps(model), np.uint8)


def call_model(block: Any, start: Any, packed: Packed, call: bytes, aligned: tuple[Any, ...]) -> Any:
    """``call(model, block, start, *aligned)`` for a pickled `call` and a packed model, in one thread unless its
    arguments ask for more, or it ``streams`` to a device, which the process's threads feed. Of what dask passes as
    lists of one block, that block is taken.
    """
    blocks = [rows[0] if isinstance(rows, list) else rows for rows in (block, *aligned)]
    model, asked = _opened(packed), pickle.loads(call)  # what they import may bring threads of its own, held below
    streams = getattr(asked, "streams", None)
    with nullcontext() if streams is not None and streams(model) else one_thread():
        return asked(model, blocks[0], int(start[0]), *blocks[1:])


def _opened(packed: Packed) -> Any:
    """The model that was packed. It is kept, with all that it computes for itself, as long as the array is."""
    number = id(packed)
    if number not in _open:
        model = pickle.loads(packed.data)
        _open.setdefault(number, model)  # of two threads, one comes first
        weakref.finalize(packed, _open.pop, number, None)
    return _open[number]
