"""CNN: its network against a plain NumPy one, training, scikit-learn's checks, and what torch's settings may not do."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import mfakit

torch = pytest.importorskip("torch")

from mfakit.classifiers import CNN, _layout  # noqa: E402
from mfakit.classifiers._layout import Layout, as_image_shape  # noqa: E402

Array = NDArray[Any]
TINY: dict[str, Any] = {"width": 2, "depth": 2, "epochs": 2, "batch_size": 16, "device": "cpu"}

EXPECTED_FAILURES = {
    "check_classifiers_classes": "expects string labels: mfakit's attacks and files know integer classes only",
    "check_complex_data": "expects a ValueError for complex data; mfakit promises a TypeError that names the dtype",
    "check_dtype_object": "expects object arrays to be converted; mfakit promises a TypeError that names the dtype",
}


@parametrize_with_checks(
    [CNN((1, -1, 1), width=8, depth=1, epochs=10, batch_size=32, learning_rate=0.05, device="cpu")],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def images(n: int = 120, classes: int = 2, shape: tuple[int, int, int] = (6, 6, 1), seed: int = 0) -> tuple[Any, Any]:
    """Noise with a bright row, whose place is the class."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, *shape)).astype(np.float32)
    y = np.arange(n) % classes
    X[np.arange(n), y] += 2.0
    return X.reshape(n, -1), y


@pytest.fixture(scope="module", params=[2, 3])
def fitted(request: pytest.FixtureRequest) -> Any:
    return CNN((5, 6, 2), **TINY).fit(*images(classes=request.param, shape=(5, 6, 2)))


def plain_logits(cnn: CNN, X: Array) -> Array:
    """The network as sums over pixels, in float64."""
    p = {name: value.numpy().astype(float) for name, value in cnn.module_.state_dict().items()}
    image = X.astype(float).reshape(len(X), *cnn.image_shape_)
    for i, layer in enumerate(cnn.module_.layout.layers):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
        image = np.zeros((len(X), layer.height, layer.width, layer.n_out)) + p[f"convolutions.{i}.bias"]
        for a in range(layer.height):
            for b in range(layer.width):
                window = padded[:, layer.stride * a :, layer.stride * b :][:, :3, :3]
                image[:, a, b] += np.einsum("nhwc,ochw->no", window, p[f"convolutions.{i}.weight"])
        image = np.where(image > 0, image, cnn.negative_slope * image)
    flat = image.transpose(0, 3, 1, 2).reshape(len(X), -1)
    return np.asarray(flat @ p["output.weight"].T + p["output.bias"])


def decision_of(logits: Array) -> Array:
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits


def test_the_network_is_the_sum_it_is_said_to_be(fitted: CNN) -> None:
    X = images(20, shape=(5, 6, 2), seed=1)[0]
    expected = plain_logits(fitted, X)
    with torch.no_grad():
        np.testing.assert_allclose(fitted.module_(torch.from_numpy(X)).numpy(), expected, rtol=1e-5, atol=1e-5)
    decision = fitted.decision_function(X.astype(np.float64))
    assert decision.dtype == np.float64
    np.testing.assert_allclose(decision, decision_of(expected), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fitted.decision_function(X), decision_of(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(X), expected.argmax(axis=1))
    proba = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(X.astype(float)), proba, rtol=1e-10)
    np.testing.assert_allclose(fitted.predict_log_proba(X.astype(float)), np.log(proba), rtol=1e-10)


def test_gradients_are_difference_quotients(fitted: CNN) -> None:
    X = images(4, shape=(5, 6, 2), seed=2)[0].astype(float)
    gradient = fitted.decision_gradient(X)
    h = 1e-6
    quotients = np.empty_like(gradient)
    for j in range(X.shape[1]):
        step = h * np.eye(X.shape[1])[j]
        above, below = fitted.decision_function(X + step), fitted.decision_function(X - step)
        quotients[..., j] = (above - below) / (2 * h)
    np.testing.assert_allclose(gradient, quotients, rtol=1e-6, atol=1e-8)
    narrow = fitted.decision_gradient(X.astype(np.float32))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, gradient, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None and not p.requires_grad for p in fitted.module_.parameters())
    assert not fitted.module_.training


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
    from mfakit.classifiers.network import Network

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


