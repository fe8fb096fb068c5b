"""Histograms of all distances: counts from float32 products are those of the pairs solved one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from subspace_cases import CASES, solved
from support import EMULATE, random_mfa

import mfakit
from mfakit.backends import get_arrays, get_backend, why_missing
from mfakit.mixture.subspaces import counting, distances, tiles

pytestmark = pytest.mark.skipif(EMULATE, reason="float32 products are the host's")
compiled = pytest.mark.skipif(why_missing("native") is not None, reason="bounds from float32 are compiled")

Array = NDArray[Any]


def edges_of(values: Array) -> Array:
    """Edges between the distances, and some that are one of them."""
    values = np.unique(values[np.isfinite(values)])
    ends = [0.5 * values[0], values[-1] if len(values) > 1 else 2 * values[0] + 1]
    return np.unique(np.concatenate([ends, values[:: len(values) // 4 + 1], np.linspace(*ends, 6)]))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small tiles, float32 also of few features; how often products in float32 are taken."""
    monkeypatch.setattr(tiles, "FEW_FEATURES", 1)
    monkeypatch.setattr(counting, "ROW_PAIRS", 3)
    monkeypatch.setattr(get_arrays(get_backend("native")), "tile_bytes", 8 * 9 * 60)
    calls: list[int] = []
    rough = distances.count_rough
    monkeypatch.setattr(distances, "count_rough", lambda *args: (calls.append(1), rough(*args))[1])
    return calls


@compiled
@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_all_pairs_solved_one_by_one(name: str, small: list[int]) -> None:
    mfa0, mfa1 = CASES[name]()
    expected = solved(mfa0, mfa1)
    edges = edges_of(expected)
    counts, got = mfakit.subspace_distances(mfa0, mfa1, reduce="histogram", bins=edges, backend="native")
    np.testing.assert_array_equal(got, edges)
    np.testing.assert_array_equal(counts, np.histogram(expected[np.isfinite(expected)], edges)[0])
    assert small == [1]


@compiled
def test_no_pair_may_be_near_an_edge(small: list[int]) -> None:
    mfa0, mfa1 = CASES["random"]()
    counts, _ = mfakit.subspace_distances(mfa0, mfa1, reduce="histogram", bins=[0.0, 1e3, 2e3], backend="native")
    np.testing.assert_array_equal(counts, [72, 0])
    assert small == [1]


def test_counts_are_the_same_with_any_backend(backend: str, small: list[int]) -> None:
    mfa0, mfa1 = CASES["touching"]()
    expected = solved(mfa0, mfa1)
    edges = edges_of(expected)
    counts, _ = mfakit.subspace_distances(mfa0, mfa1, reduce="histogram", bins=edges, backend=backend)
    np.testing.assert_array_equal(counts, np.histogram(expected, edges)[0])
    assert len(small) == (backend in ("native", "numpy"))


@compiled
@pytest.mark.parametrize("name", CASES)
def test_bounds_from_float32_hold_what_is_solved(name: str, small: list[int]) -> None:
    mfa0, mfa1 = CASES[name]()
    sides = mfa0.subspaces, mfa1.subspaces
    exact, known = solved(mfa0, mfa1), 0
    for tile in tiles.rough_tiles(*sides, tiles.open_machine(get_backend("native"))):
        part = exact[tile.rows, tile.columns]
        live = np.isfinite(part)
        assert (tile.lower <= part)[live].all()
        assert (part <= tile.upper)[live].all()
        known += np.count_nonzero(np.isfinite(tile.upper))
    if name in ("low rank", "random", "points"):
        assert known > 0.9 * exact.size


@compiled
def test_float32_leaves_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    mfa0, mfa1 = random_mfa(60, 200, 4, seed=1), random_mfa(60, 200, 4, seed=2)
    looked_at: list[int] = []
    row = counting.brackets_of_row
    monkeypatch.setattr(
        counting,
        "brackets_of_row",
        lambda s0, i, s1, j, machine: (looked_at.append(len(j)), row(s0, i, s1, j, machine))[1],
    )
    counts, edges = mfakit.subspace_distances(mfa0, mfa1, reduce="histogram", bins=50, backend="native")
    assert counts.sum() == 3600
    assert 0 < sum(looked_at) < 0.1 * 3600
    np.testing.assert_array_equal(counts, np.histogram(solved(mfa0, mfa1), edges)[0])


def test_points_that_are_all_equally_far_are_within_the_last_edge() -> None:
    """The means' bound of all distances is rounded, and it may be the distance itself."""
    for seed in range(20):
        means = np.random.default_rng(seed).normal(size=(2, 1, 2)) * 1e-8 + seed
        points, others = (mfakit.MFA(np.full(3, 1 / 3), np.tile(m, (3, 1)), np.zeros((3, 2, 0)), 1.0) for m in means)
        counts, edges = mfakit.subspace_distances(points, others, reduce="histogram", bins=5)
        assert counts.sum() == 9
        assert mfakit.subspace_distances(points, others).max() <= edges[-1]
