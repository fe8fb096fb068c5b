"""The notebooks under examples/ run from top to bottom, show pictures, and carry no outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(cells: list[dict[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """The names that the cells leave, and the value of each cell's last line, as a notebook shows it."""
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    return names, shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_shows_pictures(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names, shown = run(cells)
    pictures = [value._repr_png_() for value in shown if hasattr(value, "_repr_png_")]
    tables = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(tables) >= 1
    if path.stem == "certified_robustness":
        assert names["gap"] < 1e-3
        assert names["ratio"].mean() < 0.7
    else:
        assert names["score"] > names["of_noise"]
        hidden = names["hidden"]
        np.testing.assert_allclose(names["filled"][:, ~hidden], names["held_out"][:6][:, ~hidden], atol=1e-6)
        assert np.abs(names["filled"] - names["held_out"][:6])[:, hidden].mean() < 0.2


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["certified_robustness", "fit_score_impute"]
