"""The torch modules: values and gradients of our kernels and of scikit-learn, in the forms that torch users expect."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC, LinearSVC
from support import close, parameters, random_mfa, rtol
from threadpoolctl import threadpool_info, threadpool_limits

import mfakit
from mfakit import _reference as reference

torch = pytest.importorskip("torch")

from mfakit.torch import BayesClassifierModule, MFAModule, SVMModule  # noqa: E402 (after the skip)


def classifier(noise: str = "isotropic", n_classes: int = 2) -> mfakit.BayesClassifier:
    mixtures = [random_mfa(k=3, d=12, l=2, noise=noise, seed=s) for s in range(n_classes)]
    return mfakit.BayesClassifier(mixtures, priors=np.arange(1, n_classes + 1) / (n_classes * (n_classes + 1) / 2))


def samples(clf: mfakit.BayesClassifier, n: int = 6, dtype: Any = np.float64) -> Any:
    return torch.from_numpy(clf.sample(n, rng=0, dtype=dtype)[0])


def svms() -> list[Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12))
    y = np.where(X[:, 0] + 0.3 * X[:, 1] ** 2 > 0, 1, -1)
    three = np.digitize(X[:, 0], [-0.5, 0.5])
    return [
        SVC(kernel="rbf", gamma=0.3).fit(X, y), SVC(kernel="rbf").fit(X + 5, y), SVC(kernel="linear").fit(X, y),
        LinearSVC().fit(X, y), LinearSVC().fit(X, three),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mfa_module_is_the_density(dtype: Any) -> None:
    mfa = random_mfa()
    X = torch.from_numpy(mfa.sample(20, rng=0, dtype=dtype)[0]).requires_grad_()
    log_prob = MFAModule(mfa)(X)
    log_prob.sum().backward()
    expected = reference.log_prob(X.detach().numpy().astype(float), *parameters(mfa))
    np.testing.assert_allclose(log_prob.detach(), expected, rtol=rtol(dtype), atol=1e-5 if dtype == np.float32 else 0)
    np.testing.assert_array_equal(X.grad, mfa.grad_log_prob(X.detach()))
    assert log_prob.dtype == X.grad.dtype == X.dtype


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("logits", ["log_likelihood", "scaled"])
def test_gradcheck(noise: str, logits: str) -> None:
    clf = classifier(noise, n_classes=3)
    X = samples(clf).requires_grad_()
    assert torch.autograd.gradcheck(MFAModule(clf.mixtures[0]), X)
    assert torch.autograd.gradcheck(BayesClassifierModule(clf, logits), X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_are_the_classes_log_likelihoods(dtype: Any) -> None:
    clf = classifier(n_classes=3)
    X = samples(clf, 30, dtype)
    raw, scaled = BayesClassifierModule(clf), BayesClassifierModule(clf, logits="scaled")
    np.testing.assert_allclose(raw(X), clf.class_log_prob(X), rtol=rtol(dtype), atol=1e-4 if dtype == np.float32 else 0)
    noise = np.concatenate([m.noise_variance for m in clf.mixtures])
    close(scaled.scale, 2 / np.mean(1 / noise))
    np.testing.assert_allclose(scaled(X), scaled.scale * raw(X), rtol=1e-6)
    np.testing.assert_array_equal(scaled(X).argmax(dim=1), clf.predict(X))
    assert raw(X).dtype == X.dtype


def test_a_second_derivative_is_refused_and_the_message_says_so() -> None:
    clf = classifier()
    X = samples(clf).requires_grad_()
    net = BayesClassifierModule(clf)
    (gradient,) = torch.autograd.grad(net(X).logsumexp(dim=1).sum(), X, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only, and a second one was asked for"):
        gradient.square().sum().backward()


def test_scaled_logits_of_the_digits_are_of_order_one_to_a_hundred() -> None:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
    X = samples(clf, 20)
    raw, scaled = (BayesClassifierModule(clf, logits)(X) for logits in ("log_likelihood", "scaled"))
    assert (raw[:, 0] - raw[:, 1]).abs().max() > 1e4
    assert 1.0 < (scaled[:, 0] - scaled[:, 1]).abs().mean() < 100.0


def test_images_are_rearranged() -> None:
    rng = np.random.default_rng(0)
    height, width, channels = 2, 3, 2
    X = rng.normal(size=(5, height * width * channels))  # height-width-channel, as everywhere
    images = torch.from_numpy(X.reshape(5, height, width, channels).transpose(0, 3, 1, 2).copy()).requires_grad_()
    clf = classifier()
    for make in (
        lambda **k: MFAModule(clf.mixtures[0], **k), lambda **k: BayesClassifierModule(clf, **k),
        lambda **k: SVMModule(svms()[0], **k),
    ):  # fmt: skip
        net = make(image_shape=(height, width, channels))
        np.testing.assert_array_equal(net(images).detach(), net(torch.from_numpy(X)).detach())
        assert torch.autograd.grad(net(images).sum(), images)[0].shape == images.shape
        with pytest.raises(ValueError, match=r"images must be \[n, 2, 2, 3\], got \(5, 2, 3, 2\)"):
            net(images.permute(0, 2, 3, 1))
        with pytest.raises(ValueError, match=r"for images .* pass image_shape"):
            make()(images)
        with pytest.raises(ValueError, match="product 12"):
            make(image_shape=(5, 5))
    assert MFAModule(clf.mixtures[0], image_shape=(4, 3)).image_shape == (4, 3, 1)


def test_state_dict_and_to(tmp_path: Any) -> None:
    clf, other = classifier("diagonal"), classifier("diagonal", 3)
    other = mfakit.BayesClassifier(other.mixtures[1:])
    X = samples(clf)
    net, twin = BayesClassifierModule(clf), BayesClassifierModule(other)
    assert not torch.allclose(net(X), twin(X))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    twin.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    np.testing.assert_array_equal(twin(X), net(X))
    assert "mixtures.1.means" in net.state_dict()
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert next(net.parameters()).device.type == "cpu"
    assert not list(net.buffers())
    np.testing.assert_array_equal(copy.deepcopy(net)(X), net(X))
    # The parameters' digits survive a change of dtype; the result follows X.
    np.testing.assert_array_equal(copy.deepcopy(net).half().double()(X), net(X))
    assert net.float()(X.float()).dtype == torch.float32
    assert net.to("meta").mixtures[0].means.is_meta


def test_modules_are_in_evaluation_mode() -> None:
    for net in (BayesClassifierModule(classifier()), SVMModule(svms()[0])):
        assert not any(part.training for part in net.modules())


def test_a_row_with_nan_is_nan_and_the_others_are_not() -> None:
    clf = classifier()
    X = samples(clf)
    X[2, 3] = np.nan
    z = BayesClassifierModule(clf)(X)
    assert z.isnan().any(dim=1).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("small", [True, False])
def test_small_batches_leave_the_cores_to_torch(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of a product spin when it is done; a small one has none, and others have theirs back after it."""
    seen = []

    def blas_threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    original = mfakit.MFA.log_prob
    monkeypatch.setattr(mfakit.MFA, "log_prob", lambda *a, **k: seen.append(blas_threads()) or original(*a, **k))
    monkeypatch.setattr("mfakit.torch.operations.SMALL_PRODUCT", 2**27 if small else 0)
    clf = classifier()
    with threadpool_limits(2, "blas"):
        BayesClassifierModule(clf)(torch.zeros(4, clf.n_features))
        after = blas_threads()
    assert after == {2}
    assert seen == [{1 if small else 2}] * clf.n_classes


