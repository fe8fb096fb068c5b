"""The gradient attack in factor coordinates against the path in the features, and certified minimal perturbations.

Goals: at d = 12,288, 200 components, l = 10 a step of a sample in factor coordinates at least 50 times cheaper (set-up
apart); 10,000 samples of the MNIST 0/6 pair attacked in under 2 s; 500 samples a second certified, 30 of them with
diagonal noise and 20 in the box.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from mfakit import BayesClassifier
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.bench import Case, Machine, Size, Timed, Work
from mfakit.bench.core import random_mixture
from mfakit.datasets import available_bayes_pairs, load_bayes_pair

# A step is the difference of a long and a short walk of the same samples, per step that the long one has more.
SHORT, IN_FEATURES, IN_FACTORS = 2, 5, 200


def step(case: Case, machine: Machine) -> Work:
    size = Size(**case.size)
    clf = BayesClassifier([random_mixture(size, seed) for seed in (0, 1)])
    X, y = clf.sample(size.n, rng=0, dtype=np.float64)
    paths = ("factor", "features")
    ends = [
        gradient_attack(clf, X[:32], y[:32], path=path, max_steps=SHORT + IN_FEATURES, step_size=0.01) for path in paths
    ]

    def walk(path: str, more: int) -> Timed:
        go = partial(gradient_attack, clf, X, y, path=path, step_size=1e-3)
        return Timed(partial(go, max_steps=SHORT + more), work=more, less=partial(go, max_steps=SHORT))

    return Work(
        walk("factor", IN_FACTORS), float((ends[0].n_steps != ends[1].n_steps).sum()), size.n, "steps of a sample",
        beside={"features": walk("features", IN_FEATURES), "set-up": Timed(lambda: FactorCoordinates.of(clf))},
    )  # fmt: skip


def digits(case: Case, machine: Machine) -> Work:
    clf = load_bayes_pair("mnist-06").symmetric(0.01)
    X, y = clf.sample(case.size["n"], rng=0)
    found = gradient_attack(clf, X[:500], y[:500])
    return Work(Timed(lambda: gradient_attack(clf, X, y)), 1 - found.success_rate, len(X), "samples")


def certify(case: Case, machine: Machine, pair: str, variant: str) -> Work:
    clf = load_bayes_pair(pair).symmetric(0.01)
    model = clf if variant == "symmetric" else clf.asymmetric()
    X, y = clf.sample(case.size["n"], rng=0, balanced=True)
    found = minimal_perturbation(model, X, y)
    gap = found.gap[~found.already_wrong]
    facts = {"mean_gap": float(gap.mean()), "p99_gap": float(np.quantile(gap, 0.99)), "largest_gap": float(gap.max())}
    return Work(Timed(lambda: minimal_perturbation(model, X, y)), facts["largest_gap"], len(X), "samples", facts=facts)


def search(case: Case, machine: Machine, boxed: bool) -> Work:
    """Brackets by the search in the d features, and in NumPy beside it: in the box, or with diagonal noise."""
    clf = load_bayes_pair("mnist-06")
    rng = np.random.default_rng(0)
    if not boxed:
        mixtures = [
            m.replace(noise_variance=m.noise_variance[:, None] * rng.uniform(0.5, 2.0, m.means.shape))
            for m in clf.mixtures
        ]
        clf = BayesClassifier(mixtures)
    X, y = clf.sample(case.size["n"], rng=0, balanced=True)
    X = np.clip(X, 0.0, 1.0) if boxed else X
    go = partial(minimal_perturbation, clf, X, y, bounds=(0.0, 1.0) if boxed else None)
    found, plain = go(), go(backend="numpy")
    right = ~found.already_wrong
    off = np.abs(found.lower / plain.lower - 1.0)[right].max()
    facts = {"largest_gap": float(found.gap[right].max())}
    beside = {"numpy": Timed(partial(go, backend="numpy"))}
    return Work(Timed(go), float(off), len(X), "samples", beside=beside, facts=facts)


CASES = (
    Case("a step of the gradient attack", step, {"n": 512, "d": 12_288, "k": 100, "l": 10}, dtype="float64",
         against="the path in the features, samples whose steps differ", allowed=0.0),
    Case("gradient attack on mnist-06", digits, {"n": 10_000}, against="every sample fooled, share", allowed=0.0),
    *[
        Case(f"certified {pair}, {variant}", partial(certify, pair=pair, variant=variant), {"n": 2000},
             against="the lower bound, relative gap", allowed=1e-3)
        for pair in available_bayes_pairs()
        for variant in ("symmetric", "asymmetric")
    ],
    *[
        Case(f"certified mnist-06 as fitted, {name}", partial(search, boxed=boxed), {"n": 40},
             against="lower bounds in NumPy, relative", allowed=1e-4)
        for name, boxed in (("in the box", True), ("diagonal noise", False))
    ],
)  # fmt: skip
