"""How many threads a call starts by default: as many as everyone who has a say in it allows."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

from .process import Setting, forked, openmp_threads, single_threaded_products, unheld_product_threads

__all__ = ["default_threads", "one_thread"]

# Where the number of BLAS's threads comes from, if from the environment: that is about products and not about kernels.
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
CGROUPS = Path("/sys/fs/cgroup")
LARGEST = 2**63 - 1  # what libgomp reads numbers into
# Names of a pool's threads: concurrent.futures', and those in which a worker of dask.distributed runs its tasks.
POOLS = re.compile(r"(.+)_[0-9]+|(.*Dask-Default-Threads-[0-9]+)-[0-9]+")

_this_thread = threading.local()


def default_threads() -> int:
    """The least of what allows something: affinity, CPU quotas, OMP_NUM_THREADS, OMP_THREAD_LIMIT, LOKY_MAX_CPU_COUNT,
    the limits that threadpoolctl has in force, and this thread's share in a pool of threads; some 10 us.

    In a forked child and in the workers of multiprocessing's pools, of which there are many, it is 1; and within
    :func:`one_thread`.
    """
    if forked() or _is_pool_process() or _is_single():
        return 1
    named = [_first_number(os.environ.get(name)) for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")]
    bounds = [_affinity(), _quota(), *named, _first_number(os.environ.get("LOKY_MAX_CPU_COUNT")), *_limits_in_force()]
    return max(1, min(bound for bound in bounds if bound is not None) // _pool_threads())


def one_thread() -> Any:
    """A context manager: calls of this thread start no threads by default, and products take one each, in torch as well
    where it is loaded. For tasks of which a scheduler starts as many as there are cores.
    """
    me, torch = threading.get_ident(), sys.modules.get("torch")
    settings = [Setting(("one thread", me), _is_single, partial(setattr, _this_thread, "single"), True)]
    if torch is not None and hasattr(torch, "set_num_threads"):
        settings.append(Setting("torch's threads", torch.get_num_threads, torch.set_num_threads, 1))
    return single_threaded_products(more=settings)


def _is_single() -> bool:
    return getattr(_this_thread, "single", False)


def _affinity() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


CPUS_AT_IMPORT = _affinity()


def _limits_in_force() -> list[int | None]:
    """What threadpoolctl, or a call to the library itself, has set OpenMP and BLAS to. Their own defaults are none:
    the CPUs that there were when they were loaded, and for BLAS its own variables.
    """
    openmp, products = openmp_threads(), unheld_product_threads()
    own = products == CPUS_AT_IMPORT or any(products == _first_number(os.environ.get(name)) for name in BLAS_VARIABLES)
    return [None if openmp in (0, CPUS_AT_IMPORT) else openmp, None if own else products]


def _first_number(text: str | None) -> int | None:
    """The first number of a list such as "4,2", by libgomp's rules: one that is malformed anywhere is ignored."""
    if text is None:
        return None
    if re.fullmatch(r"\s*\+?[0-9]+\s*(,\s*\+?[0-9]+\s*)*", text, re.ASCII) is None:
        return None
    numbers = [int(number) for number in text.split(",")]
    return numbers[0] if all(0 < number <= LARGEST for number in numbers) else None


def _is_pool_process() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(process.current_process().daemon)


def _pool_threads() -> int:
    """Threads of the pool that this thread works in (concurrent.futures', dask's, or multiprocessing's, which joblib
    takes); the others are as likely to call us. 1 for other threads.
    """
    me = threading.current_thread()
    if me is threading.main_thread():
        return 1
    dummy = sys.modules.get("multiprocessing.dummy")
    if dummy is not None and isinstance(me, dummy.DummyProcess):
        return sum(isinstance(one, dummy.DummyProcess) for one in threading.enumerate())
    pool = _pool_of(me)
    return 1 if pool is None else max(1, sum(_pool_of(one) == pool for one in threading.enumerate()))


def _pool_of(thread: threading.Thread) -> str | None:
    found = POOLS.fullmatch(thread.name)
    return None if found is None else found[1] or found[2]


@cache
def _quota() -> int | None:
    """CPUs that the cgroup of this process and those above it may use, rounded up; None: any number. Read once."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return _quota_in(CGROUPS, lines)


def _quota_in(root: Path, lines: list[str]) -> int | None:
    """The least quota of the groups in /proc/self/cgroup's lines, whose files are under `root`."""
    found = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":  # version 2
            mounts, read = [root, root / "unified"], _read_v2
        elif "cpu" in controllers.split(","):
            mounts, read = [root / controllers, root / "cpu", root / "cpu,cpuacct"], _read_v1
        else:
            continue
        for mount in mounts:
            parts = [part for part in path.split("/") if part not in ("", "..")]
            # A container sees its own group as the root, and the path may be the host's.
            found += [read(mount.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return min((math.ceil(quota) for quota in found if quota is not None), default=None)


def _read_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return _ratio(quota, period)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None


def _read_v1(group: Path) -> float | None:
    try:
        return _ratio((group / "cpu.cfs_quota_us").read_text(), (group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None


def _ratio(quota: str, period: str) -> float | None:
    return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
