"""What a benchmark case is: data, and one function that builds and checks its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .runner import Machine

__all__ = ["SIZES", "Case", "Size", "Skipped", "Timed", "Work"]


class Size(NamedTuple):
    """Samples, features, components, factors, and subspaces on each side where distances are measured."""

    n: int
    d: int
    k: int
    l: int
    subspaces: int = 4


SIZES = {
    "tiny": Size(64, 40, 4, 2),
    "digits": Size(20_000, 784, 50, 6, 1000),
    "faces": Size(4096, 12_288, 100, 10, 150),
    "digits-gpu": Size(1_000_000, 784, 50, 6, 2000),
    "faces-gpu": Size(65_536, 12_288, 200, 10, 2000),
}


class Skipped(Exception):
    """A case that cannot run here; the text says why, and stands in the report."""


@dataclass(frozen=True)
class Timed:
    """One candidate of a case.

    Attributes
    ----------
    run : callable
        One call of it is timed.
    work : float
        How much of the case's work a call does: 10 for ten steps in a row, 0.1 for a tenth of the samples. Its time is
        divided by it.
    less : callable or None
        Timed just before, and subtracted: the part of the call that is not meant, such as its set-up.
    during : callable
        A context that holds while the call is timed.
    """

    run: Callable[[], Any]
    work: float = 1.0
    less: Callable[[], Any] | None = None
    during: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Work:
    """A case built, and checked.

    Attributes
    ----------
    run : Timed
        What the case is about.
    error : float
        How far its result is from what the case is checked against, in the case's own measure.
    items, unit : int, str
        What is counted, such as samples or pairs.
    flops, n_bytes : float
        What it cannot avoid: operations of its products, and bytes read and written once. 0 where that says nothing.
    beside : mapping of str to Timed
        What it is compared with, such as the bare product, and timed in turn with.
    facts : mapping
        What else was found, in JSON's types.
    """

    run: Timed
    error: float
    items: int = 1
    unit: str = "calls"
    flops: float = 0.0
    n_bytes: float = 0.0
    beside: Mapping[str, Timed] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What is measured, and what it must meet.

    Attributes
    ----------
    name : str
        Unique within a size.
    make : callable
        ``make(case, machine)``: the :class:`Work`. Raises :class:`Skipped` where it cannot run.
    size : mapping
        The numbers that its time depends on, by their letters.
    dtype : str
        Of the input.
    against : str
        What the result is checked against, in words.
    allowed : float
        The largest error at which it is timed at all.
    limit, bandwidth : str or None
        Which of the measured limits bounds its operations, and its bytes; see :class:`mfakit.bench.Limits`.
    where : {"anywhere", "host", "device"}
        Which machines run it.
    rounds : int or None
        Timed calls; None takes the run's number.
    warm_up : bool
        Whether each candidate is called once before it is timed.
    slow : bool
        Left out unless asked for: it takes minutes.
    """

    name: str
    make: Callable[[Case, Machine], Work]
    size: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    against: str = "float64"
    allowed: float = 1e-4
    limit: str | None = None
    bandwidth: str | None = None
    where: str = "anywhere"
    rounds: int | None = None
    warm_up: bool = True
    slow: bool = False
