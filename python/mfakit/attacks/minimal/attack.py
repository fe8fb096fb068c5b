"""Exact minimal perturbations of a Bayes classifier, with certificates: a proven lower bound and a verified point, per
sample. Other classifiers are passed on to :mod:`mfakit.attacks.minimal.machines.attack`.

The proof, in four steps. Let x be right, S its class, T another, and p_j mean prior times weight times density of
component j.

1. *One pair.* For a source s and a target t, q(δ) = log p_t(x+δ) + c - log p_s(x+δ) is a quadratic. The smallest ‖δ‖
   with q(δ) ≥ 0 is a one-constraint quadratic problem: it has no duality gap, and every λ ≥ 0 with I - λH ⪰ 0 gives a
   lower bound (csrc/include/mfakit/secular.hpp).
2. *From t to T.* At a flip x+δ let t be the likeliest component of T. Then log p_T ≤ log p_t + c_t for c_t = log|T|,
   and, within a ball that is known to hold a flip, for c_t = log(1 + Σ_j min(1, max over the ball of p_j/p_t)). So the
   radius is at least min_t of any bound for (S, t, c_t); components whose bound exceeds a point already found are not
   examined again. Where c_t is loose, the range of log p_t/p_j is cut in pieces, and log p_T bounded on each by a
   quadratic (csrc/include/mfakit/slices.hpp, :mod:`mfakit.attacks.minimal.majorant`); the least of their bounds holds.
3. *Several sources.* By Gibbs' inequality log Σ_i p_{s_i} ≥ Σ_i θ_i log p_{s_i} + H(θ) for every θ on the simplex, so
   a flip also satisfies Σ_i θ_i q_i(δ) ≥ H(θ). Weak duality over λ_i = Λ θ_i gives a concave lower bound in a few
   variables (csrc/include/mfakit/dual.hpp), whose maximum treats the soft maximum over the sources exactly.
4. *Rounding.* A bound on the rounding of the log-densities at any δ is added to the quadrics
   (:mod:`mfakit.attacks.rounding`), and every bound is reduced by 1e-10 of itself.

The dual's primal point, pushed along its ray and polished on the mixture's own boundary, gives the upper bound; the
point that is returned is verified to flip the decision in float64, and its norm is `upper`. Where the bracket stays
open by more than 2e-4 the gradient attack is run from x in several step sizes. The nearer point that it finds, or the
point itself if δ is not perpendicular to the boundary, is moved closer along the boundary
(:mod:`mfakit.attacks.minimal.shorten`).

Inside a box the box's own multipliers join the duals (:mod:`mfakit.attacks.minimal.box`), and for a class to reach the
sources are those of all other classes, Gibbs' inequality being applied to each. Whatever is allowed is a flip: the
bracket of any flip comes first and settles the samples whose point is allowed
(:mod:`mfakit.attacks.minimal.constrained`).

None of this needs isotropic noise. Isotropic mixtures go through compiled code in factor coordinates; any noise through
a search in d dimensions, where H is a diagonal plus few rows (:mod:`mfakit.attacks.minimal.lagrangian`) and the ratios
p_j/p_t over a ball are bounded by weak duality, too. Its searches for multipliers are compiled or, on any machine, in
NumPy (:mod:`mfakit.attacks.minimal.duals`).
Theorem 2 is the limit σ → 0 of these radii, where there is no density; :func:`mfakit.subspace_distances` computes it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..._arrays.options import Options, no_out, only_on_host, refuse_unknown
from ..._arrays.rows import RowBlocks, check_finite_rows, class_indices
from ..._arrays.streams import streamed
from ..._errors import BackendUnavailable
from ..._io.progress import open_bar
from ..._threads.process import errstate, keeps_errstate
from ...backends import get_backend, is_compiled, why_missing
from ...backends.host_arrays import HOST
from ...bayes.classifier import BayesClassifier
from ...classifiers.recognise.recognise import bayes_inside
from ..blocks import attack_blocks, plan_walks, victims_of
from ..bounds import as_limits, inside_bounds
from ..coordinates import FactorCoordinates, why_not
from ..goals import as_goals, check_goals
from ..gradient.walk import FeatureWalk
from ..identity import identity
from ..models.bayes import MixtureVictim
from ..result import MinimalResult
from ..state import State
from ..verify import as_result, push_until_flipped
from .components import Components
from .constrained import Constraint, undecided
from .crossing import cross_to_means
from .factor_path import FactorSearch
from .feature_path import FeatureSearch
from .machines.attack import bracket_machine
from .pairs import PairTable, why_not_pairs
from .settings import Path, Settings
from .shorten import shorten

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..._arrays.options import RunOptions

__all__ = ["brackets", "minimal_perturbation"]

Array = NDArray[Any]

# Samples of a block: bounds the [n, C] coefficients. The features path takes fewer, so that its progress shows.
BLOCK_ROWS, FEATURE_BLOCK_ROWS = 256, 16
# Multiplications of a block's product, which bound how long Ctrl-C waits.
PRODUCT_STEPS = 2**32
# Measured: bounds are as tight as at 1 up to 1e±75, and looser from 1e±78.
LARGEST_LENGTH = 1e60
_logger = logging.getLogger("mfakit")


@keeps_errstate
@streamed
def minimal_perturbation(
    clf: Any, X: Any, y: Any = None, *, path: Path = Settings.path, bounds: Any = Settings.bounds,
    target: Any = None, progress: bool | None = False, **options: Unpack[RunOptions],
) -> MinimalResult:  # fmt: skip
    """The smallest perturbation of each sample that changes the decision, bracketed with proof.

    Parameters
    ----------
    clf : BayesClassifier or classifier
        Or an :class:`mfakit.MFAClassifier`; isotropic or diagonal noise, or both. Also linear
        classifiers and machines of RBF kernels, ours and scikit-learn's, as :func:`gradient_attack` takes them (more
        than two classes: each against the rest), and ``KNeighborsClassifier(n_neighbors=1)`` with the Euclidean
        metric. Linear classifiers and the nearest neighbour have no gap but rounding; an RBF machine on digits takes
        about a tenth of a second a sample.
    X : array-like, [n, d]
    y : array-like [n], optional
        True classes, of other classifiers as values of ``clf.classes_``; None takes the predicted ones.
    path : {"auto", "factor", "features"}
        Of mixtures; other classifiers have one way only, which is in the result's settings.
        "factor": compiled code in the span of the loadings and means, for isotropic noise; hundreds to thousands of
        samples a second, and a fifth of that where brackets stay open. "features": in the d features, for any noise;
        some tens to hundreds of samples a second where ``backend`` is the compiled one, several times fewer in NumPy.
        "auto": "factor" where it is possible.
    bounds : (low, high), optional
        Two numbers, or arrays [d] with a number per feature: only perturbations that stay within them count, and
        `x_adv` does. The samples must be inside. Those whose nearest flip is outside are searched one by one in the d
        features. The result's settings record the bounds.
    target : class or array-like [n], optional
        The class to reach, one for all samples or one per sample, other than the true one: only points that are decided
        for it count. None: any other class.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.
    **options
        ``backend``, ``n_threads``, ``check_finite``; see :class:`mfakit._arrays.options.Options`. Computed in float64.

    Returns
    -------
    MinimalResult

    Raises
    ------
    TypeError
        For a model without a bracket, with the reason and those that have one.
    ValueError
        ``path="factor"`` for noise that is diagonal or a model too large for its Gram matrix, any path, `bounds` or
        `target` for another classifier; NaN or inf in X, labels or targets that are not classes, a target that is the
        true class, samples outside `bounds`; lengths beyond 1e60, noise below 1e-60; samples or a backend of a device.
    BackendUnavailable
        ``path="factor"`` without the compiled extension.

    References
    ----------
    Richardson & Weiss 2021, Theorems 1 to 3, which are the limits of these radii; the proofs are in
    docs/certificates.md. Wang et al. 2019 for the nearest neighbour.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)
    >>> r = mfakit.attacks.minimal_perturbation(clf, np.array([[-1.0, 0.5]]))
    >>> r.lower.round(6), r.upper.round(6)
    (array([1.]), array([1.]))
    >>> svm = mfakit.classifiers.LinearSVM(C=10).fit([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]], [3, 8, 3, 8])
    >>> mfakit.attacks.minimal_perturbation(svm, np.array([[0.25, 5.0]])).lower.round(3)
    array([0.75])
    """
    refuse_unknown("minimal_perturbation", options, ("path", "bounds", "target", "progress"))
    return brackets("minimal_perturbation", clf, X, y, Settings(path, bounds), target, None, progress, options)


def brackets(
    name: str, clf: Any, X: Any, y: Any, settings: Settings, target: Any, radii: Array | None, progress: bool | None,
    options: RunOptions,
) -> MinimalResult:  # fmt: skip
    """The brackets that :func:`minimal_perturbation` returns. With `radii` [m] only as far as they decide for each of
    them whether there is a flip within it. `name` is the public function's.
    """
    given, clf = clf, bayes_inside(clf)
    no_out(name, options)
    opts = Options(**options)
    if not isinstance(clf, BayesClassifier):
        return _of_machine(name, clf, X, y, settings, target, opts, progress)
    path = _path(clf, settings.path)
    clf = clf.to("cpu")  # the proof is computed on the host whatever device it was put on
    _check_scales(clf)
    rows = RowBlocks(X, clf.n_features)
    only_on_host(name, opts, rows)
    classes = None if np.array_equal(given.classes_, clf.classes_) else np.asarray(given.classes_)
    labels = None if y is None else class_indices(y, classes, len(rows), clf.n_classes)
    goals = as_goals(target, len(rows), lambda some, n, what: class_indices(some, classes, n, clf.n_classes, what))
    limits = as_limits(settings.bounds, clf.n_features, rows.dtype)
    points, lower, n_pairs = np.empty(rows.shape, rows.dtype), np.empty(len(rows)), np.empty(len(rows), np.int64)
    compiled = is_compiled(get_backend(opts.backend))
    components = cache(lambda: Components(clf, compiled))  # of searches in the d features, which not all samples need
    constraint = None
    if limits is not None or goals is not None:
        constraint = Constraint(clf, components, limits, goals, radii)
    size = FEATURE_BLOCK_ROWS if path == "features" or constraint is not None else _factor_rows(clf)
    coordinates, (count, own) = None, plan_walks(len(rows), opts)
    if path == "features":
        count, own = (count, own) if compiled else (1, opts)  # NumPy is no quicker in several threads
        components()  # made here, and not in each of the threads
    else:
        coordinates = FactorCoordinates.of(clf)
        PairTable.of(coordinates)  # made here, and not in each of the threads
    victims = victims_of(clf, count, size, own)

    def attack(victim: MixtureVictim, block: Array, first: int) -> State:
        part = slice(first, first + len(block))
        if opts.check_finite:
            check_finite_rows(block.sum(axis=1, dtype=np.float64), block, first, "X")
        inside_bounds(block, limits, first)
        y_block = None if labels is None else labels[part]
        search: FactorSearch | FeatureSearch
        if coordinates is not None:
            search = FactorSearch(victim, block, y_block)
            lower[part], n_pairs[part] = search.bracket(clf, first)
        else:
            search = FeatureSearch(victim, block, y_block)
            lower[part], n_pairs[part] = 0.0, 0
            if constraint is None:
                lower[part], n_pairs[part] = search.bracket(components(), first, radii)
        _improve(search, block, lower[part], n_pairs[part], first, clf, coordinates, constraint, radii)
        points[part] = push_until_flipped(victim, search, block, limits)
        return search.state

    with HOST.active(), open_bar(progress, total=len(rows), unit="sample", desc="certify") as bar:
        states = attack_blocks(rows, size, HOST, victims, attack, bar)
    evidence = {
        "attack": "minimal", **asdict(replace(settings, path=path)), "targeted": goals is not None,
        "dtype": rows.dtype.name,
    }  # fmt: skip
    result = as_result(points, X, rows, states, evidence, identity(clf))
    upper = np.where(result.already_wrong, 0.0, np.where(result.success, result.l2, np.inf))
    upper = np.where(np.isnan(lower), np.nan, upper)
    return MinimalResult(**result.__dict__, lower=np.minimum(lower, upper), upper=upper, n_pairs_examined=n_pairs)


def _improve(
    search: FactorSearch | FeatureSearch, X: Array, lower: Array, n_pairs: Array, first: int, clf: BayesClassifier,
    coordinates: FactorCoordinates | None, constraint: Constraint | None, radii: Array | None,
) -> None:  # fmt: skip
    """Points for samples X [n, d] without any, shorter ones where brackets are open, and what a constraint needs. The
    sample `first` comes first; `lower` and `n_pairs` [n] are updated.
    """
    state, victim = search.state, search.victim
    if constraint is not None:
        constraint.apply(search, first)
        check_goals(state, first)
        rows = constraint.unsettled(search)
        lower[~np.isfinite(search.here).all(axis=1)] = np.nan
    else:
        rows = np.zeros(len(X), bool)
        lost = ~state.already_wrong & ~state.flipped & np.isfinite(lower)
        cross_to_means(search, clf, np.flatnonzero(lost))
    if constraint is None or coordinates is not None:
        shorten(victim, search, X, _closed_where(search, X, lower, rows, radii), clf, coordinates)
    if constraint is None:
        return
    rows |= constraint.unsettled(search)  # shorter points may be outside
    decided = rows & ~undecided(lower, np.full(len(X), np.inf), radii)
    search.here[decided], state.flipped[decided], state.reason[decided] = X[decided], False, "no crossing"
    rows &= ~decided
    constraint.close(search, X, lower, n_pairs, np.flatnonzero(rows), first)
    constraint.shorten(search, X, lower, np.flatnonzero(rows))


def _closed_where(search: FeatureWalk, X: Array, lower: Array, rows: Array, radii: Array | None) -> Array:
    """Lower bounds [n] for :func:`shorten`, infinite for some samples and where the radii asked for are decided."""
    with errstate(invalid="ignore", over="ignore"):  # samples that are not finite
        upper = np.where(search.state.flipped, np.linalg.norm(search.here - X, axis=1), np.inf)
    return np.where(rows | ~undecided(lower, upper, radii), np.inf, lower)


def _factor_rows(clf: BayesClassifier) -> int:
    """Samples of a block whose products with all columns take a fraction of a second."""
    columns = sum(m.n_components for m in clf.mixtures) * (max(m.n_factors for m in clf.mixtures) + 1)
    return max(1, min(BLOCK_ROWS, PRODUCT_STEPS // (columns * clf.n_features)))


def _check_scales(clf: BayesClassifier) -> None:
    """The proof multiplies squares of lengths, which leave float64's range silently beyond these scales."""
    for mixture in clf.mixtures:
        means, loadings, noise = (a[mixture.live] for a in (mixture.means, mixture.loadings, mixture.noise_variance))
        spread = max(float(np.abs(means - mixture.factors.center).max()), float(np.abs(loadings).max(initial=0.0)))
        sigmas = np.sqrt(noise)
        if not (sigmas.min() >= 1 / LARGEST_LENGTH and max(spread, float(sigmas.max())) <= LARGEST_LENGTH):
            raise ValueError(
                f"certificates need noise of at least {1 / LARGEST_LENGTH:.0e} and lengths of at most "
                f"{LARGEST_LENGTH:.0e}, got noise from {sigmas.min():.1e} and lengths up to "
                f"{max(spread, float(sigmas.max())):.1e}; rescale the model and the data"
            )


