"""Theorem 1 validated: two equal spheres, whose samples' radius tends to ‖d‖/2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_generator, check_integers
from .._io.report import Table, number, percent
from ..attacks import minimal_perturbation
from ..bayes.classifier import BayesClassifier
from ..mixture.mfa import MFA
from . import theorem1_radius
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

__all__ = ["Theorem1Validation", "validate_theorem1"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Theorem1Validation:
    """Certified radii of samples of two equal spheres at each σ; s values of σ, N samples of both classes.

    A sample's radius is exactly ‖d‖/2 + σ g with g ~ N(0, 1), whatever the number of features, and 0 beyond the
    boundary. Half of all samples are therefore nearer than ‖d‖/2 at every σ > 0, by ever less: what tends to 1 is the
    share within any tolerance.

    Attributes
    ----------
    sigmas : float64 [s]
    radius : float
        ‖d‖/2, ℓ2 in data units.
    lower, upper : float64 [s, N]
        Certified bracket; 0 for samples on the wrong side.
    exact : float64 [s, N]
        Distance to the plane in the middle, 0 beyond it.
    tolerance : float
        The share counts samples whose lower bound is at least (1 - tolerance) ‖d‖/2.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mfakit.theory.validate_theorem1(np.zeros(4), np.ones(4), n=10).radius
    1.0
    """

    sigmas: Array
    radius: float
    lower: Array
    upper: Array
    exact: Array
    tolerance: float

    @property
    def share(self) -> Array:
        """Share of samples certified to (1 - tolerance) ‖d‖/2, [s]; tends to 1."""
        return np.asarray((self.lower >= (1 - self.tolerance) * self.radius).mean(axis=1))

    @property
    def expected_share(self) -> Array:
        """The same from the normal distribution, [s]: Φ(tolerance ‖d‖ / 2σ)."""
        z = self.tolerance * self.radius / self.sigmas
        return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z])

    @property
    def ratio(self) -> Array:
        """Certified lower bound over ‖d‖/2, [s, N]; tends to 1."""
        return self.lower / self.radius

    @property
    def largest_error(self) -> Array:
        """Largest difference between the bracket and the exact distance, relative to ‖d‖/2, [s]."""
        off = np.maximum(np.abs(self.lower - self.exact), np.abs(self.upper - self.exact))
        return np.asarray(off.max(axis=1) / self.radius)

    def table(self) -> Table:
        """A row per σ."""
        columns = (
            "σ", "σ / ‖d‖", f"lower ≥ {1 - self.tolerance:g}\n‖d‖/2 (%)", "expected\n(%)",
            "lower/(‖d‖/2):\n5%", "median", "95%", "bracket off\nby at most",
        )  # fmt: skip
        spread, expected, errors = quantiles(self.ratio, (0.05, 0.5, 0.95)), self.expected_share, self.largest_error
        rows = [
            (
                short(s), short(s / (2 * self.radius)), percent(self.share[i]), percent(expected[i]),
                *(number(value, 3) for value in spread[i]), f"{errors[i]:.0e}",
            )
            for i, s in enumerate(self.sigmas)
        ]  # fmt: skip
        return Table(columns, tuple(rows), labels=0)


def validate_theorem1(
    mean0: ArrayLike,
    mean1: ArrayLike,
    n: int = 200,
    sigmas: Sequence[float] = (1.0, 0.3, 0.1, 0.03, 0.01),
    rng: Any = 0,
    *,
    tolerance: float = 0.05,
    progress: bool | None = False,
    **options: Unpack[MinimalOptions],
) -> Theorem1Validation:
    """Certify fresh samples of N(mean0, σ²I) and N(mean1, σ²I) for falling σ (Theorem 1).

    Parameters
    ----------
    mean0, mean1 : array-like, [d]
    n : int
        Samples per class, drawn anew at each σ.
    sigmas : sequence of float
        Falling, in data units.
    rng : numpy.random.Generator, int or None
    tolerance : float
        How far below ‖d‖/2 a radius may be to count, relative.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.
    **options
        See :func:`mfakit.attacks.minimal_perturbation`.

    Returns
    -------
    Theorem1Validation

    Raises
    ------
    ValueError
        For means of other shapes or equal ones, n < 1, or sigmas that do not fall.

    Examples
    --------
    >>> import mfakit
    >>> found = mfakit.theory.validate_theorem1([0.0, 0.0], [2.0, 0.0], n=50, sigmas=(0.1, 0.001))
    >>> found.radius, float(found.share[-1])
    (1.0, 1.0)
    """
    values = as_sigmas(sigmas)
    check_integers({"n": n}, 1)
    means = np.stack([np.asarray(m, np.float64) for m in (mean0, mean1)]) if _alike(mean0, mean1) else None
    radius = theorem1_radius(mean0, mean1)
    if means is None or not radius > 0:
        raise ValueError("the two means must differ: equal classes have no boundary between them")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be a share from 0 to below 1, got {tolerance}")
    generator = as_generator(rng, "rng")
    middle, unit = means.mean(axis=0), (means[1] - means[0]) / (2 * radius)

    def measure(sigma: float) -> tuple[Array, ...]:
        clf = BayesClassifier([MFA([1.0], m[None], np.zeros((1, len(m), 0)), sigma**2) for m in means])
        X, y = draw(clf, n, generator)
        found = minimal_perturbation(clf, X, y, **options)
        exact = np.where(y == 0, -1.0, 1.0) * ((X - middle) @ unit)
        return found.lower, found.upper, np.maximum(exact, 0.0)

    lower, upper, exact = per_sigma(values, measure, progress)
    return Theorem1Validation(values, radius, lower, upper, exact, tolerance)


def _alike(a: ArrayLike, b: ArrayLike) -> bool:
    return np.shape(a) == np.shape(b)
