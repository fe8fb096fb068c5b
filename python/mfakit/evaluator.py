"""Scores of a block of rows under a mixture: a cheap product that says what can matter, and that again, exactly.

The way of a block: centre it, one matrix product with the panel of all components (coarse), log-probabilities and the
candidates that can matter (epilogue), those again from their residuals in float64 (refine), then whatever was asked.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ._arrays import check_finite_rows
from ._options import Options
from .backends import get_arrays
from .factors import Factors

__all__ = ["Evaluator", "Scores", "sorted_pairs"]

Array = Any  # NumPy's or, on a device, CuPy's

# Gradients go by pairs (each costs its residual) until a sample has so many candidates that the product back is
# cheaper.
MOST_PAIRS_PER_ROW = 8
# Features per partial product with the squares.
SQUARES_COLUMNS = 512
# Half a unit in the last of TF32's 11 significant bits, of both factors of a term.
TF32_ROUNDING = 2.0**-11


def sorted_pairs(keep: Array, xp: Any = np) -> tuple[Array, Array]:
    """Rows and components [m], int64, of the marked entries of keep [n, k], sorted by component; waits for a device."""
    components, rows = xp.nonzero(keep.T)
    return xp.ascontiguousarray(rows.astype(np.int64)), xp.ascontiguousarray(components.astype(np.int64))


@dataclass
class Scores:
    """What an :class:`Evaluator` knows of a block of n rows; the arrays are reused by its next call.

    log_prob [n, k] is refined where it matters; rows, components [m] are the refined pairs, sorted by component;
    whitened_latent [m, l] is their y = W (x - μ).
    """

    X: Array
    centered: Array
    products: Array | None
    log_prob: Array
    rows: Array
    components: Array
    whitened_latent: Array


class Evaluator:
    """Coarse, candidates, refine: component log-probabilities of blocks of at most `rows` rows.

    Owns the buffers of one block, so it must not be shared between threads; factors and backend may be.
    """

    def __init__(self, factors: Factors, ops: ModuleType, dtype: Any, rows: int, options: Options) -> None:
        self.arrays = get_arrays(ops)
        self.xp = self.arrays.xp
        self.factors, self.ops, self.options = self.arrays.factors(factors), ops, options
        self.threads = options.threads
        self.dtype = np.dtype(options.product or dtype)
        self.rows = rows
        self._buffers: dict[Any, Array] = {}

    def sibling(self, factors: Factors) -> Evaluator:
        """An evaluator of another mixture over the same features, with the same buffers: use one at a time."""
        other = copy.copy(self)
        other.factors = self.arrays.factors(factors)
        return other

    def resize(self, rows: int) -> None:
        """From now on for blocks of at most so many rows; the buffers are given up."""
        self.rows = rows
        self._buffers.clear()

    def _buffer(self, name: str, shape: tuple[int, int], dtype: Any) -> Array:
        """The first `shape[0]` rows of a buffer that is allocated once; contiguous."""
        key = (name, np.dtype(dtype), shape[1])
        if key not in self._buffers or len(self._buffers[key]) < shape[0]:
            self._buffers[key] = self.xp.empty((max(self.rows, shape[0]), *shape[1:]), dtype)
        return self._buffers[key][: shape[0]]

    def center(self, X: Array, start: int = 0, name: str = "X") -> tuple[Array, Array]:
        """X - c in the dtype that the product can run in, and squared norms; NaN and inf are refused here."""
        dtype = self.dtype
        while True:
            block = X if X.dtype == dtype else X.astype(dtype)
            centered = self._buffer("centered", X.shape, dtype)
            norms = self._buffer("norms", (len(X), 1), np.float64)[:, 0]
            with np.errstate(over="ignore", invalid="ignore"):
                self.ops.center_rows(block, self.factors.center, centered, norms, self.threads)
            finite = self.xp.isfinite(norms)
            largest, self._all_finite = self._extremes(norms, finite)
            if self.options.check_finite and not self._all_finite:
                check_finite_rows(norms, X, start, name)
            if dtype == np.float64 or not len(X):
                return centered, norms
            if largest**0.5 < self.factors.largest_safe_norm(dtype):
                return centered, norms
            dtype = np.dtype(np.float64)  # float32 would overflow in the product

    def _extremes(self, norms: Array, finite: Array) -> tuple[float, bool]:
        """The largest finite entry of norms [n], and whether all are finite; a device is waited for once."""
        if not len(norms):
            return 0.0, True
        found = self.xp.empty(2)
        found[0], found[1] = self.xp.where(finite, norms, 0.0).max(), finite.all()
        largest, all_finite = self.arrays.to_host(found).tolist()
        return largest, bool(all_finite)

    def __call__(self, X: Array, start: int = 0, name: str = "X") -> Scores:
        """Score the rows of X [n, d]; `start` is the index of its first row in the caller's array, for messages."""
        n, (k, _, _) = len(X), self.factors.shape
        centered, norms = self.center(X, start, name)
        log_prob = self._buffer("log_prob", (n, k), np.float64)
        if self.options.method == "residual":
            products = None
            rows, components = sorted_pairs(self.xp.ones((n, k), np.uint8), self.xp)
        else:
            keep = self._buffer("keep", (n, k), np.uint8)
            products, arguments = self._product(centered, norms)
            with np.errstate(over="ignore", invalid="ignore"):
                self.ops.mixture_epilogue(*arguments, log_prob, keep, self.threads)
            rows, components = sorted_pairs(keep, self.xp)
        refined, latent = self.refine(X, rows, components)
        log_prob[rows, components] = refined
        for row, value in self._overflown(X, norms):
            log_prob[row] = value
        return Scores(X, centered, products, log_prob, rows, components, latent)

    def log_prob(self, X: Array, start: int = 0, name: str = "X") -> Array:
        """log p(x) [n]; on a device without an [n, k] array: only the candidates are listed, refined and summed."""
        if not self.arrays.is_device or self.options.method == "residual":
            total = self.xp.empty(len(X))
            self.ops.log_sum_exp(self(X, start, name).log_prob, total, self.threads)
            return total
        (k, l, _), total = self.factors.shape, self.xp.empty(len(X))
        centered, norms = self.center(X, start, name)
        rows, components, offsets = self.arrays.candidates(self._product(centered, norms)[1], len(X), k, l)
        order = self.xp.argsort(components * len(X) + rows)
        values = self.xp.empty(len(rows))
        values[order] = self.refine(X, rows[order], components[order])[0]
        self.arrays.log_sum_exp_candidates(values, offsets, total)
        for row, value in self._overflown(X, norms):
            total[row] = value
        return total

    def refine(self, X: Array, rows: Array, components: Array) -> tuple[Array, Array]:
        """Log-probabilities [m] and whitened latents [m, l] of pairs that are sorted by component."""
        f = self.factors
        refined, latent = self.xp.empty(len(rows)), self.xp.empty((len(rows), f.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            self.ops.refine(
                X, rows, components, f.means, f.whitened, f.latent_map, f.noise, f.log_norm, refined, latent,
                self.threads,
            )  # fmt: skip
        return refined, latent

    def _overflown(self, X: Array, norms: Array) -> list[tuple[int, float]]:
        """Rows whose squared length is not finite, and their log-density: -inf where it overflows float64, and NaN
        where x itself is NaN or inf.
        """
        if self._all_finite:
            return []
        xp = self.xp
        rows = xp.nonzero(~xp.isfinite(norms))[0].tolist()
        return [(row, -np.inf if bool(xp.isfinite(X[row]).all()) else np.nan) for row in rows]

    def _product(self, centered: Array, norms: Array) -> tuple[Array, tuple[Any, ...]]:
        """The block product, and the arguments of mixture_epilogue up to its outputs."""
        factors, n, (_, l, d) = self.factors, len(centered), self.factors.shape
        dtype = centered.dtype
        panel = factors.panel(dtype)
        products = self._buffer("products", (n, panel.shape[1]), dtype)
        quad = None
        # A NaN row (check_finite=False) or an overflow spoils its own row only, and says so by its value.
        with np.errstate(over="ignore", invalid="ignore"):
            fast = self.options.fast and self.arrays.is_device and dtype == np.float32
            self.arrays.matmul(centered, panel, products, fast=fast)
            if not factors.is_isotropic:
                quad = self._squares_product(centered)
        slack = 4.0 * np.sqrt(d) * float(np.finfo(dtype).eps)
        if fast:  # both factors of every term rounded to 11 bits, by Cauchy and Schwarz
            slack += 4.0 * TF32_ROUNDING * np.sqrt(l + 1)
        arguments = (
            products, quad, norms, factors.inv_noise, factors.shift, factors.mean_norm, factors.log_norm, float(slack),
        )  # fmt: skip
        return products, arguments

    def _squares_product(self, centered: Array) -> Array:
        """(x - c)² · D⁻¹ [n, k], some features at a time: one long sum would round visibly more, and need a block
        more.
        """
        n, d = centered.shape
        thin = self.factors.thin_panel(centered.dtype)
        quad = self._buffer("quad", (n, thin.shape[1]), centered.dtype)
        part = self.xp.empty_like(quad)
        quad[:] = 0
        for j in range(0, d, SQUARES_COLUMNS):
            squares = self.xp.square(centered[:, j : j + SQUARES_COLUMNS])
            self.arrays.matmul(squares, thin[j : j + SQUARES_COLUMNS], part)
            quad += part
        return quad

    def responsibilities(self, scores: Scores) -> tuple[Array, Array]:
        """p(component | x) [n, k] and log p(x) [n] of the block."""
        log_total = self.xp.empty(len(scores.log_prob))
        self.ops.log_sum_exp(scores.log_prob, log_total, self.threads)
        resp = self._buffer("responsibilities", scores.log_prob.shape, np.float64)
        self.ops.softmax(scores.log_prob, log_total, resp, self.threads)
        return resp, log_total

    def gradient(self, scores: Scores, out: Array) -> None:
        """out [n, d] = ∇ log p(x) of the block, in any float dtype and layout."""
        resp, _ = self.responsibilities(scores)
        dense = scores.products is not None and (
            self.options.method == "dense" or len(scores.rows) > MOST_PAIRS_PER_ROW * len(scores.X)
        )
        dtype = scores.centered.dtype if dense else scores.X.dtype
        result = out if out.dtype == dtype and out.flags.c_contiguous else self.xp.empty(out.shape, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            (self._gradient_by_product if dense else self._gradient_by_pairs)(scores, resp, result)
            if result is not out:
                out[:] = result

    def _gradient_by_product(self, scores: Scores, resp: Array, out: Array) -> None:
        factors, xp = self.factors, self.xp
        panel = factors.panel(out.dtype)
        if self.options.fast and self.arrays.is_device:  # what TF32 left of them finds candidates, and no more
            self.arrays.matmul(scores.centered, panel, scores.products)
        weights = xp.empty((len(resp), panel.shape[1]), out.dtype)
        self.ops.gradient_weights(scores.products, resp, factors.shift, weights, self.threads)
        self.arrays.matmul(weights, panel.T, out)
        spread = xp.empty((len(resp), factors.noise.shape[1]))
        self.arrays.matmul(resp, 1.0 / factors.noise, spread)
        out -= scores.centered * spread

    def _gradient_by_pairs(self, scores: Scores, resp: Array, out: Array) -> None:
        factors, xp = self.factors, self.xp
        out[:] = xp.where(xp.isnan(resp[:, :1]), np.nan, 0.0)  # a row with NaN has no candidates
        self.ops.accumulate_gradient(
            scores.X, scores.rows, scores.components, resp[scores.rows, scores.components], scores.whitened_latent,
            factors.means, factors.whitened, factors.noise, out, self.threads,
        )  # fmt: skip
