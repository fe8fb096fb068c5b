"""What a CUDA device does, before anything is judged by it: rates, copies, costs of a launch and a wait, ms per kernel.

Products are timed by operand type and layout (NN: both by rows; TN: the left one by columns), because TF32 on tensor
cores prefers one of them. One product tells how TF32 rounds its operands, which the bound of precision="fast" assumes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import mfakit
from benchmarks.common import save
from mfakit import bench
from mfakit._io.report import jsonable
from mfakit.backends import get_arrays, get_backend, why_missing
from mfakit.fit import Statistics

EDGE = 8192  # of a square product
COPY_BYTES = 2**30
LAUNCHES = 1000
ROUNDS = 5


def tf32_rounding(engine: Any) -> str:
    """How operands lose their lower bits: 1 + 3/4 of TF32's unit in the last place becomes 1 or 1 + 1 unit."""
    xp, unit = engine.xp, 2.0**-10
    identity = xp.asarray(np.eye(64, dtype=np.float32))
    A, out = identity * np.float32(1 + 0.75 * unit), xp.empty((64, 64), np.float32)
    engine.matmul(A, identity, out, True)
    found = float(engine.to_host(out)[0, 0])
    return {1.0: "truncation", 1 + unit: "nearest", 1 + 0.75 * unit: "none"}.get(found, f"unknown ({found!r})")


def product_rates(engine: Any, edge: int = EDGE) -> dict[str, float]:
    """TFLOP/s of square products."""
    xp, rng = engine.xp, np.random.default_rng(0)
    host = rng.random((edge, edge), dtype=np.float32)
    rates = {}
    for name, dtype, fast in (("float32", np.float32, False), ("tf32", np.float32, True), ("float64", float, False)):
        A, out = xp.asarray(host.astype(dtype)), xp.empty((edge, edge), dtype)
        for layout, left in (("NN", A), ("TN", A.T)):
            action = _bound(engine.matmul, left, A, out, fast)
            rates[f"{name} {layout}"] = 2e-12 * edge**3 / _seconds(engine, action)
        del A, out
    half = xp.asarray(host.astype(np.float16))
    rates["float16"] = 2e-12 * edge**3 / _seconds(engine, lambda: xp.matmul(half, half))
    return rates


def copies(engine: Any, n_bytes: int = COPY_BYTES) -> dict[str, float]:
    """GB/s within the device (a byte counts as read and written), and to and from it."""
    xp = engine.xp
    source, target = xp.zeros(n_bytes, np.uint8), xp.zeros(n_bytes, np.uint8)

    def copy() -> None:
        target[:] = source

    up = min(engine.upload_seconds(n_bytes, ROUNDS))
    start = time.perf_counter()
    engine.to_host(source)
    pageable = time.perf_counter() - start
    return {
        "device": 2e-9 * n_bytes / _seconds(engine, copy), "to device, page-locked": 1e-9 * n_bytes / up,
        "to host, pageable": 1e-9 * n_bytes / pageable,
    }  # fmt: skip


def launch_costs(engine: Any, launches: int = LAUNCHES) -> dict[str, float]:
    """Microseconds of the host for a launch, and for a launch that is waited for."""
    X = engine.xp.zeros((1, 32))

    def cost(wait: bool) -> float:
        engine.synchronize()
        start = time.perf_counter()
        for _ in range(launches):
            engine.launch("attack", "attack_step", (1,), 32, (X, X, 0.0, 1, 32))
            if wait:
                engine.synchronize()
        engine.synchronize()
        return 1e6 * (time.perf_counter() - start) / launches

    cost(False)  # compiles
    return {"launch": cost(False), "launch and wait": cost(True)}


@contextmanager
def kernels_timed(engine: Any) -> Iterator[dict[str, list[float]]]:
    """Seconds of each launch by kernel, while each is waited for."""
    found: dict[str, list[float]] = {}
    launch = engine.launch

    def timed(family: str, kernel: str, *args: Any, **kwargs: Any) -> None:
        found.setdefault(kernel, []).append(_once(engine, lambda: launch(family, kernel, *args, **kwargs)))

    engine.launch = timed
    try:
        yield found
    finally:
        del engine.launch


def kernel_times(engine: Any, size: bench.Size) -> dict[str, dict[str, Any]]:
    """By operation and kernel: milliseconds in all and number of launches, warm."""
    mfa, other = (bench._model(size, seed).to("cuda") for seed in (0, 1))
    clf = mfakit.BayesClassifier([mfa, other])
    X = mfa.sample(size.n, rng=1)[0]
    operations: dict[str, Callable[[], Any]] = {
        "log_prob": lambda: mfa.log_prob(X),
        "log_prob, fast": lambda: mfa.log_prob(X, precision="fast"),
        "grad_log_prob": lambda: mfa.grad_log_prob(X),
        "responsibilities": lambda: mfa.responsibilities(X),
        "EM statistics": lambda: Statistics.zeros(mfa).add(X),
        "subspace_distances": lambda: mfakit.subspace_distances(mfa, other),
        "gradient_attack": lambda: mfakit.attacks.gradient_attack(clf, X[:512], step_size=1e-3, max_steps=50),
    }
    result = {}
    for name, run in operations.items():
        run()
        with kernels_timed(engine) as found:
            run()
        result[name] = {
            kernel: {"ms": round(1e3 * sum(times), 4), "launches": len(times)} for kernel, times in found.items()
        }
    return result


def _bound(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


def _once(engine: Any, action: Callable[[], Any]) -> float:
    if hasattr(engine, "event_seconds"):
        return float(engine.event_seconds(action))
    start = time.perf_counter()
    action()
    engine.synchronize()
    return time.perf_counter() - start


def _seconds(engine: Any, action: Callable[[], Any]) -> float:
    """Median of some rounds, after one that is not counted."""
    action()
    engine.synchronize()
    return statistics.median(_once(engine, action) for _ in range(ROUNDS))


def main() -> None:
    reason = why_missing("cuda")
    if reason is not None:
        print(f"device: not measured here, {reason}")
        return
    from benchmarks.gpu import device_facts

    arrays: Any = get_arrays(get_backend("cuda"))
    with arrays.active():
        engine = arrays.engine
        results: dict[str, Any] = {"status": "measured", **device_facts(), "tf32_rounding": tf32_rounding(engine)}
        steps: dict[str, Callable[[], Any]] = {
            "tflops": lambda: product_rates(engine), "gb_per_second": lambda: copies(engine),
            "microseconds": lambda: launch_costs(engine),
            "kernels digits": lambda: kernel_times(engine, bench.Size(2**17, 784, 50, 6)),
            "kernels faces": lambda: kernel_times(engine, bench.Size(8192, 12_288, 200, 10)),
        }  # fmt: skip
        for name, measure in steps.items():
            results[name] = jsonable(measure())
            print(name, results[name], sep="\n  ")
            save("device", results)  # what is measured is kept, whatever comes after it


if __name__ == "__main__":
    main()
