"""``mfakit fit-pair``: from images of two classes to a file that every command takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import idx, write_lists
from dataset_files import write_images as write_faces
from support import random_mfa

import mfakit
from mfakit.bayes.outliers import principal_step


def write_arrays(folder: Path, d: int = 64, n: int = 120) -> list[str]:
    """Samples of two mixtures, a file each."""
    for seed, name in enumerate(("cats", "dogs")):
        np.save(folder / f"{name}.npy", random_mfa(k=2, d=d, l=2, seed=seed).sample(n, rng=seed)[0])
    return ["cats.npy", "dogs.npy"]


def write_images(folder: Path, side: int = 8, n: int = 60) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for c, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir()
        for i in range(n):
            pixels = np.clip(rng.normal(80 + 90 * c, 30, (side, side)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(folder / name / f"{i:03d}.png")


def test_a_pair_of_arrays_goes_through_every_command(quiet, tmp_path: Path) -> None:
    files = write_arrays(tmp_path)
    words = ["fit-pair", "--data", *files, "--components", "2", "--factors", "2", "--out", "pairs", "--no-progress"]
    status, out, err = quiet(*words)
    assert (status, err) == (0, "")
    assert "2 components of 120 images and 2 components of 120 images, 64 values each" in out
    path = "pairs/cats-dogs.safetensors"
    pair = mfakit.BayesClassifier.load(tmp_path / path)
    X = np.concatenate([np.load(tmp_path / name) for name in files])
    assert pair.score(X, np.repeat([0, 1], 120)) == 1.0
    np.testing.assert_allclose(pair.priors, 0.5)
    # The asymmetric variant steps along the images' own direction, without the images.
    stored, given = (pair.symmetric().asymmetric(X_train) for X_train in (None, X))
    for a, b in zip(stored.mixtures, given.mixtures, strict=True):
        np.testing.assert_allclose(a.means, b.means, atol=1e-6)
    for command in (
        ("distances", path),
        ("distances", f"{path}:0", f"{path}:1"),
        ("sample", f"{path}:1", "--out", "s.npy", "-n", "3"),
        ("attack", path, "--samples", "4"),
        ("certify", path, "--samples", "4", "--variant", "asymmetric"),
        ("train", "linear-svm", path, "--samples", "40", "--out", "svm.safetensors"),
        ("reproduce", "bayes", "--pair", path, "--samples", "4", "--out", "results"),
    ):
        status, _, err = quiet(*command, "--no-progress")
        assert (status, err) == (0, ""), command
    assert (tmp_path / "results" / "bayes" / "result.json").is_file()
    for given_name, message in (
        (f"{path}:2", "has classes 0 to 1"),
        (path, "is a pair of mixtures: say which"),
    ):
        status, _, err = quiet("sample", given_name, "--out", "s.npy")
        assert status == 1
        assert message in err


def test_a_finished_pair_is_kept_and_another_fitted_anew(quiet, tmp_path: Path) -> None:
    files = write_arrays(tmp_path)
    words = ["fit-pair", "--data", *files, "--components", "1", "--factors", "1", "--max-iter", "5", "--no-progress"]
    assert "written" in quiet(*words)[1]
    path = tmp_path / "pairs" / "cats-dogs.safetensors"
    before = path.read_bytes()
    assert quiet(*words)[1] == "kept: pairs/cats-dogs.safetensors\n"
    assert path.read_bytes() == before
    assert "written" in quiet(*words, "--seed", "1")[1]
    np.save(tmp_path / "cats.npy", np.load(tmp_path / "cats.npy") + 1.0)
    assert "written" in quiet(*words, "--seed", "1")[1]
    path.write_bytes(path.read_bytes()[:100])
    status, out, err = quiet(*words, "--seed", "1")
    assert status == 0
    assert "fitted again" in err
    assert "written" in out


def test_checkpoints_of_a_pair(quiet, tmp_path: Path) -> None:
    files = write_arrays(tmp_path)
    words = ("fit-pair", "--data", *files, "--components", "2", "--factors", "2", "--no-progress", "--tol", "0")
    assert quiet(*words, "--max-iter", "4", "--out", "whole")[0] == 0
    for steps in ("2", "4"):
        assert quiet(*words, "--max-iter", steps, "--checkpoint", "states", "--out", "pairs")[0] == 0
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == [
        "cats-dogs-class0.safetensors", "cats-dogs-class1.safetensors"
    ]  # fmt: skip
    whole, kept = (mfakit.BayesClassifier.load(tmp_path / f / "cats-dogs.safetensors") for f in ("whole", "pairs"))
    for a, b in zip(whole.mixtures, kept.mixtures, strict=True):
        assert a.means.tobytes() == b.means.tobytes()


def test_components_of_each_class_and_a_tolerance(quiet, tmp_path: Path) -> None:
    files = write_arrays(tmp_path)
    words = ["fit-pair", "--data", *files, "--factors", "1", "--no-progress", "--components"]
    path = tmp_path / "pairs" / "cats-dogs.safetensors"
    status, out, err = quiet(*words, "2", "3", "--tol", "0", "--max-iter", "3")
    assert status == 0
    assert "2 components of 120 images and 3 components of 120 images" in out
    assert "has not converged" in err
    assert "tol is 0" in err
    assert [m.n_components for m in mfakit.BayesClassifier.load(path).mixtures] == [2, 3]
    # A large tolerance ends at the first step; other settings are fitted anew, one number stands for both.
    status, out, err = quiet(*words, "2", "3", "--tol", "1e9", "--max-iter", "3")
    assert (status, err) == (0, "")
    assert "written" in out
    assert "written" in quiet(*words, "2", "--tol", "1e9")[1]
    assert [m.n_components for m in mfakit.BayesClassifier.load(path).mixtures] == [2, 2]
    assert quiet(*words, "2", "2", "--tol", "1e9")[1] == "kept: pairs/cats-dogs.safetensors\n"


def test_other_images_of_the_same_name_are_fitted_anew(quiet, tmp_path: Path) -> None:
    """Another copy of a data set under the same root, as with clothes in MNIST's files."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 40), ("t10k", 4)):
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(n, dtype=np.uint8) % 2))
    words = (
        "fit-pair",
        "--mnist",
        "0",
        "1",
        "--data-root",
        ".",
        "--components",
        "1",
        "--factors",
        "1",
        "--no-progress",
    )
    for _ in range(2):
        for name, n in (("train", 40), ("t10k", 4)):
            images = rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)
            (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        assert "written" in quiet(*words)[1]
        assert quiet(*words)[1] == "kept: pairs/mnist-01.safetensors\n"


def test_images_that_pairs_share_are_decomposed_once(quiet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CelebA's attributes do; also where the first of them was fitted by an earlier run."""
    pytest.importorskip("PIL.Image")
    write_lists(tmp_path)
    write_faces(tmp_path / "img_align_celeba")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 192), dtype=np.uint8)
    labels = {"Male": np.arange(40) % 2, "Smiling": np.arange(40) // 20}
    monkeypatch.setattr(
        "mfakit.datasets.celeba.load_celeba",
        lambda root, name, **_: (pixels, labels[name], pixels[:4], labels[name][:4]),
    )
    asked = []

    def step(X: Any, direction: int, d: int) -> Any:
        asked.append(direction)
        return principal_step(X, direction, d)

    monkeypatch.setattr("mfakit.bayes.outliers.principal_step", step)
    words = ("--data-root", ".", "--components", "1", "--factors", "1", "--max-iter", "2", "--no-progress")
    assert quiet("fit-pair", "--celeba", "Male", *words)[0] == 0
    assert quiet("fit-pair", "--celeba", "Male", "Smiling", *words)[0] == 0
    assert asked == [39]
    pairs = [mfakit.BayesClassifier.load(tmp_path / "pairs" / f"celeba-{name}.safetensors") for name in labels]
    for name in ("outlier_mean", "outlier_step", "outlier_direction"):
        np.testing.assert_array_equal(pairs[0].extras[name], pairs[1].extras[name])
    expected = principal_step(pixels.astype(np.float32) / 255, 39)
    np.testing.assert_allclose(pairs[1].extras["outlier_step"], expected[1], rtol=1e-12, atol=1e-14)
    assert not np.array_equal(pairs[0].mixtures[0].means, pairs[1].mixtures[0].means)


def test_folders_of_images(quiet, tmp_path: Path) -> None:
    write_images(tmp_path)
    status, _, err = quiet("fit-pair", "--images", "cats", "dogs", "--components", "1", "--factors", "1")
    assert status == 0, err
    pair = mfakit.BayesClassifier.load(tmp_path / "pairs" / "cats-dogs.safetensors")
    assert pair.n_features == 64
    assert 0 < pair.mixtures[0].means.mean() < pair.mixtures[1].means.mean() < 1
    assert pair.metadata["fit_pair"]["shape"] == [8, 8, 1]
    pytest.importorskip("PIL.Image").fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "dogs" / "odd.png")
    status, _, err = quiet("fit-pair", "--images", "cats", "dogs")
    assert status == 1
    assert re.search(r"all images must have one size, but cats/000.png is 8x8 and dogs/odd.png is\s8x9", err)


