"""The nearest pairs of subspaces: pruned, dense and solved one by one, they are the same, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import EMULATE, random_mfa

import mfakit
from mfakit import _reference
from mfakit.backends import get_arrays, get_backend
from mfakit.mixture.subspaces import kept, pairs, pruning
from mfakit.mixture.subspaces.pairs import solve_pairs
from mfakit.mixture.subspaces.tiles import brackets_of, open_machine, tiles

pytestmark = pytest.mark.skipif(EMULATE, reason="pairs are pruned on the host only")

Array = NDArray[Any]
Pair = tuple[mfakit.MFA, mfakit.MFA]


def mixture(means: Any, loadings: Any, weights: Any = None) -> mfakit.MFA:
    """Subspaces μ + span A; the noise plays no part."""
    k = len(means)
    return mfakit.MFA(np.full(k, 1 / k) if weights is None else weights, means, loadings, 1.0)


def low_rank(k: int, d: int, l: int, seed: int) -> mfakit.MFA:
    """Subspaces whose means and directions lie near few dimensions, as those of images do."""
    rng = np.random.default_rng(seed)
    scales = 0.7 ** np.arange(d) + 1e-3
    return mixture(4 * rng.normal(size=(k, d)) * scales, rng.normal(size=(k, d, l)) * scales[:, None])


def duplicated() -> Pair:
    """Components that are there several times, on both sides, and twice in a row."""
    mfa0, mfa1 = low_rank(7, 30, 2, 1), low_rank(6, 30, 2, 2)
    (m0, A0), (m1, A1) = ((np.tile(m.means, (3, 1)), np.tile(m.loadings, (3, 1, 1))) for m in (mfa0, mfa1))
    return mixture(m0, A0), mixture(np.repeat(m1, 2, axis=0), np.repeat(A1, 2, axis=0))


def touching() -> Pair:
    """Some pairs meet in a point, some share a direction, some do both, some are the same."""
    rng = np.random.default_rng(3)
    mfa0, mfa1 = low_rank(6, 40, 3, 4), low_rank(6, 40, 2, 5)
    means, A = mfa1.means.copy(), mfa1.loadings.copy()
    for j in range(3):
        means[j] = mfa0.means[j] + mfa0.loadings[j] @ rng.normal(size=3) + A[j] @ rng.normal(size=2)
    A[2:5, :, 0] = mfa0.loadings[2:5] @ rng.normal(size=3)
    A[5], means[5] = mfa0.loadings[5, :, :2], mfa0.means[5]
    return mfa0, mixture(means, A)


def gone() -> Pair:
    """Components without weight, which would be the nearest, with loadings that no projection sees."""
    mfa0, mfa1 = low_rank(5, 30, 2, 1), low_rank(6, 30, 2, 2)
    means, A = mfa1.means.copy(), mfa1.loadings.copy()
    means[2] = mfa0.means[1]
    A[4] = 0
    A[4, -2:] = np.eye(2)
    weights = np.full(6, 0.2)
    weights[2] = 0.0
    return mixture(mfa0.means, mfa0.loadings, [0.0, 0.25, 0.25, 0.25, 0.25]), mixture(means, A, weights)


def scaled(scale: float) -> Pair:
    mfa0, mfa1 = (m.replace(means=scale * m.means, loadings=scale * m.loadings) for m in touching())
    return mfa0, mfa1


CASES = {
    "low rank": lambda: (low_rank(20, 60, 2, 1), low_rank(22, 60, 3, 2)),
    "random": lambda: (random_mfa(9, 40, 3, seed=1), random_mfa(8, 40, 2, seed=2)),
    "points": lambda: (low_rank(12, 30, 0, 1), low_rank(15, 30, 0, 2)),
    "points and planes": lambda: (low_rank(12, 30, 0, 1), low_rank(15, 30, 2, 2)),
    "planes and points": lambda: (low_rank(12, 30, 2, 1), low_rank(15, 30, 0, 2)),
    "they fill the space": lambda: (random_mfa(6, 5, 3, seed=1), random_mfa(7, 5, 4, seed=2)),
    "more factors than features": lambda: (random_mfa(6, 3, 5, seed=1), random_mfa(7, 3, 1, seed=2)),
    "one feature": lambda: (random_mfa(6, 1, 0, seed=1), random_mfa(7, 1, 0, seed=2)),
    "ties": lambda: (mixture(np.repeat(np.eye(7), 2, axis=0), np.zeros((14, 7, 1))),
                     mixture(np.repeat(2 * np.eye(7), 3, axis=0), np.zeros((21, 7, 2)))),
    "duplicated": duplicated,
    "touching": touching,
    "without weight": gone,
    "far from the origin": lambda: tuple(m.replace(means=m.means + 1e6) for m in touching()),
    "1e-20": lambda: scaled(1e-20),
    "1e18": lambda: scaled(1e18),
}  # fmt: skip


def solved(mfa0: mfakit.MFA, mfa1: mfakit.MFA) -> Array:
    """All pairs, one by one."""
    i, j = np.indices((mfa0.n_components, mfa1.n_components)).reshape(2, -1)
    found = np.concatenate(
        [solve_pairs(mfa0.subspaces, i[m : m + 1], mfa1.subspaces, j[m : m + 1]) for m in range(len(i))]
    ).reshape(mfa0.n_components, -1)
    found[mfa0.weights == 0], found[:, mfa1.weights == 0] = np.inf, np.inf
    return found


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