def weights(cnn: CNN) -> bytes:
    return b"".join(p.numpy().tobytes() for p in cnn.module_.state_dict().values())


def test_one_seed_gives_one_network() -> None:
    X, y = images()
    for state in (np.random.default_rng, np.random.RandomState, int):
        first, again, other = (CNN(**TINY, random_state=state(s)).fit(X, y) for s in (3, 3, 4))
        assert weights(first) == weights(again) != weights(other)
    assert weights(CNN(**TINY, random_state=None).fit(X, y)) != weights(CNN(**TINY, random_state=None).fit(X, y))


def test_global_random_states_are_untouched() -> None:
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (its state is what is tested)
    for seed in (0, None):
        CNN(**TINY, random_state=seed).fit(*images(20))
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002 (its state is what is tested)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_torchs_settings_change_nothing() -> None:
    X, y = images()

    def results() -> bytes:
        cnn = CNN(**TINY).fit(X, y)
        parts = [cnn.decision_function(X), cnn.decision_gradient(X), cnn.predict_proba(X.astype(float))]
        return weights(cnn) + b"".join(part.tobytes() for part in parts)

    expected = results()
    precision = torch.get_float32_matmul_precision()
    for dtype in (torch.float16, torch.float64):
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision("medium")
        try:
            for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"), torch.device("meta")):
                with context:
                    assert results() == expected
            assert torch.get_default_dtype() == dtype
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision(precision)
    threads = torch.get_num_threads()
    assert CNN(**TINY, n_threads=1).fit(X, y).n_threads == 1
    assert torch.get_num_threads() == threads


def test_the_order_of_overlapping_threads_does_not_matter_for_settings() -> None:
    from mfakit.classifiers.network import settled

    x, layer = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)), torch.ones(4096, 64) / 3
    exact = x @ layer
    cpu, before = torch.device("cpu"), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    coarse = x @ layer
    try:
        first, second = settled(cpu), settled(cpu)
        inside = threading.Event()

        def other() -> None:
            with second:
                inside.set()
                leave.wait(10)

        leave, thread = threading.Event(), threading.Thread(target=other)
        with first:
            thread.start()
            assert inside.wait(10)
            assert torch.equal(x @ layer, exact)
        assert torch.equal(x @ layer, exact)  # the second is still at work
        leave.set()
        thread.join()
        assert torch.equal(x @ layer, coarse)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_that_is_not_there_is_a_memory_error() -> None:
    from mfakit.classifiers.network import settled

    cpu = torch.device("cpu")
    with pytest.raises(MemoryError, match="a network on cpu ran out of memory; lower batch_size"), settled(cpu):
        torch.empty(2**58)
    with pytest.raises(RuntimeError, match="something else"), settled(cpu):
        raise RuntimeError("something else")


def test_a_row_does_not_depend_on_its_batch(fitted: CNN) -> None:
    X = images(30, shape=(5, 6, 2), seed=3)[0]
    whole, gradient = fitted.decision_function(X), fitted.decision_gradient(X)
    for size in (1, 7):
        np.testing.assert_allclose(fitted.decision_function(X, block_rows=size), whole, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fitted.decision_gradient(X, block_rows=size), gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.decision_function(X[:1]), whole[:1], rtol=1e-5, atol=1e-6)


def test_batches_in_parts_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = images()
    whole = CNN(**TINY).fit(X, y)
    layout = whole.module_.layout
    monkeypatch.setattr(_layout, "PART_FLOPS", 6 * layout.n_products * 5)
    assert layout.rows_at_once(3) == 5
    parts = CNN(**TINY).fit(X, y)
    assert weights(parts) != weights(whole)  # another order of summation, so the parts were real
    np.testing.assert_allclose(parts.decision_function(X), whole.decision_function(X), rtol=1e-3, atol=1e-4)


