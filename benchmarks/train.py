"""Training the paper's network on samples of a symmetric pair, and what attacks need of it.

Goals: an epoch on 10,000 samples of 28×28 (width 32) in under 20 s on two cores, memory under 2 GB, test accuracy of at
least 99% on mnist-06.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mfakit.bench import Case, Machine, Timed, Work
from mfakit.classifiers import CNN, TRADES
from mfakit.datasets import load_bayes_pair

SIZE = {"n": 10_000, "d": 784, "width": 32, "depth": 6}
ATTACKED = 100


class Inputs:
    """Samples, and networks that are trained on them for one epoch."""

    def __init__(self) -> None:
        self.pair = load_bayes_pair("mnist-06").symmetric(sigma=0.01)
        self.X, self.y = self.pair.sample(SIZE["n"], rng=0, balanced=True)
        self.X_test, self.y_test = self.pair.sample(2000, rng=1, balanced=True)
        settings = {"width": SIZE["width"], "depth": SIZE["depth"], "epochs": 1, "device": "cpu", "progress": False}
        self.cnn, self.trades = CNN(**settings).fit(self.X, self.y), TRADES(**settings)
        self.accuracy = self.cnn.score(self.X_test, self.y_test)


def inputs(machine: Machine) -> Inputs:
    made: Inputs = machine.kept("train", Inputs)
    return made


def epoch(case: Case, machine: Machine) -> Work:
    """On fresh samples a tenth of an epoch is timed."""
    made = inputs(machine)
    steps = SIZE["n"] // 10 // made.cnn.batch_size
    part = steps * made.cnn.batch_size / SIZE["n"]

    def fresh(network: Any) -> Timed:
        return Timed(lambda: network.fit_stream(made.pair, steps), work=part)

    return Work(
        Timed(lambda: CNN(**made.cnn.get_params()).fit(made.X, made.y)), 1 - made.accuracy, SIZE["n"], "samples",
        beside={"fresh samples": fresh(CNN(**made.cnn.get_params())), "TRADES": fresh(made.trades)},
        facts={"batch_size": made.cnn.batch_size, "test_accuracy": made.accuracy},
    )  # fmt: skip


def predict(case: Case, machine: Machine) -> Work:
    made = inputs(machine)
    return Work(Timed(lambda: made.cnn.predict(made.X_test)), 1 - made.accuracy, len(made.X_test), "samples")


def gradient(case: Case, machine: Machine) -> Work:
    made = inputs(machine)
    X = made.X_test[:ATTACKED]
    narrow, wide = (partial(made.cnn.decision_gradient, X.astype(dtype)) for dtype in (np.float32, np.float64))
    error = np.abs(narrow() - wide()).max() / np.abs(wide()).max()
    return Work(Timed(narrow), float(error), len(X), "samples", beside={"float64": Timed(wide)})


CASES = (
    Case("an epoch", epoch, SIZE, against="labels of test samples, share wrong", allowed=0.01, rounds=3),
    Case("predictions", predict, SIZE, against="labels of test samples, share wrong", allowed=0.01),
    Case("gradients", gradient, SIZE, against="float64, relative to the largest value", allowed=1e-4),
)
