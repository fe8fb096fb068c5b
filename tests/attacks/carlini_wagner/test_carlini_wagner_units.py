"""Carlini and Wagner's attack in any unit of the data, and under whatever torch was set to around the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from support import close

import mfakit
from mfakit.attacks import carlini_wagner_l2
from mfakit.attacks.carlini_wagner.settings import Settings

torch = pytest.importorskip("torch")
nn = torch.nn

from carlini_wagner_cases import net_and_samples  # noqa: E402 (needs torch)


class InUnits(nn.Module):
    """A network of data that are given in other units."""

    def __init__(self, net: Any, unit: float) -> None:
        super().__init__()
        self.net, self.unit = net, unit
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.net(x / self.unit)


def attack(net: Any, X: Any, y: Any, unit: float, options: dict[str, Any]) -> Any:
    if options.get("bounds") is None and "learning_rate" in options:  # then it is a length
        options = options | {"learning_rate": options["learning_rate"] * unit}
    if "initial_const" in options:
        options = options | {"initial_const": options["initial_const"] * unit**2}
    return carlini_wagner_l2(InUnits(net, unit), (X * unit).astype(X.dtype), y, **options)


# The paper's own values, without the preset's name, so that the units of two of them can change.
PAPER = {name: value for name, value in asdict(Settings.paper()).items() if name != "preset"}
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "default": {"max_iterations": 100},
    "bounds": {"bounds": "data", "max_iterations": 100},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_the_unit_of_the_data_does_not_matter(case: str) -> None:
    net, X, y = net_and_samples(6)
    net, X = net.double(), X.astype(float)
    expected = attack(net, X, y, 1.0, OPTIONS[case])
    assert expected.success.any()
    for unit in (1e-12, 1e12):
        r = attack(net, X, y, unit, OPTIONS[case])
        np.testing.assert_array_equal(r.success, expected.success)
        close(r.l2 / unit, expected.l2, rtol=1e-9)


@pytest.mark.parametrize("case", OPTIONS)
def test_in_float32_units_that_are_powers_of_two_change_no_bit(case: str) -> None:
    net, X, y = net_and_samples(4)
    expected = attack(net, X, y, 1.0, OPTIONS[case])
    for unit in (2.0**-40, 2.0**40):
        r = attack(net, X, y, unit, OPTIONS[case])
        np.testing.assert_array_equal(r.x_adv, (expected.x_adv * unit).astype(np.float32))


def test_what_float32_does_not_hold_is_refused() -> None:
    net, X, y = net_and_samples(2)
    for unit in (2e-39, 1e38):
        with pytest.raises(ValueError, match=r"learning_rate must be 2e-38 to 6e\+37 for a float32 model"):
            attack(net, X, y, unit, {"learning_rate": 1.0})
        with pytest.raises(ValueError, match=r"bounds must be .* not wider than 6e\+37 or narrower than 2e-38 for"):
            attack(net, X, y, unit, {"bounds": "data"})


@contextmanager
def default(setter: Any, value: Any, before: Any) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(before)


SETTINGS = {
    "bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "meta": lambda: default(torch.set_default_device, "meta", None),
    "double": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
}


def model(kind: str, X: Any, y: Any) -> Any:
    from mfakit.classifiers import CNN, RBFSVM, TRADES, LinearSVM

    if kind == "bayes":
        return mfakit.BayesClassifier([mfakit.MFA([1.0], X[[c]], np.zeros((1, 10, 1)), 1.0) for c in range(2)])
    tiny = {"image_shape": (5, 2, 1), "width": 2, "depth": 1, "epochs": 1, "device": "cpu"}
    classes: dict[str, Any] = {
        "cnn": CNN(**tiny), "trades": TRADES(**tiny, n_attack_steps=1), "linear": LinearSVM(), "rbf": RBFSVM(gamma=0.1),
    }  # fmt: skip
    return classes[kind].fit(X, y)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", ["module", "cnn", "trades", "linear", "rbf", "bayes"])
def test_settings_around_the_call_change_nothing(kind: str, setting: str) -> None:
    net, X, y = net_and_samples(6)
    y = np.arange(6) % 2

    def run() -> Any:
        victim = net if kind == "module" else model(kind, X, y)
        return carlini_wagner_l2(victim, X, max_iterations=20, bounds="data", learning_rate=0.1, rescue_searches=2)

    expected = run()
    with SETTINGS[setting]():
        r = run()
    assert expected.success.any()
    np.testing.assert_array_equal(r.x_adv, expected.x_adv)
    np.testing.assert_array_equal(r.l2, expected.l2)
