"""Distances between subspaces, and from samples to them: against the oracle, and where subspaces nearly meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, random_mfa

import mfakit
from mfakit import _reference
from mfakit.backends import get_arrays, get_backend
from mfakit.mixture import subspaces
from mfakit.mixture.subspaces.tiles import open_machine, tiles

Array = NDArray[Any]


def mixture(means: Any, loadings: Any) -> mfakit.MFA:
    """Subspaces μ + span A; the noise plays no part."""
    means = np.asarray(means, float)
    return mfakit.MFA(np.full(len(means), 1 / len(means)), means, loadings, 1.0)


def oracle(mfa0: mfakit.MFA, mfa1: mfakit.MFA) -> Array:
    return np.array(
        [
            [_reference.subspace_distance(m0, A0, m1, A1) for m1, A1 in zip(mfa1.means, mfa1.loadings, strict=True)]
            for m0, A0 in zip(mfa0.means, mfa0.loadings, strict=True)
        ]
    )


def point_oracle(X: Array, mfa: mfakit.MFA) -> Array:
    return np.array(
        [[_reference.point_subspace_distance(x, m, A) for m, A in zip(mfa.means, mfa.loadings, strict=True)] for x in X]
    )


def orthonormal(d: int, l: int, seed: int = 0) -> Array:
    """[d, l], orthonormal columns."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, l)))[0]


# --- between subspaces


@pytest.mark.parametrize(
    ("k0", "l0", "k1", "l1", "d"),
    [
        (4, 3, 5, 3, 20),
        (3, 2, 4, 5, 30),
        (2, 0, 3, 4, 10),
        (3, 4, 2, 0, 10),
        (2, 0, 2, 0, 5),
        (1, 1, 1, 1, 3),
        (4, 6, 3, 6, 100),
    ],
)
def test_distances_are_the_oracle(backend: str, k0: int, l0: int, k1: int, l1: int, d: int) -> None:
    mfa0, mfa1 = random_mfa(k0, d, l0, seed=1), random_mfa(k1, d, l1, seed=2)
    got = mfakit.subspace_distances(mfa0, mfa1, backend=backend)
    assert got.dtype == np.float64
    close(got, oracle(mfa0, mfa1), rtol=1e-10)
    close(mfakit.subspace_distances(mfa1, mfa0, backend=backend), got.T, rtol=1e-10)


@pytest.mark.parametrize("angle", [1e-1, 1.1e-2, 9e-3, 1e-3, 1e-5, 0.0])
def test_a_direction_that_is_shared_up_to_an_angle(backend: str, angle: float) -> None:
    # The second direction of side 1 is the first of side 0, turned by the angle into one that nothing else has.
    Q = orthonormal(50, 5)
    turned = np.cos(angle) * Q[:, 0] + np.sin(angle) * Q[:, 4]
    along, across = 0.4, 3.0
    mfa0 = mixture([np.zeros(50)], Q[None, :, :2])
    mfa1 = mixture([along * Q[:, 0] + across * Q[:, 3]], np.stack([Q[:, 2], turned], axis=1)[None])
    # `along` lies in side 0, `across` is orthogonal to both.
    close(mfakit.subspace_distances(mfa0, mfa1, backend=backend), [[across]], rtol=1e-10)
    beyond = mixture(mfa1.means + 2.0 * Q[:, 4], mfa1.loadings)
    # Up to an angle, going far along the turned direction reaches any offset in its plane; when it is shared, none.
    expected = across if angle else np.hypot(across, 2.0)
    close(mfakit.subspace_distances(mfa0, beyond, backend=backend), [[expected]], rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-5])
def test_nearly_shared_directions_among_others(backend: str, angle: float, scale: float) -> None:
    rng = np.random.default_rng(4)
    A0 = rng.normal(size=(3, 40, 4))
    A1 = rng.normal(size=(3, 40, 3))
    A1[:, :, 1] = A0 @ np.array([1.0, -2.0, 0.5, 1.0]) + angle * rng.normal(size=(3, 40))
    mfa0 = mixture(scale * rng.normal(size=(3, 40)), scale * A0)
    mfa1 = mixture(scale * rng.normal(size=(3, 40)), scale * A1)
    got = mfakit.subspace_distances(mfa0, mfa1, backend=backend)
    # A least-squares residual is right to rounding times the condition number of [A_i A_j], here about 1 / angle.
    close(got, oracle(mfa0, mfa1), rtol=max(1e-10, 1e-14 / angle))


