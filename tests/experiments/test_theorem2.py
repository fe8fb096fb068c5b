"""Theorem 2 at scale: nested models, parts that are kept, and numbers that are those of the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mfakit
from mfakit import cli
from mfakit.backends import why_missing
from mfakit.experiments import load_result, reproduce, subspaces, theorem2

SMALL: dict[str, Any] = {"models": ("random-30", "mnist-06"), "ks": (1, 4, 40), "n": 6, "certified": 4}


@pytest.mark.skipif(why_missing("native") is not None, reason="certificates are compiled")
def test_numbers_are_those_of_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = reproduce("theorem2", out=tmp_path, **SMALL)
    assert [(p.model, p.d, p.k) for p in found.found] == [
        ("random-30", 30, 1), ("random-30", 30, 4), ("random-30", 30, 40),
        ("mnist-06", 784, 1), ("mnist-06", 784, 4), ("mnist-06", 784, 25),
    ]  # fmt: skip
    for p in found.found:
        D = mfakit.subspace_distances(*subspaces.open_sides(p.model, p.k, theorem2.FACTORS, 0, None))
        assert p.least == pytest.approx(D.min(), rel=1e-9)
        np.testing.assert_allclose(p.nearest, D.min(axis=1), rtol=1e-9)
        assert p.counts.sum() == p.k**2
        assert abs(p.median - np.median(D)) <= np.ptp(D) / 20 + np.diff(p.edges)[0]
        assert len(p.radii) == len(p.half_distances) == (6 if p.k <= 4 else 0)
        if len(p.radii):  # at σ = 0.01, what Theorem 2 promises in the limit
            assert p.radii.min() > 0.9 * p.least / 2
    for name in SMALL["models"]:
        least = [p.least for p in found.found if p.model == name]
        assert least == sorted(least, reverse=True)
    # Again, from what is kept alone.
    monkeypatch.setattr(theorem2, "_measure", None)
    monkeypatch.setattr(theorem2, "_certify", None)
    again: Any = reproduce("theorem2", out=tmp_path, **SMALL)
    assert again.tables()[""] == load_result("theorem2", tmp_path).tables()[""] == found.tables()[""]
    assert max(map(len, found.tables()[""].terminal().split("\n"))) <= 102


def test_smaller_pairs_are_the_first_of_larger_ones() -> None:
    large, small = (subspaces.open_sides("random-7", k, 2, 3, None) for k in (150, 40))
    for a, b in zip(large, small, strict=True):
        first = subspaces.first_of(a, 40)
        for name in ("weights", "means", "loadings", "noise_variance"):
            np.testing.assert_array_equal(getattr(first, name), getattr(b, name))
    assert np.abs(large[0].means - large[1].means).min() > 0


def test_neighbourhoods_are_local() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([center + 0.01 * rng.normal(size=(40, 12)) for center in 5 * np.eye(12)[:3]]).astype(np.float32)
    means, loadings = (np.concatenate(part) for part in zip(*subspaces._neighbourhoods(X, 9, 2, 0), strict=True))
    assert np.sort(np.linalg.norm(means[:, None] - 5 * np.eye(12)[:3], axis=2), axis=1)[:, 0].max() < 0.05
    assert np.linalg.norm(loadings, axis=1).max() < 0.05
    again = next(subspaces._neighbourhoods(X, 5, 2, 0))
    np.testing.assert_array_equal(again[0], means[:5])


def test_it_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "theorem2", "--models", "random-5", "--components", "1", "3", "--samples", "2"]
    assert cli.main([*words, "--certified", "1", "--out", str(tmp_path), "--no-progress"]) == 0
    assert "random-5" in capsys.readouterr().out
    config: Any = load_result("theorem2", tmp_path).config
    assert config == theorem2.Config(("random-5",), (1, 3), n=2, certified=1)


def test_bad_settings() -> None:
    for wrong, message in (
        ({"models": ()}, "models must name at least one"),
        ({"ks": ()}, "ks must rise"),
        ({"ks": (3, 3)}, "ks must rise"),
        ({"ks": (0,)}, r"ks\[0\] must be an integer of at least 1"),
        ({"n": 0}, "n must be an integer of at least 1"),
        ({"certified": 0}, "certified must be"),
        ({"sigma": 0.0}, "sigma must be"),
    ):
        with pytest.raises(ValueError, match=message):
            theorem2.Config(**wrong)  # type: ignore[arg-type]
    for name, message in (("random-x", "end in the number of features"), ("nope", "no shipped pair")):
        with pytest.raises(ValueError, match=message):
            reproduce("theorem2", models=(name,))
    assert theorem2.by_data_set(theorem2.Config(("random-3", "digits"))) == [
        theorem2.Config(("random-3",)), theorem2.Config(("digits",)),
    ]  # fmt: skip