def test_all_containers_and_layouts_give_the_same(fitted: CNN, tmp_path: Path) -> None:
    X = images(20, shape=(5, 6, 2), seed=4)[0]
    y = np.arange(20) % len(fitted.classes_)
    np.save(tmp_path / "X.npy", X)
    frozen = X.copy()
    frozen.flags.writeable = False
    layouts = (
        np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[::-1].copy()[::-1], X.astype(">f4"), frozen,
        np.load(tmp_path / "X.npy", mmap_mode="r"), X.tolist(),
    )  # fmt: skip
    expected, trained = fitted.decision_function(X), weights(clone(fitted).fit(X, y))
    for other in layouts:
        before = np.array(other)
        np.testing.assert_allclose(fitted.decision_function(other), expected, rtol=1e-5, atol=1e-6)
        assert weights(clone(fitted).fit(other, y)) == trained
        np.testing.assert_array_equal(np.array(other), before)
    tensor = torch.from_numpy(X)
    for method in ("decision_function", "decision_gradient", "predict", "predict_proba"):
        result = getattr(fitted, method)(tensor)
        assert isinstance(result, torch.Tensor)
        np.testing.assert_array_equal(result.numpy(), getattr(fitted, method)(X))
    assert weights(clone(fitted).fit(tensor, torch.from_numpy(y))) == trained
    grey = (X * 50 + 100).clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(fitted.predict_proba(grey), fitted.predict_proba(grey.astype(np.float32)))
    assert fitted.decision_function(grey).dtype == np.float32


def test_precision_is_the_callers_choice(fitted: CNN) -> None:
    X = images(20, shape=(5, 6, 2), seed=4)[0]
    wide = fitted.decision_function(X.astype(float))
    np.testing.assert_array_equal(fitted.decision_function(X, precision="float64"), wide.astype(np.float32))
    narrow = fitted.decision_function(X.astype(float), precision="float32")
    assert narrow.dtype == np.float64
    np.testing.assert_array_equal(narrow, fitted.decision_function(X))


def test_no_rows_score_to_nothing(fitted: CNN) -> None:
    X = np.empty((0, 60), np.float32)
    assert fitted.predict(X).shape == (0,)
    tail = () if len(fitted.classes_) == 2 else (3,)
    assert fitted.decision_function(X).shape == (0, *tail)
    assert fitted.decision_gradient(X).shape == (0, *tail, 60)
    assert fitted.predict_proba(X).shape == (0, len(fitted.classes_))
    with pytest.raises(ValueError, match="score needs at least one sample"):
        fitted.score(X, [])


def test_unchecked_rows_suffer_alone(fitted: CNN) -> None:
    X = images(5, shape=(5, 6, 2))[0]
    expected = fitted.decision_function(X)
    X[2, 7] = np.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 2"):
        fitted.decision_function(X)
    decision = fitted.decision_function(X, check_finite=False)
    assert np.isnan(decision[2]).all()
    np.testing.assert_allclose(np.delete(decision, 2, 0), np.delete(expected, 2, 0), rtol=1e-5, atol=1e-6)


