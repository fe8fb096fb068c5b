"""CNN: scikit-learn's checks, its layout, its training on arrays and on streams, and that it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cnn_cases import TINY, Array, images, weights
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import close

import mfakit

torch = pytest.importorskip("torch")

from mfakit.classifiers import CNN  # noqa: E402 (needs torch)
from mfakit.classifiers.networks import layout as _layout  # noqa: E402 (needs torch)
from mfakit.classifiers.networks.layout import Layout, as_image_shape  # noqa: E402 (needs torch)

EXPECTED_FAILURES = {
    "check_classifiers_classes": "expects string labels: mfakit's attacks and files know integer classes only",
    "check_complex_data": "expects a ValueError for complex data; mfakit promises a TypeError that names the dtype",
    "check_dtype_object": "expects object arrays to be converted; mfakit promises a TypeError that names the dtype",
}


@parametrize_with_checks(
    # Smoothed: without, probabilities reach 1 in float32, whose logarithm one check compares with log p.
    [
        CNN(
            (1, -1, 1),
            width=8,
            depth=1,
            epochs=10,
            batch_size=32,
            learning_rate=0.05,
            label_smoothing=0.1,
            device="cpu",
        )
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("shape", "depth", "expected"),
    [
        # channels out, stride, side out: 28 → 14 → 7 → 4 at every second layer
        ((28, 28, 1), 6, [(32, 1, 28), (64, 2, 14), (64, 1, 14), (128, 2, 7), (128, 1, 7), (256, 2, 4)]),
        ((64, 64, 3), 4, [(64, 2, 32), (128, 2, 16), (256, 2, 8), (512, 2, 4)]),
        ((32, 32, 3), 6, [(32, 1, 32), (64, 2, 16), (64, 1, 16), (128, 2, 8), (128, 1, 8), (256, 2, 4)]),
        ((64, 64, 3), 1, [(64, 2, 32)]),
        ((4, 4, 1), 2, [(32, 1, 4), (32, 1, 4)]),
    ],
)
def test_strides_are_evenly_spaced_and_double_the_width(shape: Any, depth: int, expected: list[Any]) -> None:
    layout = Layout(shape, 2, 32, depth)
    assert [(layer.n_out, layer.stride, layer.height) for layer in layout.layers] == expected
    from mfakit.classifiers.networks.network import Network

    network = Network(layout, 0.2, np.random.default_rng(0))
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == layout.shapes()
    assert sum(p.numel() for p in network.parameters()) == layout.n_parameters
    assert network(torch.zeros(3, layout.n_features)).shape == (3, 2)


def test_image_shapes_are_inferred_and_completed() -> None:
    assert as_image_shape(None, 784) == (28, 28, 1)
    assert as_image_shape(None, 12288) == (64, 64, 3)
    assert as_image_shape((1, -1, 1), 10) == (1, 10, 1)
    assert as_image_shape([5, 6, -1], 60) == (5, 6, 2)


def test_history_is_that_of_the_epochs() -> None:
    X, y = images(50)
    cnn = CNN(**{**TINY, "epochs": 30, "learning_rate": 0.01}).fit(X, y)
    assert cnn.history_["step"] == [4 * (i + 1) for i in range(30)]
    assert cnn.history_["accuracy"][-1] == cnn.score(X, y) == 1.0
    assert cnn.history_["loss"][0] > cnn.history_["loss"][-1]


def test_the_loss_has_smoothed_targets() -> None:
    X, y = images(16, classes=3)
    cnn = CNN(**{**TINY, "epochs": 1, "label_smoothing": 0.3, "learning_rate": 1e-30}).fit(X, y)
    log_p = cnn.predict_log_proba(X.astype(float))
    target = np.full((16, 3), 0.1)
    target[np.arange(16), y] += 0.7
    assert cnn.history_["loss"] == [pytest.approx(-(target * log_p).sum(axis=1).mean(), rel=1e-5)]


def test_labels_may_be_any_integers() -> None:
    X, y = images(60, classes=3)
    plain = CNN(**TINY).fit(X, y)
    names = np.array([-5, 3, 40])
    for labels in (names[y], names[y].astype(float), torch.from_numpy(names[y])):
        other = CNN(**TINY).fit(X, labels)
        np.testing.assert_array_equal(other.classes_, names)
        np.testing.assert_array_equal(other.predict(X), names[plain.predict(X)])
        assert other.score(X, labels) == plain.score(X, y)
    assert CNN(**TINY).fit(X, y == 1).classes_.tolist() == [0, 1]


def test_one_seed_gives_one_network() -> None:
    X, y = images()
    for state in (np.random.default_rng, np.random.RandomState, int):
        first, again, other = (CNN(**TINY, random_state=state(s)).fit(X, y) for s in (3, 3, 4))
        assert weights(first) == weights(again) != weights(other)
    assert weights(CNN(**TINY, random_state=None).fit(X, y)) != weights(CNN(**TINY, random_state=None).fit(X, y))


def test_batches_in_parts_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = images()
    whole = CNN(**TINY).fit(X, y)
    layout = whole.module_.layout
    monkeypatch.setattr(_layout, "PART_FLOPS", 6 * layout.n_products * 5)
    assert layout.rows_at_once(3) == 5
    parts = CNN(**TINY).fit(X, y)
    assert weights(parts) != weights(whole)  # another order of summation, so the parts were real
    close(parts.decision_function(X), whole.decision_function(X), np.float32, rtol=1e-3, atol=1e-4)


def test_streams_train_on_fresh_samples() -> None:
    seen: list[bytes] = []

    def sampler(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        X = rng.normal(size=(n, 16)) + 3.0 * (y := rng.integers(0, 2, n))[:, None]
        seen.append(X.tobytes())
        return X, y

    settings = {**TINY, "learning_rate": 0.01}
    cnn = CNN(**settings).fit_stream(sampler, 150)
    assert len(set(seen)) == len(seen) == 150
    X, y = sampler(500, np.random.default_rng(9))
    assert cnn.score(X, y) > 0.98
    assert len(cnn.history_["step"]) == 100
    assert cnn.history_["step"][-1] == 150
    assert cnn.n_features_in_ == 16
    assert weights(CNN(**settings).fit_stream(sampler, 150)) == weights(cnn)


def test_a_bayes_classifier_is_a_sampler() -> None:
    mixtures = [mfakit.MFA([1.0], [[m] * 16], np.zeros((1, 16, 1)), 0.1) for m in (-1.0, 0.0, 1.0)]
    clf = mfakit.BayesClassifier(mixtures)
    # A batch of two cannot show three classes: they are the sampler's.
    cnn = CNN(**{**TINY, "batch_size": 2}).fit_stream(clf, 7)
    assert cnn.classes_.tolist() == [0, 1, 2]
    assert cnn.history_["step"] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_bar(progress: bool | None, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    CNN(**TINY, progress=progress).fit(*images(20))
    captured = capsys.readouterr()
    assert ("CNN" in captured.err) is shown
    assert captured.out == ""


def digits(n: int, seed: int) -> tuple[Array, Array]:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=0.01)
    return clf.sample(n, rng=seed, balanced=True)


def test_it_learns_a_symmetric_pair_and_the_gradient_attack_fools_it() -> None:
    cnn = CNN(width=4, depth=3, epochs=4, batch_size=40, learning_rate=3e-3, device="cpu").fit(*digits(700, 0))
    X, y = digits(300, 1)
    assert cnn.score(X, y) >= 0.98
    result = mfakit.attacks.gradient_attack(cnn, X[:10], y[:10], step_size=0.1)
    assert result.success_rate == 1.0
    np.testing.assert_array_equal(cnn.predict(result.x_adv), result.y_adv)
    # The CNN is brittle where the optimal classifier is not (Theorem 2: about 2.7 here).
    assert result.mean_l2 < 2.0


@pytest.mark.slow
def test_the_papers_network_reaches_the_bayes_accuracy() -> None:
    cnn = CNN(epochs=2, device="cpu").fit(*digits(10_000, 0))
    assert cnn.score(*digits(2000, 1)) >= 0.99


def test_no_label_is_smoothed_by_default() -> None:
    """The loss is the cross-entropy itself; the paper's library smooths only where it is asked to."""
    from mfakit.classifiers import TRADES

    X, y = images()
    cnn = CNN(**{**TINY, "epochs": 1, "batch_size": len(X), "learning_rate": 1e-30}).fit(X, y)
    log_p = cnn.predict_log_proba(X.astype(float))
    assert cnn.history_["loss"][0] == pytest.approx(-log_p[np.arange(len(X)), y].mean(), rel=1e-5)
    assert CNN().label_smoothing == TRADES().label_smoothing == 0.0