@pytest.mark.parametrize("which", range(5))
def test_svm_module_is_the_decision_function(which: int) -> None:
    svm = svms()[which]
    X = np.random.default_rng(1).normal(size=(40, 12)) + (5 if which == 1 else 0)
    z = SVMModule(svm)(torch.from_numpy(X))
    f = svm.decision_function(X)
    expected = f if f.ndim == 2 else np.stack([-f / 2, f / 2], axis=1)
    np.testing.assert_allclose(z, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(svm.classes_[z.argmax(dim=1).numpy()], svm.predict(X))
    single = SVMModule(svm)(torch.from_numpy(X.astype(np.float32)))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, expected, atol=1e-5)
    rows = torch.from_numpy(X[:3]).requires_grad_()
    assert torch.autograd.gradcheck(SVMModule(svm), rows)
    assert torch.autograd.gradgradcheck(SVMModule(svm), rows)


@pytest.mark.parametrize("cls", [mfakit.classifiers.LinearSVM, mfakit.classifiers.RBFSVM])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_svm_module_of_our_machines(cls: Any, n_classes: int) -> None:
    rng = np.random.default_rng(2)
    y = np.arange(60) % n_classes
    X = rng.normal(size=(60, 5)) + 2 * np.eye(5)[y]
    svm = cls(gamma=0.2).fit(X, y) if cls is mfakit.classifiers.RBFSVM else cls().fit(X, y)
    z, f = SVMModule(svm)(torch.from_numpy(X)), svm.decision_function(X)
    expected = f if n_classes > 2 else np.stack([-f / 2, f / 2], axis=1)
    np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-9)