def test_subspaces_that_meet(backend: str) -> None:
    rng = np.random.default_rng(0)
    point = rng.normal(size=30)
    A0, A1 = rng.normal(size=(2, 30, 3)), rng.normal(size=(4, 30, 2))
    mfa0 = mixture(point + (A0 @ rng.normal(size=(2, 3, 1)))[:, :, 0], A0)
    mfa1 = mixture(point + (A1 @ rng.normal(size=(4, 2, 1)))[:, :, 0], A1)
    got = mfakit.subspace_distances(mfa0, mfa1, backend=backend)
    assert (got <= 1e-12 * np.linalg.norm(mfa0.means)).all()


def test_two_subspaces_that_fill_the_space_meet(backend: str) -> None:
    mfa0, mfa1 = random_mfa(2, 6, 3, seed=1), random_mfa(2, 6, 4, seed=2)
    assert (mfakit.subspace_distances(mfa0, mfa1, backend=backend) <= 1e-11).all()


def test_a_mixture_with_itself(backend: str) -> None:
    mfa = random_mfa(5, 40, 3)
    got = mfakit.subspace_distances(mfa, mfa, backend=backend)
    size = np.linalg.norm(mfa.means, axis=1).max()
    assert (np.diag(got) <= 1e-13 * size).all()
    apart = ~np.eye(5, dtype=bool)
    close(got[apart], oracle(mfa, mfa)[apart], rtol=1e-10)


