"""Exact minimal perturbations of a Bayes classifier, with certificates: a proven lower bound and a verified point, per
sample.

The proof, in four steps. Let x be right, S its class, T another, and p_j mean prior times weight times density of
component j.

1. *One pair.* For a source s and a target t, q(δ) = log p_t(x+δ) + c - log p_s(x+δ) is a quadratic. The smallest ‖δ‖
   with q(δ) ≥ 0 is a one-constraint quadratic problem: it has no duality gap, and every λ ≥ 0 with I - λH ⪰ 0 gives a
   lower bound (csrc/include/mfakit/secular.hpp).
2. *From t to T.* At a flip x+δ let t be the likeliest component of T. Then log p_T ≤ log p_t + c_t for c_t = log|T|,
   and, within a ball that is known to hold a flip, for c_t = log(1 + Σ_j min(1, max over the ball of p_j/p_t)). So the
   radius is at least min_t of any bound for (S, t, c_t); components whose bound exceeds a point already found are never
   looked at again. Where c_t is loose, the general path cuts the range of log p_t/p_j in pieces and bounds log p_T on
   each by a quadratic (:mod:`mfakit.attacks._general_targets`); the least of their bounds holds.
3. *Several sources.* By Gibbs' inequality log Σ_i p_{s_i} ≥ Σ_i θ_i log p_{s_i} + H(θ) for every θ on the simplex, so
   a flip also satisfies Σ_i θ_i q_i(δ) ≥ H(θ). Weak duality over λ_i = Λ θ_i gives a concave lower bound in a few
   variables (csrc/include/mfakit/dual.hpp), whose maximum treats the soft maximum over the sources exactly.
4. *Rounding.* What rounding may do to the log-densities, anywhere, is added to the quadrics
   (:mod:`mfakit.attacks.rounding`), and 1e-10 is taken off every result.

The dual's primal point, pushed along its ray and polished on the mixture's own boundary, gives the upper bound; the
point that is returned is verified to flip the decision in float64, and its norm is `upper`. Where the bracket stays
open by more than 2e-4 the gradient attack is tried from x in several step sizes, and what is nearer, or the point
itself where the way to it is not perpendicular to the boundary, is moved down along the boundary
(:mod:`mfakit.attacks.shorten`).

Nothing here asks for isotropic noise. Isotropic mixtures go through compiled code in factor coordinates; any noise, on
any machine, through NumPy in d dimensions, where H is a diagonal plus few rows (:mod:`mfakit.attacks._general_dual`)
and the ratios p_j/p_t over a ball are bounded by weak duality, too. Theorem 2 is the limit σ → 0 of these radii, where
there is no density: that is what :func:`mfakit.subspace_distances` is for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import RowBlocks, as_labels, check_finite_rows
from .._errors import BackendUnavailable
from .._options import Options, no_out, refuse_unknown
from .._progress import open_bar
from .._threads import errstate, forked
from ..backends import why_missing
from ..backends.host import HOST
from ..bayes import BayesClassifier
from ._general_model import Components
from .blocks import attack_blocks, plan_walks, victims_of
from .coordinates import FactorCoordinates, why_not
from .crossing import cross_to_means
from .general import NOT_CERTIFIED, GeneralSearch, warn_not_certified
from .identity import identity
from .pairs import PairTable, why_not_pairs
from .result import AttackResult
from .shorten import shorten
from .verify import as_result, push_until_flipped
from .victims import Choice, MixtureVictim
from .walk import DirectWalk, State, in_parts, within_class

__all__ = ["Grade", "MinimalResult", "grade", "minimal_perturbation"]

Array = NDArray[Any]

PATHS = ("auto", "factor", "general")
# Samples of a block: bounds the [n, C] coefficients. The general path takes fewer, so that its progress shows.
BLOCK_ROWS, GENERAL_BLOCK_ROWS = 256, 16
# Multiplications of a block's product, which bound how long Ctrl-C waits.
PRODUCT_STEPS = 2**32
# Measured: to 1e±75 bounds are as tight as at 1, and from 1e±78 they loosen.
LARGEST_LENGTH = 1e60
_logger = logging.getLogger("mfakit")


@dataclass(frozen=True, eq=False, repr=False)
class MinimalResult(AttackResult):
    """The bracket [lower, upper] on each sample's smallest perturbation, and the point that attains `upper`.

    Beside the fields of :class:`AttackResult` (`l2` is `upper`, `n_steps` the duals solved):

    Attributes
    ----------
    lower : float64 [n]
        No perturbation shorter than this changes the decision; ℓ2 in data units. 0 where the sample is already wrong,
        infinite where the other classes cannot be reached (weight or prior 0); and 0, with the reason "not certified",
        where numbers leave float64's range or a search fails, which ends no other sample's.
    upper : float64 [n]
        ‖x_adv - x‖ of the verified point; 0 where already wrong, infinite where no point was found.
    n_pairs_examined : int64 [n]
        Secular equations solved.
    """

    lower: Array = field(default_factory=lambda: np.zeros(0))
    upper: Array = field(default_factory=lambda: np.zeros(0))
    n_pairs_examined: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def gap(self) -> Array:
        """(upper - lower) / upper, [n]; 0 where both are 0 or infinite."""
        closed = (self.upper == 0) | (self.upper == self.lower)
        with errstate(invalid="ignore"):
            return np.where(closed, 0.0, 1.0 - self.lower / np.where(closed, 1.0, self.upper))

    def __repr__(self) -> str:
        attacked = ~self.already_wrong
        gap = self.gap[attacked]
        worst = f"{gap.max():.2g}" if gap.size else "nan"
        return f"MinimalResult(n={len(self)}, mean_l2={self.mean_l2:.5g}, largest gap={worst})"


@dataclass(frozen=True, eq=False)
class Grade:
    """An attack measured against the certified truth.

    Attributes
    ----------
    over_lower, over_upper : float64 [n]
        ℓ2 of the attack over either end of the bracket; NaN where it failed or the bracket is not finite.
    contradictions : int64 [m]
        Samples fooled below the lower bound of the same classifier: one of the two results is wrong. Of another
        classifier there are none, since a bound says nothing about it.
    same_classifier : bool
        Whether the attack was on the classifier whose minima these are.
    """

    over_lower: Array
    over_upper: Array
    contradictions: Array
    same_classifier: bool = True

    @property
    def mean(self) -> float:
        """Mean ratio to the smallest perturbation known; NaN if nothing can be graded. Of the same classifier it is 1
        for a perfect attack.
        """
        graded = np.isfinite(self.over_upper)
        return float(self.over_upper[graded].mean()) if graded.any() else float("nan")

    def __repr__(self) -> str:
        found = f"contradictions={len(self.contradictions)}" if self.same_classifier else "of another classifier"
        return f"Grade(mean={self.mean:.5g}, {found})"


def grade(attack: AttackResult, minimal: MinimalResult) -> Grade:
    """Measure an attack's norms against certified brackets of the same samples; see :meth:`AttackResult.grade`."""
    if not isinstance(minimal, MinimalResult):
        raise TypeError(f"an attack is graded by a MinimalResult, got a {type(minimal).__name__}")
    if len(attack) != len(minimal) or not np.array_equal(attack.y, minimal.y):
        raise ValueError(f"the two results must be of the same samples, got {len(attack)} and {len(minimal)}")
    usable = attack.success & np.isfinite(minimal.upper) & (minimal.lower > 0)
    l2 = np.where(usable, attack.l2, np.nan)
    with errstate(divide="ignore", invalid="ignore"):
        over_lower, over_upper = l2 / minimal.lower, l2 / minimal.upper
    same = attack.classifier == minimal.classifier
    below = usable & (attack.l2 < minimal.lower) & same
    return Grade(over_lower, over_upper, np.flatnonzero(below), same)


