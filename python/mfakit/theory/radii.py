"""Theorems 1 to 3 as functions that return numbers: radii, and how far a model is from their assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays.rows import RowBlocks, as_labels, to_numpy
from .._arrays.streams import streamed
from .._checks import as_generator, check_model
from .._threads.process import errstate
from ..bayes.classifier import BayesClassifier
from ..mixture.factors import thin_svd
from ..mixture.mfa import MFA, on_device
from ..mixture.parameters import PARAMETERS
from ..mixture.subspaces import closest_points, point_subspace_distances, subspace_distances

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._arrays.options import KernelOptions, RunOptions

__all__ = [
    "Theorem2Check",
    "Theorem2Radius",
    "asymmetric_radius",
    "check_theorem2",
    "own_and_other_distances",
    "theorem1_radius",
    "theorem2_radius",
]

Array = NDArray[Any]


def theorem1_radius(mean0: ArrayLike, mean1: ArrayLike) -> float:
    """‖μ₁ - μ₀‖/2: below it, no perturbation of almost any point fools the classifier of two equal spheres (Theorem 1).

    Parameters
    ----------
    mean0, mean1 : array-like, [d]

    Returns
    -------
    float
        ℓ2 in data units.

    Examples
    --------
    >>> import mfakit
    >>> mfakit.theory.theorem1_radius([0.0, 0.0], [3.0, 4.0])
    2.5
    """
    mean0, mean1 = to_numpy(mean0).astype(np.float64), to_numpy(mean1).astype(np.float64)
    if mean0.ndim != 1 or mean0.shape != mean1.shape:
        raise ValueError(f"the means must be two vectors of one length, got {mean0.shape} and {mean1.shape}")
    return float(np.linalg.norm(mean1 - mean0)) / 2


@dataclass(frozen=True, eq=False)
class Theorem2Radius:
    """Half the smallest distance between subspaces of different classes, and where it is attained.

    Attributes
    ----------
    radius : float
        d/2, ℓ2 in data units.
    classes : tuple of int
        The two classes.
    components : tuple of int
        The component of either.
    points : array, [2, d]
        The closest points of the two subspaces, on the host.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> round(mfakit.theory.theorem2_radius(clf).radius, 2)
    1.01
    """

    radius: float
    classes: tuple[int, int]
    components: tuple[int, int]
    points: Array


def theorem2_radius(clf: BayesClassifier, **options: Unpack[KernelOptions]) -> Theorem2Radius:
    """The radius d/2 below which, as σ → 0, no perturbation fools a symmetric classifier (Theorem 2).

    Components whose loadings are all zero are points and count as subspaces of dimension 0; for an asymmetric model,
    whose outliers Theorem 2 does not cover, pass the symmetric one.

    Parameters
    ----------
    clf : BayesClassifier
    **options
        ``backend``, ``n_threads``; see :func:`mfakit.subspace_distances`.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> found = mfakit.theory.theorem2_radius(clf)
    >>> found.radius, found.components
    (1.0, (0, 0))
    """
    check_model("clf", clf, BayesClassifier)
    best: tuple[float, int, int, tuple[int, int]] | None = None
    for a in range(clf.n_classes):
        for b in range(a + 1, clf.n_classes):
            distance, pair = subspace_distances(clf.mixtures[a], clf.mixtures[b], reduce="min", **options)
            if best is None or distance < best[0]:
                best = (distance, a, b, pair)
    if best is None:
        raise ValueError("the classifier has no two classes")
    _, a, b, (i, j) = best
    closest = closest_points(clf.mixtures[a], i, clf.mixtures[b], j)
    return Theorem2Radius(best[0] / 2, (a, b), (i, j), np.stack([closest.point0, closest.point1]))


@dataclass(frozen=True, eq=False)
class Theorem2Check:
    """How far a classifier is from the assumptions of Theorem 2; every field is 0 or 1 where they hold exactly.

    Attributes
    ----------
    noise_spread : float
        log of the largest over the smallest noise standard deviation, over components and features; 0 if all are equal.
    singular_value_spread : float
        Largest over i of the log of the largest over the smallest i-th singular value of A among components; inf if a
        component lacks a direction that another has.
    log_det_spread : float
        Largest difference of ½ log det(A Aᵀ + D) between components, nats: what the theorem's decision rule neglects,
        and how it compares with the log-likelihood (D² / 2σ², see `neglected_share`).
    neglected_share : float
        log_det_spread over radius² / 2σ², the gain in log-likelihood that halving the distance brings: small is good.
    separation : float
        Mean over samples of the largest responsibility within their class; 1 if components are well separated.
    keeps_component : float
        Share of samples whose most likely component stays the same at random perturbations of length `radius`.
    sigma_over_radius : float
        √(mean noise variance · (d - l)) over the radius of Theorem 2: the off-manifold part of a sample against d/2.
    radius : float
        d/2 of :func:`theorem2_radius`.

    Examples
    --------
    >>> import mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    >>> check = mfakit.theory.check_theorem2(clf, n=10)
    >>> type(check).__name__
    'Theorem2Check'
    """

    noise_spread: float
    singular_value_spread: float
    log_det_spread: float
    neglected_share: float
    separation: float
    keeps_component: float
    sigma_over_radius: float
    radius: float


def check_theorem2(clf: BayesClassifier, n: int = 200, rng: Any = 0, **options: Unpack[KernelOptions]) -> Theorem2Check:
    """Measure the assumptions of Theorem 2: equal noise, equal singular values, well separated components, σ → 0.

    Parameters
    ----------
    clf : BayesClassifier
    n : int
        Samples per class for the two measures that need samples.
    rng : numpy.random.Generator, int or None
    **options
        ``backend``, ``n_threads``; see :class:`mfakit._arrays.options.Options`.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> check = mfakit.theory.check_theorem2(clf, n=50)
    >>> check.separation, check.sigma_over_radius, check.radius
    (1.0, 0.1, 1.0)
    """
    check_model("clf", clf, BayesClassifier)
    if n < 1:
        raise ValueError(f"n must be positive, got {n}")
    generator = as_generator(rng, "rng")
    mixtures = tuple(_without_dead(m) for m in clf.mixtures)
    noise = np.concatenate([m.noise_variance.ravel() for m in mixtures])
    radius = theorem2_radius(clf, **options).radius
    half_log_det = np.concatenate([np.log(m.weights) - m.factors.log_norm for m in mixtures])
    spread = float(np.ptp(half_log_det))
    separation, keeps = zip(*(_separation(m, n, radius, generator, options) for m in mixtures), strict=True)
    off_manifold = np.sqrt(noise.mean() * max(clf.n_features - max(m.n_factors for m in mixtures), 0))
    with errstate(divide="ignore", invalid="ignore"):
        return Theorem2Check(
            noise_spread=float(0.5 * np.log(noise.max() / noise.min())),
            singular_value_spread=_singular_value_spread(mixtures),
            log_det_spread=spread,
            neglected_share=float(np.divide(spread, radius**2 / (2 * noise.mean()))),
            separation=float(np.mean(separation)),
            keeps_component=float(np.mean(keeps)),
            sigma_over_radius=float(np.divide(off_manifold, radius)),
            radius=radius,
        )


def _without_dead(m: MFA) -> MFA:
    """The mixture without its components of weight 0."""
    if len(m.live) == m.n_components:
        return m
    return m.replace(**{name: getattr(m, name)[m.live] for name in PARAMETERS})


def _singular_value_spread(mixtures: tuple[MFA, ...]) -> float:
    width = max(m.n_factors for m in mixtures)
    if width == 0:
        return 0.0
    values = np.zeros((sum(m.n_components for m in mixtures), width))
    row = 0
    for m in mixtures:
        for A in m.loadings:
            singular = thin_svd(A.astype(np.float64))[1]
            values[row, : len(singular)] = np.where(
                singular > 1e-10 * max(singular.max(initial=0), 1e-300), singular, 0
            )
            row += 1
    used = values[:, (values > 0).any(axis=0)]
    if not used.size:
        return 0.0
    return float("inf") if (used == 0).any() else float(np.log(used.max(axis=0) / used.min(axis=0)).max())


def _separation(
    m: MFA, n: int, radius: float, generator: np.random.Generator, options: KernelOptions
) -> tuple[float, float]:
    # Drawn on the host, so that a model on a device is measured at the same points as one that is not.
    X, _ = m.to("cpu").sample(n, rng=generator, dtype=np.float64)
    before = to_numpy(m.responsibilities(on_device(X, m.device), **options))
    step = generator.standard_normal(X.shape)
    step *= radius / np.linalg.norm(step, axis=1, keepdims=True)
    after = to_numpy(m.component_log_prob(on_device(X + step, m.device), **options))
    return float(before.max(axis=1).mean()), float((before.argmax(axis=1) == after.argmax(axis=1)).mean())


@streamed
def own_and_other_distances(clf: BayesClassifier, X: Any, y: Any, **options: Unpack[RunOptions]) -> tuple[Array, Array]:
    """Of each sample, the distance ε [n] to the nearest subspace of its own class and D [n] to that of any other.

    "Half the distance" in the paper's figures is D/2; (D - ε)/2 is a lower bound on the perturbation that moves a
    sample as near to another class's subspace as to its own.

    Parameters
    ----------
    clf : BayesClassifier
    X : array-like, [n, d]
    y : array-like, [n]
        True classes.
    **options
        See :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    own, other : float64 [n]
        ℓ2 in data units; NumPy arrays wherever X is.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> own, other = mfakit.theory.own_and_other_distances(clf, np.array([[-0.9, 7.0]]), [0])
    >>> own.round(3), other.round(3)
    (array([0.1]), array([1.9]))
    """
    check_model("clf", clf, BayesClassifier)
    rows = RowBlocks(X, clf.n_features)
    labels = as_labels(y, len(rows), clf.n_classes)
    distances = (to_numpy(point_subspace_distances(X, m, **options)) for m in clf.mixtures)
    nearest = np.stack([each.astype(np.float64).min(axis=1) for each in distances], axis=1)
    index = np.arange(len(rows))
    own = nearest[index, labels]
    nearest[index, labels] = np.inf
    return own, nearest.min(axis=1)


@streamed
def asymmetric_radius(clf: BayesClassifier, X: Any, y: Any, **options: Unpack[RunOptions]) -> Array:
    """The closed-form distance of samples to the boundary of a two-class asymmetric model (Theorem 3).

    A sample at distance ρ₀ from its own component's subspace (noise σ²) that moves straight away from it loses
    ((ρ₀ + r)² - ρ₀²) / 2σ² nats, while the other class's outlier, broad as it is, hardly changes: it is overtaken after
    Δ = log π_s p_s(x) - log π_t p_t(x) nats, at r = √(ρ₀² + 2σ²Δ) - ρ₀. The last component of each mixture is its
    outlier, as :meth:`BayesClassifier.asymmetric` makes them.

    Parameters
    ----------
    clf : BayesClassifier
        Two classes.
    X : array-like, [n, d]
        Samples of the main components.
    y : array-like, [n]
        True classes.
    **options
        See :class:`mfakit._arrays.options.Options`.

    Returns
    -------
    float64 [n]
        ℓ2 in data units; 0 where the outlier is already the likelier one. A NumPy array wherever X is.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> wide = clf.asymmetric(direction=1)  # with a broad outlier in each class
    >>> mfakit.theory.asymmetric_radius(wide, np.array([[-1.0, 0.0]]), [0]).round(3)
    array([0.314])
    """
    check_model("clf", clf, BayesClassifier)
    if clf.n_classes != 2:
        raise ValueError(f"the closed form is for two classes, got {clf.n_classes}")
    rows = RowBlocks(X, clf.n_features)
    labels = as_labels(y, len(rows), 2)
    log_prob = [to_numpy(m.component_log_prob(X, **options)).astype(np.float64) for m in clf.mixtures]
    distance = [to_numpy(point_subspace_distances(X, m, **options)).astype(np.float64) for m in clf.mixtures]
    with errstate(divide="ignore"):
        log_priors = np.log(clf.priors)
    radius = np.empty(len(rows))
    for c in (0, 1):
        own = np.flatnonzero(labels == c)
        component = log_prob[c][own, :-1].argmax(axis=1)
        noise = clf.mixtures[c].factors.noise.mean(axis=1)[component]
        rho = distance[c][own, component]
        lost = log_prob[c][own, component] + log_priors[c] - log_prob[1 - c][own, -1] - log_priors[1 - c]
        radius[own] = np.sqrt(rho**2 + 2 * noise * np.maximum(lost, 0.0)) - rho
    return radius
