"""The first screen: is the optimal classifier robust, how far from it are those that learn, and the claims in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .._io.report import number, percent
from ..experiments import Outcome, bayes
from ..experiments.claims import Finding
from ..experiments.claims.claim import BRITTLE, ROBUST
from ..experiments.study.numbers import LearnerNumbers, SetNumbers
from ..experiments.study.result import StudyOutcome
from .html import chip, element, items, link

__all__ = ["first_screen"]

# Data sets that are named; more are counted.
MOST_NAMES = 4
# By the verdict on the claim that asymmetric classes make it brittle.
DEPENDS = {"holds": "It depends on the classes, as the paper says. ", "fails": "Not as the paper says. "}


@dataclass(frozen=True)
class Bar:
    """A classifier, means over data sets: of the median ratio to the certified radius, mean ℓ2, and accuracies."""

    label: str
    ratio: float
    l2: float
    accuracy: float
    left: float


def first_screen(found: Mapping[str, Outcome], findings: Sequence[Finding]) -> str:
    """The answer beside the claims in short, HTML."""
    claims = items(
        f"{chip(f.verdict)}<span>{link(f.short, f'claim-{f.name}')}</span>"
        for f in sorted(findings, key=lambda f: f.verdict == "not measured")
    )
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in ("holds", "fails", "not measured")}
    said = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items()).capitalize()
    return (
        f'<div class="answer"><section>{element("h2", "Is the optimal classifier robust?")}'
        f"{element('p', _optimal(found, findings))}"
        f"{element('h2', 'And those that learn from samples of the same classes?')}{_learned(found)}</section>"
        f'<section class="short">{element("h2", "The claims of the paper, in short")}{element("p", f"{said}.")}'
        f"{claims}</section></div>"
    )


def _optimal(found: Mapping[str, Outcome], findings: Sequence[Finding]) -> str:
    """In numbers; whether that is what the paper says is the verdict of its claim."""
    result = found.get("bayes")
    rows = result.results if isinstance(result, bayes.Result) else []
    symmetric, asymmetric = ([r for r in rows if r.variant == v] for v in ("symmetric", "asymmetric"))
    if symmetric and asymmetric:
        large, small = (_mean([r.mean_l2 for r in each]) for each in (symmetric, asymmetric))
        certified = [r.certified_lower for r in symmetric if r.certified_lower is not None]
        proof = f", and {number(_mean(certified))} is proven to be needed" if certified else ""
        verdict = {f.name: f.verdict for f in findings}.get("asymmetric", "not measured")
        return (
            f"{DEPENDS.get(verdict, '')}Symmetric classes: a mean ℓ2 of {number(large)} fools it{proof}. Asymmetric "
            f"ones, each with an outlier component of much larger noise: {number(small)} is enough, "
            f"{percent(small / large, 0)}% of that. Means over {_names([r.pair for r in symmetric])}; pixels in [0, 1]."
        )
    sets = [s for s in _sets(found) if s.upper is not None]
    if not sets:
        return "Not measured here: mfakit reproduce bayes would measure it."
    return (
        f"Symmetric classes: a mean ℓ2 of {number(_mean([s.mean_lower for s in sets]))} is proven to be needed (means "
        f"over {_names([s.name for s in sets])}; pixels in [0, 1]). Asymmetric ones are not measured here: mfakit "
        "reproduce bayes would do so."
    )


def _names(names: Sequence[str]) -> str:
    """The names of a few data sets, the number of many."""
    names = list(dict.fromkeys(names))
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} data sets"


def _learned(found: Mapping[str, Outcome]) -> str:
    sets = _sets(found)
    bars = _bars(sets)
    if not bars:
        return element("p", "Not measured here: mfakit reproduce table1 would measure it.")
    longest = max(1.15, *(bar.ratio for bar in bars))
    rows = "".join(_row(bar, longest) for bar in bars)
    names = _names([s.name for s in sets])
    n = ", ".join(map(str, sorted({s.n for s in sets})))
    label = "; ".join(f"{bar.label} {number(bar.ratio)}" for bar in bars)
    return (
        element("p", "What fools a classifier, as a share of what the optimal one is certified to need (the line):")
        + element("ul", "", class_="bars", aria_label=label).removesuffix("</ul>")
        + f"{rows}</ul>"
        + element(
            "p",
            "Median over samples of ℓ2 / certified Bayes radius, under the attack that fools most samples; means over "
            f"{names}, {n} test samples each. Blue: above {ROBUST:g}, called robust; orange: below {BRITTLE:g}, "
            "called brittle.",
            class_="soft",
        )
        + f'<p class="soft">{link("Table 1 beside the paper’s", "table1")}</p>'
    )


def _row(bar: Bar, longest: float) -> str:
    kind = "yes" if bar.ratio > ROBUST else "no" if bar.ratio < BRITTLE else "open"
    track = (
        f'<span class="track {kind}"><span class="bar" style="width:{100 * bar.ratio / longest:.1f}%"></span>'
        f'<span class="mark" style="left:{100 / longest:.1f}%"></span></span>'
    )
    value = f"{number(bar.ratio)} (ℓ2 {number(bar.l2)})"
    about = f"{percent(bar.accuracy)}% right; {percent(bar.left)}% resist the attack"
    return f"<li>{element('span', bar.label, title=about)}{track}{element('span', value, class_='number')}</li>"


def _sets(found: Mapping[str, Outcome]) -> list[SetNumbers]:
    result = found.get("table1")
    return result.sets if isinstance(result, StudyOutcome) else []


def _bars(sets: Sequence[SetNumbers]) -> list[Bar]:
    """One for every classifier, in the order of the table; without those that no sample was measured of."""
    by_label: dict[str, list[LearnerNumbers]] = {}
    for s in sets:
        for learner in s.learners:
            if np.isfinite(learner.strongest.median_ratio):
                by_label.setdefault(learner.label, []).append(learner)
    return [
        Bar(
            label,
            _mean([one.strongest.median_ratio for one in group]),
            _mean([one.strongest.mean_l2 for one in group]),
            _mean([one.accuracy for one in group]),
            _mean([one.strongest.adversarial_accuracy for one in group]),
        )
        for label, group in by_label.items()
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
