"""``mfakit certify`` on trained support vector machines: the same numbers as in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import blobs, close

from mfakit.attacks import minimal_perturbation
from mfakit.classifiers import RBFSVM, LinearSVM
from mfakit.cli import main


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_command_certifies_a_trained_machine(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(n=40, d=9, dtype=np.float32)
    clf = (LinearSVM() if kind == "linear" else RBFSVM(gamma=0.1)).fit(X, 5 + y)
    clf.save("machine.safetensors")
    np.savez("data.npz", X=X[:12], y=5 + y[:12])
    arguments = ("--data", "data.npz", "--json", "a.json", "--out", "a.npz", "--no-progress")
    assert main(["certify", "machine.safetensors", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "attacked below a lower bound (a contradiction): 0" in out
    assert {"5", "6", "all"} <= {line.split()[0] for line in out.splitlines() if line.strip()}
    expected = minimal_perturbation(clf, X[:12], 5 + y[:12])
    with np.load("a.npz") as kept:
        close(kept["lower"], expected.lower)
        close(kept["upper"], expected.upper)
    numbers = json.loads(Path("a.json").read_text())
    assert (numbers["path"], numbers["variant"]) == ({"linear": "linear", "rbf": "kernel"}[kind], None)
    assert set(numbers["classes"]) == {"all", "5", "6"}


def test_a_machine_needs_samples(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    LinearSVM().fit(*blobs()).save("machine.safetensors")
    assert main(["certify", "machine.safetensors", "--no-progress"]) == 1
    assert "is a LinearSVM, which has no samples of its own; give --data" in capsys.readouterr().err
