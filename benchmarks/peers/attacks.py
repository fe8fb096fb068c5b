"""Carlini and Wagner's ℓ2 attack by others, on a plane whose distance is known, and on a small CNN.

Whether a point fools is asked of the network in float64, whatever its attack says. Attacks are equal where ours fools
every sample that theirs does, at a mean ℓ2 that is no longer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfakit
from mfakit.attacks import carlini_wagner_l2
from mfakit.bench import Timed

from .comparison import Bound, Checked, Comparison, Side
from .libraries import ADV_LIB, ART, FOOLBOX, TORCHATTACKS

Array = NDArray[Any]


@dataclass(frozen=True)
class Search:
    """The constants of an attack: searches over c, Adam's steps in each, its rate, and the first c."""

    searches: int
    steps: int
    rate: float
    const: float


# The paper's constants, and those that Carlini and Wagner's own code starts from, but for its 10,000 steps.
PAPER = Search(3, 500, 0.01, 0.01)
THOROUGH = Search(9, 1000, 0.01, 1e-3)


class Plane:
    """Points [n, d] well within the box [0, 1], and two logits that differ by w·x + b, |w| = 1: the nearest points of
    the other class are within the box, too.
    """

    search, preset = THOROUGH, None

    def __init__(self, n: int, d: int) -> None:
        import torch

        rng = np.random.default_rng(0)
        w = rng.standard_normal(d)
        w /= np.linalg.norm(w)
        self.X = rng.uniform(0.2, 0.8, (n, d)).astype(np.float32)
        self.net = torch.nn.Linear(d, 2).eval()
        with torch.no_grad():
            self.net.weight.copy_(torch.from_numpy(np.stack([-w / 2, w / 2])))
            self.net.bias.copy_(torch.tensor([w.sum() / 4, -w.sum() / 4]))  # through the middle of the box
        self.y = self.classes(self.X)

    def classes(self, points: Array) -> Array:
        """What the network in float64 says, [n]."""
        import torch

        with torch.no_grad():
            return np.asarray(copy.deepcopy(self.net).double()(torch.from_numpy(points.astype(float))).argmax(1))

    @property
    def distances(self) -> Array:
        """Of the samples from the plane, [n], in float64 by the network's own float32 weights."""
        weight, bias = (a.detach().numpy().astype(float) for a in (self.net.weight, self.net.bias))
        w = weight[1] - weight[0]
        return np.asarray(np.abs(self.X.astype(float) @ w + bias[1] - bias[0]) / np.linalg.norm(w))


class Digits(Plane):
    """Samples [n, 784] of the shipped digits 0 and 6 within [0, 1], and two convolutions, trained to large margins so
    that the paper's constants (at most 1) suffice.
    """

    search, preset = PAPER, "paper"

    def __init__(self, n: int) -> None:
        import torch
        from torch import nn

        clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
        (X_train, y_train), (X, y) = clf.sample(4000, rng=0), clf.sample(n, rng=1)
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 3, 2, 1),
            nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16 * 49, 2),
        )  # fmt: skip
        train(self.net, np.clip(X_train, 0, 1), y_train)
        self.X, self.y = np.clip(X, 0, 1), y


