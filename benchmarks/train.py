"""Training the paper's network on samples of a symmetric pair, and what attacks need of it.

Goals: an epoch on 10,000 samples of 28×28 (width 32) in under 20 s on two cores, memory under 2 GB, test accuracy of at
least 99% on mnist-06.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
from importlib.metadata import version
from typing import Any

import numpy as np

import mfakit
from benchmarks.common import interleaved, save

ROUNDS = 3
N_TRAIN, N_TEST, N_ATTACKED = 10_000, 2_000, 100


def peak_bytes() -> int:
    """The most memory that this process has had."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib if sys.platform == "darwin" else 1024 * kib


def check(cnn: Any, test: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Accuracy on test samples, and how far float32 gradients are from float64 ones, relative to the largest."""
    X, y = test
    accuracy = cnn.score(X, y)
    if accuracy < 0.99:
        raise AssertionError(f"test accuracy is {100 * accuracy:.2f}%, below 99%")
    narrow, wide = cnn.decision_gradient(X[:50]), cnn.decision_gradient(X[:50].astype(np.float64))
    difference = float(np.abs(narrow - wide).max() / np.abs(wide).max())
    if difference > 1e-4:
        raise AssertionError(f"float32 gradients are off float64 ones by {difference:.2g} relative")
    return {"test_accuracy": accuracy, "gradient_difference": difference}


def main() -> None:
    pair = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=0.01)
    X, y = pair.sample(N_TRAIN, rng=0, balanced=True)
    test = pair.sample(N_TEST, rng=1, balanced=True)
    cnn = mfakit.classifiers.CNN(epochs=1, device="cpu", progress=False)
    trades = mfakit.classifiers.TRADES(epochs=1, device="cpu", progress=False)
    steps = N_TRAIN // 10 // cnn.batch_size
    checked = check(cnn.fit(X, y), test)
    seconds = interleaved(
        {
            "epoch": lambda: cnn.fit(X, y),
            "stream_tenth": lambda: cnn.fit_stream(pair, steps),
            "trades_tenth": lambda: trades.fit_stream(pair, steps),
            "predict": lambda: cnn.predict(test[0]),
            "gradient_100": lambda: cnn.decision_gradient(test[0][:N_ATTACKED]),
            "gradient_100_float64": lambda: cnn.decision_gradient(test[0][:N_ATTACKED].astype(np.float64)),
        },
        rounds=ROUNDS,
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    peak = peak_bytes()
    print(
        f"train: n={N_TRAIN} d={X.shape[1]} width={cnn.width} depth={cnn.depth}: epoch {median['epoch']:.1f} s, on "
        f"fresh samples {10 * median['stream_tenth']:.1f} s, TRADES {10 * median['trades_tenth']:.0f} s; "
        f"{N_TEST / median['predict']:.0f} predictions/s; gradients of {N_ATTACKED} samples "
        f"{1e3 * median['gradient_100']:.0f} ms ({1e3 * median['gradient_100_float64']:.0f} in float64); peak "
        f"{peak / 1e9:.2f} GB; test accuracy {100 * checked['test_accuracy']:.2f}% after one epoch"
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    save("train", {
        "torch": version("torch"), "n": N_TRAIN, "d": X.shape[1], "width": cnn.width, "depth": cnn.depth,
        "batch_size": cnn.batch_size, "steps_of_a_tenth": steps, "peak_bytes": peak, "load_average": load, **checked,
        "seconds": seconds,
    })  # fmt: skip


if __name__ == "__main__":
    main()
