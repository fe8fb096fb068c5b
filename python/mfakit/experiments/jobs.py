"""Several processes for one experiment: each computes the parts of some data sets, and leaves them in the store."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

from .outcome import Context

__all__ = ["compute_parts"]

Run = Callable[[Any, Context], Any]

# How often finished processes are looked for, seconds.
PAUSE = 0.05


def compute_parts(run: Run, configs: Sequence[Any], context: Context, jobs: int) -> None:
    """Call an experiment's `run` with each configuration, at most `jobs` at a time, for the parts that it stores.

    Each process has its share of the threads that this one may start. Ctrl-C ends all of them; what they had finished
    is kept.

    Raises
    ------
    RuntimeError
        If one of them fails; its own message is on standard error.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    quiet = replace(context, progress=False)
    spawn = multiprocessing.get_context("spawn")
    waiting = [
        spawn.Process(target=_run, args=(run, config, quiet, threads), daemon=True, name=f"process {i}")
        for i, config in enumerate(configs)
    ]
    running: list[BaseProcess] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(waiting.pop(0))
                running[-1].start()
            time.sleep(PAUSE)
            failed = [process for process in running if process.exitcode]
            if failed:
                raise RuntimeError(f"{failed[0].name} ended with status {failed[0].exitcode}; run again without --jobs")
            running = [process for process in running if process.exitcode is None]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _run(run: Run, config: Any, context: Context, threads: int) -> None:
    """What a process does."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads):
        run(config, context)
