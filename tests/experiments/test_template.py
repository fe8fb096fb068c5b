"""The experiment to copy: a copy of its file, registered in one line, runs from Python and from the command line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mfakit import cli
from mfakit.experiments import EXPERIMENTS, Experiment, load_result, reproduce, template


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = tmp_path / "mine.py"
    path.write_text(Path(template.__file__).read_text())
    spec = importlib.util.spec_from_file_location("mfakit.experiments.mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mfakit.experiments.mine", module)
    monkeypatch.setitem(EXPERIMENTS, "mine", Experiment("what a copy of the template shows", shows=("fig99",)))
    spec.loader.exec_module(module)
    return module


def test_its_result_comes_back_from_its_folder(mine: ModuleType, tmp_path: Path) -> None:
    result = reproduce("fig99", n=4, sigmas=(0.05, 0.01), out=tmp_path)
    assert result.config == mine.Config(n=4, sigmas=(0.05, 0.01))
    again = load_result("mine", tmp_path)
    assert isinstance(again, mine.Result)
    assert (again.config, again.rows, again.seconds) == (result.config, result.rows, result.seconds)
    for row in again.rows:
        assert 0.0 < row.lower <= row.upper < 1.001 * row.lower
    assert reproduce("mine", n=4, sigmas=(0.05, 0.01)).rows == result.rows


def test_it_is_a_command(mine: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "mine", "--pair", "mnist-27", "--samples", "2", "--sigmas", "0.02", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    result = load_result("mine", tmp_path)
    assert result.config == mine.Config(("mnist-27",), 2, (0.02,))
    assert f"{result.rows[0].lower:.4f}" in capsys.readouterr().out


def test_a_wrong_configuration_is_said_before_the_work(mine: ModuleType) -> None:
    for wrong, message in (({"n": 0}, "n must be an integer of at least 1"), ({"sigmas": (1.0, -1.0)}, r"sigmas\[1\]")):
        with pytest.raises(ValueError, match=message):
            mine.Config(**wrong)
