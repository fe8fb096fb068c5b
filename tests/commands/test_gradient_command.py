"""``mfakit attack`` on trained classifiers: the same numbers as in Python, and bad usage in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import blobs

import mfakit
from mfakit.attacks import gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM
from mfakit.cli import main


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(d=9, dtype=np.float32)
    LinearSVM().fit(X, 5 + y).save("linear.safetensors")
    RBFSVM(gamma=0.1).fit(X, y).save("rbf.safetensors")
    np.savez("linear.npz", X=X, y=5 + y)
    np.savez("rbf.npz", X=X, y=y)

    def call(*arguments: str) -> tuple[int, str, str]:
        return main(["attack", *arguments, "--no-progress"]), *capsys.readouterr()

    return call


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_command_attacks_a_trained_classifier(command: Any, kind: str, tmp_path: Path) -> None:
    status, out, err = command(f"{kind}.safetensors", "--data", f"{kind}.npz", "--polish", "--json", "a.json")
    assert (status, err) == (0, "")
    assert ("5" if kind == "linear" else "0") in [line.split()[0] for line in out.splitlines() if line.strip()]
    numbers = json.loads((tmp_path / "a.json").read_text())
    with np.load(f"{kind}.npz") as data:
        expected = gradient_attack(mfakit.classifiers.load(f"{kind}.safetensors"), data["X"], data["y"], polish=True)
    assert numbers["mean_l2"] == pytest.approx(expected.mean_l2)
    assert numbers["variant"] is None


def test_the_command_runs_cw(command: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    status, _, err = command(
        "linear.safetensors", "--data", "linear.npz", "--method", "cw", "--max-iterations", "200",
        "--json", "a.json",
    )  # fmt: skip
    assert (status, err) == (0, "")
    numbers = json.loads((tmp_path / "a.json").read_text())
    with np.load("linear.npz") as data:
        exact = gradient_attack(mfakit.classifiers.load("linear.safetensors"), data["X"], data["y"])
    assert numbers["accuracy"] == exact.accuracy
    assert exact.mean_l2 * 0.999 < numbers["mean_l2"] < exact.mean_l2 * 1.02


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("linear.safetensors",), "is a LinearSVM, which has no samples of its own; give --data"),
        (("linear.safetensors", "--data", "rbf.npz"), "y must hold the classes 5, 6"),
        (("linear.safetensors", "--data", "rbf.npz", "--method", "cw"), "y must hold the classes 5, 6"),
        (("rbf.safetensors", "--data", "rbf.npz", "--confidence", "1"), "--confidence: --method gradient has no such"),
        (("rbf.safetensors", "--data", "rbf.npz", "--method", "cw", "--polish"), "--polish: --method cw has no such"),
        (("linear.safetensors", "--data", "linear.npz", "--direction", "log-ratio"), "is for RBF machines"),
        (("rbf.safetensors", "--data", "rbf.npz", "--bounds", "0", "1"), "X must lie within bounds"),
    ],
)
def test_bad_usage_of_the_command_is_one_line(command: Any, arguments: tuple[str, ...], match: str) -> None:
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert match in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--variant", "asymmetric", "--sigma", "5"),
            "--variant, --sigma: linear.safetensors is a LinearSVM and is taken with --data",
        ),
        (("--samples", "3", "--seed", "4"), "--samples, --seed: linear.safetensors is"),
        (("--out", "."), "is a folder; give the name of a file in it"),
        (("--json", "missing/a.json"), "no folder missing to write a.json to"),
    ],
)
def test_nothing_that_is_asked_is_ignored(command: Any, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = command("linear.safetensors", "--data", "linear.npz", *arguments)
    assert (status, out) == (1, "")
    assert sentence in err
