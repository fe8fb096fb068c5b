"""What a benchmark found, as a table and as JSON, of one layout for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._io import report
from .limits import Limits
from .provenance import sentence

__all__ = ["SCHEMA", "Measurement", "Report", "Timing", "read_report"]

SCHEMA = "mfakit-bench-1"


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate, all rounds; see :class:`mfakit.bench.Timed`."""

    rounds: list[float]
    less: list[float] | None = None
    work: float = 1.0

    @property
    def best(self) -> float:
        """Seconds for the case's work: of the quickest round, for other processes only ever make one longer."""
        return (min(self.rounds) - (0.0 if self.less is None else min(self.less))) / self.work


@dataclass(frozen=True)
class Measurement:
    """One case.

    Attributes
    ----------
    name, size, dtype, against, allowed
        As in :class:`mfakit.bench.Case`.
    skipped : str or None
        Why nothing was measured.
    error : float or None
        How far the result was from what it was checked against.
    items, unit, flops, n_bytes, facts
        As in :class:`mfakit.bench.Work`.
    limit_seconds : float or None
        What the machine's measured limits would allow.
    timings : mapping of str to Timing
        Under the case's own name what it is about, and what was timed in turn with it.
    extra_bytes : mapping of str to int or None
        By candidate, how far its first call raised the memory of the process; on a device, the memory held there.
    """

    name: str
    size: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    against: str = "float64"
    allowed: float = 0.0
    skipped: str | None = None
    error: float | None = None
    items: int = 1
    unit: str = "calls"
    flops: float = 0.0
    n_bytes: float = 0.0
    limit_seconds: float | None = None
    timings: Mapping[str, Timing] = field(default_factory=dict)
    extra_bytes: Mapping[str, int | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """Seconds of the quickest round."""
        return self.timings[self.name].best

    @property
    def share(self) -> float | None:
        """Of the limit, 1 at best; None without one."""
        return None if self.limit_seconds is None else self.limit_seconds / self.best

    @property
    def ratios(self) -> dict[str, float]:
        """By what it is compared with, that one's best time over this one's: above 1, this one is quicker."""
        return {name: timing.best / self.best for name, timing in self.timings.items() if name != self.name}

    def to_json(self) -> dict[str, Any]:
        """The fields, and for readers of the file what follows from them."""
        found: dict[str, Any] = report.jsonable(self)
        for name, timing in self.timings.items():
            found["timings"][name]["best"] = timing.best
        return found if self.skipped else {**found, "share": self.share, "ratios": self.ratios}


@dataclass(frozen=True)
class Report:
    """All cases of a benchmark, and where they were measured."""

    benchmark: str
    provenance: dict[str, Any]
    limits: Limits | None
    cases: list[Measurement]

    def table(self) -> report.Table:
        """A row per case that was measured."""
        columns = (
            "case", "size", "best\n(ms)", "rate\n(1/s)", "TFLOP/s", "of its limit\n(%)", "extra memory\n(MiB)",
            "times faster than",
        )  # fmt: skip
        rows = []
        for case in self.cases:
            if case.skipped is None:
                held = case.extra_bytes.get(case.name)
                flops = case.flops / case.best / 1e12 if case.flops else None
                rows.append((
                    case.name, ", ".join(f"{letter}={_short(value)}" for letter, value in case.size.items()),
                    report.number(1e3 * case.best), f"{case.items / case.best:,.0f} {case.unit}", report.number(flops),
                    report.percent(case.share), report.NOT_KNOWN if held is None else f"{held / 2**20:,.0f}",
                    ", ".join(f"{name} {ratio:.3g}" for name, ratio in case.ratios.items()) or report.NOT_KNOWN,
                ))  # fmt: skip
        return report.Table(columns, tuple(rows), labels=2)

    @property
    def notes(self) -> str:
        """What was not measured, the limits and the provenance, a line each."""
        lines = [f"{case.name}: not measured, {case.skipped}" for case in self.cases if case.skipped is not None]
        lines += [] if self.limits is None else [self.limits.sentence]
        return "\n".join([*lines, sentence(self.provenance)])

    def to_json(self) -> dict[str, Any]:
        """The layout of all result files."""
        return {
            "schema": SCHEMA, "benchmark": self.benchmark, "sentence": sentence(self.provenance),
            "provenance": self.provenance, "limits": report.jsonable(self.limits),
            "cases": [case.to_json() for case in self.cases],
        }  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def read_report(path: Path) -> Report:
    """Read what :meth:`Report.to_json` gave.

    Raises
    ------
    ValueError
        A file of another layout.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path} must be a benchmark's result of layout {SCHEMA}, got {schema!r}; measure it again")
    limits = None if found["limits"] is None else Limits(**found["limits"])
    return Report(found["benchmark"], found["provenance"], limits, [_measurement(case) for case in found["cases"]])


def _measurement(found: dict[str, Any]) -> Measurement:
    kept = {name: value for name, value in found.items() if name not in ("share", "ratios", "timings")}
    timings = {name: Timing(t["rounds"], t["less"], t["work"]) for name, t in found["timings"].items()}
    return Measurement(**kept, timings=timings)
