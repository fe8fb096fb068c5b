"""Threads of this process: Ctrl-C during calls that hear nothing of it, and products that must not take all cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, ParamSpec, TypeVar

import numpy as np

__all__ = ["forked", "interruptible", "single_threaded_products"]

_PROCESS = os.getpid()

P = ParamSpec("P")
R = TypeVar("R")


def forked() -> bool:
    """Whether this is a child of the process that imported mfakit: libgomp's workers, which torch computes with, do not
    survive a fork, and who asks for several would wait for them forever.
    """
    return os.getpid() != _PROCESS


def interruptible(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``action(*args, **kwargs)``, which must free the GIL, such as a large matrix product or libsvm: waiting for a
    thread of its own hears Ctrl-C at once, and leaves the action to come to its end unheeded.
    """
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread only
        return action(*args, **kwargs)
    pool = ThreadPoolExecutor(1, thread_name_prefix="mfakit")
    try:
        return pool.submit(action, *args, **kwargs).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    np.matmul(np.eye(2), np.eye(2))  # the library is loaded before it is looked for
    return ThreadpoolController()


_limited = threading.Lock()


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Matrix products in one thread each, some 16 us to enter: the threads of a product go on spinning for tens of
    milliseconds after it is done, on cores that other kernels, ours or torch's, then wait for.

    The setting is the process's, so another call may have made it already.
    """
    if not _limited.acquire(blocking=False):
        yield
        return
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limited.release()