def train(net: Any, X: Array, y: Array) -> None:
    """Six epochs of Adam."""
    import torch

    samples, classes = torch.from_numpy(X), torch.from_numpy(y)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(6):
        for start in range(0, len(X), 100):
            part = slice(start, start + 100)
            loss = torch.nn.functional.cross_entropy(net(samples[part]), classes[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()


def ours(inputs: Plane) -> Side:
    """With our defaults, or the preset."""
    run = partial(carlini_wagner_l2, inputs.net, inputs.X, inputs.y, bounds=(0.0, 1.0), preset=inputs.preset)
    return Side(Timed(run), run().x_adv)


def foolbox(inputs: Plane, module: Any) -> Side:
    """L2CarliniWagnerAttack."""
    import torch

    s = inputs.search
    attack = module.attacks.L2CarliniWagnerAttack(
        binary_search_steps=s.searches, steps=s.steps, stepsize=s.rate, initial_const=s.const
    )
    run = partial(attack.run, module.PyTorchModel(inputs.net, bounds=(0, 1)), *tensors(inputs))
    return side(lambda: torch.as_tensor(run()))


def art(inputs: Plane, module: Any) -> Side:
    """CarliniL2Method, all samples in a batch. A step of its line search takes several forward passes, and it makes a
    tenth of the steps.
    """
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    s = inputs.search
    classifier = PyTorchClassifier(
        inputs.net, nn.CrossEntropyLoss(), inputs.X.shape[1:], 2, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = module.CarliniL2Method(
        classifier, binary_search_steps=s.searches, max_iter=s.steps // 10, learning_rate=s.rate,
        initial_const=s.const, batch_size=len(inputs.X), verbose=False,
    )  # fmt: skip
    return side(lambda: attack.generate(inputs.X, inputs.y))


def adv_lib(inputs: Plane, module: Any) -> Side:
    """carlini_wagner_l2."""
    s = inputs.search
    return side(
        partial(
            module.carlini_wagner_l2, inputs.net, *tensors(inputs), learning_rate=s.rate, initial_const=s.const,
            binary_search_steps=s.searches, max_iterations=s.steps,
        )
    )  # fmt: skip


def torchattacks(inputs: Plane, module: Any) -> Side:
    """CW: one search with the constant 1, which is its default."""
    s = inputs.search
    attack = module.CW(inputs.net, c=1, steps=s.steps, lr=s.rate)
    return side(partial(attack, *tensors(inputs)))


def tensors(inputs: Plane) -> tuple[Any, Any]:
    """Samples and classes."""
    import torch

    return torch.from_numpy(inputs.X), torch.from_numpy(inputs.y)


def side(run: Callable[[], Any]) -> Side:
    """Of an attack that returns points."""
    return Side(Timed(run), np.asarray(run()))


class Outcome:
    """Who is fooled, and how far the points are: float64."""

    def __init__(self, inputs: Plane, points: Array) -> None:
        wide = np.asarray(points, float).reshape(inputs.X.shape)
        self.l2 = np.linalg.norm((wide - inputs.X).reshape(len(wide), -1), axis=1)
        # foolbox returns black images for failures; some of them are of the other class, and are no attack's success.
        self.fooled = (inputs.classes(wide) != inputs.y) & (wide != 0).reshape(len(wide), -1).any(axis=1)


def compare_points(inputs: Plane, ours: Array, theirs: Array) -> tuple[Outcome, Outcome, float, dict[str, Any]]:
    """By how much ours is longer where both fool, infinite where theirs fools a sample that ours does not."""
    a, b = Outcome(inputs, ours), Outcome(inputs, theirs)
    both = a.fooled & b.fooled & (inputs.classes(inputs.X) == inputs.y)
    ratio = float(a.l2[both].mean() / b.l2[both].mean()) if both.any() else float("nan")
    missed = int((b.fooled & ~a.fooled).sum())
    facts = {
        "l2_ratio": ratio, "both_fool": int(both.sum()), "missed_by_ours": missed,
        "success_rate": {"mfakit": float(a.fooled.mean()), "peer": float(b.fooled.mean())},
    }  # fmt: skip
    # Nothing fooled by theirs is nothing to be worse than.
    longer = max(0.0, ratio - 1) if both.any() else 0.0
    return a, b, float("inf") if missed else longer, facts


def check_plane(inputs: Plane, ours: Array, theirs: Array) -> Checked:
    """The errors are of the mean ℓ2 of those that are fooled, relative to their mean distance."""
    a, b, longer, facts = compare_points(inputs, ours, theirs)
    exact = inputs.distances
    off = [float(o.l2[o.fooled].mean() / exact[o.fooled].mean() - 1) if o.fooled.any() else np.nan for o in (a, b)]
    return Checked(longer, off[0], off[1], facts)


def check_network(inputs: Plane, ours: Array, theirs: Array) -> Checked:
    """The errors are shares of samples that are not fooled."""
    a, b, longer, facts = compare_points(inputs, ours, theirs)
    right = inputs.classes(inputs.X) == inputs.y
    return Checked(longer, float(1 - a.fooled[right].mean()), float(1 - b.fooled[right].mean()), facts)


PEERS = ((FOOLBOX, foolbox), (ADV_LIB, adv_lib), (TORCHATTACKS, torchattacks), (ART, art))
NO_LONGER = Bound(5e-3, "a search over c ends between two constants: mean ℓ2 of ours above theirs, where both fool")
COMPARISONS = (
    *[
        Comparison("CW-L2 on a plane", peer, {"n": 32, "d": 196}, Plane, ours, theirs, check_plane,
                   "mean ℓ2 above the exact distance, relative", NO_LONGER,
                   Bound(2e-3, "float32 logits, and Adam's last step"), rounds=3)
        for peer, theirs in PEERS
    ],
    *[
        Comparison("CW-L2 on a small CNN", peer, {"n": 32}, Digits, ours, theirs, check_network,
                   "share of samples not fooled", NO_LONGER,
                   Bound(0.05, "the paper's constants do not reach every sample's c"), rounds=3)
        for peer, theirs in PEERS
    ],
)  # fmt: skip
