"""Files of networks: what goes in comes out, and hostile files are refused before anything is built."""

from __future__ import annotations

import json
import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mfakit

torch = pytest.importorskip("torch")

from mfakit._io.tensor_files import write_tensors  # noqa: E402
from mfakit.classifiers import CNN, TRADES, load  # noqa: E402

Array = NDArray[Any]
TINY: dict[str, Any] = {"width": 2, "depth": 2, "epochs": 1, "batch_size": 16, "device": "cpu"}


def data(d: int = 60, classes: int = 3) -> tuple[Array, Array]:
    return np.random.default_rng(0).normal(size=(30, d)).astype(np.float32), np.arange(30) % classes


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "cnn.safetensors"
    CNN((5, 6, 2), **TINY).fit(*data()).save(path)
    return path


@pytest.mark.parametrize(
    "clf",
    [
        CNN((5, 6, 2), **TINY),
        CNN((-1, 6, 1), **{**TINY, "negative_slope": 0.01, "random_state": 7}),
        TRADES(
            (10, 6, 1), **TINY, norm="linf", epsilon=0.1, beta=1.5, n_attack_steps=2, step_size=0.03, bounds=(-9, 9)
        ),
        TRADES((3, 4, 5), **TINY, n_attack_steps=1),
        TRADES((3, 4, 5), **TINY, n_attack_steps=1, bounds=(-9.0, float("inf"))),
        TRADES((3, 4, 5), **TINY, n_attack_steps=1, bounds=(-float("inf"), float("inf"))),
    ],
)
def test_networks_round_trip_bit_for_bit(clf: Any, tmp_path: Path) -> None:
    X, y = data()
    clf.fit(X, 5 * y - 3).save(tmp_path / "m")
    for again in (type(clf).load(tmp_path / "m"), load(tmp_path / "m")):
        assert type(again) is type(clf)
        np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
        np.testing.assert_array_equal(again.predict(X), clf.predict(X))
        np.testing.assert_array_equal(again.classes_, [-3, 2, 7])
        assert again.image_shape_ == clf.image_shape_
        assert again.n_features_in_ == 60
        assert again.get_params() == {**clf.get_params(), "device": "auto"}
        assert not again.module_.training
        assert not any(p.requires_grad for p in again.module_.parameters())
        again.fit(X, y)


def test_a_random_state_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    CNN((5, 6, 2), **TINY, random_state=np.random.default_rng(0)).fit(*data()).save(tmp_path / "m")
    assert CNN.load(tmp_path / "m").random_state is None


