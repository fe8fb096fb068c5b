"""Carlini and Wagner's attack: against distances known in closed form or certified, and on everything that can go wrong
with a model.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import mfakit
from mfakit.attacks import carlini_wagner_l2
from mfakit.backends import why_missing

torch = pytest.importorskip("torch")
nn = torch.nn

D = 64


def linear(scale: float = 1.0, dtype: Any = torch.float64, seed: int = 0) -> Any:
    """Two classes, logits ±f/2, f = w · x + b with ‖w‖ = scale."""
    w = np.random.default_rng(seed).normal(size=D)
    w = torch.from_numpy(scale * w / np.linalg.norm(w))
    net = nn.Linear(D, 2, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(torch.stack([-w / 2, w / 2]))
        net.bias.copy_(torch.stack([0.25 * w.sum(), -0.25 * w.sum()]))
    return net.eval()


def problem(net: Any, n: int = 40, dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    """Samples in [0, 1], their classes and their distances to the plane."""
    X = np.random.default_rng(1).random((n, D)).astype(dtype)
    z = nn.functional.linear(torch.from_numpy(X).double(), net.weight.double(), net.bias.double()).detach().numpy()
    w = np.linalg.norm(net.weight.double().detach().numpy()[1] * 2)
    return X, z.argmax(axis=1), np.abs(z[:, 1] - z[:, 0]) / w


class Net(nn.Module):
    """A small smooth network of three classes."""

    def __init__(self, d: int = 10, n_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(d, 24), nn.Tanh(), nn.Linear(24, n_classes)).eval()
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(3.0)
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def net_and_samples(n: int = 20, **options: Any) -> tuple[Any, Any, Any]:
    net = Net(**options)
    X = np.random.default_rng(2).uniform(-1, 1, (n, 10)).astype(np.float32)
    return net, X, net(torch.from_numpy(X)).argmax(dim=1).numpy()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
@pytest.mark.parametrize("bounds", [None, (-3.0, 4.0)])
def test_a_plane_is_reached_at_its_distance_whatever_the_scale_of_the_logits(scale: float, bounds: Any) -> None:
    net = linear(scale)
    X, y, distance = problem(net)
    r = carlini_wagner_l2(net, X, y, bounds=bounds)
    assert r.success.all()
    ratio = r.l2 / distance
    assert ratio.min() > 1 - 1e-9
    assert ratio.mean() <= 1.002
    assert ratio.max() <= 1.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_samples_result_does_not_depend_on_its_batch(dtype: Any) -> None:
    net = linear(dtype=dtype)
    X, y, _ = problem(net, 9)
    for options in ({}, {"preset": "paper", "bounds": (-1, 2)}):
        results = [carlini_wagner_l2(net, X, y, batch_size=size, **options) for size in (1, 7, 32)]
        for r in results[1:]:
            np.testing.assert_array_equal(r.success, results[0].success)
            np.testing.assert_allclose(r.l2, results[0].l2, atol=1e-6)
    alone = carlini_wagner_l2(net, X[5:6], y[5:6], bounds=(-1, 2))
    np.testing.assert_allclose(alone.l2, carlini_wagner_l2(net, X, y, bounds=(-1, 2)).l2[5:6], atol=1e-6)


def test_the_same_twice() -> None:
    net, X, y = net_and_samples()
    first, second = (carlini_wagner_l2(net, X, y) for _ in range(2))
    np.testing.assert_array_equal(first.x_adv, second.x_adv)


def test_adam_alone_is_near_the_plane_and_polish_never_longer() -> None:
    net = linear(10.0)
    X, y, distance = problem(net)
    X += ((1.0 - distance) * (2 * y - 1))[:, None] * 2 * net.weight[1].detach().numpy() / 10.0  # all at distance 1
    plain = carlini_wagner_l2(net, X, y, bounds=None, polish=False)
    assert plain.success.all()
    assert 1.0 <= plain.mean_l2 <= 1.002
    assert plain.l2.max() <= 1.01
    assert (carlini_wagner_l2(net, X, y, bounds=None).l2 <= plain.l2 + 1e-12).all()


@pytest.mark.skipif(why_missing("native") is not None, reason=f"minimal_perturbation: {why_missing('native')}")
def test_raw_log_likelihoods_of_the_digits_within_two_percent_of_the_certified_bound() -> None:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
    X, y = clf.sample(16, rng=0, dtype=np.float64)
    minimal = mfakit.attacks.minimal_perturbation(clf, X, y)
    r = carlini_wagner_l2(mfakit.torch.BayesClassifierModule(clf), X, y, bounds=None)
    assert r.success.all()
    assert r.mean_l2 <= 1.02 * minimal.upper.mean()
    assert not len(r.grade(minimal).contradictions)
    scaled = carlini_wagner_l2(mfakit.torch.BayesClassifierModule(clf, "scaled"), X, y, bounds=None)
    np.testing.assert_allclose(scaled.l2, r.l2, rtol=0.02)


@pytest.mark.slow
@pytest.mark.skipif(why_missing("native") is not None, reason=f"minimal_perturbation: {why_missing('native')}")
def test_every_digit_of_the_symmetric_pair_and_the_flat_margins_of_the_asymmetric_one() -> None:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(0.01)
    X, y = clf.sample(100, rng=3, dtype=np.float64)
    minimal = mfakit.attacks.minimal_perturbation(clf, X, y)
    r = carlini_wagner_l2(clf, X, y, bounds=None)
    assert r.success.all()
    assert r.mean_l2 <= 1.02 * minimal.upper.mean()
    r = carlini_wagner_l2(clf.asymmetric(), X[:30], y[:30], bounds=None)
    assert r.success_rate >= 0.95


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_success_is_verified_on_what_is_returned(dtype: Any) -> None:
    net, X, y = net_and_samples()
    r = carlini_wagner_l2(net, X.astype(dtype), y)
    assert r.success.all()
    assert r.x_adv.dtype == dtype
    for start, size in itertools.product(range(3), (1, 5)):
        part = slice(start, start + size)
        decision = net(torch.from_numpy(r.x_adv[part].astype(np.float32))).argmax(dim=1)
        np.testing.assert_array_equal(decision, r.y_adv[part])
    assert (r.y_adv != y).all()
    np.testing.assert_allclose(r.l2, np.linalg.norm(r.x_adv.astype(float) - X.astype(dtype), axis=1), rtol=1e-12)
    assert (r.target_class == r.y_adv).all()


def test_no_step_along_the_segment_is_already_over() -> None:
    """The polished point lies on the boundary: a thousandth less of the way and the decision is the old one."""
    net, X, y = net_and_samples()
    r = carlini_wagner_l2(net.double(), X.astype(float), y)
    short = X + 0.999 * (r.x_adv - X)
    assert (net(torch.from_numpy(short)).argmax(dim=1).numpy() == y).mean() > 0.9


def test_three_classes_and_targets() -> None:
    net, X, y = net_and_samples()
    untargeted = carlini_wagner_l2(net, X, y)
    lengths = np.full((len(X), 3), np.inf)
    for shift in (1, 2):
        targets = (y + shift) % 3
        r = carlini_wagner_l2(net, X, y, targets=targets)
        assert r.success_rate > 0.8
        assert (r.y_adv == targets)[r.success].all()
        np.testing.assert_array_equal(r.x_adv[~r.success], X[~r.success])
        lengths[np.arange(len(X)), targets] = np.where(r.success, r.l2, np.inf)
    # The nearest of all classes is as near as the nearest target, up to local minima.
    assert np.median(untargeted.l2 / lengths.min(axis=1)) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match="targets must differ from the true classes, but both are"):
        carlini_wagner_l2(net, X, y, targets=y)


def test_confidence_is_the_lead_of_the_other_logit() -> None:
    net, X, y = net_and_samples()
    plain = carlini_wagner_l2(net, X, y, bounds=None)
    r = carlini_wagner_l2(net, X, y, confidence=0.5, bounds=None)
    z = np.sort(net(torch.from_numpy(r.x_adv[r.success])).detach().numpy(), axis=1)
    assert r.success.any()
    assert (z[:, -1] - z[:, -2] > 0.5 - 1e-4).all()
    assert (r.l2[r.success] > plain.l2[r.success]).all()
    reached = carlini_wagner_l2(net, X, y, confidence=0.5, targets=(y + 1) % 3, bounds=None)
    assert reached.success.any()


def test_bounds() -> None:
    net, X, y = net_and_samples()
    default = carlini_wagner_l2(net, X, y)
    assert default.settings["bounds"] == (float(X.min()), float(X.max()))
    assert default.settings["bounds_from"] == "data"
    assert default.x_adv.min() >= X.min()
    assert default.x_adv.max() <= X.max()
    assert carlini_wagner_l2(net, X, y, bounds=None).settings["bounds"] is None
    tight = carlini_wagner_l2(net, X * 0.5, None, bounds=(-0.5, 0.5))
    assert np.abs(tight.x_adv).max() <= 0.5
    with pytest.raises(ValueError, match=r"within bounds \[0, 1\], got values from .* in row 0; clip X or widen"):
        carlini_wagner_l2(net, X, y, bounds=(0, 1))
    with pytest.raises(ValueError, match="low < high"):
        carlini_wagner_l2(net, X, y, bounds=(1, 0))
    with pytest.raises(ValueError, match=r"needs data with a range, and every value of X is 0\.5; pass"):
        carlini_wagner_l2(net, np.full((2, 10), 0.5))


def test_features_on_the_bounds_come_back_exactly_where_they_did_not_move() -> None:
    """A linear model that looks at one feature only; tanh is flat at the bounds where the others sit."""
    net = nn.Linear(4, 2, dtype=torch.float64).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]]))
        net.bias.zero_()
    X = np.array([[-0.25, -1.0, 1.0, 0.3]])
    r = carlini_wagner_l2(net, X, bounds=(-1.0, 1.0))
    np.testing.assert_array_equal(r.x_adv[0, 1:], X[0, 1:])
    np.testing.assert_allclose(r.l2, 0.25, rtol=1e-9)


def test_samples_that_are_wrong_are_left_alone() -> None:
    net, X, y = net_and_samples()
    labels = y.copy()
    labels[3] = (y[3] + 1) % 3
    r = carlini_wagner_l2(net, X, labels)
    assert r.already_wrong.tolist() == [i == 3 for i in range(len(X))]
    np.testing.assert_array_equal(r.x_adv[3], X[3])
    assert (r.reason[3], r.n_steps[3]) == ("already wrong", 0)
    assert np.isnan(r.l2[3])
    np.testing.assert_array_equal(carlini_wagner_l2(net, X).y, y)


def test_the_papers_preset_is_fixed() -> None:
    net, X, y = net_and_samples(4)
    r = carlini_wagner_l2(net, X, y, preset="paper")
    chosen = {name: r.settings[name] for name in ("max_iterations", "binary_search_steps", "learning_rate")}
    assert chosen == {"max_iterations": 500, "binary_search_steps": 3, "learning_rate": 0.01}
    assert (r.settings["initial_const"], r.settings["polish"], r.settings["confidence"]) == (0.01, False, 0.0)
    assert r.n_steps.max() <= 1500
    with pytest.raises(ValueError, match=r"fixes learning_rate at 0\.01, got 0\.1"):
        carlini_wagner_l2(net, X, y, preset="paper", learning_rate=0.1)
    with pytest.raises(ValueError, match="preset must be None or 'paper'"):
        carlini_wagner_l2(net, X, y, preset="other")


def test_a_constant_far_too_high_or_low_is_searched_down_or_up() -> None:
    net = linear(10.0)
    X, y, distance = problem(net, 10)
    for const in (1e-6, 1e6):
        r = carlini_wagner_l2(net, X, y, bounds=None, initial_const=const, max_iterations=200)
        assert r.success.all()
        assert (r.l2 / distance).max() <= 1.01
    X, y = X[distance > 0.2], y[distance > 0.2]
    few = carlini_wagner_l2(net, X, y, bounds=None, initial_const=1e-6, rescue_searches=0)
    assert not few.success.any()
    assert set(few.reason) == {"max_steps"}
    assert np.isnan(few.l2).all()
    np.testing.assert_array_equal(few.x_adv, X)


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
    np.testing.assert_allclose(r.l2[~broken], alone.l2[~broken], rtol=1e-4)


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
    np.testing.assert_allclose(r.l2, carlini_wagner_l2(net, X, y).l2, rtol=1e-3)
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
    np.testing.assert_allclose(change[r.success], r.l2[r.success], rtol=1e-12)
    flat = carlini_wagner_l2(nn.Sequential(nn.Unflatten(1, (2, 5, 5)), Images()).eval(), X.flatten(1).numpy())
    np.testing.assert_allclose(flat.l2, r.l2, rtol=1e-5)


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
    np.testing.assert_allclose(r.l2, [0.5, 1.5], rtol=1e-6)
    assert r.settings["runs_in"] == "float64"


def test_support_vector_machines() -> None:
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 6))
    y = (X[:, 0] > 0).astype(int)
    svm = SVC(kernel="linear", C=10.0).fit(X, y)
    r = carlini_wagner_l2(svm, X, svm.predict(X), bounds=None)
    np.testing.assert_allclose(r.l2, np.abs(svm.decision_function(X)) / np.linalg.norm(svm.coef_), rtol=1e-6)
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


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"model": object()}, TypeError, "object cannot be attacked"),
        ({"model": Net().train()}, ValueError, r"Net is in training mode; call .eval\(\)"),
        ({"model": nn.Sequential(nn.Linear(10, 2), nn.Dropout()).eval().append(nn.Dropout())}, ValueError, "part '2'"),
        ({"model": nn.Linear(10, 1).eval()}, ValueError, r"two or more classes, got \(2, 1\) for 2 samples"),
        ({"model": nn.Sequential(nn.Linear(10, 1), nn.Flatten(0)).eval()}, ValueError, r"got \(2,\) for 2 samples"),
        ({"model": Detached().eval()}, ValueError, "no gradient in its input"),
        ({"X": np.full((2, 10), np.nan)}, ValueError, "X has NaN or inf, first in row 0"),
        ({"y": [0, 3]}, ValueError, "classes 0 to 2"),
        ({"y": [0]}, ValueError, "one label per sample"),
        ({"targets": [0, 7]}, ValueError, "targets must hold the classes 0 to 2"),
        ({"bounds": "unit"}, ValueError, 'or "data", got'),
        ({"max_iterations": 0}, ValueError, "max_iterations must be a whole number of at least 1"),
        ({"binary_search_steps": 1.5}, ValueError, "binary_search_steps"),
        ({"rescue_searches": -1}, ValueError, "rescue_searches"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be a positive"),
        ({"initial_const": "high"}, ValueError, "initial_const"),
        ({"confidence": -1.0}, ValueError, "confidence"),
        ({"device": "cuda"}, ValueError, "device is cuda, but the model is on cpu"),
    ],
)
def test_bad_input_says_what_is_wrong(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    arguments: dict[str, Any] = {"model": Net(), "X": np.linspace(0, 1, 20).reshape(2, 10).astype(np.float32)} | changes
    with pytest.raises(error, match=match):
        carlini_wagner_l2(**arguments)


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
