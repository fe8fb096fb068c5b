"""log_prob, component_log_prob, responsibilities and grad_log_prob of a mixture, by blocks of rows.

Rows are shared out among threads where there are enough of them, and each thread takes its own block by block; what is
done with a block is the :mod:`evaluator <mfakit.mixture.evaluator>`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays.options import ArrayOptions, Options
from .._arrays.pages import give_back
from .._arrays.rows import RowBlocks, returned
from .._arrays.sharing import careful_products, plan_crew
from .._arrays.streams import streamed
from .._threads.rows import Crew, open_crew
from ..backends import get_arrays, get_backend
from ..backends.host_arrays import Results
from .choose import choose_pruner
from .evaluator import Evaluator
from .factors import Factors
from .pruning import Pruner

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .mfa import MFA

__all__ = [
    "Filling", "component_log_prob", "each_block", "grad_log_prob", "in_order", "log_prob", "of_all_components",
    "open_rows", "per_sample", "responsibilities",
]  # fmt: skip

Array = Any  # NumPy's or, on a device, CuPy's

# Of a block: (evaluator, block of X, number of its first row), and where a result is to be filled in, its part of that.
Work = Callable[[Evaluator, Array, int], None]
Fill = Callable[[Evaluator, Array, int, Array], None]


@dataclass(frozen=True)
class Filling:
    """Work that fills out [n, ...] block by block; of host arrays on a device it comes back the same way."""

    fill: Fill
    out: Array


class _Into:
    """A filling whose parts go where `results` has a place for them."""

    def __init__(self, fill: Fill, results: Results) -> None:
        self.fill, self.results = fill, results

    def __call__(self, evaluator: Evaluator, block: Array, first: int) -> None:
        """Fill the block's part."""
        part = slice(first, first + len(block))
        target = self.results.target(part)
        self.fill(evaluator, block, first, target)
        self.results.store(part, target)
        give_back(self.results.out[part])


