"""log_prob and its gradient against NumPy's bare matrix product of the same shape, in one process, interleaved.

Goal: at n = 4096, d = 12,288, k = 100, l = 10 in float32, log_prob at 75% or more of the rate of ``X @ P``.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import mfakit
from benchmarks.common import interleaved, median_ratio, save

# name, n, d, k, l; float32, isotropic σ = 0.01
CASES = [("faces", 4096, 12288, 100, 10), ("digits", 20000, 784, 50, 6)]


def make_case(n: int, d: int, k: int, l: int) -> tuple[mfakit.MFA, np.ndarray]:
    rng = np.random.default_rng(0)
    means = rng.random((k, d), dtype=np.float32)
    loadings = rng.standard_normal((k, d, l), dtype=np.float32) / 10
    mfa = mfakit.MFA(np.full(k, 1 / k), means, loadings, 1e-4)
    return mfa, mfa.sample(n, rng=1)[0]


def check(mfa: mfakit.MFA, X: np.ndarray) -> float:
    """Largest difference between float32 and float64 log_prob, nats."""
    few = X[:64]
    difference = float(np.abs(mfa.log_prob(few) - mfa.log_prob(few.astype(np.float64))).max())
    if difference > 0.02:
        raise AssertionError(f"float32 log_prob is off by {difference} nats")
    return difference


def resident() -> int:
    """Resident memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def peak_extra_memory(run: Any) -> int:
    """How far resident memory rises above what it was, sampled every 2 ms."""
    before, peak, stop = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    stop.set()
    watcher.join()
    return peak - before


def main() -> None:
    results = []
    for name, n, d, k, l in CASES:
        mfa, X = make_case(n, d, k, l)
        difference = check(mfa, X)
        P = mfa.factors.panel(np.float32)
        memory = peak_extra_memory(lambda mfa=mfa, X=X: mfa.log_prob(X))
        products = np.empty((n, P.shape[1]), np.float32)
        runs = {
            "product": lambda X=X, P=P, out=products: np.matmul(X, P, out=out),
            "log_prob": lambda mfa=mfa, X=X: mfa.log_prob(X),
            "grad_log_prob": lambda mfa=mfa, X=X: mfa.grad_log_prob(X),
        }
        seconds = interleaved(runs, rounds=7)
        share = {run: median_ratio(seconds, "product", run) for run in ("log_prob", "grad_log_prob")}
        print(
            f"{name}: n={n} d={d} k={k} l={l}: "
            f"product {2 * n * d * P.shape[1] / min(seconds['product']) / 1e9:.0f} GFLOP/s, "
            f"log_prob at {share['log_prob']:.0%} of its rate, gradient at {share['grad_log_prob']:.0%}; "
            f"extra memory {memory / 2**20:.0f} MiB; float32 off by {difference:.4f} nats"
        )
        results.append(
            {
                "case": name, "n": n, "d": d, "k": k, "l": l, "share_of_product_rate": share,
                "extra_memory_bytes": memory, "float32_difference_nats": difference, "seconds": seconds,
            }
        )  # fmt: skip
    save("density", {"cases": results})


if __name__ == "__main__":
    main()
