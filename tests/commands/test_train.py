"""``mfakit train``: its example runs, tables tell training from test samples, bad input is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mfakit

pytest.importorskip("torch")

TINY = ("--width", "2", "--depth", "3", "--epochs", "1", "--device", "cpu")


def cells(out: str) -> dict[tuple[str, str], list[str]]:
    """The table's rows by their first two words."""
    rows = [line.split() for line in out.splitlines()]
    return {(row[0], row[1]): row[2:] for row in rows if len(row) == 4 and row[0] in ("training", "test")}


def test_the_first_example_of_its_help_runs(quiet: Any) -> None:
    status, out, _ = quiet("train", "--help")
    assert status == 0
    example = next(line.split() for line in out.splitlines() if line.strip().startswith("mfakit train"))
    status, out, err = quiet(*example[1:])
    assert (status, err) == (0, "")
    rows = cells(out)
    assert rows["training", "all"][0] == "500"
    assert rows["test", "all"][0] == "1000"
    assert float(rows["test", "all"][1]) > 95
    clf = mfakit.classifiers.load("cnn.safetensors")
    X, y = mfakit.datasets.load_bayes_pair("mnist-06").symmetric().sample(300, rng=5)
    assert clf.score(X, y) > 0.95


def test_it_is_the_classifier_of_the_same_arguments(quiet: Any) -> None:
    status, out, _ = quiet(
        "train", "cnn", "mnist-06", "--variant", "as-is", "--samples", "60", "--test-samples", "40", *TINY,
        "--seed", "3", "--out", "m.safetensors", "--json", "m.json",
    )  # fmt: skip
    assert status == 0
    assert "written: m.safetensors" in out
    pair = mfakit.datasets.load_bayes_pair("mnist-06")
    X, y = pair.sample(60, np.random.default_rng([3, 0]), balanced=True)
    clf = mfakit.classifiers.CNN(width=2, depth=3, epochs=1, random_state=3, device="cpu").fit(X, y)
    saved = mfakit.classifiers.load("m.safetensors")
    np.testing.assert_array_equal(saved.decision_function(X), clf.decision_function(X))
    numbers = json.loads(Path("m.json").read_text())
    assert numbers["accuracy"]["training"] == clf.score(X, y)
    assert numbers["accuracy"]["test"] == clf.score(*pair.sample(40, np.random.default_rng([3, 1]), balanced=True))
    assert numbers["history"] == clf.history_
    assert numbers["parameters"]["width"] == 2


def test_fresh_samples_and_trades(quiet: Any) -> None:
    status, out, _ = quiet(
        "train", "trades", "mnist-27", "--steps", "3", "--batch-size", "8", "--test-samples", "20", *TINY, "--norm",
        "linf", "--epsilon", "0.1", "--attack-steps", "2", "--beta", "2", "--out", "m.safetensors",
    )  # fmt: skip
    assert status == 0
    assert {key[0] for key in cells(out)} == {"test"}
    assert "after 3 steps" in out
    clf = mfakit.classifiers.load("m.safetensors")
    assert (clf.norm, clf.epsilon, clf.n_attack_steps, clf.beta) == ("linf", 0.1, 2, 2.0)


@pytest.mark.parametrize(("model", "options"), [("linear-svm", ("--C", "2")), ("rbf-svm", ("--gamma", "0.02"))])
def test_support_vector_machines(quiet: Any, model: str, options: tuple[str, str]) -> None:
    status, out, _ = quiet(
        "train", model, "mnist-06", "--samples", "80", "--test-samples", "40", *options, "--out", "m.safetensors"
    )
    assert status == 0
    assert float(cells(out)["test", "all"][1]) > 90
    clf = mfakit.classifiers.load("m.safetensors")
    assert getattr(clf, options[0][2:]) == float(options[1])
    status, _, err = quiet("train", model, "mnist-06", "--steps", "5", "--out", "n.safetensors")
    assert status == 1
    assert f"--steps: {model} has no such option" in err


def test_data_from_files(quiet: Any) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(50) % 2 + 3
    X = rng.normal(size=(50, 2 * 3 * 4)) + y[:, None]
    np.savez("train.npz", X=X, y=y)
    np.savez("test.npz", X=X[:7], y=y[:7])
    shape = ("--image-shape", "2", "3", "4")
    status, out, _ = quiet("train", "cnn", "train.npz", *shape, *TINY, "--out", "m.safetensors")
    assert status == 0
    rows = cells(out)
    assert (rows["training", "all"][0], rows["test", "all"][0]) == ("40", "10")
    assert int(rows["training", "3"][0]) + int(rows["training", "4"][0]) == 40
    status, out, _ = quiet(
        "train", "cnn", "train.npz", *shape, *TINY, "--test-data", "test.npz", "--out", "m.safetensors"
    )
    rows = cells(out)
    assert (rows["training", "all"][0], rows["test", "all"][0]) == ("50", "7")
    assert mfakit.classifiers.load("m.safetensors").image_shape_ == (2, 3, 4)


BAD = {
    "foreign option": (("cnn", "mnist-06", "--gamma", "1"), "--gamma: cnn has no such option"),
    "two of them": (("cnn", "mnist-06", "--C", "1", "--beta", "2"), "--beta, --C: cnn has no such option"),
    "pair": (("cnn", "mnist-99"), "there are mnist-06, mnist-27, mnist-45"),
    "smoothing": (("cnn", "mnist-06", "--samples", "9", "--label-smoothing", "1"), "label_smoothing must be"),
    "narrow test data": (
        ("linear-svm", "long.npz", "--test-data", "narrow.npz"),
        "must have the 9 features of long",
    ),
    "image": (("cnn", "mnist-06", "--samples", "9", "--image-shape", "2", "2", "1"), "it has 784 features"),
    "no file": (("cnn", "nothing.npz"), "no data file at nothing.npz"),
    "no labels": (("cnn", "bare.npz"), "bare.npz has no labels"),
    "short labels": (("cnn", "short.npz"), r"must hold X \[n, d\] and y \[n\].*got \(4, 9\) and \(3,\)"),
    "drawn from a file": (("cnn", "short.npz", "--samples", "3"), "--samples and --steps draw from a pair"),
    "test data of a pair": (("cnn", "mnist-06", "--test-data", "long.npz"), "must have the pair.s 784 features"),
    "no folder": (("cnn", "mnist-06", "--json", "no/a.json"), "no folder no to write a.json to"),
    "device": (("cnn", "mnist-06", "--samples", "9", "--device", "abacus"), "device must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_1(quiet: Any, case: str) -> None:
    arguments, match = BAD[case]
    np.savez("bare.npz", X=np.zeros((4, 9)))
    np.savez("short.npz", X=np.zeros((4, 9)), y=np.zeros(3))
    np.savez("long.npz", X=np.eye(4, 9), y=np.arange(4) % 2)
    np.savez("narrow.npz", X=np.eye(4, 4), y=np.arange(4) % 2)
    status, out, err = quiet("train", *arguments, "--out", "m.safetensors")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("mfakit: ")
    import re

    assert re.search(match, err), err
    assert not Path("m.safetensors").exists()