class LikeOurs:
    """The attributes of mfakit's own machines: one-dimensional coefficients and a public gamma_."""

    def __init__(self, svm: SVC) -> None:
        self.classes_, self.decision_function = svm.classes_, svm.decision_function
        self.support_vectors_, self.gamma_ = svm.support_vectors_, svm._gamma
        self.dual_coef_, self.intercept_ = svm.dual_coef_[0], float(svm.intercept_[0])


def test_svm_module_goes_by_attributes() -> None:
    svm = svms()[0]
    X = torch.from_numpy(np.random.default_rng(1).normal(size=(10, 12)))
    np.testing.assert_allclose(SVMModule(LikeOurs(svm))(X), SVMModule(svm)(X), rtol=1e-14)
    net = SVMModule(svm).float()
    assert net.coef.dtype == torch.float32
    np.testing.assert_allclose(net(X), SVMModule(svm)(X), atol=1e-5)


def test_bad_input_says_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    with pytest.raises(TypeError, match="must be an MFA, got int"):
        MFAModule(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="for a linear or kernel machine take SVMModule"):
        BayesClassifierModule(svms()[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="logits must be one of"):
        BayesClassifierModule(classifier(), "odds")
    with pytest.raises(TypeError, match="SVC is not fitted; call fit first"):
        SVMModule(SVC())
    with pytest.raises(TypeError, match="SVC has kernel='poly'; kernels that are taken are 'rbf' and 'linear'"):
        SVMModule(SVC(kernel="poly").fit(X, y))
    for kernel in ("rbf", "linear"):  # the latter has as many machines as classes, between pairs of them
        with pytest.raises(TypeError, match="SVC decides between its 3 classes by the votes of machines for each pair"):
            SVMModule(SVC(kernel=kernel).fit(X, y))
    with pytest.raises(ValueError, match=r"X must be \[n, 12\], got \(2, 4\)"):
        BayesClassifierModule(classifier())(torch.zeros(2, 4))
    for shape in ("ab", 3, (-3, -4), (3.0, 4.0), (12,)):
        with pytest.raises(ValueError, match=r"image_shape must be .* with product 12"):
            SVMModule(svms()[0], image_shape=shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MFAModule(classifier().mixtures[0]), lambda: BayesClassifierModule(classifier()),
        lambda: SVMModule(svms()[0]),
    ],
    ids=["mfa", "bayes", "svm"],
)  # fmt: skip
def test_devices_containers_and_integers(make: Any) -> None:
    with torch.device("meta"):
        net = make()
    X = torch.arange(24).reshape(2, 12)
    assert net(X).device.type == "cpu"
    assert net(X).dtype == torch.float32
    np.testing.assert_allclose(net(X), net(X.float()), rtol=1e-6)
    with pytest.raises(ValueError, match="X is on meta, and the module on cpu; move one of them"):
        net(X.to("meta"))
    with pytest.raises(TypeError, match="X must be a torch tensor, got ndarray"):
        net(X.numpy())
    with pytest.raises(ValueError, match="X is on cpu, and the module on meta; move one of them"):
        net.to("meta")(X)


@pytest.mark.parametrize("make", [lambda X: X.to(torch.complex64), lambda X: X > 0, lambda X: X.to_sparse()])
def test_tensors_of_anything_but_dense_real_numbers_are_refused(make: Any) -> None:
    X = torch.as_tensor(np.random.default_rng(0).normal(size=(4, 5)))
    machine = mfakit.torch.SVMModule(mfakit.classifiers.LinearSVM().fit(X.numpy(), np.arange(4) % 2))
    for module in (machine, mfakit.torch.MFAModule(random_mfa(d=5))):
        with pytest.raises(TypeError, match=r"X must be (real numbers|dense)"):
            module(make(X))
