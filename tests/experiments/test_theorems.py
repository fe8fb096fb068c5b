"""The experiments on theorems: what they write, that numbers repeat, and what they show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mfakit
from mfakit.backends import why_missing
from mfakit.cli import main
from mfakit.experiments import fig3, load_experiment, load_result, reproduce, theorems

compiled = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


SIGMAS = (0.1, 0.0003)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[theorems.Result, Path]:
    out = tmp_path_factory.mktemp("results")
    result = reproduce("theorems", pairs=("mnist-06",), n=4, sigmas=SIGMAS, out=out, progress=False)
    assert isinstance(result, theorems.Result)
    return result, out / "theorems"


@compiled
def test_the_limits_are_reached(found: tuple[theorems.Result, Path]) -> None:
    (r,) = found[0].results
    assert r.theorem1.share[-1] == r.theorem2.share_half_distance[-1] == r.theorem3.share_close[-1] == 1.0
    assert r.theorem3_both.mean_upper[-1] > r.theorem3.mean_upper[-1]
    assert r.gaps is not None
    assert r.gaps.mean_gap[0] > 100 * r.gaps.mean_gap[-1]


@compiled
def test_files_hold_what_is_printed(found: tuple[theorems.Result, Path]) -> None:
    results, out = found
    again = load_result("theorems", out.parent)
    assert again.markdown() == results.markdown()
    assert json.loads((out / "result.json").read_text())["config"]["sigmas"] == list(SIGMAS)
    text = (out / "result.md").read_text()
    for heading, table in results.tables().items():
        assert f"## {heading}" in text
        assert table.markdown() in text
        assert max(map(len, table.terminal().split("\n"))) <= 100


@compiled
def test_pictures_are_drawn(found: tuple[theorems.Result, Path]) -> None:
    image = pytest.importorskip("matplotlib.image")
    for what in ("theorem1", "theorem2", "theorem3"):
        pixels = image.imread(found[1] / f"mnist-06-{what}.png")
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels[..., 0])) > 20
    assert not list(found[1].glob(".*"))


@compiled
def test_the_same_seed_gives_the_same_numbers(found: tuple[theorems.Result, Path]) -> None:
    """A pair's numbers depend on the seed and its name, and not on which other pairs are run."""
    base = mfakit.datasets.load_bayes_pair("mnist-06")
    for seed in (0, 1):
        again = mfakit.theory.validate_theorem2(base, 4, sigmas=SIGMAS, rng=[seed, *b"mnist-06"])
        same = np.isclose(again.lower, found[0].results[0].theorem2.lower, rtol=1e-9)
        assert same.all() if seed == 0 else not same.any()


def test_discrete_tables_are_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "fig3", "--samples", "3", "--levels", "60", "--points", "5", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "as drawn" in printed
    assert max(map(len, printed.replace(str(tmp_path), "").split("\n"))) <= 100
    found = load_result("fig3", tmp_path)
    assert isinstance(found, fig3.Result)
    assert found.config == fig3.Config(points=5, levels=60, n=3)
    assert found.sweep.one_level.mean(axis=1)[-1, 0] > 0.99
    assert np.isnan(found.sweep.concentrations[0])
    text = (tmp_path / "fig3" / "result.md").read_text()
    assert all(table.markdown() in text for table in found.tables().values())


def test_discrete_tables_are_drawn(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    reproduce("fig3", points=8, levels=20, n=2, metric="single", out=tmp_path)
    for name in ("planes", "quantization", "lemma-a2"):
        assert image.imread(tmp_path / "fig3" / f"{name}.png").std() > 0


def test_bad_arguments() -> None:
    assert load_experiment("theorems") is theorems
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        theorems.Config(n=0)
    with pytest.raises(ValueError, match="sigmas must fall"):
        theorems.Config(sigmas=(0.1, 0.2))
    with pytest.raises(ValueError, match="no shipped pair"):
        reproduce("theorems", pairs=("nope",))
    for experiment in (theorems, fig3):
        with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
            experiment.Config(seed=-1)
    with pytest.raises(ValueError, match="levels"):
        fig3.Config(levels=0)


def test_folders_are_looked_at_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(mfakit.theory, "validate_lemma_a2", None)  # calling it would be another error
    with pytest.raises(NotADirectoryError, match="there is a file in its place"):
        reproduce("fig3", out=tmp_path / "file")
