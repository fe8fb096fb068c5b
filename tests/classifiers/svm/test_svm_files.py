"""Files of support vector machines: the same machine comes back, and damage is said in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from svm_cases import BOTH_IDS, Array, data

import mfakit
from mfakit._io.tensor_files import read_tensors, write_tensors
from mfakit.classifiers import RBFSVM, LinearSVM


@pytest.mark.parametrize("svm", [LinearSVM(C=2.0), RBFSVM(accuracy_threshold=0.3, gammas=[0.01, 0.1], random_state=0)],
                         ids=BOTH_IDS)  # fmt: skip
@pytest.mark.parametrize("labels", [[4, 9], ["six", "zero"], [0, 1, 2]])
def test_save_and_load(svm: Any, labels: list[Any], tmp_path: Path) -> None:
    X, y = data(n_classes=len(labels), dtype=np.float32)
    svm = clone(svm).fit(X, np.array(labels)[y])
    svm.save(tmp_path / "svm.safetensors")
    again = mfakit.classifiers.load(tmp_path / "svm.safetensors")
    assert type(again) is type(svm)
    np.testing.assert_array_equal(again.decision_function(X), svm.decision_function(X))
    np.testing.assert_array_equal(again.decision_gradient(X), svm.decision_gradient(X))
    np.testing.assert_array_equal(again.predict(X), svm.predict(X))
    np.testing.assert_array_equal(again.support_, svm.support_)
    assert again.get_params() == svm.get_params()
    if isinstance(svm, RBFSVM):
        np.testing.assert_array_equal(again.gamma_path_.accuracy, svm.gamma_path_.accuracy)
        assert again.gamma_path_.gamma == again.gamma_ == svm.gamma_
    other = RBFSVM if isinstance(svm, LinearSVM) else LinearSVM
    with pytest.raises(ValueError, match=f"holds a {svm._kind}, not a {other._kind}"):
        other.load(tmp_path / "svm.safetensors")


@pytest.mark.parametrize("gammas", [range(1, 5), (0.1, 0.2), np.array([0.1, 0.2])], ids=["range", "tuple", "array"])
def test_gammas_of_any_sequence(gammas: Any, tmp_path: Path) -> None:
    RBFSVM(gammas=gammas, accuracy_threshold=0.0).fit(*data(60)).save(tmp_path / "svm.safetensors")
    assert RBFSVM.load(tmp_path / "svm.safetensors").gammas == list(gammas)


def test_a_file_of_an_earlier_build_loads(tmp_path: Path) -> None:
    """Its search for gamma attacked samples: a parameter and two columns more."""
    path = tmp_path / "svm.safetensors"
    svm = RBFSVM(accuracy_threshold=0.0, gammas=[0.01, 0.1], random_state=0).fit(*data())
    svm.save(path)
    tensors, settings = read_tensors(path, "rbf-svm")
    settings["parameters"]["n_attacked"] = 20
    tensors |= {"path.mean_l2": np.array([-1.0, 2.0]), "path.adversarial_accuracy": np.array([0.5, 0.0])}
    write_tensors(path, "rbf-svm", tensors, settings)
    again = RBFSVM.load(path)
    assert again.get_params() == svm.get_params()
    np.testing.assert_array_equal(again.decision_function(data()[0]), svm.decision_function(data()[0]))


def damaged(name: str, tensors: dict[str, Array], settings: dict[str, Any]) -> None:
    """Change what was read from a good file, by name."""
    changes = {
        "missing": lambda: tensors.pop("dual"),
        "nan": lambda: tensors.update(support_vectors=np.full_like(tensors["support_vectors"], np.inf)),
        "dual": lambda: tensors.update(dual=tensors["dual"][:, 1:]),
        "support": lambda: tensors.update(support=tensors["support"].astype(np.float64)),
        "none": lambda: tensors.update(support_vectors=tensors["support_vectors"][:0]),
        "flat": lambda: tensors.update(support_vectors=tensors["support_vectors"].ravel()),
        "intercept": lambda: tensors.update(intercept=np.zeros(7)),
        "gamma": lambda: settings.update(gamma=-1.0),
        "gamma word": lambda: settings.update(gamma="1e-3"),
        "classes": lambda: settings.update(classes=[1, 1]),
        "mixed classes": lambda: settings.update(classes=[1, "a"]),
        "three classes": lambda: settings.update(classes=[1, 2, 3]),
        "parameters": lambda: settings["parameters"].update(kernel="poly"),
        "no parameters": lambda: settings.pop("parameters"),
        "bad parameter": lambda: settings["parameters"].update(C="much"),
        "path": lambda: tensors.update({"path.accuracy": np.zeros(9)}),
        "chosen": lambda: settings.update(chosen=5),
    }
    changes[name]()


BAD_FILES = {
    "missing": "it lacks dual", "nan": "support_vectors has NaN or inf", "dual": r"dual must be float64 \[1, \d+\]",
    "support": "support must be int64", "none": "a machine has some", "flat": r"vectors must be .* \[any, any\]",
    "intercept": r"intercept must be float64 \[1\], got float64 \[7\]", "gamma": "gamma must be a positive number",
    "gamma word": "gamma must be a positive number", "classes": "its classes are not", "mixed classes": "its classes",
    "three classes": "dual must be", "parameters": "not the parameters of RBFSVM", "chosen": "chosen must be one of",
    "no parameters": "not the parameters", "bad parameter": "C must be a positive", "path": "path.accuracy must be",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_damaged_files_are_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    RBFSVM(accuracy_threshold=0.0, gammas=[0.01, 0.1]).fit(*data()).save(path)
    tensors, settings = read_tensors(path, "rbf-svm")
    damaged(name, tensors, settings)
    write_tensors(path, "rbf-svm", tensors, settings)
    with pytest.raises(ValueError, match=f"svm.safetensors is not a valid rbf-svm: .*{BAD_FILES[name]}"):
        RBFSVM.load(path)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    LinearSVM().fit(*data()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        LinearSVM.load(path)
    with pytest.raises(FileNotFoundError):
        LinearSVM.load(tmp_path / "none.safetensors")
