"""All comparisons in one table, in Markdown and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfakit._io.report import NOT_KNOWN, Table, number, write_text
from mfakit.bench import Measurement, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "what", "size", "beside", "mfakit\n(ms)", "theirs\n(ms)", "times\nfaster", "memory\nmfakit (MiB)",
    "memory\ntheirs (MiB)", "off the oracle\nmfakit", "off the oracle\ntheirs", "measure", "equal",
)  # fmt: skip


def table(report: Report) -> Table:
    """A row a comparison that was made; the others are in the report's notes."""
    return Table(COLUMNS, tuple(_row(case) for case in report.cases if case.skipped is None), labels=3)


def _row(case: Measurement) -> tuple[str, ...]:
    facts = case.facts
    peer, timed = facts["peer"], facts["peer"] in case.timings
    size = ", ".join(f"{name}={value:,}" for name, value in case.size.items())
    part = f" of {facts['part']}" if facts["part"] else ""
    difference = _scientific(facts["difference"])
    return (
        facts["task"], size, f"{peer} {facts['version']}".strip(), number(1e3 * case.best),
        number(1e3 * case.timings[peer].best) if timed else NOT_KNOWN,
        _times(case.ratios[peer]) if timed else NOT_KNOWN,
        _mebibytes(case.extra_bytes.get(case.name)),
        _mebibytes(case.extra_bytes.get(peer)) + (part if timed else ""),
        _scientific(facts["error"]["mfakit"]), _scientific(facts["error"][peer]), facts["measure"],
        "yes" if facts["equal"] else f"no, differs by {difference}: not timed",
    )  # fmt: skip


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}"


def _scientific(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.2g}"


def _mebibytes(n_bytes: int | None) -> str:
    return NOT_KNOWN if n_bytes is None else f"{n_bytes / 2**20:,.0f}"


def markdown(report: Report) -> str:
    """The table, what its bounds are, and the notes."""
    reasons = {}
    for case in report.cases:
        if case.skipped is None:
            key = (case.facts["task"], case.facts["equal_within"], case.facts["why_within"])
            reasons.setdefault(key, f"- {key[0]}: within {key[1]:.2g} ({key[2]})")
    bounds, notes = "\n".join(reasons.values()), "\n".join(f"- {line}" for line in report.notes.splitlines())
    loads = [case.facts["load"] for case in report.cases if case.skipped is None and case.facts["load"] is not None]
    load = f" The machine's load was {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return (
        "# Beside other libraries\n\n"
        "Times are those of the quickest of the interleaved rounds in one process. A library that does not compute\n"
        f"the same thing is not timed. Memory is what a call adds to the process.{load}\n\n"
        f"{table(report).markdown()}\n\nHow equal the two must be:\n\n{bounds}\n\n"
        f"Not measured, and where the rest was:\n\n{notes}\n"
    )


def draw(report: Report, folder: Path) -> None:
    """The Markdown and the picture beside the JSON."""
    write_text(folder / f"{report.benchmark}.md", markdown(report))
    timed = [case for case in report.cases if case.skipped is None and case.facts["peer"] in case.timings]
    if timed:
        picture(timed).savefig(folder / f"{report.benchmark}.png")


def picture(cases: list[Measurement]) -> Any:
    """How many times faster, and how far each is from the oracle, a line a comparison."""
    from mfakit.plots import common

    figure = common.new_figure(9.6, 0.9 + 0.24 * len(cases))
    with common.styled():
        speed, error = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        rows = range(len(cases))
        ratios = [case.ratios[case.facts["peer"]] for case in cases]
        speed.barh(rows, [ratio - 1 for ratio in ratios], 0.7, left=1, color=common.BLUE)
        for row, ratio in zip(rows, ratios, strict=True):
            speed.text(max(ratio, 1), row, f" {_times(ratio)}", va="center", fontsize=7)
        speed.axvline(1, color=common.BLACK, linewidth=0.7)
        speed.set_xscale("log")
        speed.set_yticks(rows, [_label(case) for case in cases], fontsize=7)
        speed.set_xlabel("times faster than")
        speed.invert_yaxis()
        _errors(error, cases)
        handles, labels = error.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _label(case: Measurement) -> str:
    letters = ", ".join(f"{name} = {value:,}" for name, value in case.size.items())
    return f"{case.facts['peer']}: {case.facts['task']}\n{letters}"


def _errors(axes: Axes, cases: list[Measurement]) -> None:
    from mfakit.plots import common

    for name, color, mark in (("mfakit", common.BLUE, "o"), ("theirs", common.VERMILION, "s")):
        key = [name if name == "mfakit" else case.facts["peer"] for case in cases]
        values = [case.facts["error"][k] for case, k in zip(cases, key, strict=True)]
        points = [(abs(value), row) for row, value in enumerate(values) if value]
        axes.plot(*zip(*points, strict=True), mark, color=color, markersize=3.5, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("off the oracle, each in its own measure")
    axes.tick_params(axis="y", length=0)
