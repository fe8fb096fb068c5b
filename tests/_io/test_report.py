"""Tables, JSON, and files that are whole or absent."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mfakit._io.report import (
    Table,
    environment,
    jsonable,
    number,
    percent,
    replacing,
    write_json,
    write_text,
)


def test_numbers_and_shares_as_text() -> None:
    assert [number(2.345), number(2, 3), number(None), number(float("nan"))] == ["2.35", "2.000", "–", "–"]
    assert [percent(1.0), percent(0.5), percent(None), percent(0.123456, 2)] == ["100.0", "50.0", "–", "12.35"]
    assert [percent(0.9999), percent(0.99999, 0)] == ["99.9", "99"]  # not all is not 100%


def test_a_table_lines_up_on_the_terminal_and_parses_as_markdown() -> None:
    table = Table(("name", "distance\nℓ2"), (("a|b", "1.00"), ("", ""), ("longer", "12.34")))
    lines = table.terminal().split("\n")
    assert [len(line) for line in lines if line][1:] == [16, 16, 16, 16]
    assert lines[3].startswith("a|b")
    assert lines[3].endswith("    1.00")
    assert lines[4] == ""
    assert table.markdown().split("\n") == [
        "| name | distance ℓ2 |",
        "| --- | ---: |",
        r"| a\|b | 1.00 |",
        "| longer | 12.34 |",
    ]
    with pytest.raises(ValueError, match="every row must have 2 cells, got one of 1"):
        Table(("a", "b"), (("1",),))


@dataclass
class Point:
    x: float
    where: Path


def test_json_has_no_nan_and_no_arrays(tmp_path: Path) -> None:
    value = {"p": Point(float("inf"), tmp_path), "a": np.array([1.0, np.nan]), "n": np.int64(3), 4: (True, None)}
    assert jsonable(value) == {"p": {"x": None, "where": str(tmp_path)}, "a": [1.0, None], "n": 3, "4": [True, None]}
    write_json(tmp_path / "v.json", value)
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8")) == jsonable(value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_written_files_have_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "f.txt", "text")
    (tmp_path / "usual").touch()
    assert (tmp_path / "f.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_environment_says_what_numbers_depend_on() -> None:
    found = environment()
    assert {"mfakit", "python", "numpy", "scipy", "blas", "backend", "threads", "processor", "system"} == set(found)
    json.dumps(found)