def in_order(
    X: RowBlocks, factors: Factors, options: Options, work: Work | Filling, start: int = 0, end: int | None = None,
    pruner: Pruner | None = None, crew: Crew | None = None, evaluator: Evaluator | None = None,
) -> Evaluator:  # fmt: skip
    """Do `work` on every block of X's rows start:end, one after the other, where X is or, for host arrays on a
    device, streamed there; see Host.each_block. A thread of a crew has its share of a block's memory, and stops where
    the crew is cancelled. Returns the evaluator, which the next rows of the same mixture can have again.
    """
    ops = get_backend(options.backend, X.device)
    arrays, dtype = get_arrays(ops, X.device), np.dtype(options.product or X.dtype)
    with arrays.active(), np.errstate(over="ignore"):  # beyond float32's range a log-density is -inf
        columns = factors.n_columns if pruner is None else pruner.columns(factors)
        rows = arrays.plan_block(options, X, columns, dtype.itemsize)
        rows = rows if crew is None else max(1, rows // crew.count)
        if evaluator is None or evaluator.dtype != dtype or evaluator.ops is not ops:
            evaluator = Evaluator(factors, ops, dtype, rows, options, pruner)

        def step(do: Work, block: Array, first: int) -> None:
            if crew is not None:
                crew.raise_if_cancelled()
            do(evaluator, block, first)

        if isinstance(work, Filling):
            with arrays.results(work.out) as results:
                arrays.each_block(X, rows, partial(step, _Into(work.fill, results)), evaluator.resize, start, end)
        else:
            arrays.each_block(X, rows, partial(step, work), evaluator.resize, start, end)
    return evaluator


def each_block(X: RowBlocks, mixtures: Sequence[Factors], options: Options, work: Work | Filling) -> None:
    """Do `work` on every block of X, on several at once where that is quicker. The evaluator it gets is of the widest
    of the mixtures; its siblings are of the others.
    """
    factors, pruner = max(mixtures, key=lambda f: f.n_columns), choose_pruner(X, mixtures, options)
    columns = factors.n_columns if pruner is None else pruner.columns(factors)
    count, options = _crew(X, factors, columns, options)
    if count == 1:
        with careful_products(len(X) * X.shape[1] * factors.n_columns):
            in_order(X, factors, options, work, pruner=pruner)
        return
    for one in mixtures if pruner is None else ():
        one.prepare(options.product or X.dtype)  # here, and not in each of the threads
    with open_crew(count) as crew:
        crew.share(len(X), lambda _, start, end: in_order(X, factors, options, work, start, end, pruner, crew))


def _crew(X: RowBlocks, factors: Factors, columns: int, options: Options) -> tuple[int, Options]:
    """How many threads share the rows of X, and each one's options; a block has memory for `columns` columns."""
    arrays = get_arrays(get_backend(options.backend, X.device), X.device)
    if arrays.is_device or options.method == "residual":
        return 1, options
    rows = arrays.plan_block(options, X, columns, X.dtype.itemsize)
    return plan_crew(len(X), X.shape[1], factors.n_columns, rows, options)


def open_rows(mfa: MFA, X: Any, options: ArrayOptions) -> tuple[RowBlocks, Options]:
    """X and the options as a public function is given them, checked against the model."""
    opts = Options(**options)
    rows = RowBlocks(X, mfa.n_features)
    get_backend(opts.backend, rows.device)  # a missing backend is an error for an empty X, too
    mfa.check_device(rows.device, opts.backend)
    return rows, opts


def per_sample(
    mfa: MFA, X: Any, options: ArrayOptions, tail: tuple[int, ...], fill: Fill, features: bool = False
) -> Any:
    """What `fill` makes of each sample of X: [n, *tail], `features` like X's or not, in X's dtype and container, or in
    ``out``.
    """
    rows, opts = open_rows(mfa, X, options)
    out = opts.result((len(rows), *tail), rows.dtype, rows)
    each_block(rows, [mfa.factors], opts, Filling(fill, out))
    return returned(out, rows.like, opts.out, features)


@streamed
def log_prob(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """Log-density of samples under the mixture.

    Parameters
    ----------
    mfa : MFA
    X : array-like, [n, d]
    **options
        See :class:`mfakit._arrays.options.Options`.

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

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        part[:] = evaluator.log_prob(block, first)

    return per_sample(mfa, X, options, (), fill)


def of_all_components(name: str, options: ArrayOptions) -> ArrayOptions:
    """The options of the function `name`, which returns a value of every component: bounds would leave most of them
    out.

    Raises
    ------
    ValueError
        If ``method="pruned"`` was asked for.
    """
    method = options.get("method", "auto")
    if isinstance(method, str) and method == "pruned":
        raise ValueError(
            f'{name} returns a value of every component, and method="pruned" leaves most of them out; use '
            'method="dense"'
        )
    return {**options, "method": "dense"} if isinstance(method, str) and method == "auto" else options


@streamed
def component_log_prob(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """log (weight_k p_k(x)) of each sample and component, [n, k], nats.

    Exact to rounding on the components that matter to a sample; off them, accurate to 4 eps times the terms that cancel
    in ‖x - μ‖²_{D⁻¹} - ‖W (x - μ)‖² (``method="residual"`` is exact everywhere; never in TF32, because all of them are
    asked for). Parameters and errors as :func:`log_prob`.
    """
    options = of_all_components("component_log_prob", options)

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        part[:] = evaluator(block, first, every=True).log_prob

    return per_sample(mfa, X, options, (mfa.n_components,), fill)


@streamed
def responsibilities(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """Posterior probability of each component, [n, k]; rows sum to 1 wherever the sample is.

    float64 is right to 1e-9 absolute where log p(x) is above -1e6 nats. Farther away, components are compared by the
    differences of their log-densities: what they have in common is not rounded, and equally distant components of equal
    covariance have equal shares, also where log p(x) is -inf in float64. Parameters and errors as :func:`log_prob`.
    """

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        part[:] = evaluator.responsibilities(evaluator(block, first))

    return per_sample(mfa, X, options, (mfa.n_components,), fill)


@streamed
def grad_log_prob(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """∇ log p(x) = Σ_k r_k [-D⁻¹ (x - μ_k) + W_kᵀ W_k (x - μ_k)], [n, d], nats per unit of X.

    By pairs of a sample and a component that matters to it, from the residual in float64: for float32 X it is right to
    float32 rounding, whatever σ is. Parameters and errors as :func:`log_prob`.
    """

    def fill(evaluator: Evaluator, block: Array, first: int, part: Array) -> None:
        evaluator.gradient(evaluator(block, first), part)

    return per_sample(mfa, X, options, (mfa.n_features,), fill, features=True)
