"""What the paper proves, and assumes, of optimal classifiers; from the experiment ``theorems``."""

from __future__ import annotations

import numpy as np

from ..._io.report import number, percent
from .. import theorems
from .claim import Claim, Decision, NotMeasuredError, Results, decided, percents, spread

__all__ = ["CLAIMS"]

NEEDS = ("theorems",)
# As the largest over the smallest singular value; 1 is what the theorem asks for.
EQUAL = 1.1


def _pairs(results: Results) -> list[theorems.PairTheorems]:
    found = [r for result in results.values() if isinstance(result, theorems.Result) for r in result.results]
    if not found:
        raise NotMeasuredError("the result of theorems has no pairs")
    return found


def _scope(found: list[theorems.PairTheorems]) -> str:
    return f"{len(found)} pair{'s' * (len(found) != 1)}; {found[0].theorem2.lower.shape[1]} samples at each σ"


def _theorem2(results: Results) -> Decision:
    found = _pairs(results)
    shares = [float(r.theorem2.share_half_min[-1]) for r in found]
    radii = [r.theorem2.half_min_distance for r in found]
    sigma = max(float(r.theorem2.sigmas[-1]) for r in found)
    return decided(
        min(shares) >= 1,
        f"At σ = {sigma:g}, {percent(min(shares))}% of the samples of every pair have a certified radius of at least "
        f"half the smallest distance of two subspaces, which is {spread(radii)}",
        _scope(found),
    )


def _theorem3(results: Results) -> Decision:
    found = _pairs(results)
    radii = [float(r.theorem3.mean_upper[-1]) for r in found]
    shares = [radius / r.theorem3.half_min_distance for radius, r in zip(radii, found, strict=True)]
    both = [float(r.theorem3_both.mean_upper[-1]) for r in found]
    beyond = [float((np.nan_to_num(r.theorem3_both.limit[-1]) > 0).mean()) for r in found]
    sigma = max(float(r.theorem3.sigmas[-1]) for r in found)
    return decided(
        max(shares) < 0.1,
        f"At σ = {sigma:g} a mean ℓ2 of {spread(radii, 3)} fools the optimal classifier where the other class has an "
        f"outlier, {percent(max(shares), 0)}% or less of what Theorem 2 grants without; with outliers in both classes, "
        f"as in the paper's data, it is {spread(both, 3)}, and does not tend to 0 for {percents(beyond, 0)}% of the "
        "samples",
        _scope(found),
    )


def _singular_values(results: Results) -> Decision:
    found = _pairs(results)
    spreads = [r.assumptions.singular_value_spread for r in found]
    largest = float(np.exp(max(spreads)))
    return decided(
        largest <= EQUAL,
        f"Of fitted pairs the largest singular value of one rank is up to {number(largest, 1)} times the smallest (log "
        f"spread {spread(spreads)}); what the theorem neglects thereby is at most "
        f"{percent(max(r.assumptions.neglected_share for r in found))}% of the log-likelihood that decides",
        _scope(found),
    )


CLAIMS = (
    Claim(
        "theorem-2",
        "Symmetric classes: robust up to half the distance of subspaces",
        "Where all components have the same small noise, almost every sample of the optimal classifier is robust to "
        "any perturbation shorter than half the smallest distance between two subspaces.",
        "Theorem 2",
        NEEDS,
        "at the smallest σ every sample's certified radius is at least half the smallest distance",
        _theorem2,
    ),
    Claim(
        "theorem-2-singular-values",
        "Theorem 2 applies: equal singular values",
        "Theorem 2 takes the loadings of all components to have the same singular values.",
        "Theorem 2",
        NEEDS,
        f"the largest i-th singular value among components is at most {EQUAL:g} times the smallest",
        _singular_values,
    ),
    Claim(
        "theorem-3",
        "Asymmetric classes: arbitrarily close to the boundary",
        "Where the other class has a component of full rank whose noise stays as it is, almost every sample comes "
        "arbitrarily close to the optimal decision boundary as σ → 0.",
        "Theorem 3",
        NEEDS,
        "at the smallest σ the mean radius is below a tenth of what Theorem 2 grants without outliers",
        _theorem3,
    ),
)
