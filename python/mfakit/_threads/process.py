"""Threads of this process: Ctrl-C during calls that do not react to it, and products that must not take all cores."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from .room import require_room

__all__ = [
    "Guard", "Holder", "Setting", "errstate", "finish_start", "forked", "interruptible", "keeps_errstate",
    "openmp_threads", "product_threads", "run_together", "single_threaded_products", "unheld_product_threads",
]  # fmt: skip

_logger = logging.getLogger("mfakit")

P = ParamSpec("P")
R = TypeVar("R")

# Linux's flag of a process that was forked and has started no other program since (include/linux/sched.h).
FORKED_ONLY = 0x40
NUMPY_MAJOR = int(np.__version__.partition(".")[0])
# A wait without a time limit would miss some interrupts.
WAIT_SECONDS = 0.1


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

try:  # after libgomp was looked for, which it brings; and now, so that threadpoolctl finds that before it sets a limit
    from .. import _native
except ImportError:
    _native = None


def forked() -> bool:
    """Whether this is a child of the process that imported mfakit, or of one that may have used libgomp before: its
    workers, which torch and our kernels compute with, do not survive a fork, and who asks for several would wait for
    them forever.
    """
    return _INHERITED or os.getpid() != _PROCESS


class _Guard:
    """``with Guard(take, undo):`` calls ``take()``, whose result the block gets, and at its end ``undo()``, which must
    bear to be called again: where an interrupt ends it, it is. ``translate(error)`` may raise another error instead of
    the one that ended the block.

    This is for installations without the compiled extension, whose ``Guard`` has no instruction of Python code before
    ``undo`` that an interrupt could come at.
    """

    def __init__(
        self, take: Callable[[], Any], undo: Callable[[], None], translate: Callable[[Any], None] | None = None
    ) -> None:
        self.take, self.undo, self.translate = take, undo, translate

    def __enter__(self) -> Any:
        try:
            return self.take()
        except BaseException:
            with suppress(BaseException):  # there may have been nothing to undo yet
                self._undo()
            raise

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo()
        if error is not None and self.translate is not None:
            self.translate(error)

    def _undo(self) -> None:
        try:
            self.undo()
        except BaseException:
            self.undo()
            raise


Guard: Any = _Guard if _native is None else _native.Guard


def errstate(**settings: str) -> Any:
    """:class:`numpy.errstate`, which an interrupt at the end of a block without calls would leave set for good. Inside
    of a block of this one NumPy's own will do: all is put back at the end.
    """
    before: dict[str, Any] = {}

    def take() -> None:
        before.update(np.geterr())
        np.seterr(**settings)  # type: ignore[arg-type]

    def undo() -> None:
        if before:
            np.seterr(**before)

    return Guard(take, undo)


def keeps_errstate(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: NumPy's error settings are at the end of the call what they were before, whatever interrupts it.

    :mod:`numpy.linalg` and scikit-learn change them by :class:`numpy.errstate`, whose entry and exit are Python code
    that an interrupt can cut in two. NumPy 2 keeps the settings in a context variable: the function runs in a copy of
    the context, which is dropped at its end by compiled code.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if NUMPY_MAJOR >= 2:
            return copy_context().run(function, *args, **kwargs)
        with errstate():
            return function(*args, **kwargs)

    return call


def openmp_threads() -> int:
    """What OpenMP would start in this thread for our kernels by default; 0 where they have no OpenMP."""
    return 0 if _native is None else int(_native.openmp_threads())


def interruptible(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``action(*args, **kwargs)``, which must free the GIL, such as a large matrix product or libsvm: waiting for a
    thread of its own answers Ctrl-C at once, and leaves the action to run to its end. A plain thread, because a
    pool that is interrupted while it takes work keeps its lock for ever.
    """
    main = threading.main_thread()  # signals go to this one only; while the interpreter ends it starts no others
    if threading.current_thread() is not main or not main.is_alive():
        return action(*args, **kwargs)
    values: list[R] = []
    errors: list[BaseException] = []

    cancelled = threading.Event()

    def run() -> None:
        try:
            if not cancelled.is_set():
                values.append(action(*args, **kwargs))
        except BaseException as error:  # raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="mfakit", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be started, under a limit of memory or of threads
        return action(*args, **kwargs)
    except BaseException:
        cancelled.set()
        finish_start(thread)
        raise
    while not (values or errors):
        thread.join(WAIT_SECONDS)
    if errors:
        raise errors[0]
    return values[0]


def run_together(tasks: Sequence[Callable[[], None]], cancelled: threading.Event) -> None:
    """Run the tasks at the same time, each in a thread of its own; those for which no thread can be started run in this
    one afterwards. Returns when all have ended; raises the error of the first that has one.

    An interrupt sets `cancelled`, which the tasks should look at, and comes through when none of them runs any more.
    """
    errors: list[BaseException | None] = [None] * len(tasks)
    threads: list[threading.Thread] = []
    running: set[int] = set()

    def run(i: int) -> None:
        running.add(i)
        try:
            if not cancelled.is_set():
                tasks[i]()
        except BaseException as error:
            errors[i] = error
        finally:
            running.discard(i)

    def start() -> None:
        for i in range(len(tasks)):
            thread = threading.Thread(target=run, args=(i,), name=f"mfakit_{i}")
            threads.append(thread)
            try:
                thread.start()
            except RuntimeError:
                for rest in range(i, len(tasks)):
                    run(rest)
                return

    def end() -> None:
        if not ended:  # a thread that has not begun yet finds it set
            cancelled.set()
            for thread in threads:
                finish_start(thread)
                _wait_for(thread)
            while running:  # before Python 3.13 an interrupted join takes its thread for ended
                time.sleep(WAIT_SECONDS / 50)

    ended: list[bool] = []
    with Guard(start, end):
        for i, thread in enumerate(threads):
            _wait_for(thread)
            _raise(errors[i])
        ended.append(True)
    for error in errors:
        _raise(error)


