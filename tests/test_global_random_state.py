"""Nothing moves the global random streams of Python, NumPy or torch, and nothing reads them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.svm import LinearSVC
from support import random_mfa

import mfakit
from mfakit.attacks import carlini_wagner_l2, gradient_attack, minimal_perturbation
from mfakit.classifiers import CNN, RBFSVM, TRADES, LinearSVM

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = RNG.normal(size=(60, 16)) + 2 * np.eye(16)[Y]
BAYES = mfakit.BayesClassifier([random_mfa(k=2, d=16, l=2, seed=s) for s in range(2)])
TWO = Y < 2


def streams() -> list[Any]:
    """What can be read of the three global streams without moving them."""
    numpy = np.random.get_state()  # noqa: NPY002 (this stream is what the test is about)
    return [random.getstate(), numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()]  # type: ignore[index,union-attr]


CALLS: dict[str, Callable[[], Any]] = {
    "LinearSVM": lambda: LinearSVM().fit(X, Y).coef_,
    "RBFSVM": lambda: RBFSVM(gamma=0.1).fit(X, Y).dual_coef_,
    "path of gamma": lambda: RBFSVM(accuracy_threshold=0.0, gammas=[0.1, 0.2], random_state=0).fit(X, Y).gamma_,
    "path without a seed": lambda: RBFSVM(accuracy_threshold=0.0, gammas=[0.1]).fit(X, Y).gamma_,
    "CNN": lambda: CNN(width=2, depth=1, epochs=1, progress=False).fit(X, Y).decision_function(X),
    "CNN without a seed": lambda: CNN(width=2, depth=1, epochs=1, random_state=None, progress=False).fit(X, Y) and 0,
    "TRADES": lambda: TRADES(width=2, depth=1, epochs=1, progress=False).fit(X, Y).decision_function(X),
    "EM from k-means": lambda: mfakit.MixtureOfFactorAnalyzers(2, 1, random_state=0).fit(X).mfa_.means,
    "EM without a seed": lambda: mfakit.MixtureOfFactorAnalyzers(2, 1).fit(X) and 0,
    "samples": lambda: BAYES.sample(5, rng=0)[0],
    "samples without a seed": lambda: BAYES.sample(5) and 0,
    "gradient attack": lambda: gradient_attack(BAYES, X[:3]).x_adv,
    "gradient attack on a machine": lambda: gradient_attack(LinearSVM().fit(X, Y), X[:3]).x_adv,
    "CW": lambda: carlini_wagner_l2(
        LinearSVM().fit(X, Y), X[:2], max_iterations=2, binary_search_steps=1, rescue_searches=0).x_adv,
    "certificates": lambda: minimal_perturbation(BAYES, X[:2]).lower,
    "recognised machines": lambda: gradient_attack(LinearSVC(random_state=0).fit(X, Y), X[:3]).x_adv,
    "modules": lambda: mfakit.torch.SVMModule(LinearSVM().fit(X, Y))(torch.from_numpy(X)).numpy(),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_global_streams_stay_where_they_are_and_decide_nothing(name: str) -> None:
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (this stream is what the test is about)
        torch.manual_seed(seed)
        before = streams()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that have not converged
            found.append(np.asarray(CALLS[name]()))
        assert streams() == before
    np.testing.assert_array_equal(found[0], found[1])
