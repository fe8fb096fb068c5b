"""Shorter points where a bracket is open: the gradient attack's own, moved down along the boundary.

The duals of a bracket give points near a few pairs of components. Where several components tie, the nearest flip may
be elsewhere, and the gradient attack may find it. So the attack is run in several step sizes, and a point that is
nearer than the best one known is improved on the boundary of the components that matter there.
"""

from __future__ import annotations

import math

import numpy as np

from ..._threads.process import single_threaded_products
from ...backends import is_compiled
from ...bayes.classifier import BayesClassifier
from ..coordinates import FactorCoordinates
from ..gradient.settings import Settings
from ..gradient.walk import FactorWalk, FeatureWalk
from ..models.bayes import MixtureVictim
from .components import Array, Components
from .search import Search

__all__ = ["shorten"]

# Relative gap above which shorter points are looked for; those of symmetric models stay below half of it.
OPEN = 2e-4
# Steps are 2^-k of the best length known, rounded up to a power of two: from 1/8 or 1/4 of it down to 1/128 or 1/64.
FINENESS = (3, 4, 5, 6, 7)
# Those of a walk in d features, where a step costs a hundred times more.
FEATURE_FINENESS = (3, 5)
# A walk may be this many times longer than the best length known, because a curved walk may end close to its start.
DETOUR = 4
# Relative difference in length that is worth a descent.
SHORTER = 1e-7
# A perturbation counts as perpendicular to the boundary if 1 - cos of its angle with the gradient is below this.
ASKEW = 1e-6
# A component is ignored at a point if it is this many nats below the most likely one of its class; and how often a
# descent is repeated with the components that matter where it ended.
IGNORED_NATS, ROUNDS = 40.0, 8


def shorten(
    victim: MixtureVictim, search: FeatureWalk, X: Array, lower: Array, clf: BayesClassifier,
    coordinates: FactorCoordinates | None,
) -> None:  # fmt: skip
    """Replace the points that `search` has found for samples X [n, d] by nearer ones where the bracket above `lower`
    [n] is open and there are any. Sample by sample, so that none depends on the others.
    """
    state = search.state
    with np.errstate(invalid="ignore"):
        upper = np.where(state.flipped, np.linalg.norm(search.here - X, axis=1), np.inf)
        is_open = ~state.already_wrong & np.isfinite(X).all(axis=1) & (lower < (1.0 - OPEN) * upper)
    with single_threaded_products():  # the same bits with any number of threads
        for i in np.flatnonzero(is_open):
            x, y, here = X[i : i + 1].astype(np.float64), state.y[i : i + 1], search.here[i : i + 1]
            delta = _attack(victim, x, y, coordinates, float(upper[i]))
            if delta is None and (not state.flipped[i] or _is_stationary(victim, x, y, here)):
                continue
            start = here[0] - x[0] if delta is None else delta
            here[0] = x[0] + _descend(victim, clf, x[0], int(y[0]), start, float(lower[i]))
            state.flipped[i] = True
            if state.reason[i] == "no crossing":  # another reason, why there is no bound, stays
                state.reason[i] = "flipped"
            state.choice.put(np.array([i]), victim.scores(here, y)[1])


def _attack(
    victim: MixtureVictim, x: Array, y: Array, coordinates: FactorCoordinates | None, upper: float
) -> Array | None:
    """The shortest perturbation [d] that the gradient attack finds for x [1, d], if it is shorter than `upper`."""
    best = None
    walk = FeatureWalk(victim, x, y) if coordinates is None else FactorWalk(victim, x, y, coordinates)
    for settings in _settings(upper, FEATURE_FINENESS if coordinates is None else FINENESS):
        walk.restart(x)
        walk.run(settings)
        delta = walk.here[0] - x[0]
        length = float(np.linalg.norm(delta))
        if walk.state.flipped[0] and length < upper * (1.0 - SHORTER):
            best, upper = delta, length
    return best


def _is_stationary(victim: MixtureVictim, x: Array, y: Array, here: Array) -> bool:
    """Whether the line from x [1, d] to a point on the boundary is perpendicular to it, as at a nearest point."""
    way, gradient = here - x, victim.margin_gradient(here, y, victim.scores(here, y)[1])
    lengths = float(np.linalg.norm(way) * np.linalg.norm(gradient))
    return float((way * gradient).sum()) >= (1.0 - ASKEW) * lengths


def _settings(upper: float, fineness: tuple[int, ...]) -> list[Settings]:
    """How to walk, given the best length known. Powers of two: a length that differs by a rounding changes nothing."""
    if not 0.0 < upper < math.inf:
        return [Settings(polish=True)]  # no point is known, and so no scale: the attack's own defaults
    scale = math.frexp(upper)[1]
    return [Settings(step_size=math.ldexp(1.0, scale - k), max_steps=DETOUR * 2**k, polish=True) for k in fineness]


def _descend(victim: MixtureVictim, clf: BayesClassifier, x: Array, y: int, delta: Array, lower: float) -> Array:
    """The perturbation [d] at the end of a descent along the boundary from x + δ; δ itself if that fails."""
    kept = _matter_at(clf, x + delta)
    for _ in range(ROUNDS):
        victim.raise_if_cancelled()
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                point = Search(Components(_part(clf, kept), is_compiled(victim.ops)), x, y).descend(delta, lower)
        except (RuntimeError, np.linalg.LinAlgError):  # at extreme scales a search may not end
            return delta
        if point is None:
            return delta
        known, kept = kept, [a | b for a, b in zip(kept, _matter_at(clf, x + point.delta), strict=True)]
        if all(np.array_equal(a, b) for a, b in zip(known, kept, strict=True)):
            return point.delta if point.length < np.linalg.norm(delta) else delta
    return delta


def _matter_at(clf: BayesClassifier, point: Array) -> list[Array]:
    """Which components of each class, bool [k], matter at a point [d]."""
    logs = [m.component_log_prob(point[None])[0] for m in clf.mixtures]
    return [log_prob >= log_prob.max() - IGNORED_NATS for log_prob in logs]


def _part(clf: BayesClassifier, kept: list[Array]) -> BayesClassifier:
    """The classifier of some components, whose densities have the same ratios as before."""
    mixtures, shares = [], []
    for prior, m, mask in zip(clf.priors, clf.mixtures, kept, strict=True):
        weights = m.weights[mask]
        shares.append(prior * weights.sum())
        mixtures.append(
            m.replace(
                weights=weights / weights.sum(), means=m.means[mask], loadings=m.loadings[mask],
                noise_variance=m.noise_variance[mask],
            )
        )  # fmt: skip
    return BayesClassifier(mixtures, np.array(shares) / sum(shares))
