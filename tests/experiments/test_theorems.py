"""The experiments on theorems: what they write, that numbers repeat, and what they show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mfakit
from mfakit.backends import why_missing
from mfakit.cli import main
from mfakit.experiments import load_experiment, quantization, theorems

compiled = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


SIGMAS = (0.1, 0.0003)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[theorems.TheoremsReport, Path]:
    out = tmp_path_factory.mktemp("results") / "theorems"
    return theorems.run(["mnist-06"], n=4, sigmas=SIGMAS, out=out, progress=False), out


@compiled
def test_the_limits_are_reached(found: tuple[theorems.TheoremsReport, Path]) -> None:
    (r,) = found[0].results
    assert r.theorem1.share[-1] == r.theorem2.share_half_distance[-1] == r.theorem3.share_close[-1] == 1.0
    assert r.theorem3_both.mean_upper[-1] > r.theorem3.mean_upper[-1]
    assert r.gaps is not None
    assert r.gaps.mean_gap[0] > 100 * r.gaps.mean_gap[-1]


@compiled
def test_files_hold_what_is_printed(found: tuple[theorems.TheoremsReport, Path]) -> None:
    results, out = found
    saved = json.loads((out / "theorems.json").read_text())
    assert set(saved) == {"results", "settings", "environment"}
    (numbers,) = saved["results"]
    (r,) = results.results
    assert numbers["theorem2"]["share_half_distance"] == r.theorem2.share_half_distance.tolist()
    assert numbers["theorem3"]["both"]["mean_upper"] == r.theorem3_both.mean_upper.tolist()
    assert numbers["gaps"]["mean_gap"] == r.gaps.mean_gap.tolist()
    text = (out / "theorems.md").read_text()
    for heading, table in r.tables().items():
        assert f"### {heading}" in text
        assert table.markdown() in text
        assert max(map(len, table.terminal().split("\n"))) <= 100


@compiled
def test_pictures_are_drawn(found: tuple[theorems.TheoremsReport, Path]) -> None:
    image = pytest.importorskip("matplotlib.image")
    for what in ("theorem1", "theorem2", "theorem3", "uncertified"):
        pixels = image.imread(found[1] / f"mnist-06-{what}.png")
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels[..., 0])) > 20
    assert not list(found[1].glob(".*"))


@compiled
def test_the_same_seed_gives_the_same_numbers(found: tuple[theorems.TheoremsReport, Path]) -> None:
    """A pair's numbers depend on the seed and its name, and not on which other pairs are run."""
    base = mfakit.datasets.load_bayes_pair("mnist-06")
    for seed in (0, 1):
        again = mfakit.theory.validate_theorem2(base, 4, sigmas=SIGMAS, rng=[seed, *b"mnist-06"])
        same = np.isclose(again.lower, found[0].results[0].theorem2.lower, rtol=1e-9)
        assert same.all() if seed == 0 else not same.any()


def test_quantization_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "quantization", "--samples", "3", "--levels", "60", "--out", str(tmp_path / "q")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "as drawn" in printed
    assert max(map(len, printed.replace(str(tmp_path), "").split("\n"))) <= 100
    saved = json.loads((tmp_path / "q" / "quantization.json").read_text())
    assert saved["settings"] == {"levels": 60, "n": 3, "metric": "l1", "seed": 0}
    assert np.mean(saved["sweep"]["one_level"], axis=1)[-1, 0] > 0.99
    assert saved["sweep"]["concentrations"][0] is None
    text = (tmp_path / "q" / "quantization.md").read_text()
    assert all(table.markdown() in text for table in quantization.run(levels=60, n=3).tables().values())
    assert (tmp_path / "q" / "quantization.md").is_file()


def test_quantization_draws(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    quantization.run(levels=30, n=2, metric="single", out=tmp_path)
    for name in ("quantization", "lemma-a2"):
        assert image.imread(tmp_path / f"{name}.png").std() > 0


def test_bad_arguments() -> None:
    assert load_experiment("theorems") is theorems
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        theorems.run(n=0)
    with pytest.raises(ValueError, match="no shipped pair"):
        theorems.run(["nope"])
    for experiment in (theorems, quantization):
        with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
            experiment.run(seed=-1)
    with pytest.raises(ValueError, match="levels"):
        quantization.run(levels=0)


def test_folders_are_looked_at_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(mfakit.theory, "validate_lemma_a2", None)  # calling it would be another error
    with pytest.raises(NotADirectoryError, match="there is a file in its place"):
        quantization.run(out=tmp_path / "file")
