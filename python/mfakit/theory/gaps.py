"""Where certificates are loose, and why: what log |T| costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_generator, check_integers, check_model
from .._io.report import Table, number, percent
from .._threads.process import errstate
from ..attacks import MinimalResult, minimal_perturbation
from ..bayes.classifier import BayesClassifier
from .sweeps import as_sigmas, draw, short

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..attacks.minimal.settings import MinimalOptions

__all__ = ["GapCauses", "GapSweep", "explain_gaps", "sweep_gaps"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class GapCauses:
    """What samples with a wide bracket have in common; all [m], for the samples that were fooled.

    Attributes
    ----------
    rows : int64
        Which samples of the result.
    gap : float64
        (upper - lower) / upper.
    predicted : float64
        log|T| over (slope · upper), at most 1: the gap if the whole of log|T| is given away.
    slope : float64
        Length of the gradient of log π_t p_t - log π_y p_y (t the class at x_adv) at x_adv, nats per unit of ℓ2.
    own_active, other_active : float64
        How many components of either class shape the boundary at x_adv: exp of the responsibilities' entropy.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> minimal = mfakit.attacks.minimal_perturbation(clf, *clf.sample(10, rng=0))
    >>> causes = mfakit.theory.explain_gaps(clf, minimal)
    >>> len(causes.gap) == len(causes.rows)
    True
    """

    rows: Array
    gap: Array
    predicted: Array
    slope: Array
    own_active: Array
    other_active: Array


def explain_gaps(clf: BayesClassifier, result: MinimalResult) -> GapCauses:
    """Compare each sample's gap with what the certificate gives away by p_T ≤ |T| max p_t.

    Near the boundary the log-odds change by `slope` nats per unit of length, so that c_t = log|T| nats cost log|T| /
    slope of the radius.

    Parameters
    ----------
    clf : BayesClassifier
    result : MinimalResult
        Of this classifier.

    Returns
    -------
    GapCauses

    Raises
    ------
    ValueError
        If no sample was fooled.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> X, y = clf.sample(20, rng=0, dtype=np.float64)
    >>> r = mfakit.attacks.minimal_perturbation(clf, X, y)
    >>> causes = mfakit.theory.explain_gaps(clf, r)
    >>> bool((causes.gap < 1e-9).all()), causes.predicted.max().item()
    (True, 0.0)
    """
    check_model("clf", clf, BayesClassifier)
    rows = np.flatnonzero(result.success & (result.upper > 0))
    if not rows.size:
        raise ValueError("result has no sample that was fooled, so there is no gap to explain")
    x_adv = np.asarray(result.x_adv)[rows].astype(np.float64)
    slopes, active = np.empty((2, *x_adv.shape)), np.empty((2, len(rows)))
    other = np.asarray(result.y_adv)[rows]
    for c, m in enumerate(clf.mixtures):
        for side, labels in enumerate((np.asarray(result.y)[rows], other)):
            here = labels == c
            if here.any():
                slopes[side, here] = m.grad_log_prob(x_adv[here])
                active[side, here] = _effective_number(m.responsibilities(x_adv[here]))
    slope = np.linalg.norm(slopes[1] - slopes[0], axis=1)
    offset = np.log([len(m.live) for m in clf.mixtures])[other]
    with errstate(divide="ignore", invalid="ignore"):
        predicted = np.where(offset > 0, np.minimum(offset / (slope * result.upper[rows]), 1.0), 0.0)
    return GapCauses(rows, result.gap[rows], predicted, slope, *active)


def _effective_number(R: ArrayLike) -> Array:
    """exp of the entropy of each row of `R` [m, k]: 1 if a single component has all the weight."""
    R = np.asarray(R, np.float64)
    return np.asarray(np.exp(-(R * np.log(np.where(R > 0, R, 1.0))).sum(axis=1)))


def _percent(share: float) -> str:
    """A share of 1 in per cent, two digits however small."""
    return f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.2g}"


@dataclass(frozen=True, eq=False)
class GapSweep:
    """Gaps of certified brackets against σ; N samples of all classes at each.

    Attributes
    ----------
    sigmas : float64 [s]
    accuracy, mean_lower, mean_upper, median_gap, mean_gap, largest_gap : float64 [s]
        Over the samples that are right.
    unbounded : float64 [s]
        Share of them with lower = 0.
    mean_predicted : float64 [s]
        Mean of ``predicted`` of :class:`GapCauses`.
    own_active, other_active : float64 [s]
        Means over samples.

    Examples
    --------
    >>> import mfakit
    >>> base = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.sweep_gaps(base, n=2, sigmas=(0.1, 0.01))
    >>> found.mean_upper.shape
    (2,)
    """

    sigmas: Array
    accuracy: Array
    mean_lower: Array
    mean_upper: Array
    median_gap: Array
    mean_gap: Array
    largest_gap: Array
    unbounded: Array
    mean_predicted: Array
    own_active: Array
    other_active: Array

    def table(self) -> Table:
        """A row per σ."""
        columns = (
            "σ", "accuracy\n(%)", "mean\nlower", "mean\nupper", "median\ngap (%)", "mean\ngap (%)",
            "largest\ngap (%)", "log|T| /\n(slope·upper)\n(%)", "lower = 0\n(%)", "active\nown", "active\nother",
        )  # fmt: skip
        gaps = np.stack([self.median_gap, self.mean_gap, self.largest_gap, self.mean_predicted], axis=1)
        rows = [
            (
                short(s), percent(self.accuracy[i]), number(self.mean_lower[i]), number(self.mean_upper[i]),
                *map(_percent, gaps[i]), percent(self.unbounded[i]),
                number(self.own_active[i], 1), number(self.other_active[i], 1),
            )
            for i, s in enumerate(self.sigmas)
        ]  # fmt: skip
        return Table(columns, tuple(rows), labels=0)


def sweep_gaps(
    clf: BayesClassifier,
    n: int = 50,
    sigmas: Sequence[float] = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01),
    rng: Any = 0,
    *,
    progress: bool | None = False,
    **options: Unpack[MinimalOptions],
) -> GapSweep:
    """Measure the certificate's gaps on ``clf.symmetric(σ)`` for falling σ, up to σ so large that classes overlap.

    Parameters
    ----------
    clf : BayesClassifier
    n : int
        Samples per class, drawn anew at each σ.
    sigmas : sequence of float
        Falling, in data units.
    rng : numpy.random.Generator, int or None
    progress : bool or None
        A progress bar for each σ; None shows it on a terminal and in notebooks.
    **options
        See :func:`mfakit.attacks.minimal_perturbation`.

    Returns
    -------
    GapSweep

    Raises
    ------
    ValueError
        For n < 1, sigmas that do not fall, or a σ at which no sample is right.

    Examples
    --------
    >>> import mfakit
    >>> base = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> found = mfakit.theory.sweep_gaps(base, n=2, sigmas=(0.1, 0.01))
    >>> bool((found.mean_lower <= found.mean_upper).all())
    True
    """
    check_model("clf", clf, BayesClassifier)
    clf = clf.to("cpu")  # certificates are made on the host
    values = as_sigmas(sigmas)
    check_integers({"n": n}, 1)
    generator = as_generator(rng, "rng")
    found = []
    for sigma in values:
        sym = clf.symmetric(sigma=float(sigma))
        r = minimal_perturbation(sym, *draw(sym, n, generator), progress=progress, **options)
        causes = explain_gaps(sym, r)
        rows = causes.rows
        found.append(
            (
                r.accuracy, r.lower[rows].mean(), r.upper[rows].mean(), np.median(causes.gap), causes.gap.mean(),
                causes.gap.max(), (r.lower[rows] == 0).mean(), causes.predicted.mean(), causes.own_active.mean(),
                causes.other_active.mean(),
            )
        )  # fmt: skip
    return GapSweep(values, *np.array(found).T)
