"""How many threads should share rows, and when that pays; :mod:`mfakit._threads.rows` has the threads."""

from __future__ import annotations

import math
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from .._threads.process import forked, single_threaded_products, unheld_product_threads
from .._threads.room import is_scarce, threads_with_room
from .options import Options

__all__ = ["careful_products", "plan_crew", "useful_threads"]

# Multiplications: below the first, BLAS does them in one thread; the second take a thread longer than it takes to start
# it; and the third a core as long as our kernels' threads wait for those of the product before them, some 10 ms.
SERIAL_STEPS, SHARE_STEPS, SPIN_STEPS = 2**18, 2**24, 2**28
# A product of fewer takes less time than it takes to hold BLAS at one thread for it, some 40 us.
HOLD_STEPS = 2**22
# An entry of the product costs the kernels that follow as much as this many features.
ENTRY_STEPS = 32
# Threads that multiply beside each other read the panel each for itself: this many rows for each of them pay for that.
ROWS_PER_THREAD = 16
# For fewer rows our kernels start no threads after a product in several.
FEW_ROWS = 256


def useful_threads(options: Options) -> int:
    """Threads that may share rows: 1 where products have one anyway, and nothing spins; where the kernels are NumPy's,
    which start none; in a forked child, which computes in one; while the interpreter ends; and where a limit of memory
    leaves no room for more.
    """
    if options.backend == "numpy" or forked() or not threading.main_thread().is_alive():
        return 1
    return threads_with_room(min(options.threads, unheld_product_threads()))


def plan_crew(n: int, d: int, columns: int, rows: int, options: Options, repeats: int = 1) -> tuple[int, Options]:
    """How many threads should share n samples of d features that are multiplied with a panel of this many columns in
    blocks of this many rows, and the options of each thread; `repeats` times, if the threads are started once for all.

    Kernels in several threads after a product in several wait for the scheduler to take the cores from BLAS's: for
    small blocks that is all the time they take. So each thread multiplies for itself, or the kernels have only one.
    """
    steps = n * columns * (d + ENTRY_STEPS)
    threads = 1 if steps < SERIAL_STEPS else useful_threads(options)
    if threads == 1:
        return 1, options
    count = min(threads, steps * repeats // SHARE_STEPS, math.isqrt(min(n, rows) // ROWS_PER_THREAD))
    if count > 1 and steps / count - steps / threads <= SPIN_STEPS:
        return count, replace(options, n_threads=1)
    return 1, replace(options, n_threads=1) if n < FEW_ROWS or steps < SHARE_STEPS else options


def careful_products(steps: float = math.inf, few: int = SHARE_STEPS) -> AbstractContextManager[Any]:
    """Around products of BLAS's own threads, of this many multiplications each: in one thread under a limit of memory
    that is nearly used up, and where they are fewer than `few`. Of a small product BLAS's second thread saves less than
    half, and where another process has a core, the first waits for it ten times as long as the product takes.
    """
    small = HOLD_STEPS <= steps < few
    careful: AbstractContextManager[Any] = single_threaded_products() if small or is_scarce() else nullcontext()
    return careful
