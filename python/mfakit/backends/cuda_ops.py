"""The CUDA backend: every operation of the table as launches of the kernels in csrc/cuda; see numpy_ops for meanings.

Arrays are CuPy's. Nothing here waits for the device unless it says so; sums are made in a fixed order, so that equal
inputs give equal bits. What an operation takes goes on to its kernel as it is: structs by value (`_cuda/packing.py`).
Pairs of a component k of k are none, in `refine` and `accumulate_gradient`: lists may be longer than what is in them,
because how much that is, is known on the device alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._cuda.engine import engine
from ._cuda.packing import pack
from .binding import bind, operations
from .operands import (
    Coarse,
    Coordinates,
    Mixture,
    Pairs,
    Parameters,
    Points,
    Projected,
    Projection,
    Subspaces,
    Sums,
    WalkSettings,
    WeightedPairs,
)
from .walk_ends import ENDS

__all__ = operations("cuda")

Array = Any  # CuPy's

WARP = 32
THREADS = 256  # the most that a block has, but for walks: 65,536 registers, 255 at most per thread
# Of csrc/cuda/pairs.cu: refine_threads and refine_columns, rows and slots of the two shapes; gradient_rows.
REFINE_THREADS, REFINE_COLUMNS = 256, 128
REFINE_SHAPES = {"narrow": (32, 8), "wide": (16, 12)}
GRADIENT_ROWS = 8
# Threads of a walk in factor coordinates with more than this many columns; with fewer, 128.
WALK_COLUMNS, WALK_THREADS = 1000, 512
# Steps of a launch: about .2 s of the longest walks, 10,000 samples and 400 components of faces.
WALK_STEPS = 64
MOST_BLOCKS = 2**31 - 1
MOST_BLOCKS_ACROSS = 65535  # along a grid's second and third direction
# A thread's local array for a pair of subspaces, up to this many values; beyond it, in global memory by fewer threads.
MOST_LOCAL_VALUES = 1024
GLOBAL_WORKERS = 2**14
# Pairs with up to this many factors on side 1 fit the registers of a thread: 12 take 228 of 255.
MOST_FACTORS_IN_REGISTERS = 12
# Partial sums of the M-step may take this much.
PARTIAL_BYTES = 256 * 2**20


def _operation(launch: Callable[..., Any]) -> Callable[..., Any]:
    """The operation of this name; `n_threads` is the host's and is not used."""
    return bind(launch.__name__, lambda _, *operands: launch(*operands))


def _launch(
    family: str, kernel: str, grid: tuple[int, ...], threads: int, args: tuple[Any, ...], **options: Any
) -> None:
    """See the engine's launch: `real`, `shared` bytes, and sizes known at compilation."""
    engine().launch(family, kernel, grid, threads, tuple(map(pack, args)), **options)


def _real(array: Array) -> str:
    return "float" if array.dtype == np.float32 else "double"


def _threads(wanted: int = THREADS) -> int:
    return int(min(wanted, THREADS, engine().most_threads))