BAD_FITS = {
    "no image": (lambda X, y: CNN(**TINY).fit(X[:, :10], y), "10 features, which make no square image"),
    "other shape": (lambda X, y: CNN((5, 5, 1), **TINY).fit(X, y), r"image_shape=\(5, 5, 1\).* it has 36 features"),
    "no shape": (lambda X, y: CNN((6, 6), **TINY).fit(X, y), "image_shape must be"),
    "two unknown": (lambda X, y: CNN((-1, -1, 1), **TINY).fit(X, y), "of which one may be -1"),
    "not whole": (lambda X, y: CNN((5, -1, 1), **TINY).fit(X, y), "it has 36 features"),
    "strings": (lambda X, y: CNN(**TINY).fit(X, y.astype(str)), "y must hold integer class labels, got <U21"),
    "fractions": (lambda X, y: CNN(**TINY).fit(X, y + 0.5), "continuous"),
    "one class": (lambda X, y: CNN(**TINY).fit(X, y * 0 + 7), "y has one class only, 7"),
    "too few labels": (lambda X, y: CNN(**TINY).fit(X, y[1:]), "one label per sample, got inconsistent numbers: 120"),
    "no labels": (lambda X, y: CNN(**TINY).fit(X, None), "requires y to be passed"),
    "empty": (lambda X, y: CNN(**TINY).fit(X[:0], y[:0]), "X has no samples"),
    "no features": (lambda X, y: CNN(**TINY).fit(X[:, :0], y), r"0 feature\(s\)"),
    "one axis": (lambda X, y: CNN(**TINY).fit(X[0], y), r"X must be \[n, d\], got shape \(36,\)"),
    "not finite": (lambda X, y: CNN(**TINY).fit(spoiled(X, np.nan), y), "X has NaN or inf, first in row 1"),
    "too large": (lambda X, y: CNN(**TINY).fit(spoiled(X, 1e300), y), "X has values beyond float32"),
    "divergence": (
        lambda X, y: CNN(**{**TINY, "learning_rate": 1e30, "epochs": 9}).fit(X, y), "training diverged: the loss is"
    ),
    "width": (lambda X, y: CNN(width=0).fit(X, y), "width must be an integer of at least 1, got 0"),
    "absurd width": (lambda X, y: CNN(width=10**9).fit(X, y), "make a network of .* parameters"),
    "depth": (lambda X, y: CNN(depth=10**9).fit(X, y), "depth must be an integer of at most 1000"),
    "epochs": (lambda X, y: CNN(epochs=1.5).fit(X, y), "epochs must be an integer"),
    "batch size": (lambda X, y: CNN(batch_size=True).fit(X, y), "batch_size must be an integer"),
    "learning rate": (lambda X, y: CNN(learning_rate=np.nan).fit(X, y), "learning_rate must be a positive number"),
    "smoothing": (lambda X, y: CNN(label_smoothing=1.0).fit(X, y), "label_smoothing must be .* below 1, got 1.0"),
    "slope": (lambda X, y: CNN(negative_slope=-0.1).fit(X, y), "negative_slope must be a non-negative number"),
    "threads": (lambda X, y: CNN(n_threads=0).fit(X, y), "n_threads must be an integer"),
    "device": (lambda X, y: CNN(device="abacus").fit(X, y), 'device must be "auto", "cpu" or "cuda"'),
}  # fmt: skip


def spoiled(X: Array, value: float) -> Array:
    X = X.astype(float)
    X[1, 3] = value
    return X


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_input_is_said_in_one_sentence(case: str) -> None:
    fit, match = BAD_FITS[case]
    with pytest.raises(ValueError, match=match) as caught:
        fit(*images())
    assert "\n" not in str(caught.value)


def test_wrong_width_and_not_fitted() -> None:
    cnn = CNN(**TINY)
    X, y = images(30)
    for method in (cnn.predict, cnn.decision_function, cnn.decision_gradient, cnn.predict_proba):
        with pytest.raises(NotFittedError):
            method(X)
    with pytest.raises(NotFittedError):
        cnn.save("nowhere")
    cnn.fit(X, y)
    with pytest.raises(ValueError, match="X has 16 features, but CNN is expecting 36"):
        cnn.predict(X[:, :16])
    with pytest.raises(ValueError, match=r"x must be \[n, 36\], got \(2, 6, 6\)"):
        cnn.module_(torch.zeros(2, 6, 6))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(mfakit.BackendUnavailable, match='finds no CUDA device; use device="cpu"'):
        CNN(**{**TINY, "device": "cuda"}).fit(*images(20))


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


def batch(X: Any = None, y: Any = None) -> Any:
    return lambda n, rng: (np.zeros((n, 16)) if X is None else X, np.arange(n) % 2 if y is None else y)


