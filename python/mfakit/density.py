"""log_prob, component_log_prob, responsibilities and grad_log_prob of a mixture, by blocks of rows.

The way of a block: centre it, one matrix product with the panel of all components (coarse), log-probabilities and the
candidates that can matter (epilogue), those again from their residuals in float64 (refine), then whatever was asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import RowBlocks, check_finite_rows, wrap_like
from ._options import Options
from .backends import get_backend
from .factors import Factors

if TYPE_CHECKING:
    from .mfa import MFA

__all__ = ["Evaluator", "Scores", "component_log_prob", "grad_log_prob", "log_prob", "responsibilities"]

Array = NDArray[Any]

# Gradients go by pairs (each costs its residual) until a sample has so many candidates that the product back is
# cheaper.
MOST_PAIRS_PER_ROW = 8
# Features per partial product with the squares.
SQUARES_COLUMNS = 512


def sorted_pairs(keep: Array) -> tuple[Array, Array]:
    """Rows and components [m], int64, of the marked entries of keep [n, k], sorted by component."""
    components, rows = np.nonzero(keep.T)
    return np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(components, np.int64)


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
        self.factors, self.ops, self.options = factors, ops, options
        self.threads = options.threads
        self.dtype = np.dtype(options.precision or dtype)
        self.rows = rows
        self._buffers: dict[str, Array] = {}

    def _buffer(self, name: str, shape: tuple[int, int], dtype: Any) -> Array:
        """The first `shape[0]` rows of a buffer that is allocated once; contiguous."""
        key = f"{name}-{np.dtype(dtype)}"
        if key not in self._buffers or len(self._buffers[key]) < shape[0]:
            self._buffers[key] = np.empty((max(self.rows, shape[0]), *shape[1:]), dtype)
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
            if self.options.check_finite:
                check_finite_rows(norms, X, start, name)
            finite = norms[np.isfinite(norms)]
            if dtype == np.float64 or (finite.max(initial=0.0) ** 0.5 < self.factors.largest_safe_norm(dtype)):
                return centered, norms
            dtype = np.dtype(np.float64)  # float32 would overflow in the product

    def __call__(self, X: Array, start: int = 0, name: str = "X") -> Scores:
        """Score the rows of X [n, d]; `start` is the index of its first row in the caller's array, for messages."""
        factors, (n, d), (k, l, _) = self.factors, X.shape, self.factors.shape
        centered, norms = self.center(X, start, name)
        log_prob = self._buffer("log_prob", (n, k), np.float64)
        if self.options.method == "residual":
            products = None
            rows, components = sorted_pairs(np.ones((n, k), np.uint8))
        else:
            keep = self._buffer("keep", (n, k), np.uint8)
            products = self._product(centered, norms, d, log_prob, keep)
            rows, components = sorted_pairs(keep)
        refined = np.empty(len(rows))
        latent = np.empty((len(rows), l))
        with np.errstate(over="ignore", invalid="ignore"):
            self.ops.refine(
                X, rows, components, factors.means, factors.whitened, factors.latent_map, factors.noise,
                factors.log_norm, refined, latent, self.threads,
            )  # fmt: skip
        log_prob[rows, components] = refined
        for row in np.flatnonzero(np.isinf(norms)):  # ‖x - c‖² overflows float64: impossible, unless x itself is inf
            log_prob[row] = -np.inf if np.isfinite(X[row]).all() else np.nan
        return Scores(X, centered, products, log_prob, rows, components, latent)

    def _product(self, centered: Array, norms: Array, d: int, log_prob: Array, keep: Array) -> Array:
        factors, n, (k, l, _) = self.factors, len(centered), self.factors.shape
        dtype = centered.dtype
        products = self._buffer("products", (n, k * (l + 1)), dtype)
        quad = None
        # A NaN row (check_finite=False) or an overflow spoils its own row only, and says so by its value.
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(centered, factors.panel(dtype), out=products)
            if not factors.is_isotropic:
                quad = self._squares_product(centered)
            slack = 4.0 * np.sqrt(d) * float(np.finfo(dtype).eps)
            self.ops.mixture_epilogue(
                products, quad, norms, factors.inv_noise, factors.shift, factors.mean_norm, factors.log_norm,
                slack, log_prob, keep, self.threads,
            )  # fmt: skip
        return products

    def _squares_product(self, centered: Array) -> Array:
        """(x - c)² · D⁻¹ [n, k], some features at a time: one long sum would round visibly more, and need a block
        more.
        """
        n, d = centered.shape
        thin = self.factors.thin_panel(centered.dtype)
        quad = self._buffer("quad", (n, thin.shape[1]), centered.dtype)
        quad[:] = 0
        for j in range(0, d, SQUARES_COLUMNS):
            part = centered[:, j : j + SQUARES_COLUMNS]
            quad += np.square(part) @ thin[j : j + SQUARES_COLUMNS]
        return quad

    def responsibilities(self, scores: Scores) -> tuple[Array, Array]:
        """p(component | x) [n, k] and log p(x) [n] of the block."""
        log_total = np.empty(len(scores.log_prob))
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
        result = out if out.dtype == dtype and out.flags.c_contiguous else np.empty(out.shape, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            (self._gradient_by_product if dense else self._gradient_by_pairs)(scores, resp, result)
            if result is not out:
                out[:] = result

    def _gradient_by_product(self, scores: Scores, resp: Array, out: Array) -> None:
        factors = self.factors
        weights = np.empty((len(resp), resp.shape[1] * (factors.shape[1] + 1)), out.dtype)
        self.ops.gradient_weights(scores.products, resp, factors.shift, weights, self.threads)
        np.matmul(weights, factors.panel(weights.dtype).T, out=out)
        out -= scores.centered * (resp @ (1.0 / factors.noise))

    def _gradient_by_pairs(self, scores: Scores, resp: Array, out: Array) -> None:
        factors = self.factors
        out[:] = np.where(np.isnan(resp[:, :1]), np.nan, 0.0)  # a row with NaN has no candidates
        self.ops.accumulate_gradient(
            scores.X, scores.rows, scores.components, resp[scores.rows, scores.components], scores.whitened_latent,
            factors.means, factors.whitened, factors.noise, out, self.threads,
        )  # fmt: skip


def blocks(X: RowBlocks, factors: Factors, options: Options) -> Iterator[tuple[slice, Scores, Evaluator]]:
    """Scores of X block by block: (rows of the block, its scores, the evaluator)."""
    dtype = np.dtype(options.precision or X.dtype)
    rows = max(1, min(options.plan_block(X.shape[1], factors.n_columns, dtype.itemsize), len(X)))
    evaluator = Evaluator(factors, get_backend(options.backend), dtype, rows, options)
    for start in range(0, len(X), rows):
        stop = min(start + rows, len(X))
        yield slice(start, stop), evaluator(X.block(start, stop), start, X.name), evaluator


def _open(mfa: MFA, X: Any, options: dict[str, Any]) -> tuple[RowBlocks, Options]:
    opts = Options(**options)
    get_backend(opts.backend)  # a missing backend is an error for an empty X, too
    return RowBlocks(X, mfa.n_features), opts


def log_prob(mfa: MFA, X: Any, **options: Any) -> Any:
    """Log-density of samples under the mixture.

    Parameters
    ----------
    mfa : MFA
    X : array-like, [n, d]
    **options
        See :class:`mfakit._options.Options`.

    Returns
    -------
    array, [n]
        log p(x) in nats, in X's dtype and container. For float32 X it is right to float32 rounding of the value,
        whatever σ is.

    Raises
    ------
    ValueError
        NaN or inf in X (with the first bad row), a wrong rank or width.
    TypeError
        X that is not real numbers, or sparse.
    """
    rows, opts = _open(mfa, X, options)
    out = opts.result((len(rows),), rows.dtype)
    for part, scores, evaluator in blocks(rows, mfa.factors, opts):
        total = np.empty(len(scores.log_prob))
        evaluator.ops.log_sum_exp(scores.log_prob, total, evaluator.threads)
        with np.errstate(over="ignore"):  # beyond float32's range a log-density is -inf
            out[part] = total
    return wrap_like(out, rows.like) if opts.out is None else opts.out


def component_log_prob(mfa: MFA, X: Any, **options: Any) -> Any:
    """log (weight_k p_k(x)) of each sample and component, [n, k], nats.

    Exact to rounding on the components that matter to a sample; off them, accurate to 4 eps times the terms that cancel
    in ‖x - μ‖²_{D⁻¹} - ‖W (x - μ)‖² (``method="residual"`` is exact everywhere). Parameters and errors as
    :func:`log_prob`.
    """
    rows, opts = _open(mfa, X, options)
    out = opts.result((len(rows), mfa.n_components), rows.dtype)
    for part, scores, _ in blocks(rows, mfa.factors, opts):
        with np.errstate(over="ignore"):
            out[part] = scores.log_prob
    return wrap_like(out, rows.like) if opts.out is None else opts.out


def responsibilities(mfa: MFA, X: Any, **options: Any) -> Any:
    """Posterior probability of each component, [n, k], rows sum to 1; float64 is right to 1e-10 absolute.

    A sample that no component explains (log p(x) = -inf) gets 1/k for each. Parameters and errors as :func:`log_prob`.
    """
    rows, opts = _open(mfa, X, options)
    out = opts.result((len(rows), mfa.n_components), rows.dtype)
    for part, scores, evaluator in blocks(rows, mfa.factors, opts):
        out[part] = evaluator.responsibilities(scores)[0]
    return wrap_like(out, rows.like) if opts.out is None else opts.out


def grad_log_prob(mfa: MFA, X: Any, **options: Any) -> Any:
    """∇ log p(x) = Σ_k r_k [-D⁻¹ (x - μ_k) + W_kᵀ W_k (x - μ_k)], [n, d], nats per unit of X.

    By pairs of a sample and a component that matters to it, from the residual in float64; where samples have many of
    those, by the product back (``method="dense"`` forces it). Parameters and errors as :func:`log_prob`.
    """
    rows, opts = _open(mfa, X, options)
    out = opts.result(rows.shape, rows.dtype)
    for part, scores, evaluator in blocks(rows, mfa.factors, opts):
        evaluator.gradient(scores, out[part])
    return wrap_like(out, rows.like) if opts.out is None else opts.out