def _grid(items: int, per_block: int) -> tuple[int]:
    """Blocks for this many items; kernels loop where there are more items than the grid holds."""
    return (min(-(-items // per_block), MOST_BLOCKS),)


def _warps(rows: int) -> tuple[tuple[int], int]:
    """Grid and threads of a block for a warp per row."""
    threads = _threads()
    return _grid(rows, threads // WARP), threads


@_operation
def center_rows(X: Array, center: Array, out: Array, sq_norms: Array) -> None:
    n, d = X.shape
    kernel = "center_rows" if X.dtype == out.dtype else "center_rows_narrowed"
    _launch("density", kernel, *_warps(n), (X, center, n, d, out, sq_norms), real=_real(X))


@_operation
def mixture_epilogue(coarse: Coarse, mixture: Mixture, log_prob: Array, keep: Array) -> None:
    real = _real(coarse.products)
    _launch("density", "mixture_epilogue", *_warps(len(keep)), (coarse, mixture, log_prob, keep), real=real)


@_operation
def mark_candidates(coarse: Coarse, mixture: Mixture) -> tuple[Array, Array]:
    xp, real, n, k = engine().xp, _real(coarse.products), len(coarse.products), len(mixture.log_norm)
    marks, offsets = xp.empty((n, -(-k // WARP)), np.uint32), xp.zeros(n + 1, np.int64)
    count = xp.empty(n, np.int64)
    _launch("density", "mark_candidates", *_warps(n), (coarse, mixture, marks, count), real=real)
    xp.cumsum(count, out=offsets[1:])
    return marks, offsets


@_operation
def list_candidates(marks: Array, offsets: Array, count: int, k: int) -> tuple[Array, Array]:
    xp, n = engine().xp, len(marks)
    rows, components = xp.zeros(count, np.int64), xp.full(count, k, np.int64)
    _launch("density", "list_candidates", *_warps(n), (marks, offsets, n, k, count, rows, components))
    return rows, components


@_operation
def log_sum_exp_candidates(values: Array, offsets: Array, out: Array) -> None:
    n, threads = len(out), _threads()
    _launch("density", "log_sum_exp_candidates", _grid(n, threads), threads, (values, offsets, n, out))


def _tiles(components: Array, k: int, height: int) -> tuple[Array, Array, int]:
    """Where each component's tiles of `height` pairs and its pairs begin, [k + 1] each, and a bound on the number of
    tiles; on the device.
    """
    m = len(components)
    pair_offsets = engine().xp.searchsorted(components, _range(k + 1), side="left").astype(np.int64)
    return _tile_offsets(pair_offsets, height), pair_offsets, m // height + min(k, m)


def _tile_offsets(pair_offsets: Array, height: int) -> Array:
    """Where each component's tiles begin, [k + 1], from where its pairs do."""
    xp = engine().xp
    tile_offsets = xp.zeros(len(pair_offsets), np.int64)
    tile_offsets[1:] = xp.cumsum((pair_offsets[1:] - pair_offsets[:-1] + (height - 1)) // height)
    return tile_offsets


@_operation
def refine(X: Array, pairs: Pairs, mixture: Mixture, log_prob: Array, whitened_latent: Array) -> None:
    k, l, _ = mixture.whitened.shape
    shape, rows, shared = _refine_shape(l, X.dtype.itemsize)
    tile_offsets, pair_offsets, tiles = _tiles(pairs.components, k, rows)
    args = (X, pairs, tile_offsets, pair_offsets, mixture, log_prob, whitened_latent)
    _launch("pairs", f"refine_{shape}", (tiles,), REFINE_THREADS, args, real=_real(X), shared=shared)


def _refine_shape(l: int, itemsize: int) -> tuple[str, int, int]:
    """The first shape that takes l factors in one pass, or the last: its name, pairs of a block and bytes of shared
    memory.
    """
    shapes = [
        (name, rows, slots, 2 * REFINE_COLUMNS * (8 * (slots + 1) + itemsize * rows) + 8 * rows)
        for name, (rows, slots) in REFINE_SHAPES.items()
    ]
    fitting = (shape for shape in shapes if l < shape[2] and shape[3] <= engine().shared_bytes)
    name, rows, _, shared = next(fitting, shapes[-1])
    return name, rows, shared


@_operation
def log_sum_exp(log_prob: Array, out: Array) -> None:
    n, k = log_prob.shape
    _launch("density", "log_sum_exp_rows", *_warps(n), (log_prob, n, k, out))


@_operation
def softmax(log_prob: Array, out: Array) -> None:
    n, k = log_prob.shape
    _launch("density", "softmax_rows", *_warps(n), (log_prob, n, k, out))


@_operation
def accumulate_gradient(X: Array, pairs: WeightedPairs, mixture: Mixture, out: Array) -> None:
    """Rows with one pair by tiles of their components', then those with several, each by a block that adds all of its
    pairs up in float64, so that no two blocks add to one row. How many pairs each launch has stays on the device.
    """
    m = len(pairs.rows)
    if not m:
        return
    (k, l, d), threads = mixture.whitened.shape, _threads(128)
    order, edges = _alone_or_by_row(pairs.rows, pairs.components, len(out), k)
    pairs = WeightedPairs._make(array[order] for array in pairs)
    across, pair_offsets = -(-d // (8 * threads)), edges[: k + 1]
    args = (X, pairs, _tile_offsets(pair_offsets, GRADIENT_ROWS), pair_offsets, mixture, out)
    grid, shared = (m // GRADIENT_ROWS + min(k, m), across), 8 * GRADIENT_ROWS * max(l, 1)
    _launch("pairs", "accumulate_gradient", grid, threads, args, real=_real(X), shared=shared)
    grid = (min(m, 64 * engine().multiprocessors), across)
    _launch("pairs", "accumulate_row_gradients", grid, threads, (X, pairs, edges[k:], mixture, out), real=_real(X))


def _alone_or_by_row(rows: Array, components: Array, n: int, k: int) -> tuple[Array, Array]:
    """An order [m] of pairs of n rows: those of rows without another pair by component, the others by row, and last
    the places without a pair; and where in it each component's begin, the others, and those places, [k + 2].
    """
    xp, number = engine().xp, _range(len(rows))
    place, last, several = xp.where(components < k, rows, n), xp.empty(n + 1, np.int64), xp.zeros(n + 1, bool)
    last[place] = number  # of equal rows one stays, and the others see it
    several[xp.where(last[place] == number, n, place)] = True
    key = xp.where(several[rows], (rows + 1) * k + components, components)
    key = xp.where(components < k, key, (n + 1) * k)
    order, edges = xp.argsort(key), _range(k + 2)
    edges[k + 1] = (n + 1) * k
    return order, xp.searchsorted(key[order], edges, side="left").astype(np.int64)


def _range(count: int) -> Array:
    """The integers below `count` on the device, int64."""
    return engine().xp.arange(count, dtype=np.int64)


@_operation
def point_distances(coarse: Coarse, mixture: Mixture, tolerance: float, sq_distances: Array, keep: Array) -> None:
    threads = _threads()
    args = (coarse, mixture, float(tolerance), sq_distances, keep)
    _launch("density", "point_distances", _grid(keep.size, threads), threads, args, real=_real(coarse.products))


@_operation
def bound_components(projected: Projected, projection: Projection, above: Array, best: Array) -> None:
    (n, k), threads, real = above.shape, _threads(), _real(above)
    _launch("prune", "bound_components", _grid(n * k, threads), threads, (projected, projection, above), real=real)
    if best.shape[1]:
        _launch("prune", "highest_bounds", *_warps(n), (above, n, k, best.shape[1], best), real=real)


@_operation
def survivors(projected: Projected, projection: Projection, threshold: Array, above: Array) -> Pairs:
    """Waits for the device, for how many there are."""
    xp, (n, k), threads = engine().xp, above.shape, _threads()
    still_open = xp.empty((k, n), np.uint8)
    args = (projected, projection, threshold, above, still_open)
    _launch("prune", "tighten_bounds", _grid(n * k, threads), threads, args, real=_real(above))
    components, rows = xp.nonzero(still_open)
    return Pairs(rows.astype(np.int64), components.astype(np.int64))


@_operation
def pair_distances(products: Array, side0: Subspaces, side1: Subspaces, sq_distances: Array, suspect: Array) -> None:
    """With few factors, in registers, and a second launch for what needs eigenvectors."""
    l1 = side1.shift.shape[1]
    values = 2 * l1 * l1 + 2 * l1 + 1
    threads, blocks = _threads(128), _grid(suspect.size, _threads(128))
    in_registers = l1 <= MOST_FACTORS_IN_REGISTERS
    sizes = {"MFA_PAIR_WORK": -(-values // WARP) * WARP if values <= MOST_LOCAL_VALUES else 1}
    args = (products, side0, side1, sq_distances, suspect)
    if in_registers:
        sizes["MFA_L1"] = l1
        _launch("subspace", "pairs_in_registers", blocks, threads, args, **sizes)
    work = None
    if values > MOST_LOCAL_VALUES:
        blocks = (min(blocks[0], -(-GLOBAL_WORKERS // threads)),)
        work = engine().xp.empty(blocks[0] * threads * values)
    _launch("subspace", "pair_distances", blocks, threads, (*args, work, values, in_registers), **sizes)


@_operation
def attack_step(X: Array, direction: Array, step_size: float) -> None:
    n, d = X.shape
    _launch("attack", "attack_step", _grid(n, 1), _threads(128), (X, direction, float(step_size), n, d))


@_operation
def factor_walk(coordinates: Coordinates, y: Array, settings: WalkSettings, points: Points, reports: Array) -> None:
    """A block per sample; in shared memory where five rows of the Gram matrix fit. Long rows take many threads: a block
    then has a multiprocessor for itself. A launch takes WALK_STEPS steps, and the device is waited for after each but
    the last: Ctrl-C is answered then, and the walk ends with its last sample.
    """
    device, (k, l, classes), (n, columns) = engine(), coordinates.sizes, points.a.shape
    values = 5 * columns + k + 2 * classes + 2 * l + 2  # a point, and WalkScratch of walk.hpp
    threads = _threads(128) if columns <= WALK_COLUMNS else min(WALK_THREADS, device.most_threads)
    fits = 8 * values <= device.shared_bytes - 1024
    blocks = n if fits else min(n, 4 * device.multiprocessors)
    work = () if fits else (device.xp.empty(blocks * values),)
    kernel, options = ("factor_walk", {"shared": 8 * values}) if fits else ("factor_walk_in_global", {})
    for first in range(0, max(settings.max_steps, 1), WALK_STEPS):
        if first > 0 and not (reports[:, 0] == ENDS.index("max_steps")).any():
            return
        last = min(first + WALK_STEPS, settings.max_steps)
        args = (coordinates, y, settings, first, last, points, reports, *work)
        _launch("attack", kernel, _grid(blocks, 1), threads, args, **options)


@_operation
def accumulate_statistics(X: Array, pairs: WeightedPairs, means: Array, sums: Sums) -> None:
    """Partial sums over segments of each component's pairs, then their sum."""
    if not len(pairs.rows):
        return
    device, (k, l, d), threads = engine(), sums.sizes, _threads(128)
    feature_blocks = -(-d // threads)
    _, pair_offsets, _ = _tiles(pairs.components, k, 1)
    busy = -(-8 * device.multiprocessors // (feature_blocks * k))
    segments = max(1, min(busy, PARTIAL_BYTES // (8 * k * (l + 2) * d), len(pairs.rows), MOST_BLOCKS_ACROSS))
    partial = [device.xp.empty((segments * total.shape[0], *total.shape[1:])) for total in sums]
    args = (X, pairs, pair_offsets, means, Sums._make(partial))
    grid = (feature_blocks, min(k, MOST_BLOCKS_ACROSS), segments)
    _launch("pairs", "accumulate_statistics", grid, threads, args, real=_real(X))
    for total, part in zip(sums, partial, strict=True):
        total += part.reshape(segments, *total.shape).sum(axis=0)


@_operation
def sample_points(component: Array, z: Array, parameters: Parameters, key: int, with_noise: bool, out: Array) -> None:
    n, d = out.shape
    args = (component, z, parameters, key, with_noise, n, out)
    _launch("sampling", "sample_points", _grid(n * ((d + 1) // 2), _threads()), _threads(), args, real=_real(out))
