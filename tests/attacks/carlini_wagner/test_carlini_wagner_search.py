"""The search of Carlini and Wagner's attack: every sample has its own constants and its own end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close

from mfakit.attacks import carlini_wagner_l2

torch = pytest.importorskip("torch")
nn = torch.nn

from carlini_wagner_cases import linear, net_and_samples  # noqa: E402 (needs torch)


@pytest.fixture
def constants(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Filled with the constants of the samples of each search step."""
    from mfakit.attacks.carlini_wagner import search as _cw_search

    seen: list[list[float]] = []

    class Seen(_cw_search.Descent):
        def __init__(self, network: Any, frame: Any, aim: Any, c: Any, *rest: Any) -> None:
            seen.append(c.tolist())
            super().__init__(network, frame, aim, c, *rest)

    monkeypatch.setattr(_cw_search, "Descent", Seen)
    return seen


def at_distances(net: Any, distances: list[float]) -> Any:
    """Samples so far from the plane of a linear model with ‖w‖ = 1."""
    w = 2 * net.weight[1].detach().double().numpy()
    middle = np.full(len(w), 0.5)
    return np.stack([middle + d * w for d in distances])


def test_constants_grow_tenfold_until_success_and_are_bisected_then(constants: list[list[float]]) -> None:
    """On a plane at distance m, ‖δ‖² + c (m - w·δ) has its minimum beyond it only for c above 2 m; Adam's momentum
    carries a sample a little further.
    """
    net = linear()
    options: dict[str, Any] = {
        "bounds": None,
        "initial_const": 1e-3,
        "rescue_searches": 0,
        "max_iterations": 400,
        "learning_rate": 0.01,
    }
    together = []
    for distances in ([0.3, 0.01], [0.3], [0.01]):
        constants.clear()
        X = at_distances(net, distances)
        assert carlini_wagner_l2(net, X, binary_search_steps=6, **options).success.all()
        together += list(np.transpose(constants))
    for mixed, alone in zip(together[:2], together[2:], strict=True):
        close(mixed, alone, rtol=1e-9)
    far, near = together[:2]
    close(far[:5], [1e-3, 1e-2, 0.1, 1.0, 0.55], rtol=1e-9)
    assert min(abs(far[5] - 0.325), abs(far[5] - 0.775)) < 1e-9
    assert near.max() < 0.1


def test_constants_are_given_in_data_units_and_count_in_widths_of_the_bounds(constants: list[list[float]]) -> None:
    net = linear()
    for width, expected in ((1.0, 0.5), (8.0, 0.5 / 64)):
        constants.clear()
        bounds = (0.5 - width / 2, 0.5 + width / 2)
        carlini_wagner_l2(
            net, at_distances(net, [0.1]), bounds=bounds, initial_const=0.5, max_iterations=2, rescue_searches=0
        )
        assert constants[0] == [expected]
        constants.clear()
        carlini_wagner_l2(net, at_distances(net, [0.1]), bounds=bounds, max_iterations=2, rescue_searches=0)
        np.testing.assert_allclose(constants[0], 4 * 0.1 / width**2, rtol=1e-9)  # 4 margin / ‖gradient‖²


class Counted(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.rows = net, 0
        self.eval()

    def forward(self, x: Any) -> Any:
        self.rows += len(x)
        return self.net(x)


def test_who_is_done_leaves_the_batch_and_early_by_itself() -> None:
    net, X, y = net_and_samples(8)
    options: dict[str, Any] = {"bounds": (-1, 1), "polish": False, "max_iterations": 300, "binary_search_steps": 2}
    counted = Counted(net)
    r = carlini_wagner_l2(counted, X, y, **options)
    assert r.success.all()
    # Beyond the steps: the first look, the start, and the verification.
    assert r.n_steps.sum() <= counted.rows <= r.n_steps.sum() + 20 * len(X)
    assert len(set(r.n_steps)) > 1
    full = carlini_wagner_l2(net, X, y, abort_early=False, **options)
    assert set(full.n_steps) == {600}
    assert (r.n_steps < 600).any()
    close(r.l2, full.l2, rtol=0.02)
    alone = [carlini_wagner_l2(net, X[i : i + 1], y[i : i + 1], **options) for i in range(3)]
    # To a look or two: a batch of one is multiplied by another routine, and rounded otherwise.
    np.testing.assert_allclose([a.n_steps[0] for a in alone], r.n_steps[:3], atol=20)