def test_zero_and_dependent_columns_span_nothing(backend: str) -> None:
    mfa0, mfa1 = random_mfa(3, 20, 3, seed=1), random_mfa(2, 20, 2, seed=2)
    A = np.zeros((3, 20, 6))
    A[:, :, [0, 2, 5]] = mfa0.loadings
    A[:, :, 3] = 2 * mfa0.loadings[:, :, 0] - mfa0.loadings[:, :, 1]
    A[:, :, 4] = 1e-14 * mfa0.loadings[:, :, 2]
    got = mfakit.subspace_distances(mfa0.replace(loadings=A), mfa1, backend=backend)
    close(got, mfakit.subspace_distances(mfa0, mfa1, backend=backend), rtol=1e-10)
    points = mfa0.replace(loadings=np.zeros((3, 20, 2)))
    got = mfakit.subspace_distances(points, mfa1, backend=backend)
    close(got, point_oracle(mfa0.means, mfa1), rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_distances_have_the_unit_of_the_data(backend: str, scale: float) -> None:
    mfa0, mfa1 = random_mfa(3, 20, 3, seed=1), random_mfa(4, 20, 2, seed=2)
    expected = scale * mfakit.subspace_distances(mfa0, mfa1, backend=backend)
    mfa0, mfa1 = (m.replace(means=scale * m.means, loadings=scale * m.loadings) for m in (mfa0, mfa1))
    close(mfakit.subspace_distances(mfa0, mfa1, backend=backend), expected, rtol=1e-10)


def test_distances_do_not_depend_on_where_the_origin_is(backend: str) -> None:
    mfa0, mfa1 = random_mfa(3, 20, 3, seed=1), random_mfa(4, 20, 2, seed=2)
    far = np.full(20, 1e3)
    got = mfakit.subspace_distances(
        mfa0.replace(means=mfa0.means + far), mfa1.replace(means=mfa1.means + far), backend=backend
    )
    close(got, oracle(mfa0, mfa1), rtol=1e-10)


# --- what is kept


@pytest.fixture
def pair() -> tuple[mfakit.MFA, mfakit.MFA]:
    return random_mfa(23, 30, 2, seed=1), random_mfa(31, 30, 3, seed=2)


TILE_BYTES = 8 * 3 * 4 * 25


@pytest.fixture
def small_tiles(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 5 by 5 pairs, so that no side is a multiple of them."""
    monkeypatch.setattr(get_arrays(get_backend(backend)), "tile_bytes", TILE_BYTES)


def test_tiles_do_not_matter(
    backend: str, pair: tuple[mfakit.MFA, mfakit.MFA], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mfakit.subspace_distances(*pair, backend=backend)
    ops = get_backend(backend)
    monkeypatch.setattr(get_arrays(ops), "tile_bytes", TILE_BYTES)
    found = list(tiles(pair[0].subspaces, pair[1].subspaces, open_machine(ops)))
    assert len(found) == 5 * 7
    close(mfakit.subspace_distances(*pair, backend=backend), whole, rtol=1e-13)


@pytest.mark.usefixtures("small_tiles")
def test_reduce_row_min(backend: str, pair: tuple[mfakit.MFA, mfakit.MFA]) -> None:
    whole = mfakit.subspace_distances(*pair, backend=backend)
    distances, index = mfakit.subspace_distances(*pair, reduce="row_min", backend=backend)
    assert index.dtype == np.int64
    close(distances, whole.min(axis=1), rtol=1e-10)
    np.testing.assert_array_equal(index, whole.argmin(axis=1))


@pytest.mark.usefixtures("small_tiles")
def test_reduce_min(backend: str, pair: tuple[mfakit.MFA, mfakit.MFA]) -> None:
    whole = mfakit.subspace_distances(*pair, backend=backend)
    distance, nearest = mfakit.subspace_distances(*pair, reduce="min", backend=backend)
    assert (type(distance), *map(type, nearest)) == (float, int, int)
    assert nearest == np.unravel_index(whole.argmin(), whole.shape)
    np.testing.assert_allclose(distance, whole.min(), rtol=1e-10)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("count", [1, 10, 200, 10_000])
def test_reduce_smallest(backend: str, pair: tuple[mfakit.MFA, mfakit.MFA], count: int) -> None:
    whole = mfakit.subspace_distances(*pair, backend=backend)
    distances, pairs = mfakit.subspace_distances(*pair, reduce="smallest", n_smallest=count, backend=backend)
    close(distances, np.sort(whole, axis=None)[:count], rtol=1e-10)
    close(whole[pairs[:, 0], pairs[:, 1]], distances, rtol=1e-10)
    assert (np.diff(distances) >= 0).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


@pytest.mark.parametrize("tile", [25, 10**9])
def test_ties_come_in_order_whatever_the_tiles(backend: str, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(get_arrays(get_backend(backend)), "tile_bytes", 8 * 2 * 2 * tile)
    mfa = mixture(np.repeat(np.eye(4), 3, axis=0), np.zeros((12, 4, 1)))  # distances are 0 and √2 only
    distances, pairs = mfakit.subspace_distances(mfa, mfa, reduce="smallest", n_smallest=50, backend=backend)
    close(distances, [0.0] * 36 + [np.sqrt(2)] * 14, atol=1e-12)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distances.round(9)))
    np.testing.assert_array_equal(order, np.arange(50))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("bins", [10, [0.0, 5.0, 9.0, 9.5, 11.0, 100.0]])
def test_reduce_histogram(backend: str, pair: tuple[mfakit.MFA, mfakit.MFA], bins: Any) -> None:
    whole = mfakit.subspace_distances(*pair, backend=backend)
    counts, edges = mfakit.subspace_distances(*pair, reduce="histogram", bins=bins, backend=backend)
    assert counts.dtype == np.int64
    assert counts.sum() == whole.size
    np.testing.assert_array_equal(counts, np.histogram(whole, edges)[0])
    assert len(counts) == (bins if isinstance(bins, int) else 5)


def test_many_tiles_with_progress(pair: tuple[mfakit.MFA, mfakit.MFA], capsys: pytest.CaptureFixture[str]) -> None:
    mfakit.subspace_distances(*pair, progress=True)
    assert "713/713" in capsys.readouterr().err
    mfakit.subspace_distances(*pair)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_measured() -> None:
    mfa = random_mfa()
    with pytest.raises(ValueError, match="same d, got 12 and 13"):
        mfakit.subspace_distances(mfa, random_mfa(d=13))
    with pytest.raises(
        ValueError, match="reduce must be one of 'min', 'row_min', 'smallest', 'histogram', or None, got 'max'"
    ):
        mfakit.subspace_distances(mfa, mfa, reduce="max")
    for count in (0, -3, 2.0, True):
        with pytest.raises(ValueError, match="n_smallest must be an integer of at least 1, got"):
            mfakit.subspace_distances(mfa, mfa, reduce="smallest", n_smallest=count)
    for bins in (0, -1, 2.5, True, "many", [1.0], [[0.0, 1.0]], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="bins must be a positive integer or ascending edges"):
            mfakit.subspace_distances(mfa, mfa, reduce="histogram", bins=bins)
    with pytest.raises(TypeError, match="mfa1 must be an MFA or the path of its file, got NoneType"):
        mfakit.subspace_distances(mfa, None)
    with pytest.raises(mfakit.BackendUnavailable, match="abacus"):
        mfakit.subspace_distances(mfa, mfa, backend="abacus")


# --- closest points


def assert_on_subspace(point: Array, mfa: mfakit.MFA, component: int) -> None:
    distance = _reference.point_subspace_distance(point, mfa.means[component], mfa.loadings[component])
    assert distance <= 1e-10 * (np.linalg.norm(point) + np.linalg.norm(mfa.means[component]))


@pytest.mark.parametrize(("l0", "l1"), [(2, 3), (0, 2), (3, 0), (0, 0)])
def test_closest_points(l0: int, l1: int) -> None:
    mfa0, mfa1 = random_mfa(3, 20, l0, seed=1), random_mfa(4, 20, l1, seed=2)
    expected = oracle(mfa0, mfa1)
    for i, j in [(0, 0), (2, 3), (1, 2)]:
        found = subspaces.closest_points(mfa0, i, mfa1, j)
        assert_on_subspace(found.point0, mfa0, i)
        assert_on_subspace(found.point1, mfa1, j)
        assert np.linalg.norm(found.point0 - found.point1) == found.distance
        close(found.distance, expected[i, j], rtol=1e-10)


def test_closest_points_of_parallel_subspaces() -> None:
    Q = orthonormal(10, 4)
    mfa0, mfa1 = mixture([Q[:, 3]], Q[None, :, :3]), mixture([3 * Q[:, 3] + Q[:, 0]], Q[None, :, :2] @ np.ones((2, 2)))
    found = subspaces.closest_points(mfa0, 0, mfa1, 0)
    assert_on_subspace(found.point0, mfa0, 0)
    assert_on_subspace(found.point1, mfa1, 0)
    close(found.distance, 2.0, rtol=1e-12)


# --- from points


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (1, 1, 1), (3, 100, 5), (3, 7, 0), (2, 3, 5)])
def test_points_are_the_oracle(backend: str, k: int, d: int, l: int, method: str) -> None:
    mfa = random_mfa(k, d, l)
    X = np.random.default_rng(0).normal(size=(15, d)) * 3
    got = mfakit.point_subspace_distances(X, mfa, backend=backend, method=method)
    assert got.dtype == np.float64
    # d ≤ l: the subspace is everything and the distance is what rounding leaves of zero.
    close(got, point_oracle(X, mfa), rtol=1e-10, atol=1e-13)


def test_float32_points_far_from_and_near_to_their_subspace(backend: str) -> None:
    # Images: d = 3072, norms of 50; the product alone would leave an error of 1e-2 on a distance of 0.55.
    rng = np.random.default_rng(0)
    mfa = mixture(rng.uniform(size=(5, 3072)), rng.normal(size=(5, 3072, 4)))
    X, component = mfa.replace(noise_variance=1e-4).sample(40, rng=0)
    got = mfakit.point_subspace_distances(X, mfa, backend=backend)
    assert got.dtype == np.float32
    expected = point_oracle(X, mfa)
    assert (expected[np.arange(40), component] < 0.7).all()
    # A squared distance is recomputed where the product errs by more than 1e-3 of it, so 5e-4 of the distance is left.
    close(got, expected, np.float32, rtol=5e-4)
    own = np.arange(40), component
    close(got[own], expected[own], np.float32, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_points_on_the_subspace(backend: str, dtype: str) -> None:
    mfa = random_mfa(3, 200, 3)
    X, component = mfa.sample(30, rng=0, noise=False, dtype=dtype)
    got = mfakit.point_subspace_distances(X, mfa, backend=backend)
    rounding = np.finfo(dtype).eps * np.linalg.norm(X, axis=1)
    assert (got[np.arange(30), component] <= 4 * rounding).all()


@pytest.mark.parametrize("scale", [1e-18, 1e15])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_point_distances_have_the_unit_of_the_data(backend: str, dtype: str, scale: float) -> None:
    mfa = random_mfa(3, 20, 3)
    X = (np.random.default_rng(0).normal(size=(9, 20)) * scale).astype(dtype)
    expected = scale * point_oracle(X.astype(float) / scale, mfa)
    scaled = mfa.replace(means=scale * mfa.means, loadings=scale * mfa.loadings)
    got = mfakit.point_subspace_distances(X, scaled, backend=backend)
    close(got, expected, dtype, rtol=1e-10 if dtype == "float64" else 5e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_containers_and_out(backend: str, dtype: str) -> None:
    mfa = random_mfa(4, 30, 3)
    X = mfa.sample(20, rng=0, dtype=dtype)[0]
    expected = mfakit.point_subspace_distances(X, mfa, backend=backend)
    assert expected.dtype == dtype
    tolerance = 1e-12 if dtype == "float64" else 5e-4
    for block_rows in (1, 7, 1000):
        got = mfakit.point_subspace_distances(X, mfa, backend=backend, block_rows=block_rows)
        close(got, expected, dtype, rtol=tolerance)
    out = np.empty_like(expected)
    assert mfakit.point_subspace_distances(X, mfa, backend=backend, out=out) is out
    for layout in (np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], X.astype(X.dtype.newbyteorder())):
        got = mfakit.point_subspace_distances(layout, mfa, backend=backend)
        np.testing.assert_array_equal(got, expected, strict=True)
    np.testing.assert_array_equal(out, expected)
    empty = mfakit.point_subspace_distances(X[:0], mfa, backend=backend)
    assert empty.shape == (0, 4)
    assert empty.dtype == dtype


def test_torch_points() -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa(4, 30, 3)
    X = mfa.sample(20, rng=0)[0]
    got = mfakit.point_subspace_distances(torch.from_numpy(X), mfa)
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), mfakit.point_subspace_distances(X, mfa))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["dense", "residual"])
def test_points_with_nan(backend: str, method: str, bad: float) -> None:
    mfa = random_mfa(4, 30, 3)
    X = mfa.sample(20, rng=0, dtype=np.float64)[0]
    expected = mfakit.point_subspace_distances(X, mfa, backend=backend, method=method)
    X[11, 4] = bad
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 11"):
        mfakit.point_subspace_distances(X, mfa, backend=backend, block_rows=6)
    got = mfakit.point_subspace_distances(X, mfa, backend=backend, method=method, check_finite=False)
    assert np.isnan(got[11]).all()
    others = np.arange(20) != 11
    close(got[others], expected[others], rtol=1e-12)


def test_points_that_do_not_fit() -> None:
    mfa = random_mfa()
    with pytest.raises(ValueError, match=r"X must be \[n, 12\] .* got \(3, 11\)"):
        mfakit.point_subspace_distances(np.zeros((3, 11)), mfa)
    with pytest.raises(TypeError, match="real numbers"):
        mfakit.point_subspace_distances(np.zeros((3, 12), bool), mfa)
    with pytest.raises(ValueError, match="out must be"):
        mfakit.point_subspace_distances(np.zeros((3, 12)), mfa, out=np.zeros((3, 3)))
    with pytest.raises(mfakit.BackendUnavailable, match="abacus"):
        mfakit.point_subspace_distances(np.zeros((0, 12)), mfa, backend="abacus")


def test_a_short_column_beside_a_long_one_spans_its_direction() -> None:
    """How long a column is says nothing of what it spans: it was dropped from 1e-10 of the longest on."""
    A = np.zeros((1, 3, 2))
    A[0, 0, 0], A[0, 1, 1] = 1e5, 1e-8
    planes = [mfakit.MFA([1.0], [[0.0, m, m]], A, 1.0) for m in (0.0, 2.0)]
    np.testing.assert_allclose(mfakit.subspace_distances(*planes), 2.0)
    np.testing.assert_allclose(mfakit.point_subspace_distances(np.array([[5.0, 7.0, 3.0]]), planes[0]), 3.0)
