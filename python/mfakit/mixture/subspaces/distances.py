"""subspace_distances(): all pairs of components of two mixtures (Theorem 2)."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, overload

import numpy as np

from ..._arrays.options import Options
from ..._arrays.rows import to_numpy
from ..._arrays.sharing import useful_threads
from ..._checks import check_choice, check_integers
from ..._io.progress import open_bar
from ...backends import Backend, get_backend
from ..factors import Factors
from ..mfa import MFA, common_device, on_device
from .counting import count_rough, count_tiles
from .kept import Histogram, Nearest, RowMinima, Smallest
from .pairs import solve_pairs
from .pruning import choose_pruning, search_pruned
from .sides import Side, open_side
from .there import count_there, fill_there, nearest_there
from .tiles import Machine, brackets_of, can_be_rough, distances_of, open_machine, tiles

__all__ = ["subspace_distances"]

Array = Any  # NumPy's or, on a device, CuPy's

Model = MFA | str | os.PathLike[str]
# What is kept of the distances of all pairs, and how the nearest are found.
Reduce = Literal["min", "row_min", "smallest", "histogram"]
Method = Literal["auto", "dense", "pruned"]

# Pairs that our kernel, in one thread, has done before several would have the cores.
FEW_PAIRS = 10_000


@overload
def subspace_distances(
    mfa0: Model, mfa1: Model, *, reduce: None = None, n_smallest: int = ..., bins: Any = ..., method: Method = ...,
    backend: Backend = ..., n_threads: int | None = ..., progress: bool | None = ...,
) -> Array: ...  # fmt: skip
@overload
def subspace_distances(
    mfa0: Model, mfa1: Model, *, reduce: Literal["min"], n_smallest: int = ..., bins: Any = ..., method: Method = ...,
    backend: Backend = ..., n_threads: int | None = ..., progress: bool | None = ...,
) -> tuple[float, tuple[int, int]]: ...  # fmt: skip
@overload
def subspace_distances(
    mfa0: Model, mfa1: Model, *, reduce: Literal["row_min", "smallest", "histogram"], n_smallest: int = ...,
    bins: Any = ..., method: Method = ..., backend: Backend = ..., n_threads: int | None = ...,
    progress: bool | None = ...,
) -> tuple[Array, Array]: ...  # fmt: skip
def subspace_distances(
    mfa0: Model, mfa1: Model, *, reduce: Reduce | None = None, n_smallest: int = 10, bins: Any = 100,
    method: Method = "auto", backend: Backend = "auto", n_threads: int | None = None, progress: bool | None = False,
) -> Any:  # fmt: skip
    """d_ij = min over z0, z1 of ‖μ_i + A_i z0 - μ_j - A_j z1‖ between all pairs of components (Theorem 2).

    Parameters
    ----------
    mfa0, mfa1 : MFA or path
        Two mixtures over the same features, both on the host or both on one device, where the distances are computed.
        The pairs are streamed in tiles: memory is one tile and what is kept. A path is that of a file of
        :meth:`mfakit.MFA.save`, which is mapped and read tile by tile: it may be larger than memory.
    reduce : {None, "min", "row_min", "smallest", "histogram"}
        What is kept: the whole matrix; the nearest pair; the nearest of the other side for each component of `mfa0`;
        the `n_smallest` pairs; or counts in `bins`. Components without weight play no part: they are at a distance of
        inf (their nearest has index -1), among no nearest pairs and in no count.
    n_smallest : int
        For ``reduce="smallest"``.
    bins : int or array of edges
        For ``reduce="histogram"``; a number of bins spans 0 to an upper bound of all distances.
    method : {"auto", "dense", "pruned"}
        How the nearest pairs are found: "pruned" skips those that a proven lower bound, their distance in a projection
        on a few directions, puts beyond the answer; "dense" looks at all; "auto" prunes where a pilot of some rows
        leaves few enough. The answer is the same, bit for bit. On a device all pairs are looked at.
    backend, n_threads
        See :class:`mfakit._arrays.options.Options`.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.

    Returns
    -------
    float64, ℓ2 in data units
        None: [k0, k1]. "min": (distance, (i, j)), Python numbers. "row_min": (distances [k0], index into mfa1 [k0]).
        "smallest": (distances [s], pairs [s, 2]), sorted. "histogram": (counts int64 [b], edges [b + 1]). Of equal
        distances the first pair counts. CuPy arrays for models on a device (:meth:`mfakit.MFA.to`), else NumPy's.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        For mixtures over different numbers of features or on different devices, models on a device and a backend of
        the host, an unknown `reduce` or `method`, ``method="pruned"`` where nothing can be skipped, and files as
        :meth:`mfakit.MFA.load`.

    Notes
    -----
    Rank revealing: zero or dependent loadings span nothing. Pairs that share a direction or nearly touch, and the
    nearest pairs, are solved by an orthogonal factorization of their own. So the nearest pairs do not depend on tiles,
    threads or `method`; entries of the matrix may differ from them by rounding. docs/subspaces.md has the proofs.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> lines = mfakit.MFA([0.5, 0.5], [[0.0, 0.0], [0.0, 3.0]], [[[1.0], [0.0]]] * 2, 0.1)
    >>> point = mfakit.MFA([1.0], [[5.0, 1.0]], np.zeros((1, 2, 1)), 0.1)
    >>> mfakit.subspace_distances(lines, point)
    array([[1.],
           [2.]])
    >>> mfakit.subspace_distances(lines, point, reduce="min")
    (1.0, (0, 0))
    """
    _check(reduce, n_smallest, method)
    side0, side1 = open_side(mfa0, "mfa0"), open_side(mfa1, "mfa1")
    device = _common_device(mfa0, mfa1, side0, side1, method)
    opts = Options(backend=backend, n_threads=n_threads)
    ops = get_backend(opts.backend, device)
    n_pairs = len(side0.gone) * len(side1.gone)
    threads = 1 if n_pairs <= FEW_PAIRS and useful_threads(opts) > 1 else opts.threads
    work = _Work(side0, side1, open_machine(ops, threads, device), method)
    edges = _edges(bins, side0, side1) if reduce == "histogram" else None
    with open_bar(progress, total=n_pairs, unit="pair", unit_scale=True, desc="distances") as bar:
        if reduce is None:
            return _matrix(work, bar, device)
        found = _histogram(work, edges, bar) if reduce == "histogram" else _nearest(work, reduce, n_smallest, bar)
    return found if reduce == "min" else tuple(on_device(part, device) for part in found)


def _check(reduce: Any, n_smallest: Any, method: Any) -> None:
    if reduce is not None:
        check_choice("reduce", reduce, get_args(Reduce), also="or None")
    check_integers({"n_smallest": n_smallest}, 1)
    check_choice("method", method, get_args(Method))
    if method == "pruned" and reduce in (None, "histogram"):
        raise ValueError(
            f"method='pruned' skips pairs, and reduce={reduce!r} needs all of them; take method='auto' or 'dense'"
        )


def _common_device(mfa0: Any, mfa1: Any, side0: Side, side1: Side, method: str) -> str | None:
    """Where both sides are, which must have the same features."""
    d0, d1 = side0.factors.shape[2], side1.factors.shape[2]
    if d0 != d1:
        raise ValueError(f"the mixtures must have the same d, got {d0} and {d1}")
    models = {name: mfa for name, mfa in (("mfa0", mfa0), ("mfa1", mfa1)) if isinstance(mfa, MFA)}
    device = common_device(models) if models else None
    if device is not None and len(models) < 2:
        raise ValueError(f"a file is read on the host, and the other mixture is on {device}; move it by to('cpu')")
    if device is not None and method == "pruned":
        raise ValueError(
            "method='pruned' computes on the host, got models on a device; take method='auto' or to('cpu')"
        )
    return device


class _Work(NamedTuple):
    """What is asked of the pairs of two sides."""

    side0: Side
    side1: Side
    machine: Machine
    method: Method

    @property
    def factors(self) -> tuple[Factors, Factors]:
        return self.side0.factors, self.side1.factors

    @property
    def gone(self) -> tuple[Array, Array]:
        """Which components have no weight, of either side."""
        return self.side0.gone, self.side1.gone

    def leave_out(self, rows: slice, columns: slice, *distances: Array) -> None:
        """Components without weight are at a distance of inf, in place."""
        for values in distances:
            values[self.side0.gone[rows]], values[:, self.side1.gone[columns]] = np.inf, np.inf


def _matrix(work: _Work, bar: Any, device: str | None) -> Array:
    arrays, shape = work.machine.arrays, (len(work.side0.gone), len(work.side1.gone))
    if arrays.is_device:
        with arrays.active():
            found = np.empty(shape) if device is None else arrays.xp.empty(shape)
        fill_there(*work.factors, work.machine, work.gone, found, partial(_solve, *work.factors), bar)
        return found
    found = np.empty(shape)
    for tile in tiles(*work.factors, work.machine):
        found[tile.rows, tile.columns] = distances_of(tile, *work.factors)
        bar.update(tile.sq.size)
    work.leave_out(slice(None), slice(None), found)
    return found


def _histogram(work: _Work, edges: Array, bar: Any) -> tuple[Array, Array]:
    """Counts of what solve_pairs gives, which brackets decide but near an edge."""
    kept, solve = Histogram(edges), partial(_solve, *work.factors)
    if work.machine.arrays.is_device:
        count_there(*work.factors, work.machine, work.gone, kept, solve, bar)
        return kept.counts, kept.edges
    counted = count_rough if can_be_rough(*work.factors, work.machine) else count_tiles
    counted(*work.factors, work.machine, kept, solve, work.leave_out, bar)
    return kept.counts, kept.edges


def _nearest(work: _Work, reduce: str, n_smallest: int, bar: Any) -> Any:
    solve = partial(_solve, *work.factors)
    live = [int(np.count_nonzero(~side.gone)) for side in (work.side0, work.side1)]
    count = 1 if reduce == "min" else min(n_smallest, live[0] * live[1])
    k0 = len(work.side0.gone)
    kept = RowMinima(solve, k0) if reduce == "row_min" else Smallest(solve, count)
    if work.machine.arrays.is_device:
        nearest_there(*work.factors, work.machine, work.gone, kept, bar)
    else:
        _nearest_here(work, reduce, count, kept, bar)
    kept.settle()
    if reduce == "min":
        return float(kept.upper[0]), (int(kept.i[0]), int(kept.j[0]))
    if reduce == "smallest":
        return kept.upper, np.stack([kept.i, kept.j], axis=1)
    distances, index = np.full(k0, np.inf), np.full(k0, -1)
    distances[kept.i], index[kept.i] = kept.upper, kept.j
    return distances, index


def _nearest_here(work: _Work, reduce: str, count: int, kept: Nearest, bar: Any) -> None:
    pruning = None
    if work.method != "dense":
        pruning = choose_pruning(work.side0, work.side1, work.machine, reduce, count, forced=work.method == "pruned")
    if pruning is not None:
        search_pruned(pruning, kept, bar)
        return
    for tile in tiles(*work.factors, work.machine):
        brackets = brackets_of(tile, *work.factors)
        work.leave_out(tile.rows, tile.columns, *brackets)
        kept.add_tile(tile.rows, tile.columns, *brackets)
        bar.update(tile.sq.size)


def _solve(side0: Factors, side1: Factors, i: Array, j: Array) -> Array:
    return solve_pairs(side0, i, side1, j)


def _edges(bins: Any, side0: Side, side1: Side) -> Array:
    values = to_numpy(bins)
    if values.ndim == 1 and values.dtype.kind in "fiu" and len(values) > 1 and (np.diff(values) > 0).all():
        return values.astype(float)
    if values.ndim or values.dtype.kind not in "iu" or not 1 <= values < 2**31:
        raise ValueError(f"bins must be a positive integer or ascending edges, got {bins!r}")
    # ‖μ_i - μ_j‖ bounds d_ij, and the two spreads around a common centre bound that.
    center = (side0.factors.center + side1.factors.center) / 2
    reach = side0.reach(center) + side1.reach(center)
    return np.linspace(0.0, reach or 1.0, int(values) + 1)
