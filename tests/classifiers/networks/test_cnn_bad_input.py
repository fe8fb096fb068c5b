"""CNN refuses bad samples, parameters and streams in one sentence, and a failed fit changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cnn_cases import TINY, Array, images
from sklearn.exceptions import NotFittedError

import mfakit

torch = pytest.importorskip("torch")

from mfakit.classifiers import CNN  # noqa: E402 (needs torch)

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
    "divergence in the last step": (
        lambda X, y: CNN(width=16, depth=6, epochs=1, batch_size=200, learning_rate=1e10, device="cpu").fit(X, y),
        "training diverged: the last step made logits",
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


def test_a_failed_fit_keeps_the_last_one() -> None:
    X, y = images(30)
    cnn = CNN(**TINY).fit(X, y)
    before = dict(vars(cnn))
    with pytest.raises(ValueError, match="training diverged"):
        cnn.set_params(learning_rate=1e30, epochs=20).fit(X[:, :16], y)
    for name in ("module_", "history_", "classes_", "image_shape_", "n_features_in_"):
        assert getattr(cnn, name) is before[name]
