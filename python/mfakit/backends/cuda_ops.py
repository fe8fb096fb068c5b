"""The CUDA backend: every operation of the table as launches of the kernels in csrc/cuda; see numpy_ops for meanings.

Arrays are CuPy's. Nothing here waits for the device unless it says so; sums are made in a fixed order, so that equal
inputs give equal bits. `n_threads` is the host's and is not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._cuda.engine import engine
from .table import TABLE

__all__ = list(TABLE)

Array = Any  # CuPy's

WARP = 32
THREADS = 256  # the most that any block has: 65,536 registers, 255 at most per thread
TILE_ROWS = 4  # tile_rows of csrc/include/mfakit/residual.hpp
SLOT_GROUP = 3  # slot_group of csrc/cuda/pairs.cu
MOST_BLOCKS = 2**31 - 1
MOST_BLOCKS_ACROSS = 65535  # along a grid's second and third direction
# A thread's local array for a pair of subspaces, up to this many values; beyond it, in global memory by fewer threads.
MOST_LOCAL_VALUES = 1024
GLOBAL_WORKERS = 2**14
# Pairs with up to this many factors on side 1 fit the registers of a thread: 12 take 228 of 255.
MOST_FACTORS_IN_REGISTERS = 12
# Partial sums of the M-step may take this much.
PARTIAL_BYTES = 256 * 2**20


def _real(array: Array) -> str:
    return "float" if array.dtype == np.float32 else "double"


def _threads(wanted: int = THREADS) -> int:
    return int(min(wanted, THREADS, engine().most_threads))


def _grid(items: int, per_block: int) -> tuple[int]:
    """Blocks for so many items; kernels loop where there are more items than the grid holds."""
    return (min(-(-items // per_block), MOST_BLOCKS),)


def center_rows(X: Array, center: Array, out: Array, sq_norms: Array, n_threads: int = 1) -> None:
    """See numpy_ops.center_rows."""
    n, d = X.shape
    args = (X, center, n, d, out, sq_norms)
    engine().launch("density", "center_rows", _grid(n, 1), _threads(128), args, real=_real(X))


def mixture_epilogue(
    products: Array,
    quad: Array | None,
    sq_norms: Array,
    inv_noise: Array,
    shift: Array,
    mean_norm: Array,
    log_norm: Array,
    slack: float,
    log_prob: Array,
    keep: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.mixture_epilogue."""
    n, (k, l) = len(products), shift.shape
    args = (
        products, quad, sq_norms, inv_noise, shift, mean_norm, log_norm, float(slack), n, k, l, products.shape[1],
        log_prob, keep,
    )  # fmt: skip
    threads = _threads()
    engine().launch("density", "mixture_epilogue", _grid(n, threads // WARP), threads, args, real=_real(products))


def _tiles(components: Array, k: int) -> tuple[Array, Array, int]:
    """Where each component's tiles and pairs begin, [k + 1] each, and a bound on the number of tiles; on the device."""
    xp = engine().xp
    pair_offsets = xp.searchsorted(components, xp.arange(k + 1, dtype=np.int64), side="left").astype(np.int64)
    tile_offsets = xp.zeros(k + 1, np.int64)
    tile_offsets[1:] = xp.cumsum((pair_offsets[1:] - pair_offsets[:-1] + (TILE_ROWS - 1)) // TILE_ROWS)
    m = len(components)
    return tile_offsets, pair_offsets, m // TILE_ROWS + min(k, m)


def refine(
    X: Array,
    rows: Array,
    components: Array,
    means: Array,
    whitened: Array,
    latent_map: Array,
    noise: Array,
    log_norm: Array,
    log_prob: Array,
    whitened_latent: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.refine."""
    k, l, d = whitened.shape
    tile_offsets, pair_offsets, tiles = _tiles(components, k)
    args = (
        X, rows, tile_offsets, pair_offsets, means, whitened, latent_map, noise, log_norm, k, l, d,
        noise.shape[1] != 1, log_prob, whitened_latent,
    )  # fmt: skip
    shared = 8 * TILE_ROWS * (l + 1)
    engine().launch("pairs", "refine", (tiles,), _refine_threads(l), args, real=_real(X), shared=shared)


def _refine_threads(l: int) -> int:
    """A warp for each group of the l + 1 sums, but two at least and no more than a block has: then warps loop."""
    return _threads(WARP * max(2, -(-(l + 1) // SLOT_GROUP)))


def log_sum_exp(log_prob: Array, out: Array, n_threads: int = 1) -> None:
    """See numpy_ops.log_sum_exp."""
    n, k = log_prob.shape
    threads = _threads()
    engine().launch("density", "log_sum_exp_rows", _grid(n, threads // WARP), threads, (log_prob, n, k, out))


def softmax(log_prob: Array, out: Array, n_threads: int = 1) -> None:
    """See numpy_ops.softmax."""
    n, k = log_prob.shape
    threads = _threads()
    engine().launch("density", "softmax_rows", _grid(n, threads // WARP), threads, (log_prob, n, k, out))


def accumulate_gradient(
    X: Array,
    rows: Array,
    components: Array,
    weights: Array,
    whitened_latent: Array,
    means: Array,
    whitened: Array,
    noise: Array,
    out: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.accumulate_gradient. A launch per rank of a pair among its row's, so that no two blocks add to one
    row at a time; waits for the device once.
    """
    if not len(rows):
        return
    xp = engine().xp
    k, l, d = whitened.shape
    rank = _rank_in_row(rows, components, k)
    ranks = int(rank.max()) + 1
    threads = _threads()
    feature_blocks = -(-d // (4 * threads))
    for r in range(ranks):
        part = slice(None) if ranks == 1 else xp.nonzero(rank == r)[0]
        chosen_rows, chosen, w, y = rows[part], components[part], weights[part], whitened_latent[part]
        tile_offsets, pair_offsets, tiles = _tiles(chosen, k)
        args = (
            X, chosen_rows, tile_offsets, pair_offsets, w, y, means, whitened, noise, k, l, d, noise.shape[1] != 1, out,
        )  # fmt: skip
        shared = 8 * TILE_ROWS * max(l, 1)
        engine().launch(
            "pairs", "accumulate_gradient", (tiles, feature_blocks), threads, args, real=_real(X), shared=shared
        )


def _rank_in_row(rows: Array, components: Array, k: int) -> Array:
    """[m]: how many pairs of the same row have a lower component."""
    xp = engine().xp
    order = xp.argsort(rows * k + components)
    ordered = rows[order]
    rank = xp.empty(len(rows), np.int64)
    rank[order] = xp.arange(len(rows)) - xp.searchsorted(ordered, ordered, side="left")
    return rank


def point_distances(
    products: Array,
    sq_norms: Array,
    shift: Array,
    mean_norm: Array,
    slack: float,
    tolerance: float,
    sq_distances: Array,
    keep: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.point_distances."""
    n, (k, l) = len(products), shift.shape
    limits = (float(slack), float(tolerance))
    args = (products, sq_norms, shift, mean_norm, *limits, n, k, l, products.shape[1], sq_distances, keep)
    engine().launch("density", "point_distances", _grid(n * k, _threads()), _threads(), args, real=_real(products))


def pair_distances(
    products: Array,
    shift0: Array,
    norm0: Array,
    shift1: Array,
    norm1: Array,
    sq_distances: Array,
    suspect: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.pair_distances. With few factors, in registers, and a second launch for what needs eigenvectors."""
    (k0, l0), (k1, l1) = shift0.shape, shift1.shape
    values = 2 * l1 * l1 + 2 * l1 + 1
    threads, blocks = _threads(128), _grid(k0 * k1, _threads(128))
    in_registers = l1 <= MOST_FACTORS_IN_REGISTERS
    sizes = {"MFA_PAIR_WORK": -(-values // WARP) * WARP if values <= MOST_LOCAL_VALUES else 1}
    if in_registers:
        sizes["MFA_L1"] = l1
        few = (products, shift0, norm0, shift1, norm1, k0, l0, k1, sq_distances, suspect)
        engine().launch("subspace", "pairs_in_registers", blocks, threads, few, **sizes)
    work = None
    if values > MOST_LOCAL_VALUES:
        blocks = (min(blocks[0], -(-GLOBAL_WORKERS // threads)),)
        work = engine().xp.empty(blocks[0] * threads * values)
    args = (
        products, shift0, norm0, shift1, norm1, k0, l0, k1, l1, sq_distances, suspect, work, values, in_registers,
    )  # fmt: skip
    engine().launch("subspace", "pair_distances", blocks, threads, args, **sizes)


def attack_step(X: Array, direction: Array, step_size: float, n_threads: int = 1) -> None:
    """See numpy_ops.attack_step."""
    n, d = X.shape
    engine().launch("attack", "attack_step", _grid(n, 1), _threads(128), (X, direction, float(step_size), n, d))


def factor_walk(
    gram: Array,
    variance: Array,
    gain: Array,
    spread: Array,
    log_const: Array,
    first: Array,
    y: Array,
    step_size: float,
    max_steps: int,
    frozen: bool,
    bisections: int,
    a: Array,
    w: Array,
    alpha: Array,
    sq: Array,
    reports: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.factor_walk. A block per sample; in shared memory where five rows of the Gram matrix fit."""
    device = engine()
    (k, l), classes, (n, columns) = gain.shape, len(first) - 1, a.shape
    values = 5 * columns + k + classes + classes + 2 * l + 2
    blocks, shared, work = n, 8 * values, None
    if shared > device.shared_bytes - 1024:
        blocks = min(n, 4 * device.multiprocessors)
        shared, work = 0, device.xp.empty(blocks * values)
    args = (
        gram, variance, gain, spread, log_const, first, k, l, classes, y, float(step_size), int(max_steps),
        bool(frozen), int(bisections), n, a, w, alpha, sq, reports, work,
    )  # fmt: skip
    device.launch("attack", "factor_walk", _grid(blocks, 1), _threads(128), args, shared=shared)


def accumulate_statistics(
    X: Array,
    rows: Array,
    components: Array,
    weights: Array,
    latents: Array,
    means: Array,
    sum_x: Array,
    sum_xz: Array,
    sum_xx: Array,
    n_threads: int = 1,
) -> None:
    """See numpy_ops.accumulate_statistics. Partial sums over segments of each component's pairs, then their sum."""
    if not len(rows):
        return
    device = engine()
    k, l, d = sum_xz.shape
    threads = _threads(128)
    feature_blocks = -(-d // threads)
    _, pair_offsets, _ = _tiles(components, k)
    busy = -(-8 * device.multiprocessors // (feature_blocks * k))
    segments = max(1, min(busy, PARTIAL_BYTES // (8 * k * (l + 2) * d), len(rows), MOST_BLOCKS_ACROSS))
    partial = [device.xp.empty((segments, *target.shape)) for target in (sum_x, sum_xz, sum_xx)]
    args = (X, rows, pair_offsets, weights, latents, means, k, l, d, *partial)
    grid = (feature_blocks, min(k, MOST_BLOCKS_ACROSS), segments)
    device.launch("pairs", "accumulate_statistics", grid, threads, args, real=_real(X))
    for target, part in zip((sum_x, sum_xz, sum_xx), partial, strict=True):
        target += part.sum(axis=0)
