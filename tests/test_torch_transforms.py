"""The modules under torch.func and torch.compile, padded logits, frozen parameters, and the density that is trained."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from support import random_mfa

import mfakit

torch = pytest.importorskip("torch")

from mfakit.torch import BayesClassifierModule, MFAModule, SVMModule, TrainableMFA  # noqa: E402 (after the skip)

A, B = (random_mfa(k=3, d=6, l=2, seed=s, noise="diagonal") for s in (0, 1))
CLF = mfakit.BayesClassifier([A, B], [0.3, 0.7])
X = torch.from_numpy(A.sample(5, rng=0, dtype=np.float64)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_single_samples_by_vmap_and_grad(dtype: Any) -> None:
    module, x = MFAModule(A), X.to(dtype)
    found = torch.func.vmap(torch.func.grad(lambda row: module(row[None])[0]))(x)
    np.testing.assert_array_equal(found, A.grad_log_prob(x))
    values = torch.func.vmap(lambda row: module(row[None])[0])(x)
    np.testing.assert_array_equal(values, A.log_prob(x))


def test_batches_of_batches() -> None:
    module, batches = MFAModule(A), torch.stack([X, X + 1, X - 1], dim=2)
    found = torch.func.vmap(module, in_dims=2)(batches)
    np.testing.assert_array_equal(found[1], A.log_prob(X + 1))
    twice = torch.func.vmap(torch.func.vmap(lambda row: module(row[None])[0]), in_dims=2)(batches)
    np.testing.assert_array_equal(twice, found)


def test_jacobians_of_classifiers() -> None:
    net = BayesClassifierModule(CLF, "scaled")
    jacobian = torch.func.jacrev(net)(X)
    assert jacobian.shape == (5, 2, 5, 6)
    for c, mfa in enumerate((A, B)):
        for i in range(5):
            expected = net.scale * mfa.grad_log_prob(X)[i]
            np.testing.assert_allclose(jacobian[i, c, i], expected, rtol=1e-10)
            assert not jacobian[i, c, (i + 1) % 5].any()


def test_functional_transforms_see_edits() -> None:
    module = MFAModule(A)
    module(X)
    with torch.no_grad():
        module.means.add_(1)
    found = torch.func.vmap(torch.func.grad(lambda row: module(row[None])[0]))(X)
    np.testing.assert_array_equal(found, A.replace(means=A.means + 1).grad_log_prob(X))


def test_second_derivatives_are_refused_everywhere() -> None:
    module = MFAModule(A)
    with pytest.raises(RuntimeError, match=r"first derivatives only.*take TrainableMFA"):
        torch.func.jacrev(torch.func.jacrev(lambda x: module(x).sum()))(X)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.sum().backward()


def machine_of() -> Any:
    from sklearn.svm import SVC

    return SVC(gamma=0.1).fit(X.numpy(), np.arange(5) % 2)


def networks() -> dict[str, Any]:
    return {
        "density": MFAModule(A),
        "log_likelihood": BayesClassifierModule(CLF),
        "scaled": BayesClassifierModule(CLF, "scaled", image_shape=(2, 3), n_logits=4),
        "svm": SVMModule(machine_of()),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["density", "log_likelihood", "scaled", "svm"])
def test_compiled_graphs_are_whole_and_see_edits(name: str) -> None:
    net = networks()[name]
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    pair = []
    for f in (net, compiled):
        x = X.clone().requires_grad_()
        f(x).square().sum().backward()
        pair.append((f(X), x.grad))
    (z, gradient), (compiled_z, compiled_gradient) = pair
    torch.testing.assert_close(compiled_z, z, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        next(p for p in net.parameters() if p.ndim == 2).add_(0.5)
    assert not torch.allclose(net(X), z)
    torch.testing.assert_close(compiled(X), net(X), rtol=1e-12, atol=0.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_default_compiler_takes_them() -> None:
    torch._dynamo.reset()
    net = BayesClassifierModule(CLF, "scaled")
    torch.testing.assert_close(torch.compile(net, fullgraph=True)(X), net(X), rtol=1e-10, atol=1e-12)


def test_copies_answer_for_themselves() -> None:
    module = MFAModule(A)
    twin = copy.deepcopy(module)
    assert twin.number != module.number
    with torch.no_grad():
        twin.means.add_(1)
    grad = torch.func.grad(lambda x: module(x).sum())
    np.testing.assert_array_equal(grad(X), A.grad_log_prob(X))


def test_a_gradient_outlives_its_module_and_nothing_outlives_the_gradient() -> None:
    x = X.clone().requires_grad_()
    module = MFAModule(A.replace())
    kept, value = weakref.ref(module.mfa), module(x).sum()
    del module
    gc.collect()
    value.backward()
    np.testing.assert_array_equal(x.grad, A.grad_log_prob(X))
    del value
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("name", ["density", "log_likelihood", "scaled", "svm"])
def test_parameters_are_there_and_frozen(name: str) -> None:
    net = networks()[name]
    assert next(net.parameters()).device.type == "cpu"
    assert not any(p.requires_grad for p in net.parameters())
    torch.optim.SGD(net.parameters(), lr=1.0).step()


def test_modules_say_what_they_are() -> None:
    assert repr(MFAModule(A)) == "MFAModule(k=3, d=6, l=2)"
    assert repr(networks()["scaled"]).splitlines()[1].strip() == (
        "C=2, d=6, logits='scaled', n_logits=4, image_shape=(2, 3, 1)"
    )
    assert "rbf, C=2, d=6, support=" in repr(networks()["svm"])
    assert repr(TrainableMFA(A, noise_floor=1e-6)) == "TrainableMFA(k=3, d=6, l=2, noise_floor=1e-06)"


@pytest.mark.parametrize("logits", ["log_likelihood", "scaled"])
def test_padded_logits_change_neither_decisions_nor_losses(logits: str) -> None:
    plain, padded = BayesClassifierModule(CLF, logits), BayesClassifierModule(CLF, logits, n_logits=10)
    z = padded(X)
    assert z.shape == (5, 10)
    np.testing.assert_array_equal(z[:, :2], plain(X))
    np.testing.assert_array_equal(z.argmax(dim=1), plain(X).argmax(dim=1))
    assert (z[:, 2:] == plain(X).amin(dim=1, keepdim=True) - 100).all()
    labels, gradients = torch.arange(5) % 2, []
    for net in (plain, padded):
        x = X.clone().requires_grad_()
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-14)
    # The difference of logits ratio, which divides by the first less the third logit.
    top = z.sort(dim=1, descending=True).values
    assert (((top[:, 0] - top[:, 1]) / (top[:, 0] - top[:, 2])).abs() <= 1).all()


def test_a_class_without_prior_does_not_decide_the_padding() -> None:
    z = BayesClassifierModule(mfakit.BayesClassifier([A, B], [1.0, 0.0]), n_logits=3)(X)
    np.testing.assert_array_equal(z[:, 2], z[:, 0] - 100)
    machine = networks()["svm"]
    padded = SVMModule(machine_of(), n_logits=5)
    np.testing.assert_array_equal(padded(X)[:, :2], machine(X))
    assert padded(X).shape == (5, 5)
    for wrong in (1, 2.5, True):
        with pytest.raises(ValueError, match="n_logits must be an integer of at least 2, the number of classes"):
            BayesClassifierModule(CLF, n_logits=wrong)


def test_it_is_a_distribution_of_torch() -> None:
    density = MFAModule(A).to_distribution()
    np.testing.assert_allclose(density.log_prob(X), A.log_prob(X), rtol=1e-9)
    assert density.sample((3,)).shape == (3, 6)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_a_trainable_density_is_that_of_its_mixture(noise: str) -> None:
    mfa = random_mfa(k=3, d=6, l=2, seed=2, noise=noise)
    density = TrainableMFA(mfa, noise_floor=1e-4)
    np.testing.assert_allclose(density(X).detach(), mfa.log_prob(X), rtol=1e-10)
    again = density.mfa()
    for name in ("weights", "means", "loadings", "noise_variance"):
        np.testing.assert_allclose(getattr(again, name), getattr(mfa, name), rtol=1e-10)
    assert density.float()(X).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_it_has_second_derivatives_in_samples_and_parameters() -> None:
    density = TrainableMFA(random_mfa(k=2, d=3, l=1, seed=1))
    x = X[:2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(density, (x,))
    assert torch.autograd.gradgradcheck(density, (x,))
    loss = (torch.autograd.grad(density(x).sum(), x, create_graph=True)[0] ** 2).sum()
    loss.backward()
    for parameter in density.parameters():
        assert parameter.grad.abs().sum() > 0
    hessian = torch.func.hessian(lambda row: density(row[None])[0])(x[0].detach()).detach()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)


def test_training_finds_the_density_of_the_samples() -> None:
    truth = mfakit.MFA([1.0], [[2.0, -1.0]], [[[1.0], [0.5]]], 0.04)
    samples = torch.from_numpy(truth.sample(1000, rng=0, dtype=np.float64)[0])
    density = TrainableMFA(mfakit.MFA([1.0], [[0.0, 0.0]], [[[0.1], [0.1]]], 1.0), noise_floor=1e-3)
    optimizer = torch.optim.Adam(density.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-density(samples).mean()).backward()
        optimizer.step()
    fitted = density.mfa()
    assert fitted.log_prob(samples).mean() >= truth.log_prob(samples).mean() - 1e-3
    np.testing.assert_allclose(fitted.means, truth.means, atol=0.1)
    np.testing.assert_allclose(fitted.noise_variance, 0.04, rtol=0.15)


def test_what_cannot_be_trained() -> None:
    with pytest.raises(TypeError, match="mfa must be an MFA"):
        TrainableMFA(CLF)  # type: ignore[arg-type]
    for floor in (-1.0, 10.0):
        with pytest.raises(ValueError, match="noise_floor must be from 0 to below"):
            TrainableMFA(A, noise_floor=floor)
    with pytest.raises(ValueError, match=r"X must be \[n, 6\], got \(5, 3\)"):
        TrainableMFA(A)(X[:, :3])
