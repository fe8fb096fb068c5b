"""Which of the paper's claims hold, from the results that other experiments have left in the folder.

Nothing is run: ``mfakit reproduce claims --out OUT`` reads what is in OUT, and says of each claim that it holds, fails
or is not measured, with its numbers.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

from ..._io.messages import one_line
from ..._io.report import Table
from ..collection import Collection, collect
from ..outcome import Context, Outcome
from .claim import Claim, NotMeasuredError, Verdict
from .statements import CLAIMS

__all__ = ["CLAIMS", "Claim", "Config", "Finding", "Result", "evaluate", "run"]

EXAMPLE = "--out results"
QUICK: dict[str, object] = {}
FULL = QUICK


@dataclass(frozen=True)
class Config:
    """Nothing can be set: what is read is the folder of the results."""


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes
    ----------
    name, short, says, where, rule
        As of the :class:`Claim`.
    verdict : {"holds", "fails", "not measured"}
    numbers : str
        One or two sentences; why not, if it is not measured.
    scope : str
        What it was measured on; empty if it was not.
    read : tuple of str
        The experiments whose results were read.
    """

    name: str
    short: str
    says: str
    where: str
    rule: str
    verdict: Verdict
    numbers: str
    scope: str
    read: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Outcome):
    """All claims."""

    title: ClassVar[str] = "The paper's claims"

    config: Config
    findings: tuple[Finding, ...]

    def tables(self) -> dict[str, Table]:
        """The verdicts in short."""
        rows = tuple((f.short, f.where, f.verdict) for f in self.findings)
        return {"": Table(("claim", "where", "verdict"), rows, labels=3)}

    @property
    def notes(self) -> str:
        """The numbers of each claim."""
        return " ".join(self._said(f) for f in self.findings)

    def _said(self, f: Finding) -> str:
        on = f" ({f.scope})" if f.scope else ""
        return f"{f.short}: {f.verdict}{on}. {f.numbers}"


def evaluate(collection: Collection) -> tuple[Finding, ...]:
    """Every claim of :data:`CLAIMS`, from the results at hand."""
    return tuple(_evaluate(claim, collection) for claim in CLAIMS)


def _evaluate(claim: Claim, collection: Collection) -> Finding:
    results = {name: collection.found[name] for name in claim.needs if name in collection.found}
    verdict: Verdict = "not measured"
    scope = ""
    try:
        if not results:
            raise NotMeasuredError(_why_not(claim, collection))
        decision = claim.decide(results)
    except NotMeasuredError as reason:
        numbers = _sentence(str(reason))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A file that decodes may still be edited: classifiers without attacks, arrays of other lengths.
        numbers = _sentence(f"the numbers of {', '.join(results)} do not fit together: {one_line(error)}")
    else:
        verdict, numbers, scope = "holds" if decision.holds else "fails", decision.numbers, decision.scope
    about = (claim.name, claim.short, claim.says, claim.where, claim.rule)
    return Finding(*about, verdict, numbers, scope, tuple(results))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _why_not(claim: Claim, collection: Collection) -> str:
    """What is missing, and which experiment would measure it."""
    damaged = [f"the result of {name} cannot be read ({collection.damaged[name]})" for name in claim.needs
               if name in collection.damaged]  # fmt: skip
    known = [name for name in claim.needs if name in collection.missing or name in collection.damaged]
    how = f"to measure it: mfakit reproduce {known[0]}" if known else f"this version has no {claim.needs[0]}"
    return "; ".join([*damaged, how])


def run(config: Config, context: Context) -> Result:
    """Read the results in the context's folder."""
    return Result(config=config, findings=evaluate(collect(context.out)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""