@pytest.mark.data
def test_shipped_data_sets(quiet, tmp_path: Path) -> None:
    for source, name, d in (
        (("--mnist", "0", "6"), "mnist-06", 784),
        (("--cifar10", "3", "5"), "cifar10-35", 3072),
    ):
        words = ("fit-pair", *source, "--components", "2", "--factors", "1", "--max-iter", "1", "--no-progress")
        status, _, err = quiet(*words)
        assert status == 0
        assert "has not converged" in err
        assert mfakit.BayesClassifier.load(tmp_path / "pairs" / f"{name}.safetensors").n_features == d


@pytest.mark.data
def test_an_unknown_attribute_is_said_before_anything_is_fitted(quiet, tmp_path: Path) -> None:
    status, out, err = quiet("fit-pair", "--celeba", "Smiling", "Mal", "--components", "1")
    assert (status, out) == (1, "")
    assert re.search(r"no attribute 'Mal'; did you mean Male\?", err)
    assert list((tmp_path / "pairs").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mnist", "0"), "--mnist must name two different classes a pair, got 0"),
        (("--cifar10", "1", "1"), "--cifar10 must name two different classes a pair, got 1 1"),
        (("--data", "a.npy", "b.npy"), "no data file at a.npy"),
        (("--data", "cats.npy", "narrow.npy"), r"must hold X \[n, d\] of the same d, got \(120, 64\) and \(5, 3\)"),
        (("--images", "cats.npy", "none"), "cats.npy must be a folder of images .*; it is no folder"),
        (("--data", "cats.npy", "dogs.npy", "--download"), "--download: the files are named already"),
        (("--mnist", "0", "6", "--data-root", "empty"), "--data-root"),
        (("--data", "cats.npy", "dogs.npy", "--components", "1", "2", "3"), "one of each class, got 1 2 3"),
    ],
)
def test_bad_input_is_one_sentence(quiet, words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    write_arrays(tmp_path)
    np.save(tmp_path / "narrow.npy", np.zeros((5, 3)))
    (tmp_path / "empty").mkdir()
    status, out, err = quiet("fit-pair", *words)
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"mfakit: .*{message}.*\n", err), err


