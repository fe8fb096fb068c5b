"""Long functions while another process takes one of two cores, against the same alone.

Goal: nothing is more than 2.5 times slower. This process has two cores; the other process, which counts, is held on one
of them. To add a function, write one line in FUNCTIONS or TORCH_FUNCTIONS.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import mfakit
from mfakit import attacks
from mfakit.bench import Case, Machine, Skipped, Timed, Work
from mfakit.classifiers import CNN, RBFSVM, LinearSVM
from mfakit.fit import Source, initial_mfa


@contextlib.contextmanager
def around() -> Iterator[None]:
    """Two cores, from before any thread is started; fits are stopped after a few steps on purpose."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before:
        os.sched_setaffinity(0, sorted(before)[:2])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Another process that never sleeps, on one of the two cores."""
    core = min(os.sched_getaffinity(0))
    count = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", count], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


class Inputs:
    """Models and samples that the functions share."""

    k, d, l = 25, 784, 6

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        means, loadings = self.rng.random((self.k, self.d)), self.rng.standard_normal((self.k, self.d, self.l)) / 10
        self.mfa = mfakit.MFA(np.full(self.k, 1 / self.k), means, loadings, 1e-2)
        self.clf = mfakit.BayesClassifier([self.mfa, self.mfa.replace(means=means[::-1] * 0.9)])
        self.X, self.y = self.clf.sample(6000, rng=0)
        self.symmetric = self.clf.symmetric(0.05)
        noise = np.full((self.k, self.d), 1e-2)
        self.diagonal = mfakit.BayesClassifier([m.replace(noise_variance=noise) for m in self.clf.mixtures])

    @cached_property
    def wide(self) -> mfakit.MFA:
        shape = (200, self.d, self.l)
        return mfakit.MFA(np.full(200, 1 / 200), self.rng.random(shape[:2]), self.rng.standard_normal(shape), 1e-2)

    @cached_property
    def module(self) -> Any:
        return mfakit.torch.BayesClassifierModule(self.clf)

    @cached_property
    def network(self) -> CNN:
        return CNN(**IMAGES, random_state=0).fit(self.X[:500], self.y[:500])

    def start(self, method: str) -> Any:
        generator = np.random.default_rng(0)
        source = Source.from_array(self.X)
        return initial_mfa(source, self.k, self.l, isotropic=True, method=method, floor=1e-6, rng=generator)

    def fit(self, **settings: Any) -> Any:
        common = {"tol": 0.0, "random_state": 0, "init": "random", "progress": False}
        return mfakit.MixtureOfFactorAnalyzers(self.k, self.l, **{**common, **settings}).fit(self.X)

    def gradients(self) -> None:
        import torch

        x = torch.from_numpy(self.X[:100]).requires_grad_()
        for _ in range(20):
            self.module(x).sum().backward()


IMAGES: dict[str, Any] = {"image_shape": (28, 28, 1), "width": 4, "depth": 3, "epochs": 1}
BRIEF: dict[str, Any] = {"max_iterations": 30, "binary_search_steps": 2, "rescue_searches": 1}
# Each some tenths of a second alone.
FUNCTIONS: dict[str, Callable[[Inputs], Any]] = {
    "log_prob": lambda i: i.mfa.log_prob(i.X),
    "grad_log_prob": lambda i: i.mfa.grad_log_prob(i.X[:2000]),
    "small log_prob": lambda i: [i.mfa.log_prob(i.X[:100]) for _ in range(100)],
    "impute": lambda i: i.mfa.impute(i.X[:40], i.rng.random((40, i.d)) > 0.5),
    "factors": lambda i: [mfakit.MFA(*i.mfa.__getstate__().values()).factors for _ in range(8)],
    "start by k-means": lambda i: i.start("kmeans"),
    "start by random samples": lambda i: i.start("random"),
    "EM": lambda i: i.fit(max_iter=5),
    "distances": lambda i: mfakit.subspace_distances(i.wide, i.wide, reduce="row_min"),
    "asymmetric": lambda i: i.clf.asymmetric(),
    "sample": lambda i: i.clf.sample(6000, rng=0),
    "gradient attack": lambda i: attacks.gradient_attack(
        i.clf, i.X[:100], path="features", step_size=0.5, max_steps=40
    ),
    "factor attack": lambda i: attacks.gradient_attack(i.symmetric, i.X[:1000], step_size=0.1),
    "brackets": lambda i: attacks.minimal_perturbation(i.symmetric, i.X[:40]),
    "general brackets": lambda i: attacks.minimal_perturbation(i.diagonal, i.X[:2]),
    "theorem 2": lambda i: mfakit.theory.validate_theorem2(i.clf, n=5),
    "linear SVM": lambda i: LinearSVM(max_iter=10_000).fit(i.X[:1500], i.y[:1500]),
    "RBF SVM": lambda i: RBFSVM(gamma=0.01).fit(i.X[:1500], i.y[:1500]),
}
TORCH_FUNCTIONS: dict[str, Callable[[Inputs], Any]] = {
    "SGD": lambda i: i.fit(solver="sgd", max_iter=1),
    "torch module": Inputs.gradients,
    "CNN": lambda i: CNN(**IMAGES).fit(i.X[:2000], i.y[:2000]),
    "Carlini and Wagner": lambda i: attacks.carlini_wagner_l2(i.clf, i.X[:20], **BRIEF),
    "Carlini and Wagner of a CNN": lambda i: attacks.carlini_wagner_l2(i.network, i.X[:60], **BRIEF),
}


def work(case: Case, machine: Machine, function: Callable[[Inputs], Any], needs_torch: bool) -> Work:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise Skipped("it needs Linux and two cores")
    if needs_torch and find_spec("torch") is None:
        raise Skipped("torch is not installed")
    run = partial(function, machine.kept("busy", Inputs))
    return Work(Timed(run), 0.0, beside={"beside a process": Timed(run, during=busy)}, facts={"goal": 2.5})


CASES = tuple(
    Case(name, partial(work, function=function, needs_torch=functions is TORCH_FUNCTIONS), rounds=3,
         against="nothing: a function's times are compared with its own", allowed=0.0)
    for functions in (FUNCTIONS, TORCH_FUNCTIONS)
    for name, function in functions.items()
)  # fmt: skip
