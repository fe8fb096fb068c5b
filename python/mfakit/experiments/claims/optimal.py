"""What the paper measures of the optimal classifier; from the experiments ``bayes`` and ``table1``."""

from __future__ import annotations

import numpy as np

from ..._io.report import number, percent
from .. import bayes, paper
from ..outcome import Outcome
from ..study.result import StudyOutcome
from .claim import (
    Claim,
    Decision,
    NotMeasuredError,
    Results,
    decided,
    is_face,
    learners,
    percents,
    scope,
    spread,
    studied,
)

__all__ = ["CLAIMS"]

# What prints as 100 and as 0 in whole per cent.
ALL, NONE = 0.995, 0.005
# Half the distance predicts the norm within this share of it.
CLOSE = 0.2
# The paper's mean ℓ2 below which changes are not seen, and a share of pixels for its "vast majority".
IMPERCEPTIBLE, MAJORITY = 1.5, 0.8
# Its "around 3", from below, and a share of pixels for its "many".
PERCEPTIBLE, MANY = 2.5, 0.1


def _variants(results: Results, variant: str) -> list[bayes.PairResult]:
    rows = [r for result in results.values() if isinstance(result, bayes.Result) for r in result.results]
    found = [r for r in rows if r.variant == variant]
    if not found:
        raise NotMeasuredError(f"the result of bayes has no {variant} pairs")
    return found


def _scope(rows: list[bayes.PairResult]) -> str:
    names = {r.pair for r in rows}
    known = f", {len(names & set(paper.TABLE1))} of the paper's {len(paper.TABLE1)}"
    return f"{len(names)} pair{'s' * (len(names) != 1)}{known}; {min(r.n for r in rows)} samples each"


def _accurate(results: Results) -> Decision:
    right, left, where = [], [], []
    if "table1" in results:
        sets = studied(results, "bayes")
        found = [learner for _, learner in learners(sets, "bayes")]
        right += [learner.accuracy for learner in found]
        left += [learner.strongest.adversarial_accuracy_paper for learner in found]
        where.append(scope(sets))
    if "bayes" in results:
        rows = _variants(results, "symmetric")
        right, left = right + [r.accuracy for r in rows], left + [1 - r.success_rate for r in rows]
        where.append(_scope(rows))
    return decided(
        min(right) >= ALL and max(left) <= NONE,
        f"Right on at least {percent(min(right))}% of the samples; after an attack without a budget at most "
        f"{percent(max(left))}% are right",
        " and ".join(where),
    )


def _half_distance(results: Results) -> Decision:
    rows = _variants(results, "symmetric")
    shares = [r.mean_l2 / r.half_distance for r in rows]
    norms, halves = spread([r.mean_l2 for r in rows]), spread([r.half_distance for r in rows])
    return decided(
        all(abs(share - 1) <= CLOSE for share in shares),
        f"Mean ℓ2 of the attack {norms}, half the mean distance {halves}: {spread(shares)} times as much",
        _scope(rows),
    )


def _asymmetric(results: Results) -> Decision:
    symmetric, asymmetric = _variants(results, "symmetric"), _variants(results, "asymmetric")
    by_name = {r.pair: r.mean_l2 for r in symmetric}
    shares = [r.mean_l2 / by_name[r.pair] for r in asymmetric if r.pair in by_name]
    if not shares:
        raise NotMeasuredError("no pair was measured in both variants")
    return decided(
        max(shares) < 0.5,
        f"Mean ℓ2 that fools the optimal classifier: symmetric {spread([r.mean_l2 for r in symmetric])}, asymmetric "
        f"{spread([r.mean_l2 for r in asymmetric])}, which is {percents(shares, 0)}% of it",
        _scope(asymmetric),
    )


def _imperceptible(results: Results) -> Decision:
    rows = _variants(results, "asymmetric")
    faces = [r for r in rows if is_face(r.pair)]
    if not faces:
        raise NotMeasuredError(_only_of_faces([(r.mean_l2, r.within) for r in rows]))
    norms, within = [r.mean_l2 for r in faces], [r.within for r in faces]
    return decided(
        max(norms) < IMPERCEPTIBLE and min(within) >= MAJORITY,
        f"Mean ℓ2 {spread(norms)}; {percents(within, 0)}% of the pixels change by at most 5/255",
        _scope(faces),
    )


