"""A benchmark's run: what an interrupted one measured is kept by the next."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import __main__ as benchmarks

from mfakit import bench


def test_a_run_goes_on_from_what_was_measured(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    made: list[str] = []

    def work(case: bench.Case, machine: bench.Machine) -> bench.Work:
        made.append(case.name)
        if case.name == "absent":
            raise bench.Skipped("it is not here")
        return bench.Work(bench.Timed(lambda: None), 0.0)

    cases = [bench.Case(name, work, {"n": n}) for name, n in (("a", 1), ("a", 2), ("absent", 1))]
    run = {"rounds": 1, "progress": False}
    first = bench.run_cases("some", cases[1:], bench.Machine("auto", rest=0.0), **run)
    path = tmp_path / "some.json"
    path.write_text(json.dumps(first.to_json()), encoding="utf-8")
    made.clear()
    saved: list[bench.Report] = []
    again = bench.run_cases(
        "some", cases, bench.Machine("auto", rest=0.0), **run, earlier=bench.read_report(path), save=saved.append
    )
    assert made == ["a", "absent"]
    # One that ends after its first case has not lost the second.
    assert [case.size["n"] for case in saved[0].cases] == [1, 2]
    assert [case.size["n"] for case in again.cases if case.skipped is None] == [1, 2]
    assert again.cases[1].to_json() == first.cases[0].to_json()
    other = replace(first, provenance={**first.provenance, "commit": "another"})
    made.clear()
    bench.run_cases("some", cases, bench.Machine("auto", rest=0.0), **run, earlier=other)
    assert made == ["a", "a", "absent"]


@pytest.mark.parametrize(("more", "measured"), [([], 2), (["--resume"], 1)])
def test_the_command_keeps_what_is_there_when_asked(monkeypatch: Any, tmp_path: Path, more: Any, measured: int) -> None:
    made: list[int] = []

    def work(case: bench.Case, machine: bench.Machine) -> bench.Work:
        made.append(1)
        return bench.Work(bench.Timed(lambda: None), 0.0)

    monkeypatch.setattr("benchmarks.imports.CASES", (bench.Case("one", work),))
    for flags in ([], more):
        assert benchmarks.main(["imports", "--folder", str(tmp_path), "--rounds", "1", *flags]) == 0
    assert len(made) == measured
