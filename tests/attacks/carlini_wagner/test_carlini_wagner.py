"""Carlini and Wagner's attack: against distances known in closed form or certified, and as its options say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from support import close

import mfakit
from mfakit.attacks import carlini_wagner_l2
from mfakit.backends import why_missing

torch = pytest.importorskip("torch")
nn = torch.nn

from carlini_wagner_cases import linear, net_and_samples, problem  # noqa: E402 (needs torch)


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
    X, y, _ = problem(net, 5)
    for options in ({"max_iterations": 200}, {"preset": "paper", "bounds": (-1, 2)}):
        results = [carlini_wagner_l2(net, X, y, batch_size=size, **options) for size in (1, 3, 32)]
        for r in results[1:]:
            np.testing.assert_array_equal(r.success, results[0].success)
            close(r.l2, results[0].l2, atol=1e-6)
    alone = carlini_wagner_l2(net, X[3:4], y[3:4], bounds=(-1, 2))
    close(alone.l2, carlini_wagner_l2(net, X, y, bounds=(-1, 2)).l2[3:4], atol=1e-6)


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
    close(scaled.l2, r.l2, rtol=0.02)


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
    close(r.l2, np.linalg.norm(r.x_adv.astype(float) - X.astype(dtype), axis=1), rtol=1e-12)
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
    default, data = carlini_wagner_l2(net, X, y), carlini_wagner_l2(net, X, y, bounds="data")
    assert default.settings["bounds"] is None
    assert data.settings["bounds"] == (float(X.min()), float(X.max()))
    assert data.settings["bounds_from"] == "data"
    assert data.x_adv.min() >= X.min()
    assert data.x_adv.max() <= X.max()
    tight = carlini_wagner_l2(net, X * 0.5, None, bounds=(-0.5, 0.5))
    assert np.abs(tight.x_adv).max() <= 0.5
    with pytest.raises(ValueError, match=r"within bounds \[0, 1\], got values from .* in row 0; clip X or widen"):
        carlini_wagner_l2(net, X, y, bounds=(0, 1))
    with pytest.raises(ValueError, match="low < high"):
        carlini_wagner_l2(net, X, y, bounds=(1, 0))
    with pytest.raises(ValueError, match=r"needs data with a range, and every value of X is 0\.5; pass"):
        carlini_wagner_l2(net, np.full((2, 10), 0.5), bounds="data")


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
