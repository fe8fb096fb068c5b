"""Lemma A.2: how many quantization levels the points of two discrete classes are from the optimal boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_generator, check_choice, check_integers
from .._io.report import Table, number, percent
from .discrete import as_table, concentrate_feature, random_discrete_classes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .discrete import TableSettings

__all__ = ["LemmaA2Check", "LemmaA2Validation", "check_lemma_a2", "levels_to_boundary", "validate_lemma_a2"]

Array = NDArray[Any]

Metric = Literal["l1", "linf", "single"]


def _as_tables(table0: ArrayLike, table1: ArrayLike) -> tuple[Array, Array]:
    first, second = as_table(table0, "table0"), as_table(table1, "table1")
    if first.shape != second.shape:
        raise ValueError(f"the tables must have the same levels, got shapes {first.shape} and {second.shape}")
    return first, second


def _decision(table0: Array, table1: Array, priors: Sequence[float] | None) -> Array:
    """The Bayes decision of every cell, bool: True for class 1; a tie goes to class 0."""
    weights = np.full(2, 0.5) if priors is None else np.asarray(priors, np.float64)
    if weights.shape != (2,) or not (weights >= 0).all() or not abs(weights.sum() - 1) <= 1e-6:
        raise ValueError(f"priors must be two probabilities that sum to 1, got {priors!r}")
    return np.asarray(weights[1] * table1 > weights[0] * table0)


def levels_to_boundary(
    table0: ArrayLike, table1: ArrayLike, *, priors: Sequence[float] | None = None, metric: Metric = "l1"
) -> Array:
    """Of every cell, the smallest number of quantization levels to change until the Bayes decision changes, exactly.

    Parameters
    ----------
    table0, table1 : array-like, [a, b, ...]
        The classes' probabilities; each sums to 1.
    priors : sequence of two floats, optional
        None: equal.
    metric : {"l1", "linf", "single"}
        What is counted: levels summed over features; the most of any feature; levels of one feature, the others left as
        they are. They agree on which cells are one level away, but for the diagonal neighbours of "linf".

    Returns
    -------
    float64 [a, b, ...]
        Whole numbers from 1; infinite where no change helps.

    Raises
    ------
    ValueError
        For tables that are no distributions or have different levels, other priors or metrics.

    References
    ----------
    Richardson & Weiss 2021, Lemma A.2.

    Examples
    --------
    >>> import mfakit
    >>> mfakit.theory.levels_to_boundary([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4])
    array([2., 1., 1., 2.])
    """
    first, second = _as_tables(table0, table1)
    return _levels(_decision(first, second, priors), metric)


def _levels(decision: Array, metric: Metric) -> Array:
    check_choice("metric", metric, get_args(Metric))
    if metric == "single":
        return np.asarray(np.min([_along(decision, axis) for axis in range(decision.ndim)], axis=0))
    if decision.all() or not decision.any():
        return np.full(decision.shape, np.inf)
    from scipy.ndimage import distance_transform_cdt

    name = {"l1": "taxicab", "linf": "chessboard"}[metric]
    # For each class, the distance of its cells to the nearest cell of the other; 0 in that one.
    return np.asarray(sum(distance_transform_cdt(mask, metric=name) for mask in (decision, ~decision)), np.float64)


def _along(decision: Array, axis: int) -> Array:
    """Steps along one axis to the nearest cell that is decided otherwise, infinite where there is none."""
    rows = np.moveaxis(decision, axis, -1)

    def to_the_left(rows: Array) -> Array:
        index = np.arange(rows.shape[-1])
        begins = np.zeros(rows.shape, np.int64)
        begins[..., 1:] = np.where(rows[..., 1:] != rows[..., :-1], index[1:], 0)
        begins = np.maximum.accumulate(begins, axis=-1)  # where the run of equal decisions began
        return np.asarray(np.where(begins > 0, index - begins + 1.0, np.inf))

    nearest: Array = np.minimum(to_the_left(rows), to_the_left(rows[..., ::-1])[..., ::-1])
    return np.asarray(np.moveaxis(nearest, -1, axis))


@dataclass(frozen=True, eq=False)
class LemmaA2Check:
    """Distances to the boundary of two discrete classes, and how far Lemma A.2's assumptions hold; pairs are by class.

    Attributes
    ----------
    table0, table1 : float64 [a, b, ...]
    decision : int64 [a, b, ...]
        The Bayes decision of each cell.
    levels : float64 [a, b, ...]
        Of :func:`levels_to_boundary`.
    metric : str
    accuracy : float64 [2]
        Share of each class that is decided rightly.
    one_level : float64 [2]
        Share of each class's rightly decided points that are one level from the boundary; NaN if there are none.
    mean_levels : float64 [2]
        Their mean number of levels.
    concentration : float64 [2]
        Largest probability of any level of any feature; Lemma A.2: near 1 for the class that is fragile.
    smallest : float64 [2]
        Smallest probability of any cell; Lemma A.2: above 0 for the other class.

    Examples
    --------
    >>> import mfakit
    >>> tables = mfakit.theory.random_discrete_classes(10, rng=0)
    >>> mfakit.theory.check_lemma_a2(*tables).levels.shape
    (10, 10)
    """

    table0: Array
    table1: Array
    decision: Array
    levels: Array
    metric: str
    accuracy: Array
    one_level: Array
    mean_levels: Array
    concentration: Array
    smallest: Array

    def mass(self, c: int) -> Array:
        """Probability of each cell under class c where it is decided rightly, 0 elsewhere, [a, b, ...]."""
        return np.where(self.decision == c, (self.table0, self.table1)[c], 0.0)

    def table(self) -> Table:
        """A row per class."""
        columns = (
            "class", "accuracy\n(%)", "one level\naway (%)", "mean\nlevels", "largest\np(f = k)", "smallest\np(cell)",
        )  # fmt: skip
        rows = [
            (
                str(c), percent(self.accuracy[c]), percent(self.one_level[c]), number(self.mean_levels[c], 1),
                f"{self.concentration[c]:.6g}", f"{self.smallest[c]:.1e}",
            )
            for c in (0, 1)
        ]  # fmt: skip
        return Table(columns, tuple(rows))


def check_lemma_a2(
    table0: ArrayLike, table1: ArrayLike, *, priors: Sequence[float] | None = None, metric: Metric = "l1"
) -> LemmaA2Check:
    """How many levels the points of two discrete classes are from the optimal boundary; arguments and errors as
    :func:`levels_to_boundary`.

    Examples
    --------
    >>> import mfakit
    >>> tables = mfakit.theory.random_discrete_classes(20, rng=0)
    >>> check = mfakit.theory.check_lemma_a2(*tables)
    >>> check.accuracy.round(3), check.mean_levels.round(3)
    (array([0.786, 0.876]), array([3.876, 3.366]))
    """
    tables = _as_tables(table0, table1)
    decision = _decision(*tables, priors)
    levels = _levels(decision, metric)
    accuracy, one_level, mean_levels = np.full((3, 2), np.nan)
    for c, table in enumerate(tables):
        right = decision == bool(c)
        accuracy[c] = table[right].sum()
        if accuracy[c] > 0:
            one_level[c] = table[right & (levels == 1)].sum() / accuracy[c]
            mean_levels[c] = (table[right] * levels[right]).sum() / accuracy[c] if np.isfinite(levels).all() else np.inf
    return LemmaA2Check(
        *tables, decision.astype(np.int64), levels, metric, accuracy, one_level, mean_levels,
        np.array([_largest_marginal(table) for table in tables]), np.array([table.min() for table in tables]),
    )  # fmt: skip


def _largest_marginal(table: Array) -> float:
    axes = range(table.ndim)
    return max(float(table.sum(axis=tuple(i for i in axes if i != axis)).max()) for axis in axes)


@dataclass(frozen=True, eq=False)
class LemmaA2Validation:
    """Random discrete classes whose class 0 is more and more concentrated; s concentrations, N draws of tables.

    Attributes
    ----------
    concentrations : float64 [s]
        p₀(f = k); the first is NaN: tables as smooth as they were drawn.
    one_level, mean_levels, accuracy : float64 [s, N, 2]
        As in :class:`LemmaA2Check`, by class.
    levels : tuple of int
    metric : str

    Examples
    --------
    >>> import mfakit
    >>> found = mfakit.theory.validate_lemma_a2(10, n=2)
    >>> len(found.concentrations) == len(found.one_level)
    True
    """

    concentrations: Array
    one_level: Array
    mean_levels: Array
    accuracy: Array
    levels: tuple[int, ...]
    metric: str

    def table(self) -> Table:
        """A row per concentration, means over draws."""
        columns = (
            "p₀(f = k)", "class 0 one\nlevel away (%)", "least of\nall draws (%)", "class 1 one\nlevel away (%)",
            "class 0\nmean levels", "class 1\nmean levels", "accuracy\n(%)",
        )  # fmt: skip
        rows = [
            (
                "as drawn" if np.isnan(c) else f"{c:.6g}", percent(self.one_level[i, :, 0].mean()),
                percent(self.one_level[i, :, 0].min()), percent(self.one_level[i, :, 1].mean()),
                number(self.mean_levels[i, :, 0].mean(), 1), number(self.mean_levels[i, :, 1].mean(), 1),
                percent(self.accuracy[i].mean()),
            )
            for i, c in enumerate(self.concentrations)
        ]  # fmt: skip
        return Table(columns, tuple(rows))


def validate_lemma_a2(
    levels: int | Sequence[int] = 100,
    concentrations: Sequence[float] = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999),
    n: int = 20,
    rng: Any = 0,
    *,
    metric: Metric = "l1",
    **settings: Unpack[TableSettings],
) -> LemmaA2Validation:
    """See the share of class 0 that is one level from the boundary go to 1 as p₀(f = k) does (Lemma A.2).

    Parameters
    ----------
    levels, **settings
        Of :func:`random_discrete_classes`.
    concentrations : sequence of float
    n : int
        Pairs of tables, the same at each concentration.
    rng : numpy.random.Generator, int or None
    metric : {"l1", "linf", "single"}
        Of :func:`levels_to_boundary`.

    Returns
    -------
    LemmaA2Validation

    Raises
    ------
    ValueError
        For n < 1, and as :func:`random_discrete_classes` and :func:`levels_to_boundary`.

    Examples
    --------
    >>> import mfakit
    >>> found = mfakit.theory.validate_lemma_a2(30, (0.5, 0.99999), n=3)
    >>> bool((found.one_level[0, :, 0] < 0.5).all() and (found.one_level[-1, :, 0] > 0.99).all())
    True
    """
    check_integers({"n": n}, 1)
    feature = settings.pop("feature", 0)
    generator = as_generator(rng, "rng")
    drawn = [random_discrete_classes(levels, rng=generator, **settings) for _ in range(n)]
    values = np.array([np.nan, *concentrations], np.float64)
    found = np.empty((3, len(values), n, 2))
    for i, c in enumerate(values):
        for j, (table0, table1) in enumerate(drawn):
            narrow = table0 if np.isnan(c) else concentrate_feature(table0, c, feature=feature)
            check = check_lemma_a2(narrow, table1, metric=metric)
            found[:, i, j] = check.one_level, check.mean_levels, check.accuracy
    one_level, mean_levels, accuracy = found
    return LemmaA2Validation(values, one_level, mean_levels, accuracy, drawn[0][0].shape, metric)
