"""What happens to a torch module after it was made: results follow its buffers, or the change is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC
from support import random_mfa

import mfakit

torch = pytest.importorskip("torch")

from mfakit.torch import BayesClassifierModule, MFAModule, SVMModule  # noqa: E402 (after the skip)

A, B = (random_mfa(k=3, d=6, l=2, seed=s, noise="diagonal") for s in (0, 1))
X = torch.from_numpy(A.sample(8, rng=0, dtype=np.float64)[0])


def shifted(module: MFAModule) -> None:
    """The means of a module's mixture as they are after each of the edits below."""
    expected = mfakit.MFA(A.weights, A.means + 1, A.loadings, A.noise_variance)
    np.testing.assert_allclose(module(X), expected.log_prob(X), rtol=1e-12)


def replace_twice(module: MFAModule) -> None:
    module.means = module.means + 2
    module.means = module.means - 1


EDITS: dict[str, Callable[[MFAModule], Any]] = {
    "in place": lambda m: m.means.add_(1),
    "an element at a time": lambda m: [m.means[i].add_(1) for i in range(3)],
    "behind torch's back": lambda m: m.means.data.add_(1),
    "by NumPy's view": lambda m: np.add(m.means.numpy(), 1, out=m.means.numpy()),
    "a new tensor": lambda m: setattr(m, "means", m.means + 1),
    "twice": replace_twice,
    "register_buffer": lambda m: m.register_buffer("means", m.means + 1),
    "load_state_dict": lambda m: m.load_state_dict({**m.state_dict(), "means": m.means + 1}),
    "assigned state": lambda m: m.load_state_dict({**m.state_dict(), "means": m.means + 1}, assign=True),
    "another mixture": lambda m: setattr(m, "mfa", m.mfa.replace(means=A.means + 1)),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("used", [False, True])
def test_results_follow_the_buffers(name: str, used: bool) -> None:
    module = MFAModule(A)
    if used:
        module(X)
    EDITS[name](module)
    shifted(module)
    shifted(module)
    np.testing.assert_allclose(module.means, A.means + 1)
    np.testing.assert_array_equal(module.mfa.means, module.means)
    x = X.clone().requires_grad_()
    module(x).sum().backward()
    np.testing.assert_allclose(x.grad, module.mfa.grad_log_prob(X), rtol=1e-12)


def test_a_large_buffer_is_followed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfakit.torch.buffers.LOOKED_AT", 4)
    for edit in EDITS.values():
        module = MFAModule(A)
        edit(module)
        shifted(module)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_follow_their_own_buffers(again: Any) -> None:
    module = BayesClassifierModule(mfakit.BayesClassifier([A, B]), "scaled")
    before = module(X)
    twin = again(module)
    np.testing.assert_array_equal(twin(X), before)
    twin.mixtures[0].means.add_(1)
    np.testing.assert_array_equal(module(X), before)
    shifted(twin.mixtures[0])
    np.testing.assert_allclose(twin(X)[:, 1], before[:, 1])
    edited = again(twin)
    np.testing.assert_array_equal(edited(X), twin(X))


def test_a_classifier_follows_noise_and_priors() -> None:
    module = BayesClassifierModule(mfakit.BayesClassifier([A, B]), "scaled")
    scale = module.scale
    for mixture in module.mixtures:
        mixture.noise_variance.mul_(4)
    assert module.scale == pytest.approx(4 * scale)
    module.log_priors.copy_(torch.log(torch.tensor([0.9, 0.1])))
    wide = [m.replace(noise_variance=4 * m.noise_variance) for m in (A, B)]
    expected = module.scale * mfakit.BayesClassifier(wide, [0.9, 0.1]).class_log_prob(X)
    np.testing.assert_allclose(module(X), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.weights.mul_(2), "weights must be non-negative and sum to 1"),
        (lambda m: m.noise_variance.zero_(), "noise_variance must be positive"),
        (lambda m: m.means.fill_(torch.nan), "means has NaN or inf"),
        (lambda m: setattr(m, "means", m.means[:2]), r"loadings must be \[k, d, l\] = \[2, 6, l\]"),
        (lambda m: setattr(m, "means", None), "the parameter means has been removed"),
        (lambda m: m.means.requires_grad_(), "means requires grad, and gradients are in X only"),
    ],
)
def test_buffers_that_are_no_mixture_are_refused_by_forward(edit: Any, message: str) -> None:
    module = MFAModule(A)
    module(X)
    edit(module)
    with pytest.raises(ValueError, match=message):
        module(X)


def test_another_width_is_refused() -> None:
    module = MFAModule(A)
    narrow = random_mfa(k=2, d=4, l=1)
    with pytest.raises(ValueError, match="the mixture must have 6 features, as before, got 4"):
        module.mfa = narrow
    with pytest.raises(TypeError, match="mfa must be an MFA, got int"):
        module.mfa = 3
    np.testing.assert_allclose(module(X), A.log_prob(X))


def test_parameters_and_gradients_in_them_are_refused_and_nothing_is_lost() -> None:
    bayes = BayesClassifierModule(mfakit.BayesClassifier([A, B]))
    before = bayes(X)
    for module, name in ((bayes.mixtures[0], "means"), (bayes, "log_priors")):
        value = torch.nn.Parameter(module.get_parameter(name).clone())
        for assign in (lambda m=module, n=name, v=value: setattr(m, n, v),
                       lambda m=module, n=name, v=value: m.register_parameter(n, v)):  # fmt: skip
            with pytest.raises(TypeError, match=f"has gradients in X only, so {name} cannot be a Parameter"):
                assign()
        with pytest.raises(TypeError, match="has no parameters to train"):
            module.requires_grad_()
        assert module.requires_grad_(False) is module
    np.testing.assert_array_equal(bayes(X), before)


def test_changes_of_dtype_keep_the_digits() -> None:
    """Conversions there and back leave a density as it was, and take no new factors."""
    module = MFAModule(A)
    before, factors = module(X), module.mfa.factors
    for change in (lambda m: m.half(), lambda m: m.double(), lambda m: m.float(), lambda m: m.to(torch.bfloat16)):
        np.testing.assert_array_equal(change(module)(X), before)
    assert module.mfa.factors is factors
    module.means = module.means.to(torch.bfloat16)
    rounded = A.replace(means=torch.tensor(A.means).to(torch.bfloat16).float().numpy())
    np.testing.assert_allclose(module(X), rounded.log_prob(X))


def test_machines_compute_with_their_buffers_and_take_parameters() -> None:
    x = X.numpy()
    svm = SVC(gamma=0.2).fit(x, np.arange(8) % 2)
    module = SVMModule(svm)
    with pytest.raises(TypeError, match="SVMModule has no parameters to train"):
        module.requires_grad_()
    module.intercept.add_(1)
    f = module(X)
    np.testing.assert_allclose(f[:, 1] - f[:, 0], svm.decision_function(x) + 1, atol=1e-9)
    module.intercept = torch.nn.Parameter(module.intercept.clone())
    module(X).square().sum().backward()
    assert module.intercept.grad.abs() > 0
    assert module.requires_grad_() is module


def test_arrays_of_models_cannot_be_made_writeable() -> None:
    bayes = mfakit.BayesClassifier([A, B])
    for array in (A.weights, A.means, A.loadings, A.noise_variance, bayes.priors):
        with pytest.raises(ValueError, match="read-only"):
            array += 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