def minimal_perturbation(
    clf: Any, X: Any, y: Any = None, *, path: str = "auto", progress: bool | None = False, **options: Any
) -> MinimalResult:
    """The smallest perturbation of each sample that changes the Bayes decision, bracketed with proof.

    Parameters
    ----------
    clf : BayesClassifier
        Isotropic or diagonal noise, or both.
    X : array-like, [n, d]
    y : array-like [n], optional
        True classes; None takes the predicted ones.
    path : {"auto", "factor", "general"}
        "factor": compiled code in the span of the loadings and means, for isotropic noise; hundreds to thousands of
        samples a second, and a fifth of that where brackets stay open. "general": NumPy in the d features, for any
        noise; some to some tens of samples a second.
        "auto": "factor" where it is possible.
    progress : bool or None
        A progress bar; None shows it on a terminal.
    **options
        ``backend``, ``n_threads``, ``check_finite``; see :class:`mfakit._options.Options`. Computed in float64.

    Returns
    -------
    MinimalResult

    Raises
    ------
    ValueError
        ``path="factor"`` for noise that is diagonal or a model too large for its Gram matrix; anything but a
        BayesClassifier, NaN or inf in X, labels that are not classes; lengths beyond 1e60, noise below 1e-60.
    BackendUnavailable
        ``path="factor"`` without the compiled extension.

    References
    ----------
    Richardson & Weiss 2021, Theorems 1 to 3, which are the limits of these radii; the proof is in this module's
    docstring.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)
    >>> r = mfakit.attacks.minimal_perturbation(clf, np.array([[-1.0, 0.5]]))
    >>> r.lower.round(6), r.upper.round(6)
    (array([1.]), array([1.]))
    """
    path = _path(clf, path)
    refuse_unknown("minimal_perturbation", options, ("path", "progress"))
    no_out("minimal_perturbation", options)
    opts = Options(**options)
    clf = clf.to("cpu")  # wherever it was put, the proof is computed on the host
    _check_scales(clf)
    rows = RowBlocks(X, clf.n_features)
    if rows.device is not None:
        raise BackendUnavailable(f"minimal_perturbation computes on the host, and X is on {rows.device}; copy it there")
    labels = None if y is None else as_labels(y, len(rows), clf.n_classes)
    size = GENERAL_BLOCK_ROWS if path == "general" else _factor_rows(clf)
    points, lower, n_pairs = np.empty(rows.shape, rows.dtype), np.empty(len(rows)), np.empty(len(rows), np.int64)
    components, coordinates, (count, own) = None, None, plan_walks(len(rows), opts)
    if path == "general":  # Python, which is no quicker in several threads
        components, count, own = Components(clf), 1, opts
    else:
        coordinates = FactorCoordinates.of(clf)
        PairTable.of(coordinates)  # made here, and not in each of the threads
    victims = victims_of(clf, count, size, own)

    def attack(victim: MixtureVictim, block: Array, first: int) -> State:
        part = slice(first, first + len(block))
        if opts.check_finite:
            check_finite_rows(block.sum(axis=1, dtype=np.float64), block, first, "X")
        y_block = None if labels is None else labels[part]
        search: FactorSearch | GeneralSearch
        if components is None:
            search = FactorSearch(victim, block, y_block)
            lower[part], n_pairs[part] = search.bracket(clf, first)
        else:
            search = GeneralSearch(victim, block, y_block)
            lower[part], n_pairs[part] = search.bracket(components, first)
        lost = ~search.state.already_wrong & ~search.state.flipped & np.isfinite(lower[part])
        cross_to_means(search, clf, np.flatnonzero(lost))
        shorten(victim, search, block, lower[part], clf, coordinates)
        points[part] = push_until_flipped(victim, search, block, None)
        return search.state

    # NumPy's solvers set what an interrupt at their end would leave set.
    with errstate(), HOST.active(), open_bar(progress, total=len(rows), unit="sample", desc="certify") as bar:
        states = attack_blocks(rows, size, HOST, victims, attack, bar)
    settings = {"attack": "minimal", "path": path, "dtype": rows.dtype.name, "bounds": None}
    result = as_result(points, X, rows, states, settings, identity(clf))
    upper = np.where(result.already_wrong, 0.0, np.where(result.success, result.l2, np.inf))
    upper = np.where(np.isnan(lower), np.nan, upper)
    return MinimalResult(**result.__dict__, lower=np.minimum(lower, upper), upper=upper, n_pairs_examined=n_pairs)