BAD_STREAMS = {
    "no sampler": (3, {}, TypeError, "sampler must be a callable"),
    "no labels": (lambda n, rng: np.zeros((n, 16)), {}, TypeError, "sampler must return a tuple of X and y"),
    "nothing": (batch(np.zeros((0, 16)), np.zeros(0)), {}, ValueError, "X has no samples"),
    "not finite": (batch(np.full((4, 16), np.inf), [0, 1, 0, 1]), {}, ValueError, "X has NaN or inf, first in row 0"),
    "class": (
        batch(np.zeros((3, 16)), [0, 1, 2]),
        {"classes": [0, 1]},
        ValueError,
        "y must hold the classes 0, 1, got",
    ),
    "one class": (batch(np.zeros((3, 16)), [1, 1, 1]), {}, ValueError, "y has one class only"),
    "steps": (batch(), {"n_steps": 0}, ValueError, "n_steps must be an integer of at least 1"),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_bad_streams(case: str) -> None:
    sampler, options, error, match = BAD_STREAMS[case]
    with pytest.raises(error, match=match):
        CNN(**TINY).fit_stream(sampler, **{"n_steps": 3, **options})


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_ctrl_c_leaves_the_estimator_as_it_was() -> None:
    X, y = images(400, shape=(28, 28, 1))
    cnn = CNN(width=16, epochs=10_000, device="cpu")
    before = dict(vars(cnn))
    sent: list[float] = []

    def interrupt(*_: Any) -> None:
        sent.append(time.perf_counter())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            cnn.fit(X, y)
        delay = time.perf_counter() - sent[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert delay < 0.5
    assert vars(cnn) == before


def test_a_failed_fit_keeps_the_last_one() -> None:
    X, y = images(30)
    cnn = CNN(**TINY).fit(X, y)
    before = dict(vars(cnn))
    with pytest.raises(ValueError, match="training diverged"):
        cnn.set_params(learning_rate=1e30, epochs=20).fit(X[:, :16], y)
    for name in ("module_", "history_", "classes_", "image_shape_", "n_features_in_"):
        assert getattr(cnn, name) is before[name]


def test_pickle_copy_and_clone(fitted: CNN) -> None:
    X = images(10, shape=(5, 6, 2))[0]
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(other.decision_gradient(X), fitted.decision_gradient(X))
    assert not hasattr(clone(fitted), "module_")


def test_many_threads_agree(fitted: CNN) -> None:
    X = images(40, shape=(5, 6, 2))[0]
    expected, results = fitted.decision_gradient(X), [None] * 4

    def work(i: int) -> None:
        results[i] = fitted.decision_gradient(X)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


FORK = """
import os, numpy as np, torch
from mfakit.classifiers import CNN
torch.set_num_threads(2)
X, y = np.random.default_rng(0).normal(size=(64, 784)).astype(np.float32), np.arange(64) % 2
cnn = CNN(width=4, epochs=1, device="cpu").fit(X, y)
expected = cnn.decision_function(X)
child = os.fork()
if child == 0:
    same = np.allclose(cnn.decision_function(X), expected, rtol=1e-4, atol=1e-5)
    cnn.fit(X, y)
    os._exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use_does_not_hang() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_bar(progress: bool | None, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    CNN(**TINY, progress=progress).fit(*images(20))
    captured = capsys.readouterr()
    assert ("CNN" in captured.err) is shown
    assert captured.out == ""


def test_networks_are_loaded_on_first_use() -> None:
    code = (
        "import sys, mfakit; mfakit.classifiers.load; loaded = {'torch', 'sklearn'} & set(sys.modules); "
        "assert not loaded, loaded; mfakit.classifiers.CNN; assert 'sklearn' in sys.modules; "
        "assert {'CNN', 'TRADES', 'LinearSVM', 'RBFSVM', 'load'} <= set(dir(mfakit.classifiers))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    with pytest.raises(AttributeError, match="has no attribute 'MLP'"):
        mfakit.classifiers.MLP  # noqa: B018 (looking it up is the test)


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"CNN needs torch.*pip install mfakit\[torch\]"):
        CNN(**TINY).fit(*images(20))


def digits(n: int, seed: int) -> tuple[Array, Array]:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric(sigma=0.01)
    return clf.sample(n, rng=seed, balanced=True)


def test_it_learns_a_symmetric_pair_and_the_gradient_attack_fools_it() -> None:
    cnn = CNN(width=8, epochs=6, device="cpu").fit(*digits(1500, 0))
    X, y = digits(500, 1)
    assert cnn.score(X, y) >= 0.99
    result = mfakit.attacks.gradient_attack(cnn, X[:10], y[:10], step_size=0.1)
    assert result.success_rate == 1.0
    np.testing.assert_array_equal(cnn.predict(result.x_adv), result.y_adv)
    # The CNN is brittle where the optimal classifier is not (Theorem 2: about 2.7 here).
    assert result.mean_l2 < 2.0


@pytest.mark.slow
def test_the_papers_network_reaches_the_bayes_accuracy() -> None:
    cnn = CNN(epochs=2, device="cpu").fit(*digits(10_000, 0))
    assert cnn.score(*digits(2000, 1)) >= 0.99
