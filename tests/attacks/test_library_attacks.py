"""Attacks of other libraries on our modules, where these libraries are installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC, LinearSVC

import mfakit

torch = pytest.importorskip("torch")

# Their own imports and calls warn of things that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

HEIGHT, WIDTH = 4, 5


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def data(dtype: Any = np.float32) -> tuple[mfakit.BayesClassifier, Any, Any]:
    """Two classes of 4 × 5 images in [0, 1], two thin components each."""
    rng = np.random.default_rng(0)
    d = HEIGHT * WIDTH
    mixtures = [
        mfakit.MFA([0.5, 0.5], rng.uniform(0.35, 0.65, (2, d)), 0.02 * rng.normal(size=(2, d, 2)), 0.02**2)
        for _ in range(2)
    ]
    clf = mfakit.BayesClassifier(mixtures)
    X, y = clf.sample(12, rng=1, dtype=dtype, balanced=True)
    return clf, np.clip(X, 0, 1), y


def modules() -> dict[str, Any]:
    """Every module, on images [n, 1, 4, 5]."""
    clf, *_ = data()
    X, y = clf.sample(200, rng=2)
    shape = {"image_shape": (HEIGHT, WIDTH)}
    Bayes, SVM = mfakit.torch.BayesClassifierModule, mfakit.torch.SVMModule
    return {
        "scaled": Bayes(clf, "scaled", **shape),
        "log_likelihood": Bayes(clf, **shape),
        "linear": SVM(LinearSVC(C=10.0).fit(X, y), **shape),
        "rbf": SVM(SVC(kernel="rbf", gamma=2.0, C=10.0).fit(X, y), **shape),
    }


def images(net: Any) -> tuple[Any, Any]:
    _, X, _ = data()
    X = torch.from_numpy(X.reshape(-1, 1, HEIGHT, WIDTH))
    return X, net(X).argmax(dim=1)


NAMES = ("scaled", "log_likelihood", "linear", "rbf")


@pytest.mark.parametrize("name", NAMES)
def test_foolbox(name: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    net = modules()[name]
    X, y = images(net)
    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=4, steps=150, stepsize=0.01, initial_const=0.1)
    found = attack.run(model, X, y)
    fooled = (net(found).argmax(dim=1) != y).numpy()
    assert fooled.mean() >= 0.9
    theirs = (found - X).flatten(1).norm(dim=1).numpy()
    ours = mfakit.attacks.carlini_wagner_l2(net, X, y, bounds=(0, 1))
    assert ours.success.all()
    assert ours.mean_l2 <= 1.005 * theirs[fooled].mean()


@pytest.mark.parametrize("name", NAMES)
def test_adversarial_robustness_toolbox(name: str) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import CarliniL2Method, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    net = modules()[name]
    X, y = images(net)
    wrapped = PyTorchClassifier(
        net, torch.nn.CrossEntropyLoss(), input_shape=(1, HEIGHT, WIDTH), nb_classes=2, clip_values=(0, 1)
    )
    minimal = mfakit.attacks.carlini_wagner_l2(net, X, y, bounds=(0, 1))
    found = ProjectedGradientDescent(wrapped, norm=2, eps=2.0, eps_step=0.2, max_iter=20, verbose=False).generate(
        X.numpy(), y.numpy()
    )
    # The cross-entropy of raw log-likelihoods is saturated: its gradient is 0 in float32, and the attack stays put.
    fooled = (net(torch.from_numpy(found)).argmax(dim=1) != y).numpy().mean()
    assert fooled == 0.0 if name == "log_likelihood" else fooled >= 0.9
    if name == "scaled":
        attack = CarliniL2Method(
            wrapped, max_iter=20, binary_search_steps=2, initial_const=10.0, batch_size=12, verbose=False
        )
        found = attack.generate(X.numpy(), y.numpy())
        fooled_by_cw = (net(torch.from_numpy(found)).argmax(dim=1) != y).numpy()
        assert fooled_by_cw.any()
        change = np.linalg.norm((found - X.numpy()).reshape(len(X), -1), axis=1)
        assert (minimal.l2[fooled_by_cw] <= 1.01 * change[fooled_by_cw]).all()


@pytest.mark.parametrize("name", NAMES)
def test_torchattacks(name: str) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net = modules()[name]
    X, y = images(net)
    attacks = [torchattacks.DeepFool(net, steps=50)]
    if name in ("linear", "rbf"):  # its CW masks the true class by a product with 0, so it needs logits around 0
        attacks.append(torchattacks.CW(net, c=10.0, steps=150, lr=0.01))
    for attack in attacks:
        found = attack(X, y)
        fooled = (net(found).argmax(dim=1) != y).numpy()
        assert fooled.mean() >= 0.9, type(attack).__name__
        change = (found - X).flatten(1).norm(dim=1).numpy()
        ours = mfakit.attacks.carlini_wagner_l2(net, X, y, bounds=(0, 1))
        assert ours.mean_l2 <= 1.005 * change[fooled].mean()