def _factor_rows(clf: BayesClassifier) -> int:
    """Samples of a block whose products with all columns take a fraction of a second."""
    columns = sum(m.n_components for m in clf.mixtures) * (max(m.n_factors for m in clf.mixtures) + 1)
    return max(1, min(BLOCK_ROWS, PRODUCT_STEPS // (columns * clf.n_features)))


def _check_scales(clf: BayesClassifier) -> None:
    """The proof multiplies squares of lengths; beyond these scales they leave float64's range without a word."""
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


def _path(clf: Any, path: str) -> str:
    """Which of the two paths to take; one that was asked for is never swapped."""
    if path not in PATHS:
        raise ValueError(f"path must be one of {PATHS}, got {path!r}")
    if not isinstance(clf, BayesClassifier):
        raise ValueError(
            f"minimal_perturbation needs a BayesClassifier, and {type(clf).__name__} is not a BayesClassifier; for "
            "other classifiers take gradient_attack, or carlini_wagner_l2 for networks"
        )
    if path == "general":
        return path
    reason, missing = why_not(clf) or why_not_pairs(clf), why_missing("native")
    if path == "factor" and reason is not None:
        raise ValueError(f'path="factor" cannot be taken: {reason}; use path="general"')
    if path == "factor" and missing is not None:
        raise BackendUnavailable(f'path="factor" is compiled code: {missing}; use path="general"')
    if reason is None and missing is None:
        _logger.info("minimal_perturbation takes the factor path: isotropic noise and compiled code")
        return "factor"
    _logger.info("minimal_perturbation takes the general path: %s", reason or missing)
    return "general"


class FactorSearch(DirectWalk):
    """One block of samples; the kernel finds the bracket, and the base class's state is what the verification reads."""

    victim: MixtureVictim

    def bracket(self, clf: Any, start: int) -> tuple[Array, Array]:
        """Lower bounds [n] and pairs examined [n]; leaves the points beyond the boundary in `here`.

        `start` is the number of the block's first sample, for messages.
        """
        q, state = FactorCoordinates.of(clf), self.state
        finite = np.isfinite(self.here).all(axis=1)
        rows = np.flatnonzero(finite & ~state.already_wrong)
        a, sq = q.project(self.here[rows])
        alpha, w, found = np.zeros(len(rows)), np.zeros_like(a), np.zeros((len(rows), 2))
        reports = np.zeros((len(rows), 5), np.int64)
        self._certify(clf, (state.y[rows], a, sq, alpha, w, found, reports))
        unknown = np.isnan(found).any(axis=1)  # too far away for float64
        found[unknown] = 0.0, np.inf
        for i in rows[unknown]:
            warn_not_certified(start + int(i), "its log-densities or squared lengths are beyond float64")
        reached = np.isfinite(found[:, 1])
        X = self.here[rows]
        self.here[rows] = np.where(reached[:, None], X + alpha[:, None] * (X - q.center) + w @ q.columns, X)
        state.flipped[rows] = reached
        state.reason[rows] = np.where(reached, "flipped", np.where(unknown, NOT_CERTIFIED, "no crossing"))
        state.n_steps[rows] = reports[:, 4]
        chosen = Choice(len(rows))
        chosen.target_class = reports[:, 2]
        chosen.source = within_class(reports[:, 0], state.y[rows], q.first)
        chosen.target = within_class(reports[:, 1], chosen.target_class, q.first)
        state.choice.put(rows, chosen)
        lower, pairs = np.zeros(len(self.here)), np.zeros(len(self.here))
        lower[~finite] = np.nan
        lower[rows], pairs[rows] = found[:, 0], reports[:, 3]
        return lower, pairs

    def _certify(self, clf: BayesClassifier, arrays: tuple[Array, ...]) -> None:
        """The kernel, for so many samples at a time that Ctrl-C is heard between two calls. `arrays` [n, ...] are y and
        what the kernel reads and fills.
        """
        from .. import _native

        q, threads = FactorCoordinates.of(clf), 1 if forked() else self.victim.threads

        def part(*block: Array) -> None:
            _native.certify(
                *q.kernel_arguments, *PairTable.of(q).kernel_arguments, q.tilt, q.size, clf.n_features, *block, threads
            )

        in_parts(self.victim, part, arrays, threads)