def _of_machine(
    name: str, clf: Any, X: Any, y: Any, settings: Settings, target: Any, options: Options, progress: bool | None
) -> MinimalResult:
    """The brackets of a classifier that is no mixture, which has one path only, and neither boxes nor targets."""
    if settings.path != "auto":
        raise ValueError(
            f'path="{settings.path}" is for mixtures, and {type(clf).__name__} is not a BayesClassifier; leave it out'
        )
    for argument, value in (("bounds", settings.bounds), ("target", target)):
        if value is not None:
            raise ValueError(
                f"{argument} is for brackets of Bayes classifiers, and {type(clf).__name__} is not a BayesClassifier; "
                "leave it out: the lower bound without it holds, too"
            )
    return bracket_machine(name, clf, X, y, options, progress)


def _path(clf: BayesClassifier, path: Path) -> Path:
    """Which of the two paths to take; one that was asked for is never swapped."""
    if path == "features":
        return path
    reason, missing = why_not(clf) or why_not_pairs(clf), why_missing("native")
    if path == "factor" and reason is not None:
        raise ValueError(f'path="factor" cannot be taken: {reason}; use path="features"')
    if path == "factor" and missing is not None:
        raise BackendUnavailable(f'path="factor" is compiled code: {missing}; use path="features"')
    if reason is None and missing is None:
        _logger.info("minimal_perturbation takes the factor path: isotropic noise and compiled code")
        return "factor"
    _logger.info("minimal_perturbation takes the path in the d features: %s", reason or missing)
    return "features"
