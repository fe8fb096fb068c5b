"""CNN: the paper's network (appendix B.3) as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import NetworkClassifier

__all__ = ["CNN"]


class CNN(NetworkClassifier):
    """A convolutional network: 3×3 convolutions with LeakyReLU, strides of 2 at evenly spaced layers where the width
    doubles, one fully connected layer, trained by Adam.

    Parameters
    ----------
    image_shape : (height, width, channels) or None
        What the d features of a sample are, flattened height-width-channel; one of the three may be -1, as in reshape.
        None: a square image with 1 or 3 channels.
    width : int
        Channels of the first layers.
    depth : int
        Convolutions. They halve the image until its smaller side has four pixels: three times for 28×28, which depth 6
        does at every second layer.
    epochs : int
        Passes over the data in :meth:`fit`.
    batch_size : int
    learning_rate : float
    label_smoothing : float
        ε: the target is 1 - ε + ε/C for the true class and ε/C for every other one. 0 is plain cross-entropy, the
        default of the library that the paper used; 0.1, which its tutorials pass, keeps the margins of two classes
        below log 19.
    negative_slope : float
        Of LeakyReLU.
    device : str
        "cpu", "cuda" or "cuda:1" to train and compute on; "auto" is CUDA where there is any.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        The same seed gives the same bytes of model on the same machine with the same number of threads; global random
        states are never touched.
    n_threads : int or None
        Threads of torch while this computes; None: as many as a step is worth, and no more than torch is set to.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network, in evaluation mode: flattened images [n, d] to logits [n, C], float32, differentiable in the
        images; its parameters do not require gradients.
    classes_ : int64 [C]
        The labels in order, as columns of logits.
    image_shape_ : tuple of int
        (height, width, channels).
    history_ : dict
        "step", "loss" (nats, with its smoothing) and "accuracy" on the training samples as they were met: a line per
        epoch, or for :meth:`fit_stream` for each of at most 100 equal parts. Not in files.
    n_features_in_ : int
        d.
    feature_names_in_ : [d]
        Names of the columns, for a DataFrame with string names.

    Notes
    -----
    The depth and width of the paper's own network are not recoverable; the other defaults are those of the library it
    used, whose width was 64. Trained and evaluated in float32, whatever torch's global settings are; float64 X is
    evaluated in float64 with the same weights. Memory beyond X is a part of a batch, and the network four times.

    References
    ----------
    Richardson & Weiss, A Bayes-Optimal View on Adversarial Examples, JMLR 2021, section 3 and appendix B.3.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> X = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    >>> y = (X[:, :32].mean(axis=1) > X[:, 32:].mean(axis=1)).astype(int)
    >>> cnn = mfakit.classifiers.CNN(width=4, depth=2, epochs=20, batch_size=20, learning_rate=0.01, device="cpu")
    >>> bool(cnn.fit(X, y).score(X, y) > 0.95)
    True
    >>> cnn.decision_gradient(X[:3]).shape
    (3, 64)
    """

    _kind = "cnn"

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        *,
        width: int = 32,
        depth: int = 6,
        epochs: int = 6,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        label_smoothing: float = 0.0,
        negative_slope: float = 0.2,
        device: str = "auto",
        random_state: Any = 0,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.width = width
        self.depth = depth
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.label_smoothing = label_smoothing
        self.negative_slope = negative_slope
        self.device = device
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def _loss(self, rng: np.random.Generator) -> Any:
        from .training import CrossEntropy

        return CrossEntropy(self.label_smoothing)
