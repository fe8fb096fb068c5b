"""Scores of a block of rows under a mixture: a cheap product that says what can matter, and that again, exactly.

Steps of a block: centre it, one matrix product with the panel of all components (coarse), log-probabilities and the
candidates that can matter (epilogue), those again from their residuals in float64 (refine), then whatever was asked.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .._arrays.options import Options
from .._arrays.rows import check_finite_rows
from ..backends import get_arrays, numpy_ops
from ..backends.numpy_ops import CUTOFF_NATS
from ..backends.operands import Coarse, Pairs, WeightedPairs
from .bounding import Tools, bounded_scores, count_bounded
from .factors import Factors
from .far import UNCERTAIN_NATS, RoundedPairs, relative_log_prob, rounding
from .listing import MOST_CANDIDATES, begin, end, totals
from .pruning import Pruner, squared
from .scores import ProjectedBlock, Scores, part_of, repeated, sorted_pairs

__all__ = ["Evaluator"]

Array = Any  # NumPy's or, on a device, CuPy's

# What else to do about NaN.
MISSING = ', or where NaN is a missing feature, use MFA.impute or missing="marginal"'
# A component with a smaller share of a sample adds nothing to its gradient: CUTOFF_NATS below the best.
LEAST_SHARE = math.exp(-CUTOFF_NATS)
# Values in float64 of the rows whose gradients are summed over several components.
SUM_VALUES = 2**22
# Squared lengths, in units of the noise, that leave float64 when they are added up.
LARGEST_SQUARE = 1e300
# Features per partial product with the squares.
SQUARES_COLUMNS = 512
# What a factor of a term may lose in TF32, relative: a unit in the last of 11 significant bits, because tensor cores
# may truncate. docs/tensor-cores.md proves the bound that is made of it.
TF32_ROUNDING = 2.0**-10


class Evaluator:
    """Coarse, candidates, refine: component log-probabilities of blocks of at most `rows` rows.

    Owns the buffers of one block, so it must not be shared between threads; factors and backend may be.
    """

    def __init__(
        self, factors: Factors, ops: ModuleType, dtype: Any, rows: int, options: Options, pruner: Pruner | None = None
    ) -> None:
        self.arrays, self.pruner = get_arrays(ops), pruner
        self.xp = self.arrays.xp
        self.factors, self.ops, self.options = self.arrays.factors(factors), ops, options
        self.host_factors = factors
        self.threads = options.threads
        self.dtype = np.dtype(options.product or dtype)
        if options.precision == "tf32" and not self.arrays.has_tf32:
            raise ValueError(
                f'precision="tf32" needs a CUDA device of compute capability 8.0 or newer, and {self.arrays.name} is '
                'none; use precision="float32"'
            )
        # The mixtures, of siblings too, of which a block had too many candidates in TF32.
        self._without_tf32: set[int] = set()
        self.rows = rows
        self._buffers: dict[Any, Array] = {}

    def sibling(self, factors: Factors) -> Evaluator:
        """An evaluator of another mixture over the same features, with the same buffers: use one at a time."""
        other = copy.copy(self)
        other.factors, other.host_factors = self.arrays.factors(factors), factors
        return other

    def resize(self, rows: int) -> None:
        """Change the maximum block height and free the buffers."""
        self.rows = rows
        self._buffers.clear()

    def buffer(self, name: str, shape: tuple[int, int], dtype: Any) -> Array:
        """The first `shape[0]` rows of a buffer that is allocated once; contiguous."""
        key = (name, np.dtype(dtype), shape[1])
        if key not in self._buffers or len(self._buffers[key]) < shape[0]:
            self._buffers[key] = self.xp.empty((max(self.rows, shape[0]), *shape[1:]), dtype)
        return self._buffers[key][: shape[0]]

    def center(
        self, X: Array, start: int = 0, name: str = "X", center: Array | None = None, *, every: bool = True
    ) -> tuple[Array, Array]:  # fmt: skip
        """X - c in the dtype that the product can run in, and squared norms; NaN and inf are refused here. `every`: the
        product says something of every component, and not only which can matter.
        """
        dtype = self.dtype if every or not self.tf32 else np.dtype(np.float32)
        while True:
            centered, norms = self.subtract(X, self.factors.center if center is None else center, dtype)
            self._look(X, start, name, norms)
            if self.fits(dtype):
                return centered, norms
            dtype = np.dtype(np.float64)  # float32 would overflow in the product

    def subtract(self, X: Array, center: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """X - c in `dtype`, rounded once c is subtracted (far from the origin, little is left if before), and norms."""
        centered = self.buffer("centered", X.shape, dtype)
        norms = self.buffer("norms", (len(X), 1), np.float64)[:, 0]
        wider = X.dtype.itemsize > dtype.itemsize
        # Compiled loops of the host read and write one type.
        center_rows = numpy_ops.center_rows if wider and not self.arrays.is_device else self.ops.center_rows
        with np.errstate(over="ignore", invalid="ignore"):
            block = X if wider or X.dtype == dtype else X.astype(dtype)
            center_rows(block, center, centered, norms, self.threads)
        return centered, norms

    def _look(self, X: Array, start: int, name: str, norms: Array) -> None:
        """Note the largest finite entry of norms [n], and whether all are finite, which is demanded. A device is waited
        for once.
        """
        self.note(X, start, name, norms, self.arrays.to_host(self.measured(norms)))

    def measured(self, norms: Array, count: Array | None = None) -> Array:
        """The largest finite entry of norms [n], whether all are finite, and what is in `count` []; [3]."""
        found, finite = self.xp.zeros(3), self.xp.isfinite(norms)
        found[1] = finite.all()
        if len(norms):
            found[0] = self.xp.where(finite, norms, 0.0).max()
        if count is not None:
            found[2] = count
        return found

    def note(self, X: Array, start: int, name: str, norms: Array, numbers: Array) -> int:
        """Note what was measured, and demand that all is finite; returns the count."""
        largest, all_finite, number = numbers.tolist()
        self._largest, self._all_finite = float(largest), bool(all_finite)
        if self.options.check_finite and not self._all_finite:
            check_finite_rows(norms, X, start, name, also=MISSING)
        return int(number)

    def fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether a product in `dtype` of the rows looked at last stays in range."""
        return self._largest == 0.0 or self._largest**0.5 < self.factors.largest_safe_norm(dtype)

    def safe_square(self, dtype: np.dtype[Any]) -> float:
        """What squared lengths must be below, so that a product in `dtype` stays in range and the length itself does,
        in units of the noise.
        """
        longest, noise = self.factors.largest_safe_norm(dtype), float(self.host_factors.inv_noise.max())
        return float(min(longest * longest, LARGEST_SQUARE / noise if noise else math.inf))

    @property
    def tf32(self) -> bool:
        """Whether products that only choose candidates run in TF32; a block with too many of them ends that."""
        asked = self.arrays.has_tf32 and self.options.precision in (None, "tf32")
        return bool(asked) and id(self.host_factors) not in self._without_tf32

    def too_many(self, candidates: int, n: int) -> bool:
        """Whether TF32 leaves too many candidates of n rows: from here on products run in the dtype of X."""
        if not self.tf32 or self.options.precision == "tf32" or candidates <= MOST_CANDIDATES * n:
            return False
        self._without_tf32.add(id(self.host_factors))
        return True

    def __call__(
        self, X: Array, start: int = 0, name: str = "X", reference: Array | None = None, *, every: bool = False
    ) -> Scores:
        """Score the rows of X [n, d]; `start` is the index of its first row in the caller's array, for messages. X may
        be what :meth:`project` has made of them. `reference` [n], which makes no difference to the result, is a
        component that explains each row well: where components are bounded, fewer are then left. `every`: the values of
        all components are asked for, and not only of those that can matter.
        """
        if self.pruner is not None:
            X = X if isinstance(X, ProjectedBlock) else self.project(X, start, name)
            if isinstance(X, ProjectedBlock):
                return bounded_scores(X, self._tools(X), reference)
        if self._lists and not every:
            begun = begin(self, X)
            found = end(self, X, start, name, begun, self.arrays.to_host(begun.found))
            if found is not None:
                return found
        n, (k, _, _) = len(X), self.factors.shape
        centered, norms = self.center(X, start, name, every=every)
        log_prob = self.buffer("log_prob", (n, k), np.float64)
        beyond, bad = self._beyond(X, norms)
        if self.options.method == "residual":
            pairs = sorted_pairs(self.xp.ones((n, k), np.uint8), self.xp)
        else:
            keep = self.buffer("keep", (n, k), np.uint8)
            coarse = self.coarse(centered, norms, every=every)
            with np.errstate(over="ignore", invalid="ignore"):
                self.ops.mixture_epilogue(coarse, self.factors.mixture, log_prob, keep, self.threads)
            if len(beyond):
                keep[beyond], log_prob[beyond] = 1, -np.inf  # their coarse values say nothing
            pairs = sorted_pairs(keep, self.xp)
            if not every and self.too_many(len(pairs.rows), n):
                return self(X, start, name)
        refined, latent = self.refine(X, pairs)
        log_prob[pairs.rows, pairs.components] = refined
        if len(beyond):
            log_prob[beyond] = self.xp.where(self.xp.isnan(log_prob[beyond]), -np.inf, log_prob[beyond])
        if len(bad):
            log_prob[bad] = np.nan
        return Scores(X, pairs.rows, pairs.components, refined, latent, k, log_prob)

    def of_classes(
        self, evaluators: Sequence[Evaluator], X: Array, start: int = 0, name: str = "X"
    ) -> Iterator[tuple[Evaluator, Scores]]:
        """Several evaluators, this one's siblings or equals, and their scores of the same rows, in turn: each is to be
        read before the next one is asked for. A device is waited for once for all of them.
        """
        if not self._lists:
            yield from ((one, one(X, start, name)) for one in evaluators)
            return
        begun = [begin(one, X) for one in evaluators]
        looked = self.arrays.to_host(self.xp.stack([each.found for each in begun]))
        for one, each, numbers in zip(evaluators, begun, looked, strict=True):
            found = end(one, X, start, name, each, numbers)
            yield one, one(X, start, name) if found is None else found

    def project(self, X: Array, start: int = 0, name: str = "X") -> Array:
        """X in the coordinates that its bounds are made of, for this evaluator and its siblings; X itself where nothing
        is bounded, or where a row's squared length leaves float64.
        """
        pruner = self.pruner
        if pruner is None:
            return X
        there = pruner.on(self.arrays, self.host_factors, self.dtype)
        centered, norms = self.center(X, start, name, there.center)
        largest = max(float(one.inv_noise.max()) for one in pruner.mixtures)
        if not self._all_finite or not self._largest * largest < LARGEST_SQUARE:
            return X
        matrix = pruner.on(self.arrays, self.host_factors, centered.dtype).matrix
        coordinates = self.buffer("coordinates", (len(X), matrix.shape[1]), centered.dtype)
        self.arrays.matmul(centered, matrix, coordinates)
        directions = pruner.directions
        sums = norms[:, None] if directions.n_groups == 1 else directions.sums(squared(centered))
        return ProjectedBlock(X, sums, coordinates, directions)

    def _tools(self, block: ProjectedBlock) -> Tools:
        assert self.pruner is not None
        ops = self.ops if hasattr(self.ops, "bound_components") else numpy_ops
        tables = self.pruner.on(self.arrays, self.host_factors, block.coordinates.dtype).tables
        return Tools(self.factors, tables, ops, self.threads, self.refine, self.buffer, self.xp)

    def count(self, X: Array) -> tuple[float, float] | None:
        """Components per row that are bounded finely and that are scored; None where rows leave float64."""
        block = self.project(X)
        return count_bounded(block, self._tools(block)) if isinstance(block, ProjectedBlock) else None

    def log_prob(self, X: Array, start: int = 0, name: str = "X") -> Array:
        """log p(x) [n]."""
        return self.total(self(X, start, name))

    def total(self, scores: Scores) -> Array:
        """log p(x) [n] of the block; from the pairs alone where nothing else is kept."""
        if scores.dense is None:
            return self.totals(scores)[0]
        total = self.xp.empty(len(scores.X))
        self.ops.log_sum_exp(scores.log_prob, total, self.threads)
        return total

    def totals(self, scores: Scores) -> tuple[Array, Array]:
        """log p(x) [n] and the pairs' shares in it [m], from the pairs alone."""
        return totals(self, scores) if self.arrays.is_device else scores.totals()

    @property
    def _lists(self) -> bool:
        """Whether candidates are listed on a device, without an array of all components."""
        return bool(self.arrays.is_device) and self.pruner is None and self.options.method != "residual"

    def refine(self, X: Array, pairs: Pairs) -> tuple[Array, Array]:
        """Log-probabilities [m] and whitened latents [m, l] of pairs."""
        m = len(pairs.rows)
        refined, latent = self.xp.empty(m), self.xp.empty((m, self.factors.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            self.ops.refine(X, pairs, self.factors.mixture, refined, latent, self.threads)
        return refined, latent

    @property
    def some_beyond(self) -> bool:
        """Whether a row of the block that was centred last has no squared length; the device is not asked again."""
        return not self._all_finite or not self._largest * float(self.host_factors.inv_noise.max()) < LARGEST_SQUARE

    def _beyond(self, X: Array, norms: Array) -> tuple[Array, Array]:
        """Rows whose squared length, in units of the noise, leaves float64, and rows with NaN or inf in x itself."""
        xp = self.xp
        if not self.some_beyond:
            return (), ()
        with np.errstate(over="ignore", invalid="ignore"):
            long = ~(norms * self.factors.inv_noise.max() < LARGEST_SQUARE)
        rows = xp.nonzero(long)[0]
        finite = xp.isfinite(X[rows]).all(axis=1)
        return rows[finite], rows[~finite]

    def coarse(self, centered: Array, norms: Array, *, every: bool = True) -> Coarse:
        """The product of a block, as :meth:`center` returns it, with all components; not in TF32 where it says
        something of `every` one.
        """
        factors, n, (_, l, d) = self.factors, len(centered), self.factors.shape
        dtype = centered.dtype
        panel = factors.panel(dtype)
        products = self.buffer("products", (n, panel.shape[1]), dtype)
        # A NaN row (check_finite=False) or an overflow affects its own row only, and says so by its value.
        with np.errstate(over="ignore", invalid="ignore"):
            tf32 = self.tf32 and not every and dtype == np.float32
            self.arrays.matmul(centered, panel, products, tf32=tf32)
            quad = self.buffer("quad", (n, 0), dtype) if factors.is_isotropic else self._squares_product(centered)
        slack = 4.0 * np.sqrt(d) * float(np.finfo(dtype).eps)
        if tf32:  # both factors of every term lose bits, by Cauchy and Schwarz
            slack += 4.0 * TF32_ROUNDING * np.sqrt(l + 1)
        return Coarse(products, quad, norms, float(slack))

    def _squares_product(self, centered: Array) -> Array:
        """(x - c)² · D⁻¹ [n, k], some features at a time: one long sum would round visibly more, and need a block
        more.
        """
        n, d = centered.shape
        thin = self.factors.thin_panel(centered.dtype)
        quad = self.buffer("quad", (n, thin.shape[1]), centered.dtype)
        part = self.xp.empty_like(quad)
        quad[:] = 0
        for j in range(0, d, SQUARES_COLUMNS):
            squares = self.xp.square(centered[:, j : j + SQUARES_COLUMNS])
            self.arrays.matmul(squares, thin[j : j + SQUARES_COLUMNS], part)
            quad += part
        return quad

    def largest_nats(self) -> float:
        """A bound on |x - μ|²_{D⁻¹} of all rows of the block that was scored last and all components, by the largest
        length and the least noise; inf where a row has no squared length.
        """
        if self.some_beyond:
            return math.inf
        factors, largest = self.host_factors, self._largest
        if self.pruner is not None and self.pruner.center is not factors.center:
            largest += float(((self.pruner.center - factors.center) ** 2).sum())
        return 2.0 * (largest * float(factors.inv_noise.max()) + float(factors.mean_norm.max()))

    def largest_log_prob(self) -> float:
        """A bound on log p(x), in nats and without its sign, of all rows of the block that was scored last."""
        norms = self.host_factors.log_norm
        largest_norm = float(np.abs(norms[np.isfinite(norms)]).max(initial=0.0))
        return self.largest_nats() / 2.0 + largest_norm + math.log(len(norms))

    def certain(self, scores: Scores) -> bool:
        """Whether no row is so far away that the rounding of a log-density hides what components differ by: by
        :meth:`largest_nats` or, on the host, pair by pair.
        """
        factors, rounding_nats = self.host_factors, float(np.finfo(np.float64).eps) * self.largest_nats()
        tolerance = UNCERTAIN_NATS[scores.X.dtype.name]
        if rounding_nats < tolerance or self.arrays.is_device or rounding_nats == math.inf:
            return bool(rounding_nats < tolerance)
        return not len(self.pairs(scores).undecided(len(scores.X), factors.log_norm, tolerance).rows)

    def relative(self, scores: Scores) -> Array:
        """log_prob [n, k] of the scores, less a number for each row: what shares are made of.

        Of samples so far away that the rounding of a log-density hides what components differ by, those that may have a
        share are compared by their differences (see :mod:`mfakit.mixture.far`).
        """
        factors, arrays, tolerance = self.host_factors, self.arrays, UNCERTAIN_NATS[scores.X.dtype.name]
        if self.certain(scores):
            return scores.log_prob
        undecided = self.pairs(scores).undecided(len(scores.X), factors.log_norm, tolerance)
        if not len(undecided.rows):
            return scores.log_prob
        index, undecided.rows = np.unique(undecided.rows, return_inverse=True)
        there = arrays.asarray(index)
        values = np.full((len(index), factors.shape[0]), -np.inf)
        values[undecided.rows, undecided.components] = relative_log_prob(
            arrays.to_host(scores.X[there]), undecided, factors.log_norm, factors.component
        )
        result = scores.log_prob.copy()
        result[there] = arrays.asarray(values)
        return result

    def pairs(self, scores: Scores) -> RoundedPairs:
        """The refined pairs with their rounding, on the host."""
        log_norm = self.host_factors.log_norm
        with np.errstate(over="ignore", invalid="ignore"):
            explained = (scores.whitened_latent**2).sum(axis=1)
            found = (scores.rows, scores.components, scores.values, explained)
            rows, components, log_prob, explained = self.arrays.all_to_host(found)
            return RoundedPairs(rows, components, log_prob, rounding(log_prob, log_norm[components], explained))

    def responsibilities(self, scores: Scores) -> Array:
        """p(component | x) [n, k] of the block."""
        resp = self.buffer("responsibilities", (len(scores.X), scores.n_components), np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            self.ops.softmax(self.relative(scores), resp, self.threads)
        return resp

    def gradient(self, scores: Scores, out: Array) -> None:
        """out [n, d] = ∇ log p(x) of the block, in any float dtype and layout, by pairs from their residuals: a product
        back loses 1/σ in float32, where D⁻¹ (x - μ) and Wᵀ W (x - μ) cancel.
        """
        xp, dtype = self.xp, scores.X.dtype
        if scores.dense is None and self.certain(scores):
            share, lost = self.totals(scores)[1], xp.zeros((len(scores.X), 1), bool)
        else:
            resp = self.responsibilities(scores)
            share, lost = resp[scores.rows, scores.components], xp.isnan(resp[:, :1])
        pairs = WeightedPairs(scores.rows, scores.components, share, scores.whitened_latent)
        if self.arrays.is_device:  # which is not asked how many there are, and adds a row's pairs up in float64
            pairs = pairs._replace(weights=xp.where(share > LEAST_SHARE, share, 0.0))
        else:
            pairs = part_of(pairs, share > LEAST_SHARE, xp)
        result = out if out.dtype == dtype and out.flags.c_contiguous else xp.empty(out.shape, dtype)
        result[:] = xp.where(lost, np.nan, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            wide: Array = ()
            if dtype == np.float32 and not self.arrays.is_device:
                several = repeated(pairs.rows, len(scores.X))
                wide = np.flatnonzero(several)
            if len(wide):  # in float32 what their components add up to would be rounded at every one of them
                self._add_gradients(scores.X, part_of(pairs, ~several[pairs.rows], xp), result)
                step = max(1, SUM_VALUES // result.shape[1])
                for first in range(0, len(wide), step):
                    self._sum_gradients(scores.X, pairs, wide[first : first + step], result)
            else:
                self._add_gradients(scores.X, pairs, result)
            if result is not out:
                out[:] = result

    def _sum_gradients(self, X: Array, pairs: WeightedPairs, rows: Array, out: Array) -> None:
        """out[rows] = the gradients of those rows, summed in float64."""
        xp = self.xp
        place = xp.full(len(X), -1, np.int64)
        place[rows] = xp.arange(len(rows))
        chosen = part_of(pairs, place[pairs.rows] >= 0, xp)
        total = xp.zeros((len(rows), X.shape[1]))
        self._add_gradients(X[rows].astype(np.float64), chosen._replace(rows=place[chosen.rows]), total)
        out[rows] = total

    def _add_gradients(self, X: Array, pairs: WeightedPairs, out: Array) -> None:
        """out [n, d] += weight · ∇ log N(x) of pairs with their whitened latents."""
        self.ops.accumulate_gradient(X, pairs, self.factors.mixture, out, self.threads)
