"""Torch's threads are bounded by the work of a step: beside other processes, waiting for each other costs more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mfakit.attacks import carlini_wagner_l2

torch = pytest.importorskip("torch")
nn = torch.nn

from mfakit.attacks.carlini_wagner.network import Network as Attacked  # noqa: E402 (needs torch)
from mfakit.attacks.carlini_wagner.probe import operations  # noqa: E402 (needs torch)
from mfakit.classifiers import CNN  # noqa: E402 (needs torch)
from mfakit.classifiers.networks.network import OPERATIONS_PER_THREAD, Network, bounded_threads, settled  # noqa: E402 (needs torch)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("steps", "expected"), [(0.0, 1), (1.9, 1), (2.0, 2), (3.5, 3), (1e6, 3)])
@pytest.mark.usefixtures("three_threads")
def test_threads_by_operations(steps: float, expected: int) -> None:
    with bounded_threads(steps * OPERATIONS_PER_THREAD):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 3


def test_operations_are_those_of_the_layers() -> None:
    layers = (nn.Unflatten(1, (2, 6, 6)), nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))
    net = nn.Sequential(*layers).eval()
    network = Attacked.of(net, (72,), None)
    products = 5 * 2 * 9 * 16 + 80 * 3
    assert operations(network, torch.zeros(1, 72)) == 2 * 2 * products
    assert not any(layer._forward_hooks for layer in net)


class Spy(nn.Module):
    """Two logits, and the threads of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.seen: list[int] = []
        self.eval()

    def forward(self, x: Any) -> Any:
        self.seen.append(torch.get_num_threads())
        return self.layer(x)


@pytest.mark.usefixtures("three_threads")
def test_an_attack_on_a_small_network_runs_in_one_thread() -> None:
    net = Spy()
    X = np.random.default_rng(0).random((9, 6)).astype(np.float32)
    carlini_wagner_l2(net, X, max_iterations=3, rescue_searches=0)
    assert net.seen.count(1) > 9  # all but the first look at the network
    assert net.seen[-1] == 1
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("n_threads", "expected"), [(None, 1), (2, 2)])
@pytest.mark.usefixtures("three_threads")
def test_a_small_cnn_trains_and_answers_in_one_thread_or_in_those_asked_for(
    monkeypatch: pytest.MonkeyPatch, n_threads: int | None, expected: int
) -> None:
    seen, forward = set(), Network.forward
    monkeypatch.setattr(Network, "forward", lambda self, x: (seen.add(torch.get_num_threads()), forward(self, x))[1])
    X = np.random.default_rng(0).random((20, 16)).astype(np.float32)
    cnn = CNN(width=2, depth=1, epochs=1, device="cpu", progress=False, n_threads=n_threads).fit(X, np.arange(20) % 2)
    cnn.decision_gradient(X)
    assert seen == {expected}
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_are_on_or_off_again_where_a_block_left_them_off(enabled: bool) -> None:
    """As an interrupt in the last instructions of torch.no_grad does."""
    with torch.set_grad_enabled(enabled):
        with settled(torch.device("cpu")):
            assert torch.is_grad_enabled()
            torch.set_grad_enabled(False)
        assert torch.is_grad_enabled() == enabled
