"""Random classes as tables over quantized features, and how to concentrate one of their features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_generator, check_integers

__all__ = ["as_table", "concentrate_feature", "random_discrete_classes"]

Array = NDArray[Any]


class TableSettings(TypedDict, total=False):
    """What functions hand on to :func:`random_discrete_classes`, for type checkers."""

    concentration: float | None
    feature: int
    bumps: int
    floor: float


def random_discrete_classes(
    levels: int | Sequence[int] = 100,
    *,
    concentration: float | None = None,
    feature: int = 0,
    bumps: int = 3,
    floor: float = 1e-3,
    rng: Any = 0,
) -> tuple[Array, Array]:
    """Two random classes of quantized features: smooth densities on a grid, each with the same floor.

    Parameters
    ----------
    levels : int or sequence of int
        Levels per feature; a single number makes two features with that many levels.
    concentration : float, optional
        Make class 0 asymmetric: its `feature` takes its likeliest level with this probability, see
        :func:`concentrate_feature`. None leaves both classes as smooth as they are.
    feature : int
    bumps : int
        Gaussian bumps per class, with random centres, widths and weights.
    floor : float
        Probability that is spread evenly over all cells: no cell has less than floor / (number of cells).
    rng : numpy.random.Generator, int or None

    Returns
    -------
    table0, table1 : float64 [levels of feature 0, levels of feature 1, ...]
        Each sums to 1.

    References
    ----------
    Richardson & Weiss 2021, Figure 3 (c) and (g). How its tables were made is not printed; these are made anew.

    Examples
    --------
    >>> import mfakit
    >>> table0, table1 = mfakit.theory.random_discrete_classes(100, concentration=0.999)
    >>> table0.shape, float(table0.sum(axis=1).max().round(6))
    ((100, 100), 0.999)
    """
    shape = (levels, levels) if isinstance(levels, int | np.integer) else tuple(levels)
    if not shape:
        raise ValueError(f"levels must be integers of at least 1, one per feature, got {levels!r}")
    check_integers({f"levels[{i}]": m for i, m in enumerate(shape)} | {"bumps": bumps}, 1)
    if not 0 < floor <= 1:
        raise ValueError(f"floor must be a probability above 0, which Lemma A.2 needs of class 1, got {floor}")
    generator = as_generator(rng, "rng")
    table0, table1 = (_smooth_table(shape, bumps, floor, generator) for _ in range(2))
    if concentration is not None:
        table0 = concentrate_feature(table0, concentration, feature=feature)
    return table0, table1


def _smooth_table(shape: tuple[int, ...], bumps: int, floor: float, rng: np.random.Generator) -> Array:
    table = np.zeros(shape)
    for weight in rng.dirichlet(np.full(bumps, 5.0)):
        bump = np.ones(())
        for m, centre, width in zip(
            shape, rng.uniform(0.1, 0.9, len(shape)), rng.uniform(0.04, 0.12, len(shape)), strict=True
        ):
            at = (np.arange(m) + 0.5) / m
            bump = bump[..., None] * np.exp(-0.5 * ((at - centre) / width) ** 2)
        table += weight * bump / bump.sum() if bump.sum() > 0 else weight / bump.size
    return np.asarray((1 - floor) * table + floor / table.size)


def concentrate_feature(table: ArrayLike, concentration: float, *, feature: int = 0, level: int | None = None) -> Array:
    """The table [a, b, ...] with p(feature = level) = `concentration`; given the feature, the others keep their
    conditional probabilities (Lemma A.2 writes p(s, t) = p(s) p(t | s)).

    Parameters
    ----------
    table : array-like
        Sums to 1.
    concentration : float
        From 0 to 1.
    feature : int
        Which axis.
    level : int, optional
        None takes the level that is likeliest already.

    Raises
    ------
    ValueError
        For a table that is no distribution, an axis or level it does not have, or one without probability to scale.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfakit.theory.concentrate_feature(np.full((2, 2), 0.25), 0.9, level=0)
    array([[0.45, 0.45],
           [0.05, 0.05]])
    """
    table = as_table(table, "table")
    if not 0 <= concentration <= 1:
        raise ValueError(f"concentration must be a probability, got {concentration}")
    if not 0 <= feature < table.ndim:
        raise ValueError(f"feature must be an axis of the table, 0 to {table.ndim - 1}, got {feature}")
    marginal = table.sum(axis=tuple(i for i in range(table.ndim) if i != feature))
    chosen = int(marginal.argmax()) if level is None else level
    if not 0 <= chosen < len(marginal):
        raise ValueError(f"level must be 0 to {len(marginal) - 1}, got {level}")
    there, elsewhere = marginal[chosen], marginal.sum() - marginal[chosen]
    if (there <= 0 < concentration) or (elsewhere <= 0 and concentration < 1):
        raise ValueError(f"feature {feature} has no probability at level {chosen} or none elsewhere, so it cannot move")
    scale = np.full(len(marginal), (1 - concentration) / elsewhere if elsewhere > 0 else 0.0)
    scale[chosen] = concentration / there if there > 0 else 0.0
    return np.asarray(table * np.expand_dims(scale, tuple(i for i in range(table.ndim) if i != feature)))


def as_table(table: ArrayLike, name: str) -> Array:
    """A table of probabilities in float64; raises unless they are such and sum to 1."""
    values = np.asarray(table, np.float64)
    if values.ndim < 1 or not values.size:
        raise ValueError(f"{name} must have at least one feature and one level, got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{name} must hold probabilities, got NaN, infinite or negative entries")
    if not abs(values.sum() - 1.0) <= 1e-6:
        raise ValueError(f"{name} must sum to 1, got {values.sum():.6g}; divide it by its sum")
    return values