def _norms_and_pixels(results: Results) -> Decision:
    every = [(name, l2, within) for result in results.values() for name, l2, within in _norms(result)]
    found = [(l2, within) for name, l2, within in every if is_face(name)]
    small = [within for l2, within in found if l2 < IMPERCEPTIBLE]
    large = [within for l2, within in found if l2 >= PERCEPTIBLE]
    if not found:
        raise NotMeasuredError(_only_of_faces([(l2, within) for _, l2, within in every]))
    if not small or not large:
        raise NotMeasuredError(f"no attack on faces has a mean ℓ2 {'below 1.5' if not small else 'of 2.5 or more'}")
    return decided(
        min(small) >= MAJORITY and 1 - max(large) >= MANY,
        f"Where the mean ℓ2 is below {number(IMPERCEPTIBLE, 1)}, {percents(small, 0)}% of the pixels change by at most "
        f"5/255 ({len(small)} attacks); where it is {number(PERCEPTIBLE, 1)} or more, {percents(large, 0)}% "
        f"({len(large)} attacks)",
        f"{len(small) + len(large)} attacks on faces, from {', '.join(results)}",
    )


def _norms(result: Outcome) -> list[tuple[str, float, float]]:
    """Of every attack its data set, its mean ℓ2, and the share of pixels within 5/255."""
    if isinstance(result, bayes.Result):
        return [(r.pair, r.mean_l2, r.within) for r in result.results]
    if isinstance(result, StudyOutcome):
        attacks = [(s.name, attack) for s in result.sets for learner in s.learners for attack in learner.attacks]
        return [(name, attack.mean_l2, attack.within) for name, attack in attacks if np.isfinite(attack.mean_l2)]
    return []


def _only_of_faces(found: list[tuple[float, float]]) -> str:
    """The thresholds are for 64 × 64 × 3 values; the same change of every pixel of a digit is a quarter of the norm."""
    l2, within = spread([l2 for l2, _ in found]), percents([within for _, within in found], 0)
    return (
        "the paper says it of faces, where a norm spreads over 16 times as many values, and no pair called "
        f"celeba-... was measured; digits: mean ℓ2 {l2}, {within}% of the pixels within 5/255"
    )


CLAIMS = (
    Claim(
        "bayes-accurate",
        "The optimal classifier is 100% right, and no sample resists without a budget",
        "The optimal classifier of every symmetric data set is right on 100% of the samples, and on 0% after an attack "
        "that may use any ℓ2.",
        "Table 1",
        ("table1", "bayes"),
        "accuracies print as 100 and 0 in whole per cent on every data set",
        _accurate,
    ),
    Claim(
        "half-distance",
        "Fooling the optimal classifier takes half the distance to the other class",
        "On symmetric data the mean ℓ2 that fools the optimal classifier is about half the mean distance of a sample "
        "to the nearest subspace of the other class.",
        "appendix D.1, Figure 14",
        ("bayes",),
        f"the two differ by at most {100 * CLOSE:g}% on every pair",
        _half_distance,
    ),
    Claim(
        "asymmetric",
        "The optimal classifier of asymmetric classes is brittle",
        "The difference between symmetric and asymmetric data is dramatic: the optimal classifier of asymmetric data "
        "is fooled by far less.",
        "section 2.4, Figures 5 and 15",
        ("bayes",),
        "on every pair the asymmetric variant needs less than half the ℓ2 of the symmetric one",
        _asymmetric,
    ),
    Claim(
        "imperceptible",
        "On asymmetric faces the change is imperceptible",
        "What fools the optimal classifier of asymmetric faces cannot be seen: the mean ℓ2 is below 1.5, and the vast "
        "majority of pixels change by at most 5/255.",
        "section 2.4, Figures 5 and 15",
        ("bayes",),
        f"on every pair of faces the mean ℓ2 is below {IMPERCEPTIBLE:g}, and at least {100 * MAJORITY:g}% of the "
        "pixels change by at most 5/255",
        _imperceptible,
    ),
    Claim(
        "norms-and-pixels",
        "Norms and pixel changes agree on faces",
        "On faces, below a mean ℓ2 of 1.5 the vast majority of pixels change by at most 5/255; at about 3 many change "
        "by more.",
        "section 2.4",
        ("bayes", "table1"),
        f"at least {100 * MAJORITY:g}% within 5/255 in every attack on faces with a mean ℓ2 below {IMPERCEPTIBLE:g}, "
        f"and at least {100 * MANY:g}% beyond in every one of {PERCEPTIBLE:g} or more",
        _norms_and_pixels,
    ),
)
