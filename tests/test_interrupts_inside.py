"""Ctrl-C inside the long parts of certificates, outliers and saving: it is heard between two pieces of work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import random_mfa

import mfakit
from mfakit._arrays import gram as _products
from mfakit._io import tensor_files as files
from mfakit.attacks import minimal_perturbation
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.attacks.minimal.pairs import PairTable
from mfakit.backends import why_missing
from mfakit.bayes import outliers

NATIVE = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str, int], list[int]]]:
    """``interrupting(owner, name, when)``: the `when`-th call of a function sends Ctrl-C to this process; how often it
    was called is counted in the list that is returned.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def install(owner: Any, name: str, when: int) -> list[int]:
        action, calls = getattr(owner, name), [0]

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == when:
                os.kill(os.getpid(), signal.SIGINT)
            return action(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
        return calls

    yield install
    signal.signal(signal.SIGINT, before)


def _pair(d: int = 20) -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(k=6, d=d, l=3, seed=s, spread=0.3) for s in (0, 1)])


@NATIVE
def test_the_kernel_of_certificates_is_called_for_some_samples_at_a_time(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mfakit import _native

    clf = _pair().symmetric(0.05)
    X, y = clf.sample(40, rng=0, dtype=np.float64)
    expected = minimal_perturbation(clf, X, y)
    monkeypatch.setattr("mfakit.attacks.gradient.walk.PART_SECONDS", 1e-9)  # every sample takes longer: one at a time
    calls = interrupting(_native, "certify", 5)
    with pytest.raises(KeyboardInterrupt):
        minimal_perturbation(clf, X, y, n_threads=1)
    assert calls == [5]
    again = minimal_perturbation(clf, X, y, n_threads=1)
    assert calls == [45]
    np.testing.assert_array_equal(again.lower, expected.lower)
    np.testing.assert_array_equal(again.upper, expected.upper)


@NATIVE
def test_blocks_of_large_models_are_small(interrupting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mfakit.attacks.minimal import attack as minimal

    clf = _pair().symmetric(0.05)  # 12 components of 4 columns, 20 features
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    expected = minimal_perturbation(clf, X, y, n_threads=1)
    monkeypatch.setattr(minimal, "PRODUCT_STEPS", 5 * 12 * 4 * 20)
    calls = interrupting(minimal, "push_until_flipped", 3)
    with pytest.raises(KeyboardInterrupt):
        minimal_perturbation(clf, X, y, n_threads=1)
    assert calls == [3]
    again = minimal_perturbation(clf, X, y, n_threads=1)
    assert calls == [7]
    np.testing.assert_allclose(again.lower, expected.lower, rtol=1e-10)
    np.testing.assert_allclose(again.upper, expected.upper, rtol=1e-9)


@NATIVE
def test_samples_that_are_searched_again_are_interrupted_between_two(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mfakit.attacks.minimal import shorten

    monkeypatch.setattr(shorten, "OPEN", -1.0)  # every bracket counts as open
    clf = _pair()
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    calls = interrupting(shorten, "_attack", 3)
    with pytest.raises(KeyboardInterrupt):
        minimal_perturbation(clf, X, y, n_threads=1)
    assert calls == [3]


def test_the_gram_matrix_of_the_coordinates_is_made_in_tiles(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_products, "TILE_STEPS", 2**12)
    clf, same = _pair(), _pair()
    calls = interrupting(_products.np, "zeros", 1)  # as the product begins
    with pytest.raises(KeyboardInterrupt):
        FactorCoordinates.of(clf)
    assert calls[0] >= 1
    assert clf._coordinates is None  # as it was
    np.testing.assert_array_equal(FactorCoordinates.of(clf).gram, FactorCoordinates.of(same).gram)


def test_a_product_in_tiles_is_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    A = np.random.default_rng(0).normal(size=(301, 40))
    for steps in (2**10, 2**18, 2**40):
        monkeypatch.setattr(_products, "TILE_STEPS", steps)
        np.testing.assert_allclose(_products.gram(A), A @ A.T, rtol=1e-12, atol=1e-12)
        lower = np.tril(np.ones((301, 301)))
        _products.add_gram(lower, A, 0.5)
        np.testing.assert_allclose(np.tril(lower), np.tril(1.0 + 0.5 * A @ A.T), rtol=1e-12, atol=1e-12)


@NATIVE
def test_the_table_of_pairs_is_made_in_chunks(interrupting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mfakit.attacks.minimal import pairs

    monkeypatch.setattr(pairs, "CHUNK", 8)
    q = FactorCoordinates.of(_pair())
    calls = interrupting(pairs, "_eigenpairs", 2)
    with pytest.raises(KeyboardInterrupt):
        PairTable.of(q)
    assert calls == [2]
    assert "pairs" not in q.cache


@pytest.mark.parametrize("n", [30, 3000])
def test_the_outliers_direction_is_interrupted_in_its_products(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(outliers, "BLOCK_VALUES", 2**12)
    monkeypatch.setattr(outliers, "PANEL", 8)
    X = np.random.default_rng(0).normal(size=(n, 40))
    clf = _pair(40)
    calls = interrupting(outliers, "add_gram", 3)
    with pytest.raises(KeyboardInterrupt):
        clf.asymmetric(X, direction=3)
    assert calls == [3]


def test_lanczos_gives_the_same_direction_and_is_interrupted(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 150)) * np.geomspace(3.0, 0.1, 150)
    dense_mean, dense = outliers.principal_step(X, 10)
    monkeypatch.setattr(outliers, "DENSE", 100)
    mean, step = outliers.principal_step(X, 10)
    np.testing.assert_array_equal(mean, dense_mean)
    np.testing.assert_allclose(step, dense, rtol=1e-9, atol=1e-10)
    calls = interrupting(outliers, "_lanczos", 1)
    with pytest.raises(KeyboardInterrupt):
        outliers.principal_step(X, 10)
    assert calls == [1]


def test_the_direction_of_the_mixtures_moments_by_either_method(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf = _pair(120)
    diagonal = mfakit.BayesClassifier(
        [m.replace(noise_variance=np.repeat(m.noise_variance[:, None], 120, axis=1)) for m in clf.mixtures]
    )
    dense = outliers.outlier_step(diagonal, None, 4)
    monkeypatch.setattr(outliers, "DENSE", 100)
    monkeypatch.setattr(outliers, "ROWS", 7)
    for other in (clf, diagonal):  # by the smaller matrix of an isotropic model, and by Lanczos' method
        for got, expected in zip(outliers.outlier_step(other, None, 4), dense, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
    weights = np.concatenate([0.5 * m.weights for m in clf.mixtures])
    means = np.concatenate([m.means for m in clf.mixtures])
    covariance = sum(0.5 * w * (A @ A.T + np.eye(120) * s) for m in clf.mixtures
                     for w, A, s in zip(m.weights, m.loadings, m.noise_variance, strict=True))  # fmt: skip
    centered = means - weights @ means
    values, vectors = np.linalg.eigh(covariance + (weights[:, None] * centered).T @ centered)
    expected_step = vectors[:, -4] * np.sqrt(values[-4])
    expected_step *= np.sign(expected_step[np.abs(expected_step).argmax()])
    np.testing.assert_allclose(dense[1], expected_step, rtol=1e-7, atol=1e-9)
    calls = interrupting(outliers, "_lanczos", 1)
    with pytest.raises(KeyboardInterrupt):
        diagonal.asymmetric(direction=4)
    assert calls == [1]


def test_lanczos_of_samples_that_span_fewer_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no tenth direction: a step of length 0, whichever way it is computed."""
    X = np.random.default_rng(0).normal(size=(400, 5)) @ np.random.default_rng(1).normal(size=(5, 150))
    monkeypatch.setattr(outliers, "DENSE", 100)
    for samples in (X, np.zeros((400, 150)), X[:120]):
        assert np.linalg.norm(outliers.principal_step(samples, 10)[1]) < 1e-6


@pytest.mark.parametrize("where", ["_parts", "_same_bytes"])
def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(
    interrupting: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 64)
    path = tmp_path / "model.safetensors"
    random_mfa(seed=0).save(path)
    before = path.read_bytes()
    other = random_mfa(seed=1)
    calls = interrupting(files, where, 3)
    with pytest.raises(KeyboardInterrupt):
        other.save(path)
    assert calls == [3]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other.save(path)
    np.testing.assert_array_equal(mfakit.MFA.load(path).means, other.means)


def test_a_file_written_by_parts_is_what_safetensors_writes(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(0)
    tensors = {
        "b": rng.normal(size=(3, 5)).astype(np.float32), "a": np.zeros((2, 0)), "é": np.array(7, np.int8),
        "wide": rng.normal(size=100), "bits": np.array([True, False]), "z": np.ones(3, np.complex64),
        "half": np.ones((2, 2), np.float16), "n": np.arange(5, dtype=np.uint16),
    }  # fmt: skip
    files.write_tensors(tmp_path / "ours", "test", tensors, {"a": 1})
    metadata = {"format": "mfakit", "version": "1", "kind": "test", "settings": '{"a": 1}'}
    save_file(tensors, tmp_path / "theirs", metadata=metadata)
    ours, theirs = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        np.testing.assert_array_equal(ours[name], value)
    read, settings = files.read_tensors(tmp_path / "ours", "test")
    assert settings == {"a": 1}
    assert read.keys() == theirs.keys()
