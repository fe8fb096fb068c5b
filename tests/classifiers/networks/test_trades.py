"""TRADES: the inner maximum in closed form, the divergence where probabilities vanish, and what training buys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close

import mfakit

torch = pytest.importorskip("torch")

from mfakit.classifiers import CNN, TRADES  # noqa: E402
from mfakit.classifiers.networks.trades import TradesLoss, kl_divergence  # noqa: E402

Array = NDArray[Any]
TINY: dict[str, Any] = {"width": 4, "depth": 1, "epochs": 3, "batch_size": 20, "device": "cpu"}


def loss_of(**options: Any) -> TradesLoss:
    return TradesLoss(TRADES(**options), np.random.default_rng(0))


def linear(weight: Array) -> Any:
    """A network with logits x W [n, C]."""
    return lambda x: x @ torch.from_numpy(weight)


def log_softmax(logits: Array) -> Array:
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


@pytest.fixture(scope="module")
def samples() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 16)).astype(np.float32)
    return X, (X.mean(axis=1) > 0).astype(int)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_worst_neighbour_of_a_linear_network_is_known(norm: str) -> None:
    """With two classes the divergence grows with the change of the logits' difference: along ± w, or ± sign w."""
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(12, 2)), rng.normal(size=(50, 12))
    log_p = torch.from_numpy(log_softmax(x @ weight))
    worst = loss_of(norm=norm, epsilon=0.3, n_attack_steps=20).worst(linear(weight), torch.from_numpy(x), log_p)
    w = weight[:, 1] - weight[:, 0]
    steepest = 0.3 * (w / np.linalg.norm(w) if norm == "l2" else np.sign(w))
    along = (worst.numpy() - x) @ w / (steepest @ w)
    # What the random start has beside w shrinks with every step: its square, some 1e-5 of ε², is what is missing here.
    np.testing.assert_allclose(np.abs(along), 1.0, rtol=1e-4)
    # Which of the two ends is found depends on the side that the ascent starts on.
    assert 0.2 < (along > 0).mean() < 0.8


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", np.inf)])
def test_perturbations_stay_in_the_ball_and_the_bounds(norm: str, order: float) -> None:
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.uniform(size=(40, 16)))
    weight = rng.normal(size=(16, 3))
    log_p = torch.log_softmax(linear(weight)(x), dim=1)
    for bounds in (None, (0.0, 1.0)):
        loss = loss_of(norm=norm, epsilon=0.7, n_attack_steps=7, step_size=1.0, bounds=bounds)
        worst = loss.worst(linear(weight), x, log_p)
        assert np.linalg.norm((worst - x).numpy(), ord=order, axis=1).max() <= 0.7 * (1 + 1e-12)
        assert (float(worst.min()) >= 0 and float(worst.max()) <= 1) is (bounds is not None)


def test_a_flat_network_is_no_division_by_zero() -> None:
    x = torch.zeros(3, 4)
    for norm in ("l2", "linf"):
        worst = loss_of(norm=norm).worst(linear(np.zeros((4, 2), np.float32)), x, torch.full((3, 2), -np.log(2.0)))
        assert torch.isfinite(worst).all()


def test_tiny_gradients_still_point_somewhere() -> None:
    weight = np.full((4, 2), 1e-15, np.float32) * np.array([1, -1], np.float32)
    direction = loss_of()._direction(torch.from_numpy(weight[:, 0][None] * 1e-15))
    np.testing.assert_allclose(direction.numpy(), 0.5, rtol=1e-6)


def test_the_divergence_is_the_sum_and_survives_vanishing_probabilities() -> None:
    rng = np.random.default_rng(3)
    log_p, log_q = (log_softmax(rng.normal(size=(30, 4))) for _ in range(2))
    ours = kl_divergence(torch.from_numpy(log_p), torch.from_numpy(log_q)).numpy()
    close(ours, (np.exp(log_p) * (log_p - log_q)).sum(axis=1), rtol=1e-12)
    p = torch.tensor([[1e4, 0.0], [0.0, 1e4], [0.0, 0.0]], requires_grad=True)
    q = torch.tensor([[0.0, 1e4], [0.0, 1e4], [0.0, 1e4]], requires_grad=True)
    divergence = kl_divergence(torch.log_softmax(p, dim=1), torch.log_softmax(q, dim=1))
    close(divergence.detach().numpy(), [1e4, 0.0, 5e3 - np.log(2)], np.float32, rtol=1e-6)
    divergence.sum().backward()
    assert torch.isfinite(p.grad).all()
    assert torch.isfinite(q.grad).all()


