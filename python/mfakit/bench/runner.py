"""Times cases: each is checked, warmed up, and timed in turn with what it is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._io.progress import open_bar
from ..backends import Backend, get_arrays, get_backend
from .cases import Case, Skipped, Timed, Work
from .limits import Limits, least_seconds, measure_limits
from .memory import extra_memory
from .provenance import provenance
from .results import Measurement, Report, Timing

__all__ = ["REST", "Machine", "run_cases"]

# For how long BLAS's threads stay awake after a product, and more, seconds: they would slow what is timed next.
REST = 0.25


class Machine:
    """Where cases run, and how a call is timed there.

    Attributes
    ----------
    backend : str
        As in :class:`mfakit._arrays.options.Options`.
    ops_name : str
        Whose kernels that means here.
    arrays : Host or Cuda
        Who holds and multiplies arrays.
    engine : object or None
        The device's; None on the host.
    rest : float
        Pause before each timed call on the host, seconds.
    """

    def __init__(self, backend: Backend = "auto", rest: float = REST) -> None:
        self.backend = backend
        ops = get_backend(backend)
        self.ops_name = ops.__name__.rpartition(".")[2].removesuffix("_ops")
        self.arrays: Any = get_arrays(ops)
        self.engine = getattr(self.arrays, "engine", None)
        self.rest = 0.0 if self.arrays.is_device else rest
        self._kept: tuple[Any, Any] = (None, None)

    @property
    def device(self) -> str | None:
        """The accelerator's name."""
        return None if self.engine is None else str(self.engine.name)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What cases in a row share: made for the first of them, and dropped when another key is asked for."""
        if self._kept[0] != key:
            self._kept = (None, None)
            self._kept = (key, make())
        return self._kept[1]

    def seconds(self, run: Callable[[], Any]) -> float:
        """Of one call: on a device by its own events, else by the clock, after a rest."""
        if self.engine is not None:
            self.engine.synchronize()
            if hasattr(self.engine, "event_seconds"):
                return float(self.engine.event_seconds(run))
        time.sleep(self.rest)
        start = time.perf_counter()
        run()
        if self.engine is not None:
            self.engine.synchronize()
        return time.perf_counter() - start

    def interleaved(self, candidates: Mapping[str, Timed], rounds: int, warm_up: bool = True) -> dict[str, Timing]:
        """All rounds of each candidate, in turn within each round, because a machine's speed drifts."""
        for timed in candidates.values() if warm_up else ():
            timed.run()
        found = {name: Timing([], None if timed.less is None else [], timed.work) for name, timed in candidates.items()}
        for _ in range(rounds):
            for name, timed in candidates.items():
                with timed.during():
                    if timed.less is not None:
                        found[name].less.append(self.seconds(timed.less))  # type: ignore[union-attr]
                    found[name].rounds.append(self.seconds(timed.run))
        return found

    def extra_bytes(self, run: Callable[[], Any]) -> int | None:
        """How far a call raises this process's memory, or what is held on the device at most since the last one."""
        if self.engine is None:
            return extra_memory(run)
        self.arrays.release()
        run()
        return int(self.engine.used_bytes())


def run_cases(
    benchmark: str, cases: Iterable[Case], machine: Machine, *, rounds: int = 5, limits: Limits | None = None,
    seconds: float | None = None, slow: bool = False, progress: bool | None = None, source: Path | None = None,
    save: Callable[[Report], None] | None = None, earlier: Report | None = None,
) -> Report:  # fmt: skip
    """Check and time cases, one after the other.

    Parameters
    ----------
    benchmark : str
        The report's name.
    cases : iterable of Case
    machine : Machine
    rounds : int
        Timed calls of each candidate, after one that is not counted.
    limits : Limits or None
        What shares are taken of; None measures them if a case asks for one.
    seconds : float or None
        No case begins later than this; those left out are listed with that reason.
    slow : bool
        Whether cases that take minutes are run.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.
    source : Path or None
        A file of the checkout that is measured, for the commit.
    save : callable or None
        Called with the report after each case: what is measured is kept, whatever comes after it.
    earlier : Report or None
        What an earlier run measured in part. Its cases are kept, and not measured again, if they were measured with the
        same versions, commit, machine and day.

    Raises
    ------
    AssertionError
        A case whose result is further off than it may be.
    """
    here = "device" if machine.arrays.is_device else "host"
    chosen = [case for case in cases if case.where in ("anywhere", here)]
    deadline = None if seconds is None else time.monotonic() + seconds
    with machine.arrays.active():
        if limits is None and any(case.limit or case.bandwidth for case in chosen):
            limits = measure_limits(machine, rounds)
        report = Report(benchmark, provenance(machine.ops_name, machine.device, source), limits, [])
        kept = {} if earlier is None or earlier.provenance != report.provenance else _measured(earlier)
        for position, case in enumerate(open_bar(progress, chosen, desc=benchmark), 1):
            if _key(case) in kept:
                found = kept[_key(case)]
            elif case.slow and not slow:
                found = _skipped(case, "it takes minutes; ask for slow cases")
            elif deadline is not None and time.monotonic() > deadline:
                found = _skipped(case, f"the {seconds:.0f} s for this benchmark were used up")
            else:
                found = _measure(case, machine, limits, rounds)
            report = replace(report, cases=[*report.cases, found])
            if save is not None:
                later = [kept[_key(case)] for case in chosen[position:] if _key(case) in kept]
                save(replace(report, cases=[*report.cases, *later]))
    return report


def _key(case: Case | Measurement) -> tuple[Any, ...]:
    return case.name, case.dtype, *case.size.items()


def _measured(report: Report) -> dict[tuple[Any, ...], Measurement]:
    return {_key(case): case for case in report.cases if case.skipped is None}


def _skipped(case: Case, reason: str) -> Measurement:
    return Measurement(case.name, case.size, case.dtype, case.against, case.allowed, skipped=reason)


def _measure(case: Case, machine: Machine, limits: Limits | None, rounds: int) -> Measurement:
    try:
        work = case.make(case, machine)
    except Skipped as reason:
        return _skipped(case, str(reason))
    if not work.error <= case.allowed:  # NaN too
        raise AssertionError(
            f"{case.name} must be within {case.allowed:g} of {case.against}, and is off by {work.error:.2g}"
        )
    candidates = _candidates(case, work)
    # The first call of each is its warm-up, too.
    held = {name: machine.extra_bytes(timed.run) if case.warm_up else None for name, timed in candidates.items()}
    timings = machine.interleaved(candidates, case.rounds or rounds, warm_up=False)
    return Measurement(
        case.name, case.size, case.dtype, case.against, case.allowed, None, work.error, work.items, work.unit,
        work.flops, work.n_bytes, least_seconds(limits, case, work), timings, held, work.facts,
    )  # fmt: skip


def _candidates(case: Case, work: Work) -> dict[str, Timed]:
    if case.name in work.beside:
        raise ValueError(f"what {case.name} is compared with must have another name")
    return {case.name: work.run, **work.beside}
