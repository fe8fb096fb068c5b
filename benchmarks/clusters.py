"""Densities and the E-step on dask's workers: two processes of one thread each against one, in blocks of some seconds.

Goal: at least 1.6 times on two cores, which client and scheduler share; results equal to those in memory to 1e-9.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from mfakit._arrays.options import Options
from mfakit.bench import Case, Machine, Size, Skipped, Timed, Work
from mfakit.bench.core import random_mixture
from mfakit.fit import Source, expectation
from mfakit.fit.bounds import Bounds
from mfakit.fit.cluster import ClusterSource, cluster_expectation

GOAL = 1.6
# Eight blocks of 12,000 rows: a core has a second and more to do with each.
SIZE, BLOCKS = Size(96_000, 784, 400, 10), 8

_open = contextlib.ExitStack()


@contextlib.contextmanager
def around() -> Iterator[None]:
    """Workers end with the benchmark. Their samples are sent to them once, which dask would warn of."""
    if find_spec("distributed") is None:  # each case says so
        yield
        return
    import_module("distributed")  # before its configuration is changed
    dask = import_module("dask")
    with _open, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        yield


class Processes:
    """Some workers of one thread each, and samples that they keep."""

    def __init__(self, count: int, X: np.ndarray) -> None:
        import dask.array as da
        from distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0")
        self.client = _open.enter_context(Client(_open.enter_context(cluster)))
        with self.client.as_current():
            self.X = da.from_array(X, chunks=(len(X) // BLOCKS, X.shape[1])).persist()
            self.source = ClusterSource.from_array(self.X, options=Options(method="dense"))

    def timed(self, action: Callable[[Processes], Any]) -> Timed:
        return Timed(partial(action, self), during=self.client.as_current)


class Inputs:
    """A mixture, its samples in memory, and the same on one and on two workers."""

    def __init__(self) -> None:
        if find_spec("distributed") is None:
            raise Skipped("distributed is not installed")
        if len(os.sched_getaffinity(0)) < 2:
            raise Skipped("it needs two cores")
        self.mfa = random_mixture(SIZE, 0)
        self.X = self.mfa.sample(SIZE.n, rng=1)[0]
        self.one, self.two = Processes(1, self.X), Processes(2, self.X)


def log_prob(mfa: Any, where: Processes) -> Any:
    return mfa.log_prob(where.X, method="dense").compute()


def sums(mfa: Any, where: Processes) -> Any:
    return cluster_expectation(mfa, where.source, Bounds(where.source))


def of_density(inputs: Inputs, got: Any) -> float:
    expected = inputs.mfa.log_prob(inputs.X, method="dense").astype(np.float64)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def of_sums(inputs: Inputs, got: Any) -> float:
    expected = expectation(inputs.mfa, Source.from_array(inputs.X, options=Options(method="dense")))
    pairs = ((getattr(got, name), getattr(expected, name)) for name in ("log_likelihood", "weight", "sum_x", "sum_xz"))
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def work(
    case: Case, machine: Machine, action: Callable[[Any, Processes], Any], error: Callable[[Inputs, Any], float]
) -> Work:
    inputs: Inputs = machine.kept("clusters", Inputs)
    run = partial(action, inputs.mfa)
    load = os.getloadavg()[0]
    with inputs.two.client.as_current():
        run(inputs.two)
        began, cpu = time.perf_counter(), time.process_time()
        got = run(inputs.two)
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    facts = {"goal": GOAL, "load_before": load, "client_and_scheduler_share_of_a_core": cpu / seconds}
    n, d, k, l = SIZE[:4]
    return Work(
        inputs.two.timed(run), error(inputs, got), n, "samples", 2.0 * n * d * k * (l + 1), 4.0 * n * d,
        {"one worker": inputs.one.timed(run)}, facts,
    )  # fmt: skip


ACTIONS = {"log_prob, two workers": (log_prob, of_density), "E-step, two workers": (sums, of_sums)}
CASES = tuple(
    Case(name, partial(work, action=action, error=error), dict(zip("ndkl", SIZE, strict=False)),
         against="the same in memory", allowed=1e-9, where="host")
    for name, (action, error) in ACTIONS.items()
)  # fmt: skip
