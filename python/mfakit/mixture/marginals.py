"""Densities of samples with missing features, NaN in X: of what is known of each. By blocks of rows, as in
:mod:`mfakit.mixture.density`; on the host, wherever X is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from .._arrays.options import ArrayOptions, Missing, Options
from .._arrays.pages import give_back
from .._arrays.rows import RowBlocks, returned, to_numpy
from .._arrays.sharing import careful_products, plan_crew
from .._arrays.streams import streamed
from .._checks import check_choice
from .._threads.process import errstate
from .._threads.rows import open_crew
from ..backends import get_arrays, get_backend
from .density import open_rows
from .density import responsibilities as responsibilities_of
from .observed import distinct, evidence
from .subsets import marginal

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .mfa import MFA

__all__ = [
    "component_log_prob", "each_block", "fill_classes", "groups", "known_features", "log_prob", "per_sample",
    "posterior_mean", "responsibilities", "shares", "takes_gaps",
]  # fmt: skip

Array = NDArray[Any]

# Nats above which the rounding of a log-density may be more than UNCERTAIN_NATS.
FAR = 1e6
# Values of a block in float64, and of what is computed of its samples and components.
BLOCK_VALUES, PAIR_VALUES = 2**19, 2**21
# Values of the matrices [l, l] of patterns and components that are in memory at once.
MATRIX_VALUES = 2**21


def known_features(X: Array, start: int, name: str = "X", check_finite: bool = True) -> Array:
    """Which values of a block [n, d], the first row of which is `start`, are no NaN, bool [n, d].

    Raises
    ------
    ValueError
        For the first row that has inf, unless that is not checked, or no value at all.
    """
    seen = ~np.isnan(X)
    if check_finite and np.isinf(X).any():
        row = int(np.isinf(X).any(axis=1).argmax())
        raise ValueError(f"{name} has inf, first in row {start + row}; what is not known is NaN")
    none = ~seen.any(axis=1)
    if none.any():
        raise ValueError(
            f"{name} has a row without any known feature, first row {start + int(none.argmax())}; leave such rows out"
        )
    return seen


def shares(mfa: MFA, X: Array, seen: Array, log_prob: Array) -> tuple[Array, Array]:
    """log p(x) [n] and p(component | x) [n, k] from log (weight_k p_k(x)) [n, k] of samples X [n, d], of which the
    features `seen` are known.

    Samples so far away that rounding hides what components differ by are compared by :mod:`mfakit.mixture.far`, under
    the mixture of their known features.
    """
    with errstate(invalid="ignore", under="ignore"):
        top = log_prob.max(axis=1)
        weights = np.exp(log_prob - top[:, None])
        total = weights.sum(axis=1)
        log_total, found = np.where(np.isneginf(top), -np.inf, top + np.log(total)), weights / total[:, None]
    far = np.flatnonzero(np.abs(top) > FAR) if mfa.n_components > 1 else ()
    if len(far):
        patterns, number = distinct(seen[far])
        for u, some in enumerate(patterns):
            rows = far[number == u]
            found[rows] = responsibilities_of(marginal(mfa, some), X[np.ix_(rows, some)])
    return log_total, found


def each_block(mfa: MFA, rows: RowBlocks, options: Options, work: Callable[[int, int, Array], None]) -> None:
    """Do ``work(thread, start, block)`` on float64 copies of the rows on the host, block by block, shared out among
    threads, which have numbers from 0.
    """
    k, l, d = mfa.factors.shape
    step = options.block_rows or _block_rows(k, l, d)
    columns = k * (l + 1) * (l + 4) // 2
    count = 1 if rows.device is not None else plan_crew(len(rows), d, columns, step, options)[0]
    with open_crew(count) as crew, careful_products(len(rows) * d * columns):

        def run(thread: int, first: int, last: int) -> None:
            for start, block in rows.walk(first, last, step, np.float64):
                crew.raise_if_cancelled()
                work(thread, start, np.asarray(to_numpy(block)))

        crew.share(len(rows), run)


def _block_rows(k: int, l: int, d: int) -> int:
    """Rows per block."""
    return max(1, min(PAIR_VALUES // (k * (l + 1)), max(BLOCK_VALUES // d, 64)))


def groups(mfa: MFA, seen: Array) -> Iterator[Any]:
    """The rows of a block with known features `seen`, those of as many patterns at a time as have room."""
    most = max(1, MATRIX_VALUES // (mfa.n_components * max(mfa.n_factors, 1) ** 2))
    if len(seen) <= most:
        yield slice(None)
        return
    number = distinct(seen)[1]
    order, last = np.argsort(number, kind="stable"), int(number.max(initial=0))
    edges = np.searchsorted(number[order], np.arange(0, last + most, most))
    for first, end in pairwise([*edges.tolist(), len(seen)]):
        yield np.sort(order[first:end])


def fill(
    mfa: MFA, rows: RowBlocks, options: Options, out: Any, make: Callable[[int, RowBlocks, Array], Array]
) -> None:  # fmt: skip
    """Write what ``make(start, rows, block)`` gives for each block of samples into `out`, where they are."""
    arrays = get_arrays(get_backend(options.backend, rows.device), rows.device)

    def work(_: int, start: int, block: Array) -> None:
        with errstate(over="ignore"):  # beyond float32's range a log-density is -inf
            found = make(start, rows, block).astype(out.dtype, copy=False)
        out[start : start + len(block)] = found if isinstance(out, np.ndarray) else arrays.asarray(found)
        give_back(out[start : start + len(block)])

    each_block(mfa, rows, options, work)


def per_sample(
    mfa: MFA, X: Any, options: ArrayOptions, tail: tuple[int, ...], make: Callable[[int, RowBlocks, Array], Array],
    features: bool = False,
) -> Any:  # fmt: skip
    """What ``make(start, rows, block)`` gives for each block of samples, [n, *tail], `features` like X's or not, in X's
    dtype and container.
    """
    rows, opts = open_rows(mfa, X, options)
    out = opts.result((len(rows), *tail), rows.dtype, rows)
    fill(mfa, rows, opts, out, make)
    return returned(out, rows.like, opts.out, features)


def takes_gaps(missing: Missing) -> bool:
    """Whether NaN is a feature that is not known; a word that is no choice is an error."""
    if isinstance(missing, str) and missing == "error":
        return False
    check_choice("missing", missing, get_args(Missing))
    return True


def fill_classes(mixtures: Sequence[MFA], rows: RowBlocks, options: Options, out: Any) -> None:
    """Write log p_c of the known features of each sample into `out` [n, C], for each of the mixtures."""

    def make(X: Array, seen: Array) -> Array:
        return np.stack([shares(mfa, X, seen, evidence(mfa, X, seen).log_prob)[0] for mfa in mixtures], axis=1)

    widest = max(mixtures, key=lambda mfa: mfa.n_components * (mfa.n_factors + 1) ** 2)
    fill(widest, rows, options, out, _by_patterns(widest, (len(mixtures),), make, options.check_finite))


def _by_patterns(
    mfa: MFA, tail: tuple[int, ...], make: Callable[[Array, Array], Array], check_finite: bool
) -> Callable[[int, RowBlocks, Array], Array]:
    """What makes [n, *tail] of a block by what `make` gives for samples and their known features, some at a time."""

    def of_block(start: int, rows: RowBlocks, block: Array) -> Array:
        seen = known_features(block, start, rows.name, check_finite)
        found = np.empty((len(block), *tail))
        for some in groups(mfa, seen):
            found[some] = make(block[some], seen[some])
        return found

    return of_block


def _each(mfa: MFA, X: Any, options: ArrayOptions, tail: tuple[int, ...], make: Callable[[Array, Array], Array]) -> Any:
    """What `make` gives for samples and their known features, some at a time."""
    return per_sample(mfa, X, options, tail, _by_patterns(mfa, tail, make, options.get("check_finite", True)))


@streamed
def log_prob(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """log p of the known features of each sample, [n], nats.

    Parameters
    ----------
    mfa : MFA
    X : array-like, [n, d]
        NaN where a feature is missing.
    **options
        As of :func:`mfakit.mixture.density.log_prob`; ``backend``, ``method`` and ``precision`` make no difference,
        because all is computed by NumPy in float64.

    Raises
    ------
    ValueError
        A row without any known feature, inf, a wrong rank or width.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfa = mfakit.MFA([0.5, 0.5], [[0, 0], [3, 3]], np.ones((2, 2, 1)), 0.1)
    >>> X = np.array([[0.5, np.nan], [0.5, 0.4]])
    >>> np.allclose(mfa.log_prob(X, missing="marginal")[0], mfa.marginal([0]).log_prob(X[:1, :1]))
    True
    """
    return _each(mfa, X, options, (), lambda X, seen: shares(mfa, X, seen, evidence(mfa, X, seen).log_prob)[0])


@streamed
def component_log_prob(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """log (weight_k p_k) of the known features, [n, k], nats: to rounding for the components that matter to a sample,
    as :func:`mfakit.mixture.density.component_log_prob`. Parameters and errors as
    :func:`mfakit.mixture.marginals.log_prob`.
    """
    return _each(mfa, X, options, (mfa.n_components,), lambda X, seen: evidence(mfa, X, seen).log_prob)


@streamed
def responsibilities(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """p(component | known features), [n, k]; parameters and errors as :func:`mfakit.mixture.marginals.log_prob`."""

    def make(X: Array, seen: Array) -> Array:
        return shares(mfa, X, seen, evidence(mfa, X, seen).log_prob)[1]

    return _each(mfa, X, options, (mfa.n_components,), make)


@streamed
def posterior_mean(mfa: MFA, X: Any, **options: Unpack[ArrayOptions]) -> Any:
    """E[z | known features] under each sample's most likely component, [n, l]; parameters and errors as
    :func:`mfakit.mixture.marginals.log_prob`.
    """

    def make(X: Array, seen: Array) -> Array:
        found = evidence(mfa, X, seen)
        best, mean = found.log_prob.argmax(axis=1), np.full((len(X), mfa.n_factors), np.nan)
        for posterior in found.posteriors:
            own = best[posterior.rows] == posterior.component
            mean[posterior.rows[own]] = posterior.z[own]
        return mean

    return _each(mfa, X, options, (mfa.n_factors,), make)
