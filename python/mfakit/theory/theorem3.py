"""Theorem 3 validated: mixtures with a broad outlier, whose samples' radius tends to 0, and what an outlier of
their own class does about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .._checks import as_generator, check_choice, check_integers, check_model
from .._io.report import Table, number, percent
from .._threads.process import errstate
from ..attacks import minimal_perturbation
from ..bayes.classifier import BayesClassifier
from . import asymmetric_radius, theorem2_radius
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

__all__ = ["Theorem3Validation", "validate_theorem3"]

Array = NDArray[Any]

Outliers = Literal["other", "both"]


@dataclass(frozen=True, eq=False)
class Theorem3Validation:
    """Certified brackets of samples of the main components at each σ against the closed form; N of both classes.

    The theorem's conditions are those of Lemma 1: for every main component (smallest standard deviation σ → 0) the
    other class has one of full rank, its outlier, whose standard deviation stays what it is. Its proof also takes the
    sample's own component to stay the likeliest of its class. With outliers in both classes that fails: away from its
    component a sample belongs to its own class's outlier, and must cross the plane between the two outliers as well.
    On the own side of that plane the radius tends to the distance to it, and not to 0.

    Attributes
    ----------
    sigmas : float64 [s]
        Of the main components.
    outlier_sigma : float
    outliers : {"other", "both"}
        Whether the sample's own class has an outlier too.
    y : int64 [s, N]
    lower, upper : float64 [s, N]
        Certified bracket, ℓ2 in data units; NaN for samples that are already wrong, which have no way to go.
    closed_form : float64 [s, N]
        :func:`mfakit.theory.asymmetric_radius`, NaN likewise.
    limit : float64 [s, N]
        What the radius tends to: 0, or the distance to the plane between the outliers where both classes have one and
        the sample is on its own one's side; NaN likewise.
    accuracy : float64 [s]
        On these samples.
    half_min_distance : float
        min d_ij / 2: the radius that Theorem 2 grants the same components without outliers.
    closeness : float
        The share counts samples whose upper bound is at most this share of that.

    Examples
    --------
    >>> import mfakit
    >>> base = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.validate_theorem3(base, n=2, sigmas=(0.1, 0.01))
    >>> bool(found.mean_upper[1] < found.mean_upper[0])
    True
    """

    sigmas: Array
    outlier_sigma: float
    outliers: Outliers
    y: Array
    lower: Array
    upper: Array
    closed_form: Array
    limit: Array
    accuracy: Array
    half_min_distance: float
    closeness: float

    @property
    def mean_upper(self) -> Array:
        """Mean of the smallest perturbations known, [s]; tends to 0, or to the mean of `limit`."""
        return _mean(self.upper)

    @property
    def share_close(self) -> Array:
        """Share of the rightly classified samples with upper ≤ closeness · min d_ij / 2, [s]; tends to 1 where `limit`
        is 0.
        """
        close = np.where(np.isnan(self.upper), np.nan, self.upper <= self.closeness * self.half_min_distance)
        return _mean(close)

    @property
    def ratio(self) -> Array:
        """upper over the closed form, [s, N]."""
        with errstate(divide="ignore", invalid="ignore"):
            return self.upper / self.closed_form

    @property
    def largest_gap(self) -> Array:
        """Largest (upper - lower) / upper, [s]."""
        gaps = np.where(np.isnan(self.upper), 0.0, 1 - self.lower / np.where(self.upper > 0, self.upper, 1.0))
        return np.asarray(gaps.max(axis=1))

    def table(self) -> Table:
        """A row per σ."""
        columns = (
            "σ", "σ / σ of\noutlier", "accuracy\n(%)", "mean\nlower", "mean\nupper", "95%\nupper",
            "closed\nform", "limit", "upper\n/ σ", f"upper ≤ {self.closeness:g}\nmin d/2 (%)", "largest\ngap",
        )  # fmt: skip
        means = np.stack([_mean(self.lower), self.mean_upper, quantiles(self.upper, (0.95,))[:, 0]], axis=1)
        rows = [
            (
                short(s), short(s / self.outlier_sigma), percent(self.accuracy[i]),
                *(number(value, 4) for value in means[i]), number(_mean(self.closed_form)[i], 4),
                number(_mean(self.limit)[i], 4), number(means[i, 1] / s, 1), percent(self.share_close[i]),
                f"{self.largest_gap[i]:.0e}",
            )
            for i, s in enumerate(self.sigmas)
        ]  # fmt: skip
        return Table(columns, tuple(rows), labels=0)


def _mean(values: Array) -> Array:
    """Means of the rows of `values` [s, N] without NaN and infinities; NaN for rows without any."""
    rows = [row[np.isfinite(row)] for row in values]
    return np.array([row.mean() if row.size else np.nan for row in rows])


def validate_theorem3(
    clf: BayesClassifier,
    n: int = 100,
    sigmas: Sequence[float] = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003),
    rng: Any = 0,
    *,
    outliers: Outliers = "other",
    outlier_sigma: float = 0.5,
    scale: float = 1.0,
    direction: int = 50,
    closeness: float = 0.1,
    progress: bool | None = False,
    **options: Unpack[MinimalOptions],
) -> Theorem3Validation:
    """Certify samples of ``clf.symmetric(σ)`` for falling σ, against a class with a broad outlier (Theorem 3).

    Parameters
    ----------
    clf : BayesClassifier
        Two classes; its noise is replaced.
    n : int
        Samples per class, of the main components, drawn anew at each σ.
    sigmas : sequence of float
        Falling, in data units.
    rng : numpy.random.Generator, int or None
    outliers : {"other", "both"}
        "other": when a class's samples are attacked, only the other class has its outlier, which is what the theorem's
        proof takes for granted. "both": ``clf.symmetric(σ).asymmetric()``, the paper's data.
    outlier_sigma, scale, direction
        ``sigma``, ``scale`` and ``direction`` of :meth:`BayesClassifier.asymmetric`.
    closeness : float
        What counts as near the boundary, relative to min d_ij / 2.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.
    **options
        See :func:`mfakit.attacks.minimal_perturbation`.

    Returns
    -------
    Theorem3Validation

    Raises
    ------
    ValueError
        For more than two classes, n < 1, sigmas that do not fall or are not below `outlier_sigma`, other `outliers`.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.validate_theorem3(clf, n=5, sigmas=(0.01, 0.001))
    >>> bool(found.mean_upper[0] > 5 * found.mean_upper[1])
    True
    """
    check_model("clf", clf, BayesClassifier)
    clf = clf.to("cpu")  # certificates are made on the host
    values = as_sigmas(sigmas)
    check_integers({"n": n}, 1)
    if values[0] >= outlier_sigma:
        raise ValueError(f"sigmas must be below the outliers' {outlier_sigma}, got {values[0]:g}")
    if not closeness > 0:
        raise ValueError(f"closeness must be positive, got {closeness}")
    check_choice("outliers", outliers, get_args(Outliers))
    generator = as_generator(rng, "rng")

    def measure(sigma: float) -> tuple[Array, ...]:
        sym = clf.symmetric(sigma=sigma)
        asym = sym.asymmetric(sigma=outlier_sigma, scale=scale, direction=direction)
        X, y = draw(sym, n, generator)
        lower, upper, closed, limit = np.zeros((4, len(y)))
        right = np.zeros(len(y), bool)
        for c in (0, 1):
            rows = np.flatnonzero(y == c)
            attacked = asym if outliers == "both" else _without_own_outlier(sym, asym, c)
            found = minimal_perturbation(attacked, X[rows], y[rows], **options)
            lower[rows], upper[rows], right[rows] = found.lower, found.upper, ~found.already_wrong
            closed[rows] = asymmetric_radius(attacked, X[rows], y[rows])
            limit[rows] = _to_the_plane(asym, X[rows], c) if outliers == "both" else 0.0
        lower, upper, closed, limit = np.where(right, (lower, upper, closed, limit), np.nan)
        return y, lower, upper, closed, limit, right.mean()

    y, lower, upper, closed, limit, accuracy = per_sigma(values, measure, progress)
    radius = theorem2_radius(clf.symmetric(sigma=float(values[-1]))).radius
    return Theorem3Validation(
        values, outlier_sigma, outliers, y, lower, upper, closed, limit, accuracy, radius, closeness
    )


def _without_own_outlier(sym: BayesClassifier, asym: BayesClassifier, c: int) -> BayesClassifier:
    """The asymmetric classifier whose class c has its outlier at weight 0."""
    mixtures = list(asym.mixtures)
    mixtures[c] = mixtures[c].replace(weights=np.append(sym.mixtures[c].weights, 0.0))
    return BayesClassifier(mixtures, asym.priors)


def _to_the_plane(asym: BayesClassifier, X: Array, c: int) -> Array:
    """Distance [n] of samples of class c to the plane where the two outliers, equal spheres, are equally likely; 0 on
    the other outlier's side of it.
    """
    own, other = (asym.mixtures[i].means[-1].astype(np.float64) for i in (c, 1 - c))
    weights = [asym.priors[i] * asym.mixtures[i].weights[-1] for i in (c, 1 - c)]
    noise = float(np.ravel(asym.mixtures[c].noise_variance)[-1])
    step = own - other
    length = np.linalg.norm(step)
    shift = noise * np.log(weights[0] / weights[1]) / length
    return np.asarray(np.maximum((X - (own + other) / 2) @ step / length + shift, 0.0))
