"""Carlini and Wagner's attack on models of every kind, and on everything that can go wrong with one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support import close

import mfakit
from mfakit.attacks import carlini_wagner_l2

torch = pytest.importorskip("torch")
nn = torch.nn

from carlini_wagner_cases import Net, net_and_samples  # noqa: E402 (needs torch)


class NotANumber(nn.Module):
    """Three classes; NaN wherever the first feature is beyond a wall that lies on the way of some samples."""

    def __init__(self, net: Any, wall: float) -> None:
        super().__init__()
        self.net, self.wall = net, wall
        self.eval()

    def forward(self, x: Any) -> Any:
        return torch.where(x[:, :1] > self.wall, torch.nan, self.net(x))


def test_nan_logits_fail_their_own_sample_only() -> None:
    net, X, y = net_and_samples()
    alone = carlini_wagner_l2(net, X, y, bounds=None)
    wall = float(np.quantile(X[:, 0], 0.8))
    r = carlini_wagner_l2(NotANumber(net, wall), X, y, bounds=None)
    broken = r.reason == "NaN logits"
    assert broken[X[:, 0] > wall].all()
    assert not broken.all()
    assert not r.success[broken].any()
    np.testing.assert_array_equal(r.x_adv[broken], X[broken])
    close(r.l2[~broken], alone.l2[~broken], rtol=1e-4)


class Masked(nn.Module):
    """One class is impossible (-inf) everywhere, as a class of prior 0."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x: Any) -> Any:
        z = self.net(x)
        return torch.cat([z, torch.full_like(z[:, :1], -torch.inf)], dim=1)


def test_impossible_classes_do_not_matter() -> None:
    net, X, y = net_and_samples()
    r = carlini_wagner_l2(Masked(net), X, y)
    assert r.success.all()
    close(r.l2, carlini_wagner_l2(net, X, y).l2, rtol=1e-3)
    only = nn.Sequential(Masked(nn.Linear(10, 1))).eval()
    assert not carlini_wagner_l2(only, X, max_iterations=20, rescue_searches=0).success.any()


class Flat(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.relu(x - 10.0)[:, :2] + torch.tensor([1.0, 0.0])


def test_a_vanishing_gradient_is_a_failure_with_its_reason() -> None:
    r = carlini_wagner_l2(Flat().eval(), np.zeros((2, 3)), bounds=None)
    assert r.reason.tolist() == ["no gradient"] * 2
    assert not r.success.any()


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 2)
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.conv(x)).mean(dim=(2, 3)) * 20)


def test_images_keep_their_shape_and_torch_comes_back_as_torch() -> None:
    X = torch.rand(6, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    r = carlini_wagner_l2(Images(), X)
    assert isinstance(r.x_adv, torch.Tensor)
    assert r.x_adv.shape == X.shape
    assert r.success.any()
    change = (r.x_adv.double() - X.double()).flatten(1).norm(dim=1).numpy()
    close(change[r.success], r.l2[r.success], rtol=1e-12)
    flat = carlini_wagner_l2(nn.Sequential(nn.Unflatten(1, (2, 5, 5)), Images()).eval(), X.flatten(1).numpy())
    close(flat.l2, r.l2, rtol=1e-5)


class Carrier:
    def __init__(self, module: Any) -> None:
        self.module_ = module


def test_whatever_carries_a_network_can_be_attacked() -> None:
    net, X, y = net_and_samples(5)
    expected = carlini_wagner_l2(net, X, y)
    np.testing.assert_array_equal(carlini_wagner_l2(Carrier(net), X, y).x_adv, expected.x_adv)
    mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 0.0, 3.0)]
    bayes = mfakit.BayesClassifier(mixtures)
    r = carlini_wagner_l2(bayes, np.array([[-1.0, 0.5], [3.0, 0.0]], np.float32), bounds=None)
    close(r.l2, [0.5, 1.5], rtol=1e-6)
    assert r.settings["runs_in"] == "float64"


def test_support_vector_machines() -> None:
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 6))
    y = (X[:, 0] > 0).astype(int)
    svm = SVC(kernel="linear", C=10.0).fit(X, y)
    r = carlini_wagner_l2(svm, X, svm.predict(X), bounds=None)
    close(r.l2, np.abs(svm.decision_function(X)) / np.linalg.norm(svm.coef_), rtol=1e-6)
    rbf = SVC(kernel="rbf").fit(X, y)
    r = carlini_wagner_l2(rbf, X, y, bounds=None)
    assert r.success_rate > 0.9  # where all kernels vanish, some samples are led and stay
    assert (rbf.predict(r.x_adv) != y)[r.success].all()