def test_real_images_beside_a_pairs_samples(quiet, tmp_path: Path) -> None:
    """Table 3: what learned from a pair is tested on images as well."""
    X, y = mfakit.datasets.load_bayes_pair("mnist-06").sample(50, rng=0)
    np.savez(tmp_path / "real.npz", X=X, y=y)
    np.savez(tmp_path / "narrow.npz", X=X[:, :5], y=y)
    np.savez(tmp_path / "others.npz", X=X, y=np.where(y == 1, 6, 0))
    words = ("train", "linear-svm", "mnist-06", "--samples", "100", "--out", "svm.safetensors", "--test-data")
    status, _out, _ = quiet(*words, "real.npz", "--json", "a.json")
    assert status == 0
    accuracy = json.loads((tmp_path / "a.json").read_text())["accuracy"]
    assert set(accuracy) == {"training", "test", "test data"}
    assert accuracy["test data"] == (mfakit.classifiers.load(tmp_path / "svm.safetensors").predict(X) == y).mean()
    status, _, err = quiet(*words, "narrow.npz")
    assert status == 1
    assert "narrow.npz must have the pair's 784 features, got 5" in err
    status, _, err = quiet(*words, "others.npz")
    assert status == 1
    assert "others.npz must have the pair's classes 0 to 1 as y, got [6]" in err


def test_a_pair_stands_for_its_two_mixtures(quiet) -> None:
    both = [
        quiet("distances", *models, "--smallest", "3")[:2] for models in (["mnist-06"], ["mnist-06:0", "mnist-06:1"])
    ]
    assert both[0] == both[1]
    assert both[0][0] == 0
