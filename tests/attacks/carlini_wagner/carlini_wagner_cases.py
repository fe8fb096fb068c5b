"""What the tests of Carlini and Wagner's attack share: models of torch, and samples of theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

D = 64


def linear(scale: float = 1.0, dtype: Any = torch.float64, seed: int = 0) -> Any:
    """Two classes, logits ±f/2, f = w · x + b with ‖w‖ = scale."""
    w = np.random.default_rng(seed).normal(size=D)
    w = torch.from_numpy(scale * w / np.linalg.norm(w))
    net = nn.Linear(D, 2, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(torch.stack([-w / 2, w / 2]))
        net.bias.copy_(torch.stack([0.25 * w.sum(), -0.25 * w.sum()]))
    return net.eval()


def problem(net: Any, n: int = 40, dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    """Samples in [0, 1], their classes and their distances to the plane."""
    X = np.random.default_rng(1).random((n, D)).astype(dtype)
    z = nn.functional.linear(torch.from_numpy(X).double(), net.weight.double(), net.bias.double()).detach().numpy()
    w = np.linalg.norm(net.weight.double().detach().numpy()[1] * 2)
    return X, z.argmax(axis=1), np.abs(z[:, 1] - z[:, 0]) / w


class Net(nn.Module):
    """A small smooth network of three classes."""

    def __init__(self, d: int = 10, n_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(d, 24), nn.Tanh(), nn.Linear(24, n_classes)).eval()
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(3.0)
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def net_and_samples(n: int = 20, **options: Any) -> tuple[Any, Any, Any]:
    net = Net(**options)
    X = np.random.default_rng(2).uniform(-1, 1, (n, 10)).astype(np.float32)
    return net, X, net(torch.from_numpy(X)).argmax(dim=1).numpy()
