"""What a comparison with another library is: data, and one function that makes a benchmark's case of it.

Both sides get the same inputs. What each gives is compared with the other's, and each with an oracle that neither of
them is; only a peer that computes the same thing is timed. One that does not, is missing or fails stands in the report
with its reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mfakit.bench import Case, Machine, Skipped, Timed, Work

from .libraries import Library, first_line


class Bound(NamedTuple):
    """How far off is still right, and why that far."""

    value: float
    reason: str


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes
    ----------
    timed : Timed
        Its call.
    result : Any
        What `Comparison.check` is given of it.
    part : str
        What a call is of, where it is not of all the samples; its memory is that of the part.
    """

    timed: Timed
    result: Any
    part: str = ""


@dataclass(frozen=True)
class Checked:
    """How far the two results are from each other, and each from the oracle, in the comparison's measure.

    Attributes
    ----------
    difference, ours, theirs : float
    facts : mapping
        What else was found.
    equal_unit, right_unit : float
        What the two bounds of the comparison are multiples of.
    """

    difference: float
    ours: float
    theirs: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    equal_unit: float = 1.0
    right_unit: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """What is computed, by whom, and what is equal.

    Attributes
    ----------
    task : str
        What is computed, in words.
    peer : Library
    size : mapping
        The keyword arguments of `inputs`.
    inputs : callable
        What both sides get. Comparisons in a row that have the same function and size share it.
    ours : callable
        ``ours(inputs)``: a :class:`Side`.
    theirs : callable
        ``theirs(inputs, module)``: a :class:`Side`, by the library's module.
    check : callable
        ``check(inputs, result of ours, result of theirs)``: :class:`Checked`.
    measure : str
        What the numbers of :class:`Checked` are.
    equal : Bound
        The largest difference at which the peer is timed, in units of `Checked.equal_unit`.
    right : Bound
        The largest distance of ours from the oracle, in units of `Checked.right_unit`; beyond it the benchmark fails.
    count, unit : str, str
        Which entry of `size` counts the work, and what is counted.
    dtype, rounds, slow
        As in :class:`mfakit.bench.Case`.
    """

    task: str
    peer: Library
    size: Mapping[str, Any]
    inputs: Callable[..., Any]
    ours: Callable[[Any], Side]
    theirs: Callable[[Any, Any], Side]
    check: Callable[[Any, Any, Any], Checked]
    measure: str
    equal: Bound
    right: Bound
    count: str = "n"
    unit: str = "samples"
    dtype: str = "float32"
    rounds: int | None = None
    slow: bool = False

    def case(self, checkouts: Mapping[str, Path]) -> Case:
        """The benchmark's case; `checkouts` has the folders of libraries that are not installed, by their names."""
        return Case(
            f"{self.task} beside {self.peer.name}", partial(compare, comparison=self, checkouts=checkouts), self.size,
            self.dtype, f"the oracle, {self.measure}", self.right.value, where="host", rounds=self.rounds,
            slow=self.slow,
        )  # fmt: skip


def compare(case: Case, machine: Machine, comparison: Comparison, checkouts: Mapping[str, Path]) -> Work:
    """Both sides on the same inputs; the peer's is among what is timed if it is equal."""
    peer, size = comparison.peer, case.size
    module, version = peer.load(checkouts)
    inputs = machine.kept((comparison.inputs, *size.items()), lambda: comparison.inputs(**size))
    ours = comparison.ours(inputs)
    try:
        with quiet():
            theirs = comparison.theirs(inputs, module)
    except Exception as error:  # whatever it is, it is not ours: the other comparisons go on
        name = f"{peer.name} {version}".strip()
        raise Skipped(f"{name} raised {type(error).__name__}: {first_line(error)}") from error
    found = comparison.check(inputs, ours.result, theirs.result)
    within = comparison.equal.value * found.equal_unit
    equal = bool(found.difference <= within)  # NaN is not
    facts = {
        "task": comparison.task, "peer": peer.name, "version": version, "measure": comparison.measure,
        "difference": found.difference, "equal": equal, "equal_within": within,
        "why_within": comparison.equal.reason, "why_right": comparison.right.reason,
        "error": {"mfakit": found.ours, peer.name: found.theirs},
        "part": theirs.part, "load": _load(), **found.facts,
    }  # fmt: skip
    beside = {peer.name: _silenced(theirs.timed)} if equal else {}
    error = found.ours / found.right_unit
    return Work(ours.timed, error, size[comparison.count], comparison.unit, beside=beside, facts=facts)


def _load() -> float | None:
    """Processes that want a core, of the last minute: beside others a time is no more than an upper bound."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what other libraries print and warn of."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _silenced(timed: Timed) -> Timed:
    def silent(call: Callable[[], Any] | None) -> Callable[[], Any] | None:
        return None if call is None else quiet()(call)

    return Timed(silent(timed.run), timed.work, silent(timed.less), timed.during)  # type: ignore[arg-type]
