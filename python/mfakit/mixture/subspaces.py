"""Distances between the affine subspaces μ + span A of components, and from samples to them (Theorem 2, Figure 14)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from .._arrays.containers import is_dask
from .._arrays.lazy_rows import map_rows
from .._arrays.options import Options
from .._arrays.rows import array_module, returned, to_numpy
from .._arrays.sharing import useful_threads
from .._arrays.streams import streamed
from .._checks import check_choice, check_integers
from .._io.progress import open_bar
from .._threads.process import interruptible, keeps_errstate, single_threaded_products
from ..backends import Backend, get_arrays, get_backend
from ..backends.host_arrays import Host
from ..backends.operands import Subspaces
from .density import Filling, each_block, of_all_components, open_rows
from .evaluator import Evaluator
from .factors import Factors
from .mfa import MFA, common_device, on_device
from .scores import sorted_pairs

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor
    from typing_extensions import Unpack

    from .._arrays.options import ArrayOptions, RunOptions

__all__ = ["ClosestPoints", "closest_points", "point_subspace_distances", "subspace_distances"]

Array = Any  # NumPy's or, on a device, CuPy's

# What is kept of the distances of all pairs.
Reduce = Literal["min", "smallest", "histogram"]

# Relative error of a squared distance above which it is recomputed from the residual, by the dtype of the product.
DISTANCE_TOLERANCE = {"float32": 1e-3, "float64": 1e-10}
# Pairs that our kernel, in one thread, has done before several would have the cores.
FEW_PAIRS = 10_000


@overload
def point_subspace_distances(X: NDArray[Any], mfa: MFA, **options: Unpack[RunOptions]) -> NDArray[Any]: ...
@overload
def point_subspace_distances(X: Tensor, mfa: MFA, **options: Unpack[RunOptions]) -> Tensor: ...
@overload
def point_subspace_distances(X: Any, mfa: MFA, **options: Unpack[ArrayOptions]) -> Any: ...
@streamed
def point_subspace_distances(X: Any, mfa: MFA, **options: Unpack[ArrayOptions]) -> Any:
    """‖(I - Q Qᵀ)(x - μ)‖ of every sample to every component's subspace.

    Parameters
    ----------
    X : array-like, [n, d]
    mfa : MFA
    **options
        See :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    array, [n, k]
        ℓ2 in data units, in X's dtype and container; inf to a component without weight, which is never the nearest.
        Noise plays no part.

    Raises
    ------
    ValueError, TypeError
        As :func:`mfakit.mixture.density.log_prob`.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([1.0], np.zeros((1, 3)), np.eye(3)[None, :, :1], 0.1)
    >>> mfakit.point_subspace_distances(np.array([[7.0, 3.0, 4.0]]), mfa)
    array([[5.]])
    """
    if is_dask(X):
        distances = SimpleNamespace(point_subspace_distances=partial(point_subspace_distances, mfa=mfa))
        return map_rows(distances, "point_subspace_distances", X, options=options)
    rows, opts = open_rows(mfa, X, of_all_components("point_subspace_distances", options))
    out = opts.result((len(rows), mfa.n_components), rows.dtype, rows)

    gone = mfa.weights == 0

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        part[:] = evaluator.xp.sqrt(_sq_distances(evaluator, block, first, rows.name))
        if gone.any():
            part[:, evaluator.arrays.asarray(np.flatnonzero(gone))] = np.inf

    each_block(rows, [mfa.subspaces], opts, Filling(fill, out))
    return returned(out, rows.like, opts.out)


def _sq_distances(evaluator: Evaluator, X: Array, start: int, name: str) -> Array:
    """Squared distances [n, k] of a block: by the product, and from the residual where the product cannot be
    trusted.
    """
    factors, ops, xp = evaluator.factors, evaluator.ops, evaluator.xp
    shape = len(X), factors.shape[0]
    centered, norms = evaluator.center(X, start, name)
    sq, keep = xp.empty(shape), xp.empty(shape, np.uint8)
    coarse = evaluator.coarse(centered, norms)
    tolerance = 0.0 if evaluator.options.method == "residual" else DISTANCE_TOLERANCE[centered.dtype.name]
    with np.errstate(over="ignore", invalid="ignore"):
        ops.point_distances(coarse, factors.mixture, tolerance, sq, keep, evaluator.threads)
    pairs = sorted_pairs(keep, xp)
    refined, _ = evaluator.refine(X, pairs)
    sq[pairs.rows, pairs.components] = -2.0 * refined  # log_norm = 0 and Z = 0: the "log-density" is -½ dist²
    if evaluator.options.check_finite:
        sq[xp.isinf(norms)] = np.inf  # finite samples whose square is beyond float64
    return sq


@overload
def subspace_distances(
    mfa0: MFA, mfa1: MFA, *, reduce: None = None, n_smallest: int = ..., bins: Any = ..., backend: Backend = ...,
    n_threads: int | None = ..., progress: bool | None = ...,
) -> Array: ...  # fmt: skip
@overload
def subspace_distances(
    mfa0: MFA, mfa1: MFA, *, reduce: Reduce, n_smallest: int = ..., bins: Any = ..., backend: Backend = ...,
    n_threads: int | None = ..., progress: bool | None = ...,
) -> tuple[Array, Array]: ...  # fmt: skip
def subspace_distances(
    mfa0: MFA, mfa1: MFA, *, reduce: Reduce | None = None, n_smallest: int = 10, bins: Any = 100,
    backend: Backend = "auto", n_threads: int | None = None, progress: bool | None = False,
) -> Any:  # fmt: skip
    """d_ij = min over z0, z1 of ‖μ_i + A_i z0 - μ_j - A_j z1‖ between all pairs of components (Theorem 2).

    Parameters
    ----------
    mfa0, mfa1 : MFA
        Two mixtures over the same features, both on the host or both on one device, where the distances are computed.
        The pairs are streamed in tiles: memory is one tile and what is kept.
    reduce : {None, "min", "smallest", "histogram"}
        What is kept: the whole matrix; the nearest of the other side for each component of `mfa0`; the `n_smallest`
        pairs; or counts in `bins`. Components without weight play no part: they are at a distance of inf (their nearest
        has index -1), among no smallest pairs and in no count.
    n_smallest : int
        For ``reduce="smallest"``.
    bins : int or array of edges
        For ``reduce="histogram"``; a number of bins spans 0 to an upper bound of all distances.
    backend, n_threads
        See :class:`mfakit._arrays.options.Options`.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.

    Returns
    -------
    float64, ℓ2 in data units
        None: [k0, k1]. "min": (distances [k0], index into mfa1 [k0]). "smallest": (distances [s], pairs [s, 2]),
        sorted. "histogram": (counts int64 [b], edges [b + 1]). CuPy arrays for models on a device
        (:meth:`mfakit.MFA.to`), else NumPy's.

    Raises
    ------
    ValueError
        For mixtures over different numbers of features or on different devices, models on a device and a backend of
        the host, or an unknown `reduce`.

    Notes
    -----
    Rank revealing: zero or dependent loadings span nothing. Pairs that share a direction or nearly touch are recomputed
    by a QR of [A_i A_j].

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> lines = mfakit.MFA([0.5, 0.5], [[0.0, 0.0], [0.0, 3.0]], [[[1.0], [0.0]]] * 2, 0.1)
    >>> point = mfakit.MFA([1.0], [[5.0, 1.0]], np.zeros((1, 2, 1)), 0.1)
    >>> mfakit.subspace_distances(lines, point)
    array([[1.],
           [2.]])
    """
    if not (isinstance(mfa0, MFA) and isinstance(mfa1, MFA)):
        raise TypeError(f"mfa0 and mfa1 must be MFA objects, got {type(mfa0).__name__} and {type(mfa1).__name__}")
    if mfa0.n_features != mfa1.n_features:
        raise ValueError(f"the mixtures must have the same d, got {mfa0.n_features} and {mfa1.n_features}")
    check_integers({"n_smallest": n_smallest}, 1)
    device = common_device({"mfa0": mfa0, "mfa1": mfa1})
    opts = Options(backend=backend, n_threads=n_threads)
    ops = get_backend(opts.backend, device)
    shape = (mfa0.n_components, mfa1.n_components)
    reducer = _reducer(reduce, shape, n_smallest, bins, mfa0, mfa1)
    threads = 1 if shape[0] * shape[1] <= FEW_PAIRS and useful_threads(opts) > 1 else opts.threads
    with open_bar(progress, total=shape[0] * shape[1], unit="pair", unit_scale=True, desc="distances") as bar:
        for rows, columns, distances in _tiles(mfa0.subspaces, mfa1.subspaces, ops, threads, device):
            distances[mfa0.weights[rows] == 0], distances[:, mfa1.weights[columns] == 0] = np.inf, np.inf
            reducer.add(rows, columns, distances)
            bar.update(distances.size)
    found = reducer.result()
    return tuple(on_device(part, device) for part in found) if isinstance(found, tuple) else on_device(found, device)


def _tiles(
    side0: Factors, side1: Factors, ops: ModuleType, n_threads: int, device: str | None = None
) -> Iterator[tuple[slice, slice, Array]]:
    """Distances tile by tile: (rows of side 0, rows of side 1, [k0, k1] on the host)."""
    arrays = get_arrays(ops, device)
    xp = arrays.xp
    (k0, l0, d), (k1, l1, _) = side0.shape, side1.shape
    # One centre for both sides, so that ‖μ‖² is as small as it can be before it cancels.
    center = (side0.center + side1.center) / 2
    most = arrays.panel_bytes / 8 / (d * (max(l0, l1) + 1))
    edge = max(1, int(min(most, (arrays.tile_bytes / 8 / ((l0 + 1) * (l1 + 1))) ** 0.5)))
    with arrays.active():
        # The device makes panels of what it holds; the host sends them tile by tile.
        there0, there1 = arrays.side(side0), arrays.side(side1)
        for i in range(0, k0, edge):
            left, one = _side(there0, slice(i, min(i + edge, k0)), center, arrays)
            for j in range(0, k1, edge):
                right, other = _side(there1, slice(j, min(j + edge, k1)), center, arrays)
                products = xp.empty((len(left), len(right)))
                if arrays.is_device:
                    arrays.matmul(left, right.T, products)
                else:  # it may take seconds
                    interruptible(arrays.matmul, left, right.T, products)
                shape = len(one.norm), len(other.norm)
                sq, suspect = xp.empty(shape), xp.empty(shape, np.uint8)
                products = products.reshape(shape[0], l0 + 1, shape[1], l1 + 1)
                ops.pair_distances(products, one, other, sq, suspect, n_threads)
                again = [arrays.to_host(index) for index in xp.nonzero(suspect)]
                distances = arrays.to_host(xp.sqrt(sq))
                with single_threaded_products() if len(again[0]) else nullcontext():  # small ones
                    for a, b in zip(*again, strict=True):
                        distances[a, b] = _by_qr(side0, i + a, side1, j + b)
                yield slice(i, i + shape[0]), slice(j, j + shape[1]), distances


def _side(factors: Any, part: slice, center: Array, arrays: Host) -> tuple[Array, Subspaces]:
    """Rows [Qᵀ; μ - c] of the components in `part` [k (l+1), d], and what pair_distances reads of them."""
    bases = factors.whitened[part]
    xp = array_module(bases)
    means = factors.means[part] - xp.asarray(center)
    rows = xp.concatenate([bases, means[:, None]], axis=1).reshape(-1, means.shape[1])
    shift = xp.ascontiguousarray(xp.matmul(bases, means[:, :, None])[:, :, 0])
    norm = xp.einsum("kd,kd->k", means, means)
    return arrays.asarray(rows), Subspaces(arrays.asarray(shift), arrays.asarray(norm))


@keeps_errstate
def _solve_pair(side0: Factors, i: int, side1: Factors, j: int) -> tuple[Array, Array, Array]:
    """Δ = μ_i - μ_j and the coordinates a, b that minimise ‖Δ + Q_i a - Q_j b‖; shared directions drop out."""
    delta = side0.means[i] - side1.means[j]
    basis0, basis1 = side0.whitened[i], side1.whitened[j]
    both = np.concatenate([basis0, -basis1]).T
    coordinates = np.linalg.lstsq(both, -delta, rcond=1e-13)[0] if both.shape[1] else np.empty(0)
    return delta, coordinates[: len(basis0)], coordinates[len(basis0) :]


def _by_qr(side0: Factors, i: int, side1: Factors, j: int) -> float:
    """The distance of one pair by an orthogonal factorization of [Q_i Q_j]."""
    delta, a, b = _solve_pair(side0, i, side1, j)
    residual = delta + a @ side0.whitened[i] - b @ side1.whitened[j]
    return float(np.linalg.norm(residual))


@dataclass(frozen=True)
class ClosestPoints:
    """The closest points of two subspaces: `point0` [d] on the first, `point1` [d] on the second, `distance` ℓ2."""

    point0: Array
    point1: Array
    distance: float


def closest_points(mfa0: MFA, component0: int, mfa1: MFA, component1: int) -> ClosestPoints:
    """The closest points of component `component0`'s subspace of `mfa0` and `component1`'s of `mfa1`; a small problem,
    solved on the host, whose NumPy arrays it returns wherever the models are. A component of weight 0 is a ValueError.
    """
    for name, mfa, j in (("component0", mfa0, component0), ("component1", mfa1, component1)):
        if mfa.weights[j] == 0:
            raise ValueError(
                f"{name}={j} must have weight, got a component of weight 0; give it one by replace(weights=)"
            )
    side0, side1 = mfa0.subspaces, mfa1.subspaces
    _, a, b = _solve_pair(side0, component0, side1, component1)
    point0 = side0.means[component0] + a @ side0.whitened[component0]
    point1 = side1.means[component1] + b @ side1.whitened[component1]
    return ClosestPoints(point0, point1, float(np.linalg.norm(point0 - point1)))


class _Matrix:
    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.empty(shape)

    def add(self, rows: slice, columns: slice, distances: Array) -> None:
        self.values[rows, columns] = distances

    def result(self) -> Array:
        return self.values


class _RowMinimum:
    def __init__(self, k0: int) -> None:
        self.best, self.index = np.full(k0, np.inf), np.full(k0, -1)

    def add(self, rows: slice, columns: slice, distances: Array) -> None:
        column = distances.argmin(axis=1)
        value = distances[np.arange(len(column)), column]
        better = value < self.best[rows]
        self.best[rows][better] = value[better]
        self.index[rows][better] = column[better] + columns.start

    def result(self) -> tuple[Array, Array]:
        return self.best, self.index


class _Smallest:
    def __init__(self, count: int) -> None:
        self.count, self.values, self.pairs = count, np.empty(0), np.empty((0, 2), np.int64)

    def add(self, rows: slice, columns: slice, distances: Array) -> None:
        flat = distances.ravel()
        few = np.argpartition(flat, self.count - 1)[: self.count] if flat.size > self.count else np.arange(flat.size)
        i, j = np.divmod(few, distances.shape[1])
        values = np.concatenate([self.values, flat[few]])
        pairs = np.concatenate([self.pairs, np.stack([i + rows.start, j + columns.start], axis=1)])
        # By distance, then by pair: ties come out the same whatever the tiles.
        order = np.lexsort((pairs[:, 1], pairs[:, 0], values))[: self.count]
        self.values, self.pairs = values[order], pairs[order]

    def result(self) -> tuple[Array, Array]:
        return self.values, self.pairs


class _Histogram:
    def __init__(self, edges: Array) -> None:
        self.edges, self.counts = edges, np.zeros(len(edges) - 1, np.int64)

    def add(self, rows: slice, columns: slice, distances: Array) -> None:
        self.counts += np.histogram(distances, self.edges)[0]

    def result(self) -> tuple[Array, Array]:
        return self.counts, self.edges


def _reducer(reduce: Reduce | None, shape: tuple[int, int], count: int, bins: Any, mfa0: MFA, mfa1: MFA) -> Any:
    if reduce is None:
        return _Matrix(shape)
    check_choice("reduce", reduce, get_args(Reduce), also="or None")
    if reduce == "min":
        return _RowMinimum(shape[0])
    if reduce == "smallest":
        return _Smallest(min(count, len(mfa0.live) * len(mfa1.live)))
    return _Histogram(_edges(bins, mfa0, mfa1))


def _edges(bins: Any, mfa0: MFA, mfa1: MFA) -> Array:
    values = to_numpy(bins)
    if values.ndim == 1 and values.dtype.kind in "fiu" and len(values) > 1 and (np.diff(values) > 0).all():
        return values.astype(float)
    if values.ndim or values.dtype.kind not in "iu" or not 1 <= values < 2**31:
        raise ValueError(f"bins must be a positive integer or ascending edges, got {bins!r}")
    # ‖μ_i - μ_j‖ bounds d_ij, and the two spreads around a common centre bound that.
    center = (mfa0.subspaces.center + mfa1.subspaces.center) / 2
    reach = sum(float(np.linalg.norm(m.means[m.live] - center, axis=1).max()) for m in (mfa0, mfa1))
    return np.linspace(0.0, reach or 1.0, int(values) + 1)
