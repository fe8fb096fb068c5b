"""RBFSVM against scikit-learn's SVC, and gradients by products against a loop over samples; each checked before timed.

Goals at n = 5,000, d = 12,288: fit at least 20 times faster with the same support vectors and decision values within
1e-6; gradients of 1,000 samples at least 20 times faster. Smaller by default: SVC takes minutes (--n 5000 --d 12288).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from benchmarks.common import interleaved, median_ratio, save
from mfakit.classifiers import RBFSVM

Array = NDArray[Any]

# Values of X above which a fit by SVC takes minutes.
LARGE = 2**24


def samples(n: int, d: int) -> tuple[Array, Array]:
    """Two classes of low rank plus noise, as images are: float32 [n, d]."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    bases = rng.standard_normal((2, 10, d), dtype=np.float32) / np.float32(np.sqrt(d))
    X = np.float32(0.01) * rng.standard_normal((n, d), dtype=np.float32)
    for c in range(2):
        rows = y == c
        X[rows] += 0.3 + 3 * rng.standard_normal((int(rows.sum()), 10), dtype=np.float32) @ bases[c]
    return X, y


def gradient_loop(svm: RBFSVM, X: Array) -> Array:
    """∇f sample by sample, as one writes it down."""
    result = np.empty(X.shape)
    for i, x in enumerate(X.astype(np.float64)):
        difference = x - svm.support_vectors_
        weights = svm.dual_coef_[0] * np.exp(-svm.gamma_ * np.einsum("md,md->m", difference, difference))
        result[i] = -2 * svm.gamma_ * weights @ difference
    return result


def fits(n: int, d: int, multiple: float, rounds: int) -> tuple[dict[str, Any], RBFSVM]:
    """Seconds of either fit; SVC reads X in float64, as it asks for. It computes those rows of the kernel matrix that
    its steps ask for, which are few where few samples support the margin; ours is computed whole.
    """
    X, y = samples(n, d)
    gamma = multiple / (d * float(X.var(dtype=np.float64)))
    wide, Z = X.astype(np.float64), samples(n + 200, d)[0][n:]
    ours, theirs = RBFSVM(gamma=gamma), SVC(kernel="rbf", gamma=gamma)
    runs = {"RBFSVM": lambda: ours.fit(X, y), "SVC": lambda: theirs.fit(wide, y)}
    seconds = interleaved(runs, rounds, warm_up=n * d < LARGE)  # minutes, of which a warm-up is nothing
    if not np.array_equal(ours.support_, theirs.support_):
        raise AssertionError("other support vectors than SVC")
    difference = float(np.abs(ours.decision_function(Z.astype(np.float64)) - theirs.decision_function(Z)).max())
    if difference > 1e-6:
        raise AssertionError(f"decision values differ by {difference:.1e}")
    ratio = median_ratio(seconds, "SVC", "RBFSVM")
    print(
        f"fit at n={n}, d={d}: {min(seconds['RBFSVM']):.2f} s, SVC {min(seconds['SVC']):.2f} s, {ratio:.1f} times; "
        f"{len(ours.support_)} support vectors, the same; decisions within {difference:.1e}"
    )
    found = {
        "gamma": gamma,
        "seconds": seconds,
        "ratio": ratio,
        "n_support": len(ours.support_),
        "largest_difference": difference,
    }
    return found, ours


def gradients(svm: RBFSVM, n_samples: int, rounds: int) -> dict[str, Any]:
    """Seconds of the gradients of some samples; the loop takes a part of them, and is scaled."""
    X = samples(2 * n_samples, svm.n_features_in_)[0][n_samples:].astype(np.float64)
    part = X[: max(5, n_samples // 20)]
    expected, found = gradient_loop(svm, part), svm.decision_gradient(part)
    if not np.allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max()):
        raise AssertionError("gradients differ from the loop's")
    seconds = interleaved(
        {"products": lambda: svm.decision_gradient(X), "loop": lambda: gradient_loop(svm, part)}, rounds
    )
    seconds["loop"] = [s * len(X) / len(part) for s in seconds["loop"]]
    ratio = median_ratio(seconds, "loop", "products")
    print(f"gradients of {n_samples} samples: {min(seconds['products']):.2f} s, {ratio:.0f} times faster than the loop")
    return {"seconds": seconds, "ratio": ratio, "samples_in_loop": len(part)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.svm", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="training samples (default: %(default)s)")
    parser.add_argument("--d", type=int, default=3072, help="features (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1000, help="gradients (default: %(default)s)")
    parser.add_argument(
        "--gamma-over-scale", type=float, default=4.0, help="γ in units of 1/(d var X), as accuracy allows (default: 4)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args(arguments or [])
    found, svm = fits(args.n, args.d, args.gamma_over_scale, args.rounds)
    case = {"n": args.n, "d": args.d, "gamma_over_scale": args.gamma_over_scale, "gradients": args.samples}
    save("svm", {"case": case, "fit": found, "gradients": gradients(svm, args.samples, args.rounds)})


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
