"""Carlini and Wagner's attack: its distance from the truth. Beside other libraries' it is in benchmarks/peers.

Goals: a linear model's plane reached within 0.2% on average, in batches of any size; mnist-06 with raw log-likelihoods
within 2% of the certified bound.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

import mfakit
from mfakit.attacks import carlini_wagner_l2
from mfakit.bench import Case, Machine, Timed, Work


def plane(case: Case, machine: Machine) -> Work:
    """Ratios to the distance from a plane, whatever the scale of the logits and the batch size."""
    n, d, scale = (case.size[name] for name in ("n", "d", "scale"))
    rng = np.random.default_rng(0)
    X, w = rng.random((n, d)), rng.normal(size=d)
    w *= scale / np.linalg.norm(w)
    net = nn.Linear(d, 2, dtype=torch.float64).eval()
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(np.stack([-w / 2, w / 2])))
        net.bias.copy_(torch.tensor([w.sum() / 4, -w.sum() / 4]))
    attack = partial(carlini_wagner_l2, net, X, bounds=None)
    results = [attack(batch_size=size) for size in (7, 32, n)]
    if max(np.abs(r.l2 - results[0].l2).max() for r in results) > 1e-6:
        raise AssertionError("a result depends on its batch")
    ratio = results[0].l2 / (np.abs(X @ w - w.sum() / 2) / scale)
    return Work(
        Timed(lambda: attack(batch_size=32)), float(ratio.mean() - 1), n, "samples",
        facts={"largest_ratio": float(ratio.max())},
    )  # fmt: skip


def digits(case: Case, machine: Machine) -> Work:
    """mnist-06, raw log-likelihoods, against certified bounds."""
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
    X, y = clf.sample(case.size["n"], rng=0, dtype=np.float64)
    minimal = mfakit.attacks.minimal_perturbation(clf, X, y)
    attack = partial(carlini_wagner_l2, mfakit.torch.BayesClassifierModule(clf), X, y, bounds=None)
    found = attack()
    if len(found.grade(minimal).contradictions):
        raise AssertionError("below a certified bound")
    facts = {"success_rate": found.success_rate}
    return Work(Timed(attack), found.mean_l2 / minimal.mean_l2 - 1, len(X), "samples", facts=facts)


CASES = (
    *[
        Case(f"a plane, logits of scale {scale:g}", plane, {"n": 100, "d": 64, "scale": scale}, dtype="float64",
             against="the distance, mean ratio less 1", allowed=2e-3, rounds=1)
        for scale in (1e-3, 1.0, 1e4)
    ],
    Case("Bayes classifier mnist-06", digits, {"n": 100}, dtype="float64", rounds=3,
         against="certified minima, mean ratio less 1", allowed=0.02),
)  # fmt: skip
