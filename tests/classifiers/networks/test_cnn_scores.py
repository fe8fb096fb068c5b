"""What a fitted CNN answers: against a plain NumPy network and differences, whatever holds the samples."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_cases import TINY, Array, images, weights
from sklearn.base import clone
from support import close

torch = pytest.importorskip("torch")

from mfakit.classifiers import CNN  # noqa: E402 (needs torch)


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
        close(fitted.module_(torch.from_numpy(X)).numpy(), expected, np.float32, rtol=1e-5, atol=1e-5)
    decision = fitted.decision_function(X.astype(np.float64))
    assert decision.dtype == np.float64
    close(decision, decision_of(expected), rtol=1e-12, atol=1e-12)
    close(fitted.decision_function(X), decision_of(expected), np.float32, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(X), expected.argmax(axis=1))
    proba = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    close(fitted.predict_proba(X.astype(float)), proba, rtol=1e-10)
    close(fitted.predict_log_proba(X.astype(float)), np.log(proba), rtol=1e-10)


def test_gradients_are_difference_quotients(fitted: CNN) -> None:
    X = images(4, shape=(5, 6, 2), seed=2)[0].astype(float)
    gradient = fitted.decision_gradient(X)
    h = 1e-6
    quotients = np.empty_like(gradient)
    for j in range(X.shape[1]):
        step = h * np.eye(X.shape[1])[j]
        above, below = fitted.decision_function(X + step), fitted.decision_function(X - step)
        quotients[..., j] = (above - below) / (2 * h)
    close(gradient, quotients, rtol=1e-6, atol=1e-8)
    narrow = fitted.decision_gradient(X.astype(np.float32))
    assert narrow.dtype == np.float32
    close(narrow, gradient, np.float32, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None and not p.requires_grad for p in fitted.module_.parameters())
    assert not fitted.module_.training


def test_a_row_does_not_depend_on_its_batch(fitted: CNN) -> None:
    X = images(30, shape=(5, 6, 2), seed=3)[0]
    whole, gradient = fitted.decision_function(X), fitted.decision_gradient(X)
    for size in (1, 7):
        close(fitted.decision_function(X, block_rows=size), whole, np.float32, rtol=1e-5, atol=1e-6)
        close(fitted.decision_gradient(X, block_rows=size), gradient, np.float32, rtol=1e-4, atol=1e-6)
    close(fitted.decision_function(X[:1]), whole[:1], np.float32, rtol=1e-5, atol=1e-6)


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
    close(np.delete(decision, 2, 0), np.delete(expected, 2, 0), np.float32, rtol=1e-5, atol=1e-6)


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
