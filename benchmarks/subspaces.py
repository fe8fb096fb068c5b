"""Distances between subspaces at scale, and of many points to few subspaces.

Goals on two cores: 1,000 × 1,000 subspaces of 12,288 features at 75% of NumPy's product rate; 10⁸ pairs as a histogram
in 120 s and 2 GB, 10⁹ in 20 minutes; the nearest of 29,000 × 29,000 neighbourhoods of MNIST's images (of even and of
odd digits) at least 10 times faster than by all pairs; points to subspaces in the memory of a block.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from mfakit import MFA, point_subspace_distances, subspace_distances
from mfakit.bench import Case, Machine, Skipped, Timed, Work
from mfakit.bench.memory import extra_memory
from mfakit.experiments.subspaces import first_of, open_sides

# Of the sides that brute force is done with.
SOME, TILE = 300, 1000


def sides(case: Case) -> list[MFA]:
    if case.name.startswith("digits") and not os.environ.get("MFAKIT_DATA"):
        raise Skipped("set MFAKIT_DATA to the folder of the data sets")
    name = "digits" if case.name.startswith("digits") else f"random-{case.size['d']}"
    return open_sides(name, case.size["k"], case.size["l"], 0, None)


def rows_of(mfa: MFA) -> np.ndarray:
    """[k (l + 1), d]: what any computation of all distances multiplies with the other side's."""
    return np.concatenate([mfa.means[:, None], np.swapaxes(mfa.loadings, 1, 2)], axis=1).reshape(-1, mfa.n_features)


def product(A: np.ndarray, B: np.ndarray) -> None:
    for start in range(0, len(A), TILE):
        A[start : start + TILE] @ B.T


def matrix(case: Case, machine: Machine) -> Work:
    a, b = sides(case)
    some = first_of(a, 20), first_of(b, 20)
    error = np.abs(subspace_distances(*some) / subspace_distances(*some, backend="numpy") - 1).max()
    A, B = (np.asarray(rows_of(side), np.float64) for side in (a, b))
    return Work(
        Timed(lambda: subspace_distances(a, b, reduce="row_min", method="dense")), float(error),
        case.size["k"] ** 2, "pairs", flops=2.0 * len(A) * len(B) * A.shape[1],
        beside={"product": Timed(lambda: product(A, B))},
    )  # fmt: skip


def histogram(case: Case, machine: Machine) -> Work:
    a, b = sides(case)
    some = first_of(a, SOME), first_of(b, SOME)
    counts, edges = subspace_distances(*some, reduce="histogram", bins=400)
    off = np.abs(counts - np.histogram(subspace_distances(*some), edges)[0]).sum()
    count = partial(subspace_distances, a, b, reduce="histogram", bins=400)
    facts = {"model_bytes": sum(side.loadings.nbytes + side.means.nbytes for side in (a, b))}
    if case.size["k"] <= 10_000:
        facts["extra_bytes"] = extra_memory(count)
    return Work(Timed(count), float(off), case.size["k"] ** 2, "pairs", facts=facts)


def nearest(case: Case, machine: Machine) -> Work:
    a, b = sides(case)
    k, part = case.size["k"], min(case.size["k"], 3000)
    some = first_of(a, part), first_of(b, part)
    same = subspace_distances(*some, reduce="min", method="pruned") == subspace_distances(
        *some, reduce="min", method="dense"
    )
    few = first_of(a, part)
    return Work(
        Timed(lambda: subspace_distances(a, b, reduce="min", method="pruned")), float(not same), k**2, "pairs",
        beside={"all pairs": Timed(lambda: subspace_distances(few, b, reduce="min", method="dense"), work=part / k)},
    )  # fmt: skip


def points(case: Case, machine: Machine) -> Work:
    """Rows of a sparse file, some of which are not 0."""
    n, d, k = case.size["n"], case.size["d"], case.size["k"]
    mfa = open_sides(f"random-{d}", k, case.size["l"], 0, None)[0]
    kept = tempfile.TemporaryDirectory()  # as long as `run` is
    folder = Path(kept.name)
    X = np.lib.format.open_memmap(folder / "X.npy", mode="w+", dtype=np.uint8, shape=(n, d))
    rows = np.arange(0, n, max(1, n // 100))
    X[rows] = np.random.default_rng(0).integers(0, 256, (len(rows), d), np.uint8)

    def run() -> np.ndarray:
        return point_subspace_distances(Path(kept.name) / "X.npy", mfa, out=Path(kept.name) / "distances.npy")

    peak = extra_memory(run)
    found = np.load(folder / "distances.npy", mmap_mode="r")[rows]
    exact = point_subspace_distances(np.asarray(X[rows], np.float64), mfa)
    facts = {"extra_bytes": peak, "bytes": n * (d + 4 * k)}
    return Work(Timed(run), float(np.abs(found / exact - 1).max()), n, "points", n_bytes=float(n * d), facts=facts)


CASES = (
    Case("drawn, all pairs", matrix, {"k": 1000, "d": 12_288, "l": 10}, dtype="float64",
         against="NumPy's backend, relative", allowed=1e-9, slow=True),
    Case("drawn, histogram", histogram, {"k": 10_000, "d": 784, "l": 6}, against="np.histogram, counts", allowed=0.0,
         slow=True),
    Case("digits, nearest", nearest, {"k": 3000, "d": 784, "l": 6}, against="all pairs, whether it differs",
         allowed=0.0, slow=True),
    Case("digits, nearest", nearest, {"k": 29_000, "d": 784, "l": 6}, against="all pairs of 3,000, whether it differs",
         allowed=0.0, slow=True),
    Case("points", points, {"n": 10_000_000, "d": 784, "k": 10, "l": 6}, dtype="uint8",
         against="float64 samples, relative", allowed=1e-4, slow=True),
    Case("drawn, histogram", histogram, {"k": 31_623, "d": 784, "l": 6}, against="np.histogram, counts", allowed=0.0,
         slow=True),
)  # fmt: skip
