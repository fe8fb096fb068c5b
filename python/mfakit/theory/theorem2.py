"""Theorem 2 validated: symmetric mixtures, whose samples' radius tends to at least half the distance to the
nearest subspace of another class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._checks import as_generator, check_integers, check_model
from .._io.report import Table, number, percent
from .._threads.process import errstate
from ..attacks import minimal_perturbation
from ..bayes.classifier import BayesClassifier
from . import own_and_other_distances, theorem2_radius
from .sweeps import (
    as_sigmas,
    draw,
    per_sigma,
    quantiles,
    short,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..attacks.minimal.settings import MinimalOptions

__all__ = ["Theorem2Validation", "validate_theorem2"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Theorem2Validation:
    """Certified brackets of fresh samples at each σ against what distances alone predict; N samples of all classes.

    Attributes
    ----------
    sigmas : float64 [s]
    y : int64 [s, N]
        True classes.
    lower, upper : float64 [s, N]
        Certified bracket, ℓ2 in data units; 0 for samples that are already wrong.
    own, other : float64 [s, N]
        ε and D, the distances to the nearest subspace of the own class and of any other.
    accuracy : float64 [s]
    half_min_distance : float
        min d_ij / 2, the theorem's own radius, the same for every σ.

    Examples
    --------
    >>> import mfakit
    >>> base = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.validate_theorem2(base, n=2, sigmas=(0.1, 0.01))
    >>> found.lower.shape
    (2, 4)
    """

    sigmas: Array
    y: Array
    lower: Array
    upper: Array
    own: Array
    other: Array
    accuracy: Array
    half_min_distance: float

    @property
    def ratio(self) -> Array:
        """Certified lower bound over the sample's own D/2, [s, N]; infinite where D is 0."""
        with errstate(divide="ignore", invalid="ignore"):
            return self.lower / (self.other / 2)

    @property
    def share_half_distance(self) -> Array:
        """Share of samples with lower ≥ D/2, [s].

        Tends to 1 where the shortest way to another subspace is oblique to the own one; of exactly parallel subspaces,
        half of the samples stay short of it, by ever less.
        """
        return np.asarray((self.lower >= self.other / 2).mean(axis=1))

    @property
    def share_provable(self) -> Array:
        """Share of samples with lower ≥ (D - ε)/2, [s]: what the triangle inequality promises at a finite σ.

        It neglects the prior of z, the determinants and the weights, all of the order of σ².
        """
        return np.asarray((self.lower >= (self.other - self.own) / 2).mean(axis=1))

    @property
    def share_half_min(self) -> Array:
        """Share of samples with lower ≥ min d_ij / 2, [s]: the theorem as it is stated."""
        return np.asarray((self.lower >= self.half_min_distance).mean(axis=1))

    @property
    def largest_gap(self) -> Array:
        """Largest (upper - lower) / upper, [s]: what the certificate itself gives away."""
        with errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(self.upper > 0, 1 - self.lower / self.upper, 0.0).max(axis=1))

    def ratio_quantiles(self, levels: Sequence[float] = (0.0, 0.05, 0.5, 0.95, 1.0)) -> Array:
        """Quantiles of :attr:`ratio`, [s, len(levels)]."""
        return quantiles(self.ratio, levels)

    def table(self) -> Table:
        """A row per σ."""
        columns = (
            "σ", "accuracy\n(%)", "lower ≥\nD/2 (%)", "lower ≥\n(D-ε)/2 (%)", "lower ≥\nmin d/2 (%)", "mean\nℓ2",
            "lower/(D/2):\nsmallest", "median", "95%", "largest\ngap",
        )  # fmt: skip
        spread = self.ratio_quantiles((0.0, 0.5, 0.95))
        shares = np.stack([self.accuracy, self.share_half_distance, self.share_provable, self.share_half_min], axis=1)
        rows = [
            (
                short(s), *map(percent, shares[i]), number(self.lower[i].mean()),
                *(number(value, 3) for value in spread[i]), f"{self.largest_gap[i]:.0e}",
            )
            for i, s in enumerate(self.sigmas)
        ]  # fmt: skip
        return Table(columns, tuple(rows), labels=0)


def validate_theorem2(
    clf: BayesClassifier,
    n: int = 100,
    sigmas: Sequence[float] = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
    rng: Any = 0,
    *,
    progress: bool | None = False,
    **options: Unpack[MinimalOptions],
) -> Theorem2Validation:
    """Certify fresh samples of ``clf.symmetric(σ)`` for falling σ, and compare with half distances (Theorem 2).

    Parameters
    ----------
    clf : BayesClassifier
        Its noise is replaced, its weights become uniform; two or more classes.
    n : int
        Samples per class, drawn anew at each σ.
    sigmas : sequence of float
        Falling, in data units.
    rng : numpy.random.Generator, int or None
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.
    **options
        See :func:`mfakit.attacks.minimal_perturbation`.

    Returns
    -------
    Theorem2Validation

    Raises
    ------
    ValueError
        For n < 1, or sigmas that do not fall.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.validate_theorem2(clf, n=5, sigmas=(0.01,))
    >>> found.share_half_min, found.share_provable
    (array([1.]), array([1.]))
    """
    check_model("clf", clf, BayesClassifier)
    clf = clf.to("cpu")  # certificates are made on the host
    values = as_sigmas(sigmas)
    check_integers({"n": n}, 1)
    generator = as_generator(rng, "rng")

    def measure(sigma: float) -> tuple[Array, ...]:
        sym = clf.symmetric(sigma=sigma)
        X, y = draw(sym, n, generator)
        found = minimal_perturbation(sym, X, y, **options)
        own, other = own_and_other_distances(sym, X, y)
        return y, found.lower, found.upper, own, other, np.asarray(found.accuracy)

    y, lower, upper, own, other, accuracy = per_sigma(values, measure, progress)
    radius = theorem2_radius(clf.symmetric(sigma=float(values[-1]))).radius
    return Theorem2Validation(values, y, lower, upper, own, other, accuracy, radius)
