"""Subspace distances against the bare product of their panels; pairs per second."""

from __future__ import annotations

import numpy as np

import mfakit
from benchmarks.common import interleaved, median_ratio, save
from mfakit import _reference as reference

# name, k0, k1, d, l
CASES = [("digits", 1000, 1000, 784, 6), ("faces", 150, 150, 12288, 10)]


def make(k: int, d: int, l: int, seed: int) -> mfakit.MFA:
    rng = np.random.default_rng(seed)
    means = rng.random((k, d), dtype=np.float32)
    mfa = mfakit.MFA(np.full(k, 1 / k), means, rng.standard_normal((k, d, l), dtype=np.float32) / 10, 1e-4)
    mfa.subspaces  # noqa: B018 (the bases are computed once per model, not per call)
    return mfa


def main() -> None:
    results = []
    for name, k0, k1, d, l in CASES:
        mfa0, mfa1 = make(k0, d, l, 0), make(k1, d, l, 1)
        found = mfakit.subspace_distances(mfa0, mfa1)[2, 3]
        expected = reference.subspace_distance(mfa0.means[2], mfa0.loadings[2], mfa1.means[3], mfa1.loadings[3])
        if abs(found - expected) > 1e-9 * expected:
            raise AssertionError(f"distance is {found}, the oracle says {expected}")
        rng = np.random.default_rng(2)
        left, right = rng.standard_normal((k0 * (l + 1), d)), rng.standard_normal((k1 * (l + 1), d))
        runs = {
            "product": lambda left=left, right=right: left @ right.T,
            "distances": lambda a=mfa0, b=mfa1: mfakit.subspace_distances(a, b, reduce="min"),
        }
        seconds = interleaved(runs, rounds=5)
        rate = k0 * k1 / float(np.median(seconds["distances"]))
        share = median_ratio(seconds, "product", "distances")
        print(f"{name}: {k0} x {k1} subspaces, d={d} l={l}: {rate:,.0f} pairs/s, {share:.0%} of the product's rate")
        results.append(
            {"case": name, "k0": k0, "k1": k1, "d": d, "l": l, "pairs_per_second": rate, "share_of_product_rate": share,
             "seconds": seconds}
        )  # fmt: skip
    save("distances", {"cases": results})


if __name__ == "__main__":
    main()
