"""A claim of the paper: what it says, which experiments decide it, and how their numbers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..._io.report import number, percent
from .. import paper
from ..outcome import Outcome
from ..study.numbers import LearnerNumbers, SetNumbers
from ..study.result import StudyOutcome

__all__ = [
    "BRITTLE", "ROBUST", "Claim", "Decision", "NotMeasuredError", "Results", "Verdict", "decided", "is_face",
    "learners", "percents", "ratio", "ratios", "scope", "spread", "studied",
]  # fmt: skip

Verdict = Literal["holds", "fails", "not measured"]
Results = Mapping[str, Outcome]

# A classifier is called robust if its typical sample needs almost what the optimal classifier's does, and brittle if it
# needs less than three quarters of that: medians over samples of ℓ2 / certified Bayes radius.
ROBUST, BRITTLE = 0.95, 0.75


class NotMeasuredError(Exception):
    """The results at hand do not decide the claim; the text says what is missing."""


@dataclass(frozen=True)
class Decision:
    """What a claim's function returns: whether it holds, its numbers as a sentence, and what it was measured on."""

    holds: bool
    numbers: str
    scope: str


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes
    ----------
    name : str
        For references.
    short : str
        In a few words.
    says : str
        What the paper says, in our words.
    where : str
        Section, table or figure of the paper.
    needs : tuple of str
        Experiments any of which may decide it, the usual one first.
    rule : str
        When it is said to hold.
    decide : callable
        Takes the results of `needs` that there are, at least one, by name, and raises NotMeasuredError where they lack
        what decides.
    """

    name: str
    short: str
    says: str
    where: str
    needs: tuple[str, ...]
    rule: str
    decide: Callable[[Results], Decision]


def decided(holds: bool, numbers: str, scope: str) -> Decision:
    """A decision whose sentences end as sentences do."""
    return Decision(bool(holds), numbers if numbers.endswith(".") else f"{numbers}.", scope)


def studied(results: Results, *kinds: str) -> list[SetNumbers]:
    """The data sets of all studies among the results that have a learner of each of these kinds.

    Raises
    ------
    NotMeasuredError
        If there is none.
    """
    sets = [s for result in results.values() if isinstance(result, StudyOutcome) for s in result.sets]
    found = [s for s in sets if all(any(learner.kind == kind for learner in s.learners) for kind in kinds)]
    if not found:
        raise NotMeasuredError(f"no data set in {', '.join(results)} was learned by: {', '.join(kinds)}")
    return found


def learners(sets: list[SetNumbers], kind: str) -> Iterator[tuple[SetNumbers, LearnerNumbers]]:
    """Each learner of a kind, with its data set."""
    return ((s, learner) for s in sets for learner in s.learners if learner.kind == kind)


def ratio(learner: LearnerNumbers) -> float:
    """Median of ℓ2 over the certified Bayes radius, under the attack that fools most samples."""
    return learner.strongest.median_ratio


def ratios(sets: list[SetNumbers], kind: str) -> list[tuple[SetNumbers, LearnerNumbers, float]]:
    """Each learner of a kind whose ratio is known.

    Raises
    ------
    NotMeasuredError
        If it is of none.
    """
    found = [(s, learner, ratio(learner)) for s, learner in learners(sets, kind)]
    found = [item for item in found if np.isfinite(item[2])]
    if not found:
        raise NotMeasuredError("no sample was fooled whose certified radius is known")
    return found


def scope(sets: list[SetNumbers], printed: Mapping[str, object] = paper.TABLE1) -> str:
    """How many data sets and samples a decision rests on, and how many of the paper's those are."""
    names = {s.name for s in sets}
    of_paper = f", {len(names & set(printed))} of the paper's {len(printed)}" if printed else ""
    samples = sorted({s.n for s in sets})
    each = str(samples[0]) if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    return f"{len(names)} data set{'s' * (len(names) != 1)}{of_paper}; {each} test samples each"


def is_face(name: str) -> bool:
    """Whether a data set is one of CelebA's attributes."""
    return name.startswith("celeba-")


def spread(values: list[float], digits: int = 2) -> str:
    """The range of some numbers, as "0.41 to 0.52"."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def percents(shares: list[float], digits: int = 1) -> str:
    """The range of some shares of 1, in per cent without the sign."""
    low, high = percent(min(shares), digits), percent(max(shares), digits)
    return low if low == high else f"{low} to {high}"
