"""Certified accuracy: for how many samples a radius is proved, decided sample by sample and no further than needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..._arrays.options import refuse_unknown
from ..._arrays.rows import to_numpy
from ..._arrays.streams import opened
from ..._io.html import card
from .attack import brackets
from .settings import Path, Settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..._arrays.options import RunOptions

__all__ = ["CertifiedAccuracy", "certified_accuracy"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class CertifiedAccuracy:
    """How many of n samples no perturbation shorter than ε changes, and for how many that is not decided.

    Arrays have the shape of `eps`: numbers for a number, [m] for [m].

    Attributes
    ----------
    eps : float64
        The radii, ℓ2 in data units.
    certified : float64
        Share of the samples that are right and for which it is proved that no perturbation shorter than ε changes the
        decision.
    undecided : float64
        Share of those that are right, not certified, and for which no flip within ε is known either. The truth is from
        `certified` to `certified` + `undecided`.
    n_certified, n_undecided : int64
        The two as counts.
    n_wrong : int
        Samples that are wrong to begin with.
    lower, upper : float64 [n]
        What is known of each sample's smallest perturbation: closed no further than was needed.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf, X = mfakit.BayesClassifier(mixtures), np.array([[-1.0, 0.5], [-0.4, 0.0]])
    >>> r = mfakit.attacks.certified_accuracy(clf, X, [0, 0], [0.3, 0.5])
    >>> r.certified, r.n_undecided, len(r)
    (array([1. , 0.5]), array([0, 0]), 2)
    """

    eps: Array
    certified: Array
    undecided: Array
    n_certified: Array
    n_undecided: Array
    n_wrong: int
    lower: Array
    upper: Array

    def __len__(self) -> int:
        return len(self.lower)

    def __repr__(self) -> str:
        rows = zip(*map(np.atleast_1d, (self.eps, self.certified, self.n_undecided)), strict=True)
        parts = [f"eps={e:.4g}: {share:.4g} ({n} undecided)" for e, share, n in rows]
        shown = parts if len(parts) <= 6 else [*parts[:5], "..."]
        return f"CertifiedAccuracy(n={len(self)}, {', '.join(shown)})"

    def _repr_html_(self) -> str:
        rows = zip(*map(np.atleast_1d, (self.eps, self.certified, self.n_undecided)), strict=True)
        lines = [(f"certified at {e:.4g}", f"{share:.4g}, {n} undecided") for e, share, n in rows]
        return card("CertifiedAccuracy", [("samples", str(len(self))), ("wrong", str(self.n_wrong)), *lines])


def certified_accuracy(
    clf: Any, X: Any, y: Any, eps: Any, *, bounds: Any = Settings.bounds, target: Any = None,
    path: Path = Settings.path, progress: bool | None = False, **options: Unpack[RunOptions],
) -> CertifiedAccuracy:  # fmt: skip
    """The share of samples that are right and stay so under every perturbation shorter than ε.

    Each sample is bracketed as by :func:`minimal_perturbation`, but only until it is known at each ε: proved to be
    robust, or fooled by a verified point within ε.

    Parameters
    ----------
    clf : BayesClassifier
        As of :func:`minimal_perturbation`.
    X : array-like, [n, d]
    y : array-like [n]
        True classes.
    eps : float or array-like [m]
        Radii, ℓ2 in data units.
    bounds, target, path, progress, **options
        As of :func:`minimal_perturbation`: with `bounds` only perturbations that stay within them count, with `target`
        only those to the class to reach.

    Returns
    -------
    CertifiedAccuracy

    Raises
    ------
    ValueError
        For eps that are negative or NaN, no samples, and as :func:`minimal_perturbation`.

    See Also
    --------
    MinimalResult.certified_curve : the same of brackets that are there already.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf, X = mfakit.BayesClassifier(mixtures), np.array([[-1.0, 0.5], [-0.4, 0.0], [0.3, 0.0]])
    >>> mfakit.attacks.certified_accuracy(clf, X, [0, 0, 0], 0.5)
    CertifiedAccuracy(n=3, eps=0.5: 0.3333 (0 undecided))
    >>> mfakit.attacks.certified_accuracy(clf, X, [0, 0, 0], [0.2, 2.0]).n_certified
    array([2, 0])
    """
    settings, radii = Settings(path, bounds), _radii(eps)
    refuse_unknown("certified_accuracy", options, ("bounds", "target", "path", "progress"))
    if y is None:
        raise ValueError("certified_accuracy needs the true classes y; minimal_perturbation takes the predicted ones")
    r = brackets("certified_accuracy", clf, opened(X), y, settings, target, np.unique(radii), progress, options)
    if not len(r):
        raise ValueError("certified_accuracy needs at least one sample, got X of 0 rows")
    right, of = ~r.already_wrong, (slice(None),) + (None,) * radii.ndim
    certified = right[of] & (r.lower[of] >= radii)
    undecided = right[of] & ~certified & (r.upper[of] > radii)
    counts = certified.sum(axis=0), undecided.sum(axis=0)
    return CertifiedAccuracy(
        radii, counts[0] / len(r), counts[1] / len(r), counts[0], counts[1], int((~right).sum()), r.lower, r.upper
    )


def _radii(eps: Any) -> Array:
    try:
        radii = np.asarray(to_numpy(eps) if hasattr(eps, "__array__") else eps, np.float64)
    except (TypeError, ValueError):
        radii = np.asarray(np.nan)
    if radii.ndim > 1 or not radii.size or not (radii >= 0).all():
        raise ValueError(f"eps must be a norm of at least 0 or several of them, [m], got {eps!r}")
    return radii
