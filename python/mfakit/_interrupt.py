"""Ctrl-C during long calls that hear nothing of it, such as a large matrix product or libsvm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["interruptible"]

P = ParamSpec("P")
R = TypeVar("R")


def interruptible(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``action(*args, **kwargs)``, which must free the GIL: waiting for a thread of its own hears Ctrl-C at once, and
    leaves the action to come to its end unheeded.
    """
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread only
        return action(*args, **kwargs)
    pool = ThreadPoolExecutor(1, thread_name_prefix="mfakit")
    try:
        return pool.submit(action, *args, **kwargs).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