def edited(path: Path, edit: Any) -> bytes:
    """The file with its header edited, and its settings, which `edit` gets as a dictionary."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    settings = json.loads(header["__metadata__"]["settings"])
    result = edit(header, settings)
    header["__metadata__"]["settings"] = result if isinstance(result, str) else json.dumps(settings)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def parameter(name: str, value: Any) -> Any:
    return lambda header, settings: settings["parameters"].__setitem__(name, value)


def setting(name: str, value: Any) -> Any:
    return lambda header, settings: settings.__setitem__(name, value)


def lost(header: dict[str, Any], settings: Any) -> None:
    header["renamed"] = header.pop("output.bias")


def turned(header: dict[str, Any], settings: Any) -> None:
    header["output.weight"]["shape"].reverse()


def reread(header: dict[str, Any], settings: Any) -> None:
    header["output.bias"]["dtype"] = "I32"


EDITS = {
    "absurd width": (parameter("width", 10**9), r"convolutions.0.weight must be float32 \(1000000000,"),
    "enormous width": (parameter("width", 10**5000), "not a readable"),
    "absurd depth": (parameter("depth", 10**12), "depth must be an integer of at most 1000"),
    "other depth": (parameter("depth", 3), "it lacks convolutions.2.bias, unlike a network"),
    "shallower": (parameter("depth", 1), "it has convolutions.1.bias, unlike a network"),
    "no number": (parameter("width", "2"), "width must be an integer"),
    "slope": (parameter("negative_slope", float("nan")), "negative_slope must be"),
    "unknown parameter": (parameter("code", "import os"), "its settings are not the parameters of CNN"),
    "device": (parameter("device", "meta"), "its settings are not the parameters of CNN"),
    "no parameters": (setting("parameters", None), "its settings are not the parameters"),
    "classes": (setting("classes", [0, 1]), r"output.weight must be float32 \(2,"),
    "one class": (setting("classes", [0]), "its classes are not two or more different integers"),
    "equal classes": (setting("classes", [0, 1, 1]), "its classes are not two or more different integers"),
    "words": (setting("classes", ["a", "b", "c"]), "its classes are not"),
    "large classes": (setting("classes", [0, 1, 10**30]), "not a valid cnn: Python int too large"),
    "image": (setting("image_shape", [5, 8, 2]), r"output.weight must be float32 \(3, 48\), got"),
    "no image": (setting("image_shape", [60]), "its image_shape is not three positive integers"),
    "huge image": (setting("image_shape", [10**9, 10**9, 2]), "its image_shape is not three positive integers"),
    "lost tensor": (lost, "it lacks output.bias"),
    "turned tensor": (turned, "output.weight must be float32"),
    "reread tensor": (reread, "output.bias must be float32"),
    "no JSON": (lambda header, settings: "{", "its settings are not JSON"),
    "a list": (lambda header, settings: "[]", "its settings are a list"),
    "nested": (lambda header, settings: "[" * 200_000, "its settings are not JSON"),
}


@pytest.mark.parametrize("case", EDITS)
def test_hostile_settings_are_refused_in_one_sentence(case: str, good: Path, tmp_path: Path) -> None:
    edit, match = EDITS[case]
    path = tmp_path / "bad.safetensors"
    if case == "enormous width":
        # More digits than Python prints: written into the text.
        raw = edited(
            good, lambda header, settings: json.dumps(settings).replace('"width": 2', '"width": ' + "9" * 5000)
        )
    else:
        raw = edited(good, edit)
    path.write_bytes(raw)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(ValueError, match=match) as caught:
        load(path)
    assert time.perf_counter() - start < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


HOSTILE = {
    "empty": (lambda raw: b"", "not a readable safetensors file"),
    "cut short": (lambda raw: raw[:-5], "not a readable safetensors file"),
    "garbage": (lambda raw: bytes(range(256)) * 20, "not a readable safetensors file"),
    "NaN": (lambda raw: raw[:-4] + struct.pack("<f", np.nan), "has NaN or inf"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damaged_files_are_refused_in_one_sentence(case: str, good: Path, tmp_path: Path) -> None:
    damage, match = HOSTILE[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damage(good.read_bytes()))
    for read in (load, CNN.load):
        with pytest.raises(ValueError, match=match) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_kinds_are_told_apart(good: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a cnn, not a trades"):
        TRADES.load(good)
    with pytest.raises(ValueError, match="holds a cnn, not a bayes-classifier"):
        mfakit.BayesClassifier.load(good)
    with pytest.raises(FileNotFoundError, match="no model file at"):
        load(tmp_path / "nothing")
    mixture = mfakit.MFA([1.0], np.zeros((1, 2)), np.zeros((1, 2, 1)), 1.0)
    mixture.save(tmp_path / "mfa")
    with pytest.raises(ValueError, match="holds a mfa, not a classifier"):
        load(tmp_path / "mfa")
    mfakit.BayesClassifier([mixture, mixture.replace(means=np.ones((1, 2)))]).save(tmp_path / "bayes")
    assert load(tmp_path / "bayes").n_classes == 2
    write_tensors(tmp_path / "other", "teapot", {"a": np.zeros(1)})
    with pytest.raises(ValueError, match="holds a teapot, not a classifier"):
        load(tmp_path / "other")
