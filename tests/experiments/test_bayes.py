"""The main experiment: its promised outputs, its reproducibility, and the paper's central result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import n_colours

from mfakit.experiments import EXPERIMENTS, bayes, load_experiment, load_result, reproduce
from mfakit.experiments.outcome import Context

QUIET = Context(progress=False)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[bayes.Result, Path]:
    out = tmp_path_factory.mktemp("results")
    result = reproduce("bayes", pairs=("mnist-06", "mnist-45"), n=40, out=out, progress=False)
    assert isinstance(result, bayes.Result)
    return result, out / "bayes"


def test_the_central_result(found: tuple[bayes.Result, Path]) -> None:
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


def test_json_and_markdown_hold_what_is_printed(found: tuple[bayes.Result, Path]) -> None:
    results, out = found
    saved = json.loads((out / "result.json").read_text())
    assert set(saved) == {"config", "results", "seconds", "environment"}
    assert [r["mean_l2"] for r in saved["results"]] == [r.mean_l2 for r in results.results]
    assert {"mfakit", "python", "numpy", "backend", "threads", "processor"} <= set(saved["environment"])
    assert max(map(len, results.tables()[""].terminal().split("\n"))) <= 100
    lines = (out / "result.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + len(results.results) + 2  # title and rule, results, the paper's two rows


def test_pictures_are_drawn(found: tuple[bayes.Result, Path]) -> None:
    image = pytest.importorskip("matplotlib.image")
    _, out = found
    for name in ("mnist-06-perturbations", "mnist-45-perturbations", "distances"):
        pixels = image.imread(out / f"{name}.png")
        assert min(pixels.shape[:2]) > 300
        assert n_colours(pixels) > 50
    assert not list(out.glob(".*"))  # nothing half-written is left


def test_the_same_seed_gives_the_same_numbers(found: tuple[bayes.Result, Path]) -> None:
    again = bayes.run(bayes.Config(("mnist-06",), n=40), QUIET).results
    for a, b in zip(found[0].results[:2], again, strict=True):
        assert (a.accuracy, a.success_rate) == (b.accuracy, b.success_rate)
        np.testing.assert_allclose([a.mean_l2, a.half_distance], [b.mean_l2, b.half_distance], rtol=1e-6)
    other = bayes.run(bayes.Config(("mnist-06",), n=40, seed=1), QUIET).results
    assert other[0].mean_l2 != again[0].mean_l2


def test_a_result_comes_back_with_its_pictures(found: tuple[bayes.Result, Path]) -> None:
    result, out = found
    again = load_result("fig14", out.parent)
    assert isinstance(again, bayes.Result)
    assert again.config == result.config
    assert again.markdown() == result.markdown()
    assert list(again.pictures()) == list(result.pictures()) == list(result.alt_texts())
    for a, b in zip(result.results, again.results, strict=True):
        np.testing.assert_array_equal(a.shown, b.shown)
        np.testing.assert_array_equal(a.changes.counts, b.changes.counts)


def test_registry_and_bad_arguments(tmp_path: Path) -> None:
    for name, experiment in EXPERIMENTS.items():
        module = load_experiment(name)
        assert callable(module.run)
        assert all(load_experiment(shown) is module for shown in experiment.shows)
        for scale in ("QUICK", "FULL"):
            module.Config(**getattr(module, scale))
    for changes, message in (
        ({"name": "table9"}, "no experiment 'table9'; there are fig1"),
        ({"n": 0}, "n must be an integer of at least 1"),
        ({"pairs": ("nope",)}, "no shipped pair"),
        ({"sample": 3}, "bayes has no setting sample; it has pairs"),
        ({"scale": "huge"}, "scale must be one of 'quick'"),
    ):
        with pytest.raises(ValueError, match=message):
            reproduce(**{"name": "bayes", "out": tmp_path / "out", **changes})
    assert list(tmp_path.rglob("result.*")) == []
