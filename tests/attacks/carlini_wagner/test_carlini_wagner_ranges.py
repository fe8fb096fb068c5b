"""Carlini and Wagner's attack on data of any range, offset and precision: what the dtype can hold is fooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close

from mfakit.attacks import carlini_wagner_l2

torch = pytest.importorskip("torch")
nn = torch.nn

from carlini_wagner_cases import net_and_samples  # noqa: E402 (needs torch)


def plane_through(low: float, high: float, d: int = 8, n: int = 6) -> tuple[Any, Any, Any]:
    """A linear network in float64 that halves the box [low, high]^d, samples in it on five levels (levels that float32
    holds are still such after rounding), and their distances to the plane.
    """
    rng = np.random.default_rng(0)
    levels = np.linspace(low, high, 5).astype(np.float32)
    X = rng.choice(levels, size=(n, d))
    w = rng.normal(size=d) / (high - low)
    net = nn.Linear(d, 2, dtype=torch.float64).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(np.stack([-w, w])))
        net.bias.copy_(torch.tensor([1.0, -1.0], dtype=torch.float64) * float(w.sum() * (0.5 * low + 0.5 * high)))
    return net, X, np.abs(X.astype(float) @ w - w.sum() * (0.5 * low + 0.5 * high)) / np.linalg.norm(w)


RANGES = [(1.0, 1.1), (1e-38, 3e-38), (1e6, 1e6 + 1), (-1e37, 1e37), (255.0, 256.0), (-3.0, -2.9999)]


@pytest.mark.parametrize("bounds", [None, "data", pytest.param("wide", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_float32_succeeds_where_float64_does(low: float, high: float, bounds: Any) -> None:
    net, X, distance = plane_through(low, high)
    if bounds == "wide":
        bounds = (low - 0.5 * (high - low), high + 0.5 * (high - low))
    wide = carlini_wagner_l2(net, X.astype(float), bounds=bounds)
    r = carlini_wagner_l2(net.float(), X, wide.y, bounds=bounds)
    assert set(r.reason) <= {"flipped", "already wrong"}  # far from 0, float32 is wrong about samples near the plane
    assert wide.success.all()
    assert r.already_wrong.sum() <= 1
    with torch.no_grad():
        for batch in (torch.from_numpy(r.x_adv), *torch.from_numpy(r.x_adv[r.success]).split(1)):
            decision = net(batch).argmax(dim=1).numpy()
            assert len(decision) == 1 or (decision != wide.y)[r.success].all()
    if bounds == "data":
        assert r.x_adv.min() >= X.min()
        assert r.x_adv.max() <= X.max()
    else:
        close(wide.l2, distance, rtol=1e-4)
    # A point is pushed on by a tenth of its way at most, or by what float32 resolves at the samples.
    resolved = 4 * np.finfo(np.float32).eps * np.linalg.norm(X.astype(float), axis=1)
    assert (r.l2 <= 1.1 * wide.l2 + resolved)[r.success].all()


def test_neighbours_in_float32_are_a_range() -> None:
    """Three values that float32 can hold, 2 apart; the plane lies between two of them."""
    net = nn.Linear(2, 2).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        net.bias.copy_(torch.tensor([16777218.0, -16777218.0]))
    X = np.array([[16777216.0, 16777220.0]], np.float32)
    for bounds in (None, (16777216, 16777220)):
        r = carlini_wagner_l2(net, X, [0], bounds=bounds)
        assert r.success.all(), r.reason
        assert r.x_adv[0].tolist() == [16777220.0, 16777220.0]


def test_bounds_that_float32_rounds_hold_samples_on_them() -> None:
    net, _, _ = net_and_samples()
    X = np.array([[0.1] * 5 + [1.1] * 5, [0.3] * 10], np.float32)
    r = carlini_wagner_l2(net, X, bounds=(0.1, 1.1), max_iterations=60)
    assert r.success.any()
    assert (r.x_adv >= np.float32(0.1)).all()
    assert (r.x_adv <= np.float32(1.1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{"bounds": (-1, 1)}, {}, {"preset": "paper", "bounds": (-1, 1)}], ids=str)
def test_half_precision(dtype: Any, options: dict[str, Any]) -> None:
    net, X, y = net_and_samples(12)
    full = carlini_wagner_l2(net, X, y, **options)
    half = net.to(dtype)
    r = carlini_wagner_l2(half, X, y, **options)
    assert r.settings["runs_in"] == str(dtype).removeprefix("torch.")
    assert r.success.sum() >= full.success.sum() - 1
    both = r.success & full.success
    assert np.median(r.l2[both] / full.l2[both]) == pytest.approx(1.0, abs=0.08)
    with torch.no_grad():
        points = torch.from_numpy(r.x_adv).to(dtype)
        alone = torch.cat([half(x).argmax(dim=1) for x in points.split(1)]).numpy()
        together = half(points).argmax(dim=1).numpy()
    assert (alone != y)[r.success].all()
    assert (together != y)[r.success].all()


class Saturated(nn.Module):
    """Probabilities in place of logits: the margin is nearly flat far from the boundary."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x: Any) -> Any:
        return torch.softmax(4 * self.net(x), dim=1)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_without_bounds_the_step_is_measured_in_any_unit_and_where_the_margin_saturates(unit: float) -> None:
    net, X, y = net_and_samples(10)
    net, X = net.double(), X.astype(float)
    expected = carlini_wagner_l2(net, X, y)
    assert expected.success.all()
    with torch.no_grad():
        net.layers[0].weight.div_(unit)
    r = carlini_wagner_l2(Saturated(net), X * unit, y)
    assert r.success.all()
    assert np.median(r.l2 / unit / expected.l2) == pytest.approx(1.0, abs=0.02)


class Root(nn.Module):
    """Its gradient is not a number at 0, where its logits are finite."""

    def forward(self, x: Any) -> Any:
        z = torch.sqrt((x * x).sum(dim=1, keepdim=True))
        return torch.cat([z, 1.0 - z], dim=1)


def test_a_gradient_of_nan_is_not_called_nan_logits() -> None:
    r = carlini_wagner_l2(Root().eval(), np.array([[0.0, 0.0], [0.3, 0.0]]))
    assert r.reason.tolist() == ["NaN gradient", "flipped"]