def test_the_loss_is_cross_entropy_plus_beta_divergences(samples: tuple[Array, Array]) -> None:
    X, y = samples
    settings = {**TINY, "epochs": 1, "batch_size": 400, "learning_rate": 1e-30, "label_smoothing": 0.1}
    clf = TRADES(**settings, beta=2.5).fit(X, y)
    _, data, noise = clf._generators()
    order = data.permutation(400)  # of the one epoch: the random starts follow it
    loss, sums = TradesLoss(clf, noise)(clf.module_, torch.from_numpy(X[order]), torch.from_numpy(y[order]))
    log_p = clf.predict_log_proba(X.astype(float))
    target = np.full((400, 2), 0.05)
    target[np.arange(400), y] += 0.9
    expected = -(target * log_p).sum() + 2.5 * float(sums["divergence"])
    assert float(sums["divergence"]) > 10
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert clf.history_["loss"] == [pytest.approx(expected / 400, rel=1e-5)]
    assert clf.history_["divergence"] == [pytest.approx(float(sums["divergence"]) / 400, rel=1e-5)]
    assert clf.history_["accuracy"] == [int(sums["accuracy"]) / 400] == [clf.score(X, y)]


def test_beta_zero_is_the_cnn(samples: tuple[Array, Array]) -> None:
    cnn, trades = CNN(**TINY).fit(*samples), TRADES(**TINY, beta=0).fit(*samples)
    np.testing.assert_array_equal(trades.decision_function(samples[0]), cnn.decision_function(samples[0]))
    assert trades.history_ == cnn.history_


def test_one_seed_gives_one_network(samples: tuple[Array, Array]) -> None:
    first, again = (TRADES(**TINY, n_attack_steps=2).fit(*samples) for _ in range(2))
    np.testing.assert_array_equal(first.decision_function(samples[0]), again.decision_function(samples[0]))
    assert first.history_ == again.history_
    assert set(first.history_) == {"step", "loss", "accuracy", "adversarial_accuracy", "divergence"}


def test_it_buys_robustness() -> None:
    """On a symmetric pair, whose optimal classifier resists all perturbations below 2.7, the plain network does not."""
    pair = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=0.01)
    X, y = pair.sample(100, rng=1, balanced=True)
    share, lengths = [], []
    for beta in (0.0, 4.0):
        settings = {"width": 4, "depth": 3, "epochs": 4, "batch_size": 40, "learning_rate": 3e-3, "device": "cpu"}
        settings["label_smoothing"] = 0.1
        clf = TRADES(**settings, epsilon=1.0, beta=beta, n_attack_steps=3).fit(*pair.sample(700, rng=0, balanced=True))
        assert clf.score(X, y) >= 0.97
        attacked = loss_of(epsilon=1.0, n_attack_steps=20)(clf.module_, torch.from_numpy(X), torch.from_numpy(y))[1]
        share.append(int(attacked["adversarial_accuracy"]) / 100)
        lengths.append(mfakit.attacks.gradient_attack(clf, X[:20], y[:20], step_size=0.1).mean_l2)
    assert share[0] < 0.8
    assert share[1] > 0.9
    assert lengths[1] > 1.5 * lengths[0]


def test_streams(samples: tuple[Array, Array]) -> None:
    def sampler(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        rows = rng.integers(0, 400, n)
        return samples[0][rows], samples[1][rows]

    clf = TRADES(**TINY, norm="linf", epsilon=0.05, n_attack_steps=2).fit_stream(sampler, 30)
    assert clf.history_["step"][-1] == 30


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"norm": "l1"}, "norm must be one of"),
        ({"epsilon": 0.0}, "epsilon must be a positive number"),
        ({"n_attack_steps": 0}, "n_attack_steps must be an integer of at least 1"),
        ({"step_size": -1.0}, "step_size must be a positive number"),
        ({"beta": -1}, "beta must be a non-negative number"),
        ({"beta": np.inf}, "beta must be a non-negative number"),
        ({"bounds": (1, 0)}, r"bounds must be \(low, high\)"),
        ({"bounds": 3}, "bounds must be"),
        ({"bounds": (0, 1)}, r"X must be within bounds=\(0.0, 1.0\), got values from -"),
    ],
)
def test_bad_parameters(options: dict[str, Any], match: str, samples: tuple[Array, Array]) -> None:
    with pytest.raises(ValueError, match=match):
        TRADES(**TINY, **options).fit(*samples)
