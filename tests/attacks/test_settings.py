"""Settings: checked where they are said, the defaults of the public functions, and the evidence of results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields
from typing import Any

import numpy as np
import pytest

import mfakit
from mfakit.attacks import carlini_wagner_l2, gradient_attack, minimal_perturbation
from mfakit.attacks.carlini_wagner.settings import Settings as CarliniWagner
from mfakit.attacks.gradient.settings import Settings as Gradient
from mfakit.attacks.minimal.settings import Settings as Minimal

ATTACKS = [(gradient_attack, Gradient), (minimal_perturbation, Minimal), (carlini_wagner_l2, CarliniWagner)]


@pytest.mark.parametrize(("attack", "settings"), ATTACKS)
def test_they_are_keyword_arguments_with_the_same_defaults(attack: Callable[..., Any], settings: Any) -> None:
    arguments = inspect.signature(attack).parameters
    for setting in fields(settings):
        assert arguments[setting.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert arguments[setting.name].default == setting.default
    with pytest.raises(FrozenInstanceError):
        setattr(settings(), fields(settings)[0].name, None)


@pytest.mark.parametrize(("attack", "settings"), ATTACKS)
def test_they_are_the_evidence_of_a_result(attack: Callable[..., Any], settings: Any) -> None:
    mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    r = attack(mfakit.BayesClassifier(mixtures), np.array([[-1.0, 0.5]]))
    expected = asdict(settings())
    if "path" in expected:
        expected["path"] = r.settings["path"]
        assert r.settings["path"] in ("factor", "features")
    assert expected.items() <= r.settings.items()


@pytest.mark.parametrize("path", ["direct", "general", "Features", None, ["factor"]])
def test_another_path_is_refused_with_those_that_there_are(path: Any) -> None:
    for attack in (gradient_attack, minimal_perturbation):
        with pytest.raises(ValueError, match=r"path must be one of 'auto', 'factor', 'features'.*, got"):
            attack(None, np.zeros((1, 2)), path=path)


def test_numbers_of_numpy_become_pythons_own() -> None:
    settings = Gradient(step_size=np.float32(0.5), max_steps=np.int64(3), polish=np.bool_(True))
    assert [type(value) for value in (settings.step_size, settings.max_steps, settings.polish)] == [float, int, bool]
    rates = CarliniWagner(learning_rate=np.float32(0.5), initial_const=1)
    assert [type(value) for value in (rates.learning_rate, rates.initial_const)] == [float, float]


def test_the_papers_preset() -> None:
    paper = CarliniWagner.paper(bounds=(0, 1))
    assert (paper.max_iterations, paper.binary_search_steps, paper.learning_rate) == (500, 3, 0.01)
    assert CarliniWagner(preset="paper", bounds=(0.0, 1.0)).with_preset() == paper
    assert CarliniWagner(preset="paper", max_iterations=500, abort_early=False).with_preset() == CarliniWagner.paper(
        abort_early=False
    )
    assert CarliniWagner(rescue_searches=2).with_preset() == CarliniWagner(rescue_searches=2)
    for name, value in {"polish": True, "confidence": 0.0}.items():
        assert CarliniWagner(preset="paper", **{name: value}).with_preset() == CarliniWagner.paper()
    for name, value in {"rescue_searches": 1, "max_iterations": 100, "initial_const": 1.0}.items():
        with pytest.raises(ValueError, match=f"preset='paper' fixes {name} at .*, got {value}; leave one of the two"):
            CarliniWagner(preset="paper", **{name: value}).with_preset()
