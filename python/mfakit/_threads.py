"""Threads of this process: Ctrl-C during calls that hear nothing of it, and products that must not take all cores."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

__all__ = ["forked", "interruptible", "product_threads", "single_threaded_products", "unheld_product_threads"]

_logger = logging.getLogger("mfakit")

P = ParamSpec("P")
R = TypeVar("R")

# Linux's flag of a process that was forked and has started no other program since (include/linux/sched.h).
FORKED_ONLY = 0x40


def _started_with_a_parents_threads() -> bool:
    """Whether this process is a fork that had libgomp before mfakit: nobody can tell whether the parent used it."""
    try:
        flags = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[6])
        return bool(flags & FORKED_ONLY) and b"libgomp" in Path("/proc/self/maps").read_bytes()
    except (OSError, ValueError, IndexError):  # not Linux
        return False


_PROCESS = os.getpid()
_INHERITED = _started_with_a_parents_threads()
if _INHERITED:
    _logger.info("mfakit was imported in a forked process after torch or OpenMP: it computes in one thread here")


def forked() -> bool:
    """Whether this is a child of the process that imported mfakit, or of one that may have used libgomp before: its
    workers, which torch and our kernels compute with, do not survive a fork, and who asks for several would wait for
    them forever.
    """
    return _INHERITED or os.getpid() != _PROCESS


def interruptible(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``action(*args, **kwargs)``, which must free the GIL, such as a large matrix product or libsvm: waiting for a
    thread of its own hears Ctrl-C at once, and leaves the action to come to its end unheeded.
    """
    main = threading.main_thread()  # signals go to this one only; while the interpreter ends it starts no others
    if threading.current_thread() is not main or not main.is_alive():
        return action(*args, **kwargs)
    pool = ThreadPoolExecutor(1, thread_name_prefix="mfakit")
    try:
        return pool.submit(action, *args, **kwargs).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@cache
def _blas_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    np.matmul(np.eye(2), np.eye(2))  # the library is loaded before it is looked for
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


class _Held(NamedTuple):
    """How many calls hold a library at one thread, and what it had before the first of them."""

    calls: int
    before: int


_held: dict[Any, _Held] = {}
_changing = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit the lock from a thread that it does not have
    os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_changing.release)


@contextmanager
def single_threaded_products(*, scan: bool = False) -> Iterator[None]:
    """Matrix products in one thread each, some 10 us to enter: the threads of a product go on spinning for tens of
    milliseconds after it is done, on cores that other kernels, ours or torch's, then wait for.

    OpenBLAS has one setting for the whole process: the first call in changes it, and the last one out restores it,
    whichever threads they come from. `scan` looks for libraries loaded since, such as SciPy's own; it takes some 10 ms.
    """
    if scan:
        _blas_libraries.cache_clear()
    libraries = _blas_libraries()
    taken: list[Any] = []
    try:
        with _changing:
            for library in libraries:
                taken.append(library)
                _hold(library)
        yield
    finally:
        with _changing:
            for library in taken:
                _let_go(library)


def unheld_product_threads() -> int:
    """Threads that a matrix product takes where nobody holds it at one."""
    with _changing:
        found = [_held.get(_owner(one), _Held(0, one.get_num_threads() or 1)).before for one in _blas_libraries()]
    return max(found, default=1)


def product_threads() -> int:
    """Threads that matrix products may start, in all the libraries that are loaded."""
    _blas_libraries.cache_clear()
    return sum(library.get_num_threads() or 1 for library in _blas_libraries())


def _hold(library: Any) -> None:
    calls, before = _held.get(_owner(library), _Held(0, library.get_num_threads()))
    if calls == 0:
        _set_threads(library, 1)
    _held[_owner(library)] = _Held(calls + 1, before)


def _let_go(library: Any) -> None:
    calls, before = _held.pop(_owner(library))
    if calls > 1:
        _held[_owner(library)] = _Held(calls - 1, before)
    else:
        _set_threads(library, before)


def _owner(library: Any) -> Any:
    """Whose setting it is: the process's or, in libraries that keep one for each thread, this thread's."""
    if library.internal_api == "openblas" and library.threading_layer != "openmp":
        return library.filepath
    return library.filepath, threading.get_ident()


def _set_threads(library: Any, n_threads: int) -> None:
    """From any thread: threadpoolctl 3.8 otherwise hears only the one that was first, and ignores others silently."""
    anyone = getattr(library, "clear_controlling_thread", lambda force: None)
    anyone(force=True)
    library.set_num_threads(n_threads)
    anyone(force=True)