class Dice(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.generator = net, torch.Generator().manual_seed(0)
        self.eval()

    def forward(self, x: Any) -> Any:
        z = self.net(x)
        return z + 0.01 * torch.randn(z.shape, generator=self.generator)


def test_a_module_that_is_not_deterministic_is_warned_about() -> None:
    net, X, y = net_and_samples(4)
    with pytest.warns(UserWarning, match="two answers for one input"):
        carlini_wagner_l2(Dice(net), X, y, max_iterations=20)


class Detached(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.detach()[:, :2]


class Blind(nn.Module):
    """Logits that have a gradient, but not in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, x: Any) -> Any:
        return self.logits.expand(len(x), 2)


class Complex(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.complex(x, x)[:, :2]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"model": object()}, TypeError, "object is not recognised as a linear classifier"),
        ({"model": Net().train()}, ValueError, r"Net is in training mode; call .eval\(\)"),
        ({"model": nn.Sequential(nn.Linear(10, 2), nn.Dropout()).eval().append(nn.Dropout())}, ValueError, "part '2'"),
        ({"model": nn.Linear(10, 1).eval()}, ValueError, r"two or more classes, got \(2, 1\) for 2 samples"),
        ({"model": nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)).eval()}, ValueError, r"got \(2,\) for 2 samples"),
        ({"model": Detached().eval()}, ValueError, "no gradient in its input"),
        ({"model": Blind().eval()}, ValueError, "no gradient in its input"),
        ({"model": Complex().eval()}, ValueError, r"two or more classes, got torch\.complex128 for 2"),
        ({"model": nn.Linear(9, 2).eval()}, ValueError, r"the model takes no float32 samples \[2, 10\]: mat1 and"),
        ({"model": nn.Linear(10, 2, device="meta").eval()}, ValueError, "the model is on meta, where it has no"),
        ({"X": torch.zeros(2, 10, device="meta")}, mfakit.BackendUnavailable, "X is on meta"),
        ({"X": torch.zeros(2, 10, requires_grad=True)}, TypeError, r"X requires grad.*pass X\.detach"),
        ({"X": np.full((2, 10), np.nan)}, ValueError, "X has NaN or inf, first in row 0"),
        ({"y": [0, 3]}, ValueError, "classes 0 to 2"),
        ({"y": [0]}, ValueError, "one label per sample"),
        ({"targets": [0, 7]}, ValueError, "targets must hold the classes 0 to 2"),
        ({"bounds": "unit"}, ValueError, 'or "data", got'),
        ({"max_iterations": 0}, ValueError, "max_iterations must be an integer of at least 1"),
        ({"max_iterations": 2**70}, ValueError, r"max_iterations must be .* at most 2147483647"),
        ({"binary_search_steps": 1.5}, ValueError, "binary_search_steps"),
        ({"rescue_searches": -1}, ValueError, "rescue_searches"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be a positive"),
        ({"learning_rate": 1e300}, ValueError, r"learning_rate must be 2e-38 to 6e\+37 for a float32 model"),
        ({"initial_const": "high"}, ValueError, "initial_const"),
        ({"initial_const": np.ones(2)}, ValueError, "initial_const"),
        ({"abort_early": "never"}, ValueError, "abort_early must be True or False, got 'never'"),
        ({"polish": 1}, ValueError, "polish must be True or False"),
        ({"confidence": -1.0}, ValueError, "confidence"),
        ({"device": "cuda"}, ValueError, "device is cuda, but the model is on cpu"),
        ({"device": "abacus"}, ValueError, "device must be None or one of torch's, such as 'cpu'"),
    ],
)
def test_bad_input_says_what_is_wrong(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    arguments: dict[str, Any] = {"model": Net(), "X": np.linspace(0, 1, 20).reshape(2, 10).astype(np.float32)} | changes
    with pytest.raises(error, match=match) as caught:
        carlini_wagner_l2(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: np.asfortranarray(X), lambda X: np.repeat(X, 2, axis=1)[:, ::2], lambda X: X[::-1][::-1],
        lambda X: X.astype(">f4"), lambda X: torch.from_numpy(X.T.copy()).T,
    ],
)  # fmt: skip
def test_layouts_change_nothing(change: Any) -> None:
    net, X, y = net_and_samples(3)
    X = X.round(2)
    expected = carlini_wagner_l2(net, X, y, max_iterations=30)
    np.testing.assert_array_equal(carlini_wagner_l2(net, change(X), y, max_iterations=30).x_adv, expected.x_adv)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8])
def test_integers_and_half_precision_become_float32(dtype: Any) -> None:
    net, X, _ = net_and_samples(3)
    X = (np.abs(X) * 9).astype(dtype)
    r = carlini_wagner_l2(net, X, max_iterations=30)
    assert r.x_adv.dtype == np.float32
    np.testing.assert_array_equal(r.x_adv, carlini_wagner_l2(net, X.astype(np.float32), max_iterations=30).x_adv)
    assert carlini_wagner_l2(net, X[:1], device="auto", max_iterations=30).x_adv.shape == (1, 10)


def test_no_samples() -> None:
    r = carlini_wagner_l2(Net(), np.zeros((0, 10), np.float32), np.zeros(0, int))
    assert r.x_adv.shape == (0, 10)
    assert np.isnan(r.mean_l2)


def test_what_the_caller_switched_off_is_on_inside() -> None:
    net, X, y = net_and_samples(4)
    expected = carlini_wagner_l2(net, X, y).x_adv
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            np.testing.assert_array_equal(carlini_wagner_l2(net, X, y).x_adv, expected)
    assert all(p.grad is None for p in net.parameters())


def test_attacks_load_without_torch() -> None:
    code = "import sys, mfakit.attacks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
