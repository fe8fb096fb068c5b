"""The nearest pairs of subspaces: pruned, dense and solved one by one, they are the same, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from subspace_cases import CASES, low_rank, mixture, solved
from support import EMULATE, random_mfa

import mfakit
from mfakit import _reference
from mfakit.backends import get_arrays, get_backend
from mfakit.mixture.subspaces import kept, pairs, pruning
from mfakit.mixture.subspaces.pairs import solve_pairs
from mfakit.mixture.subspaces.tiles import brackets_of, open_machine, tiles

pytestmark = pytest.mark.skipif(EMULATE, reason="pairs are pruned on the host only")

Array = NDArray[Any]


def in_order(distances: Array, count: int) -> tuple[Array, Array]:
    order = np.argsort(distances, axis=None, kind="stable")[: min(count, np.isfinite(distances).sum())]
    return distances.ravel()[order], np.stack(np.unravel_index(order, distances.shape), axis=1)


@pytest.fixture(params=["dense", "pruned"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way to look for them, in small tiles and strips, a few pairs at a time."""
    for name, value in (("STRIP_BYTES", 8 * 400), ("TILE_BYTES", 8 * 9 * 30), ("FIRST", 2)):
        monkeypatch.setattr(pruning, name, value)
    monkeypatch.setattr(get_arrays(get_backend("native")), "tile_bytes", 8 * 9 * 60)
    monkeypatch.setattr(pairs, "BATCH_BYTES", 8 * 60 * 24 * 5)
    return str(request.param)


@pytest.mark.parametrize("name", CASES)
def test_they_are_those_of_all_pairs_solved_one_by_one(name: str, method: str) -> None:
    mfa0, mfa1 = CASES[name]()
    expected = solved(mfa0, mfa1)
    distances, index = mfakit.subspace_distances(mfa0, mfa1, reduce="row_min", method=method)
    np.testing.assert_array_equal(distances, expected.min(axis=1))
    np.testing.assert_array_equal(index, np.where(np.isinf(distances), -1, expected.argmin(axis=1)))
    for count in (1, 7, 10_000):
        values, nearest = mfakit.subspace_distances(mfa0, mfa1, reduce="smallest", n_smallest=count, method=method)
        for got, right in zip((values, nearest), in_order(expected, count), strict=True):
            np.testing.assert_array_equal(got, right)
    distance, place = mfakit.subspace_distances(mfa0, mfa1, reduce="min", method=method)
    assert (distance, place) == (expected.min(), np.unravel_index(expected.argmin(), expected.shape))


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("1e-20", "1e18", "far from the origin")])
def test_a_pair_that_is_solved_by_itself_is_the_oracle(name: str) -> None:
    mfa0, mfa1 = CASES[name]()
    size = max(np.linalg.norm(m.means, axis=1).max() for m in (mfa0, mfa1))
    found = solved(mfa0, mfa1)
    for i, j in zip(*np.nonzero(np.isfinite(found)), strict=True):
        args = (m.means[c] if part == 0 else m.loadings[c] for m, c in ((mfa0, i), (mfa1, j)) for part in (0, 1))
        np.testing.assert_allclose(found[i, j], _reference.subspace_distance(*args), rtol=1e-9, atol=1e-12 * size)


@pytest.mark.parametrize("name", CASES)
def test_brackets_hold_what_is_solved(name: str, backend: str) -> None:
    mfa0, mfa1 = CASES[name]()
    sides = mfa0.subspaces, mfa1.subspaces
    for tile in tiles(*sides, open_machine(get_backend(backend))):
        lower, upper = brackets_of(tile, *sides)
        i, j = np.indices(lower.shape).reshape(2, -1)
        exact = solve_pairs(sides[0], i + tile.rows.start, sides[1], j + tile.columns.start).reshape(lower.shape)
        assert (lower <= exact).all()
        assert (exact <= upper).all()
        assert (lower[tile.suspect] == upper[tile.suspect]).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("r", [1, 4, 16])
def test_projections_bound_what_is_solved(name: str, r: int) -> None:
    mfa0, mfa1 = CASES[name]()
    sides = mfa0.subspaces, mfa1.subspaces
    no_weight = mfa0.weights == 0, mfa1.weights == 0
    machine = open_machine(get_backend("native"))
    found = pruning._project_sides(sides, no_weight, machine, min(r, mfa0.n_features))
    lower = found.bounds(np.arange(mfa0.n_components))
    assert (lower <= solved(mfa0, mfa1)).all()
    assert np.isinf(lower[no_weight[0]]).all()
    if name == "low rank" and r == 16:
        assert (lower > 0.5 * solved(mfa0, mfa1)).mean() > 0.5


def test_a_pilot_decides_by_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned where few pairs are left, and not where the projection sees nothing."""
    monkeypatch.setattr(pruning, "FEW_PAIRS", 1)
    close, spread = (
        (low_rank(60, 400, 2, 1), low_rank(60, 400, 2, 2)),
        (random_mfa(60, 400, 2, seed=s) for s in (1, 2)),
    )
    calls: list[int] = []
    search = pruning.search_pruned
    monkeypatch.setattr(
        "mfakit.mixture.subspaces.distances.search_pruned", lambda *args: (calls.append(1), search(*args))[1]
    )
    for pair, pruned in ((close, True), (tuple(spread), False)):
        calls.clear()
        found = mfakit.subspace_distances(*pair, reduce="row_min")
        assert bool(calls) == pruned
        for got, expected in zip(
            found, mfakit.subspace_distances(*pair, reduce="row_min", method="dense"), strict=True
        ):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("method", ["dense", "pruned"])
def test_ties_by_the_thousand_are_not_held(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_OPEN", 50)
    mfa = mixture(np.zeros((30, 3)), np.zeros((30, 3, 0)))
    values, nearest = mfakit.subspace_distances(mfa, mfa, reduce="smallest", n_smallest=5, method=method)
    np.testing.assert_array_equal(values, np.zeros(5))
    np.testing.assert_array_equal(nearest, [[0, j] for j in range(5)])


def test_the_threads_of_products_do_not_matter() -> None:
    mfa0, mfa1 = low_rank(30, 700, 8, 1), low_rank(30, 700, 8, 2)
    found = [mfakit.subspace_distances(mfa0, mfa1, reduce="row_min", n_threads=n)[0] for n in (1, 2)]
    np.testing.assert_array_equal(*found)


def test_bad_methods() -> None:
    mfa = random_mfa()
    with pytest.raises(ValueError, match="method must be one of 'auto', 'dense', 'pruned', got 'fast'"):
        mfakit.subspace_distances(mfa, mfa, reduce="min", method="fast")
    for reduce in (None, "histogram"):
        with pytest.raises(ValueError, match="method='pruned' skips pairs, and reduce="):
            mfakit.subspace_distances(mfa, mfa, reduce=reduce, method="pruned")
