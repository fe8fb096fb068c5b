"""What a CUDA device does, before anything is judged by it: rates, copies, costs of a launch and a wait, ms per kernel.

Products are timed by operand type and layout (N: by rows, T: by columns; of the left and the right one), because TF32
on tensor cores prefers one of them. One product tells how TF32 rounds its operands, which its bound does not assume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import mfakit
from mfakit.bench import Case, Machine, Size, Timed, Work
from mfakit.bench.core import random_mixture
from mfakit.fit import Source, Statistics, expectation, maximization
from mfakit.fit.resident import place

BACKEND = "cuda"


def tf32_rounding(engine: Any, edge: int) -> str:
    """How operands lose their lower bits: 1 + 3/4 of TF32's unit in the last place becomes 1 or 1 + 1 unit."""
    xp, unit = engine.xp, 2.0**-10
    identity = xp.asarray(np.eye(edge, dtype=np.float32))
    A, out = identity * np.float32(1 + 0.75 * unit), xp.empty((edge, edge), np.float32)
    engine.matmul(A, identity, out, True)
    found = float(engine.to_host(out)[0, 0])
    return {1.0: "truncation", 1 + unit: "nearest", 1 + 0.75 * unit: "none"}.get(found, f"unknown ({found!r})")


def product(case: Case, machine: Machine, tf32: bool, layout: str) -> Work:
    engine, edge = machine.engine, case.size["edge"]
    host = np.random.default_rng(0).random((edge, edge), dtype=np.float32).astype(case.dtype)
    A, out = engine.xp.asarray(host), engine.xp.empty((edge, edge), case.dtype)
    left, right = (A.T if letter == "T" else A for letter in layout)
    half = case.dtype == "float16"
    run = partial(engine.xp.matmul, A, A, out=out) if half else partial(engine.matmul, left, right, out, tf32)
    run()
    wide = host.astype(np.float64)
    left, right = (wide.T if letter == "T" else wide for letter in layout)
    expected = left[:8] @ right
    error = np.abs(engine.to_host(out)[:8] - expected).max() / expected.max()
    facts = {"rounding": tf32_rounding(engine, edge)} if tf32 else {}
    return Work(Timed(run), float(error), 1, "products", flops=2.0 * edge**3, facts=facts)


def to_host(case: Case, machine: Machine) -> Work:
    """To pageable memory; the ways to the device and within it are among the limits."""
    n_bytes = case.size["bytes"]
    source = machine.engine.xp.zeros(n_bytes, np.uint8)
    return Work(Timed(lambda: machine.engine.to_host(source)), 0.0, n_bytes, "bytes", n_bytes=n_bytes)


def launches(case: Case, machine: Machine, wait: bool) -> Work:
    """The host's time for a launch, and for a launch that is waited for."""
    engine, count = machine.engine, case.size["launches"]
    X = engine.xp.zeros((1, 32))

    def run() -> None:
        for _ in range(count):
            engine.launch("attack", "attack_step", (1,), 32, (X, X, 0.0, 1, 32))
            if wait:
                engine.synchronize()

    return Work(Timed(run), 0.0, count, "launches")


@contextmanager
def kernels_timed(machine: Machine) -> Iterator[dict[str, list[float]]]:
    """Seconds of each launch by kernel, while each is waited for."""
    found: dict[str, list[float]] = {}
    engine = machine.engine
    launch = engine.launch

    def timed(family: str, kernel: str, *args: Any, **kwargs: Any) -> None:
        seconds = machine.seconds(lambda: launch(family, kernel, *args, **kwargs))
        found.setdefault(kernel, []).append(seconds)

    engine.launch = timed
    try:
        yield found
    finally:
        del engine.launch


class Inputs:
    """Two mixtures and samples on the device."""

    def __init__(self, size: Size) -> None:
        self.mfa, self.other = (random_mixture(size, seed).to("cuda") for seed in (0, 1))
        self.clf = mfakit.BayesClassifier([self.mfa, self.other])
        self.X = self.mfa.sample(size.n, rng=1)[0]
        self._em: Any = None

    def em_step(self) -> None:
        """An M-step and the E-step after it, on a mixture that stays on the device."""
        source, old = self._em or (Source.from_array(self.X), None)
        stats = old or expectation(place(self.mfa, source.arrays), source)
        self._em = source, expectation(maximization(stats, 1e-6), source)


OPERATIONS: dict[str, Callable[[Inputs], Any]] = {
    "log_prob": lambda i: i.mfa.log_prob(i.X),
    "log_prob, float32": lambda i: i.mfa.log_prob(i.X, precision="float32"),
    "log_prob, pruned": lambda i: i.mfa.log_prob(i.X, method="pruned"),
    "grad_log_prob": lambda i: i.mfa.grad_log_prob(i.X),
    "responsibilities": lambda i: i.mfa.responsibilities(i.X),
    "EM statistics": lambda i: Statistics.zeros(i.mfa).add(i.X),
    "EM step": lambda i: i.em_step(),
    "subspace_distances": lambda i: mfakit.subspace_distances(i.mfa, i.other),
    "nearest subspaces": lambda i: mfakit.subspace_distances(i.mfa, i.other, reduce="row_min"),
    "gradient_attack": lambda i: mfakit.attacks.gradient_attack(i.clf, i.X[:512], step_size=1e-3, max_steps=50),
    "gradient_attack in the features": lambda i: mfakit.attacks.gradient_attack(
        i.clf, i.X[:512], step_size=1e-3, max_steps=50, path="features"
    ),
}


def kernels(case: Case, machine: Machine, operation: Callable[[Inputs], Any]) -> Work:
    """By kernel: milliseconds in all and number of launches of one call, warm."""
    size = Size(**case.size)
    run = partial(operation, machine.kept(("kernels", size), lambda: Inputs(size)))
    start = time.perf_counter()
    run()  # compiles what it needs that CuPy's cache does not have, and copies the model
    first = round(time.perf_counter() - start, 3)
    with kernels_timed(machine) as found:
        run()
    by_kernel = {name: {"ms": round(1e3 * sum(times), 4), "launches": len(times)} for name, times in found.items()}
    return Work(Timed(run), 0.0, facts={"first_call_s": first, "kernels": by_kernel})


def kernel_cases(**size: int) -> tuple[Case, ...]:
    return tuple(
        Case(f"kernels of {name}", partial(kernels, operation=operation), size, where="device", against=NOTHING)
        for name, operation in OPERATIONS.items()
    )


NOTHING = "nothing: results are checked by benchmarks/gpu.py and the tests"
PRODUCTS = (("float32", False, 1e-5), ("tf32", True, 1e-2), ("float64", False, 1e-12), ("float16", False, 1e-2))
CASES = (
    *[
        Case(f"product {name} {layout}", partial(product, tf32=tf32, layout=layout), {"edge": 8192},
             "float32" if tf32 else name, "float64 on the host, relative", allowed, "tf32" if tf32 else None,
             where="device")
        for name, tf32, allowed in PRODUCTS
        for layout in (("NN",) if name == "float16" else ("NN", "TN", "NT"))
    ],
    Case("copy to the host", to_host, {"bytes": 2**30}, "uint8", NOTHING, where="device"),
    Case("launch", partial(launches, wait=False), {"launches": 1000}, against=NOTHING, where="device"),
    Case("launch and wait", partial(launches, wait=True), {"launches": 1000}, against=NOTHING, where="device"),
    *kernel_cases(n=2**17, d=784, k=50, l=6),
    *kernel_cases(n=8192, d=12_288, k=200, l=10),
)  # fmt: skip
