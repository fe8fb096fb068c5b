"""The main experiment: its promised outputs, its reproducibility, and the paper's central result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import n_colours

from mfakit.experiments import EXPERIMENTS, bayes, load_experiment


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[bayes.BayesReport, Path]:
    out = tmp_path_factory.mktemp("results") / "bayes"
    return bayes.run(["mnist-06", "mnist-45"], n=40, out=out, progress=False), out


def test_the_central_result(found: tuple[bayes.BayesReport, Path]) -> None:
    results, _ = found
    for sym, asym in zip(results.results[::2], results.results[1::2], strict=True):
        assert (sym.variant, asym.variant) == ("symmetric", "asymmetric")
        assert sym.accuracy == sym.success_rate == asym.success_rate == 1.0
        assert sym.below_bound == 0
        assert asym.mean_l2 < 0.8 < 2.0 < sym.mean_l2
        assert asym.predicted is not None
        assert abs(asym.mean_l2 / asym.predicted - 1) < 0.15
        assert 1.0 < sym.mean_l2 / sym.half_distance < 1.2
        assert asym.outlier_accuracy is not None
        if sym.certified_lower is not None:
            assert sym.certified_upper is not None
            assert sym.certified_lower <= sym.certified_upper <= sym.mean_l2


def test_json_and_markdown_hold_what_is_printed(found: tuple[bayes.BayesReport, Path]) -> None:
    results, out = found
    saved = json.loads((out / "bayes.json").read_text())
    assert set(saved) == {"results", "settings", "environment"}
    assert [r["mean_l2"] for r in saved["results"]] == [r.mean_l2 for r in results.results]
    assert {"mfakit", "python", "numpy", "backend", "threads", "processor"} <= set(saved["environment"])
    assert max(map(len, results.table().terminal().split("\n"))) <= 100
    lines = (out / "bayes.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + len(results.results) + 2  # title and rule, results, the paper's two rows


def test_pictures_are_drawn(found: tuple[bayes.BayesReport, Path]) -> None:
    image = pytest.importorskip("matplotlib.image")
    _, out = found
    for name in ("mnist-06-perturbations", "mnist-45-perturbations", "distances"):
        pixels = image.imread(out / f"{name}.png")
        assert min(pixels.shape[:2]) > 300
        assert n_colours(pixels) > 50
    assert not list(out.glob(".*"))  # nothing half-written is left


def test_the_same_seed_gives_the_same_numbers(found: tuple[bayes.BayesReport, Path]) -> None:
    again = bayes.run(["mnist-06"], n=40, progress=False).results
    for a, b in zip(found[0].results[:2], again, strict=True):
        assert (a.accuracy, a.success_rate) == (b.accuracy, b.success_rate)
        np.testing.assert_allclose([a.mean_l2, a.half_distance], [b.mean_l2, b.half_distance], rtol=1e-6)
    other = bayes.run(["mnist-06"], n=40, seed=1, progress=False).results
    assert other[0].mean_l2 != again[0].mean_l2


def test_registry_and_bad_arguments() -> None:
    for name in EXPERIMENTS:
        assert callable(load_experiment(name).run_command)
    with pytest.raises(ValueError, match="no experiment 'table9'; there are bayes"):
        load_experiment("table9")
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        bayes.run(n=0)
    with pytest.raises(ValueError, match="no shipped pair"):
        bayes.run(["nope"])