def finish_start(thread: threading.Thread) -> None:
    """Start a thread again whose start was interrupted before it was launched: :mod:`threading` would count it among
    the active ones for ever.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while thread.ident is None and time.monotonic() < deadline:
        time.sleep(WAIT_SECONDS / 50)  # it may have been launched and not have come to its first line yet
    if thread.ident is None and thread in threading.enumerate():
        thread.start()


def _wait_for(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(WAIT_SECONDS)


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error


@cache
def _blas_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    require_room(1)
    np.matmul(np.eye(2), np.eye(2))  # the library is loaded, and has its memory, before it is looked for
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


class Setting(NamedTuple):
    """A setting that belongs to everybody: whose it is, how it is read and set, what is wanted, and what may stay."""

    owner: Any
    get: Callable[[], Any]
    put: Callable[[Any], Any]
    wanted: Any
    fine: tuple[Any, ...] = ()


class _Held(NamedTuple):
    """A setting that is held, what it was before, and who holds it; who is gone holds nothing."""

    setting: Setting
    before: Any
    holders: list[weakref.ref[Holder]]

    def others(self, holder: Holder | None) -> list[weakref.ref[Holder]]:
        return [one for one in self.holders if one() is not None and one() is not holder]


class Holder:
    """Somebody who wants settings held. The first one in changes them and the last one out restores them, whichever
    threads they come from.

    Interrupts may come anywhere in `take` and `let_go`, which is why each step leaves a state from which `let_go` can
    be repeated: what is to be restored is written down before it is changed, and struck out after it is restored.
    """

    def __init__(self, settings: Sequence[Setting]) -> None:
        self.settings, self.thread = settings, threading.get_ident()

    def take(self) -> None:
        """Set them."""
        with _changing:
            for one in self.settings:
                held = _held.get(one.owner) or _Held(one, one.get(), [])
                _held[one.owner] = held._replace(holders=[*held.others(None), weakref.ref(self)])
                if one.get() not in (one.wanted, *one.fine):
                    one.put(one.wanted)

    def let_go(self) -> None:
        """Restore those that nobody else holds."""
        with _changing:
            for one in self.settings:
                if one.owner in _held:
                    _leave(one.owner, _held[one.owner].others(self))


_held: dict[Any, _Held] = {}
# Reentrant: what the garbage collector ends in the middle of it may be a holder.
_changing = threading.RLock()


def _leave(owner: Any, holders: list[weakref.ref[Holder]]) -> None:
    held = _held[owner]
    if holders:
        _held[owner] = held._replace(holders=holders)
        return
    if held.setting.get() != held.before:
        held.setting.put(held.before)
    del _held[owner]


def _after_fork() -> None:
    """In a child, which has neither the other threads of its parent nor what they hold."""
    global _changing
    _changing = threading.RLock()
    me = threading.get_ident()
    for owner, held in list(_held.items()):
        _leave(owner, [one for one in held.others(None) if (holder := one()) is not None and holder.thread == me])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def single_threaded_products(
    *, scan: bool = False, openmp: bool = False, more: Sequence[Setting] = (), gives: Any = None
) -> Any:
    """A context manager, whose block gets `gives`: matrix products in one thread each, some 10 us to enter.

    The threads of a product go on spinning for tens of milliseconds after it is done, on cores that other kernels, ours
    or torch's, then wait for; and a factorization, which starts them thousands of times, takes ten times longer where
    another process has a core.

    OpenBLAS has one setting for the whole process: the first call in changes it, and the last one out restores it,
    whichever threads they come from and whatever interrupts them. `scan` looks for libraries loaded since, such as
    SciPy's own; it takes some 10 ms. `openmp` holds OpenMP's threads, too, of this thread alone; `more` are settings to
    hold beside them.
    """
    if scan:
        _blas_libraries.cache_clear()
    libraries = _blas_libraries()
    if openmp:
        from threadpoolctl import ThreadpoolController

        libraries = [*libraries, *ThreadpoolController().select(user_api="openmp").lib_controllers]
    holder = Holder([*(_one_thread(library) for library in libraries), *more])

    def take() -> Any:
        holder.take()
        return gives

    return Guard(take, holder.let_go)


def unheld_product_threads() -> int:
    """Threads that a matrix product takes where nobody holds it at one."""
    with _changing:
        found = [
            _held[owner].before if (owner := _owner(one)) in _held else one.get_num_threads() or 1
            for one in _blas_libraries()
        ]
    return max(found, default=1)


def product_threads() -> int:
    """Threads that matrix products may start, in all the libraries that are loaded."""
    _blas_libraries.cache_clear()
    return sum(library.get_num_threads() or 1 for library in _blas_libraries())


def _owner(library: Any) -> Any:
    """Whose setting it is: the process's or, in libraries that keep one for each thread, this thread's."""
    if library.internal_api == "openblas" and library.threading_layer != "openmp":
        return library.filepath
    return library.filepath, threading.get_ident()


def _one_thread(library: Any) -> Setting:
    return Setting(_owner(library), library.get_num_threads, partial(_set_threads, library), 1)


def _set_threads(library: Any, n_threads: int) -> None:
    """From any thread: threadpoolctl 3.8 otherwise sees only the first one, and ignores others silently."""
    anyone = getattr(library, "clear_controlling_thread", lambda force: None)
    anyone(force=True)
    library.set_num_threads(n_threads)
    anyone(force=True)
