"""Bayes classifiers as networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import check_choice
from .._threads.process import errstate
from ..bayes.classifier import BayesClassifier
from .buffers import keep_digits
from .density import MFAModule
from .rows import RowsModule, as_n_logits, pad_logits

__all__ = ["BayesClassifierModule"]

Logits = Literal["log_likelihood", "scaled"]


class BayesClassifierModule(RowsModule):
    """The Bayes-optimal classifier as a network: X [n, d] → logits [n, C], differentiable once in X.

    Parameters
    ----------
    clf : BayesClassifier
    logits : {"log_likelihood", "scaled"}
        "log_likelihood": log prior_c p_c(x), nats. At σ = 0.01 these differ by 1e4 to 1e5, and attacks that expect
        logits of order one (a constant of 0.01, a cross-entropy that is not saturated, a mask of 1e4) fail on them.
        "scaled": the same times 2σ², σ² the harmonic mean of all noise variances, hence differences of squared
        distances, in squared data units. Either has the same decisions.
    image_shape : (height, width, channels) or (height, width), optional
        Accept images [n, C, H, W] as well.
    n_logits : int, optional
        Return this many logits, for losses that need three classes or more: the others are 100 below the least of a
        sample's own, and take no gradients, so that they change a softmax by e⁻¹⁰⁰ and never win.

    Attributes
    ----------
    scale : float
        What the log-likelihoods are multiplied by: 1 or 2σ².

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As :class:`MFAModule`.

    References
    ----------
    Richardson & Weiss 2021, section 2.1.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> net = mfakit.torch.BayesClassifierModule(mfakit.BayesClassifier(mixtures), logits="scaled")
    >>> z = net(torch.tensor([[0.5, 0.0]]))
    >>> (z[:, 1] - z[:, 0]).round(decimals=4)  # ‖x - μ₀‖² - ‖x - μ₁‖²
    tensor([2.])
    """

    log_priors: Tensor

    def __init__(
        self,
        clf: BayesClassifier,
        logits: Logits = "log_likelihood",
        *,
        image_shape: Sequence[int] | None = None,
        n_logits: int | None = None,
    ) -> None:
        if not isinstance(clf, BayesClassifier):
            raise TypeError(
                f"clf must be a BayesClassifier, got {type(clf).__name__}; for a linear or kernel machine take "
                "SVMModule"
            )
        check_choice("logits", logits, get_args(Logits))
        super().__init__(clf.n_features, image_shape)
        self.n_classes = clf.n_classes
        self.logits = logits
        self.n_logits = as_n_logits(n_logits, clf.n_classes)
        self.mixtures = nn.ModuleList(MFAModule(m) for m in clf.mixtures)
        with errstate(divide="ignore"):
            self.freeze("log_priors", np.log(clf.priors))
        self.eval()

    @property
    def scale(self) -> float:
        """1, or 2σ² with the harmonic mean σ² of all noise variances: the tightest noise sets a logit's size."""
        return float(self._scale())

    def _scale(self) -> Tensor:
        if self.logits == "log_likelihood":
            return torch.ones(())
        parts = [cast(MFAModule, m) for m in self.mixtures]
        live = [m.weights > 0 for m in parts]
        precision = [1.0 / m.noise_variance.double().reshape(len(m.weights), -1) for m in parts]
        total = sum((p * alive[:, None]).sum() for p, alive in zip(precision, live, strict=True))
        count = sum(alive.sum() * p.shape[1] for p, alive in zip(precision, live, strict=True))
        return 2.0 * count / cast(Tensor, total)

    def forward(self, X: Tensor) -> Tensor:
        """Logits [n, C] or, with ``n_logits``, [n, n_logits]."""
        X = self.rows(X)
        log_likelihood = torch.stack([mixture(X) for mixture in self.mixtures], dim=1)
        joint = log_likelihood + self.log_priors.to(log_likelihood)
        return pad_logits(joint if self.logits == "log_likelihood" else self._scale().to(joint) * joint, self.n_logits)

    def extra_repr(self) -> str:
        """The number of classes and features, and the kind of the logits."""
        padded = "" if self.n_logits is None else f", n_logits={self.n_logits}"
        return f"C={self.n_classes}, d={self.n_features}, logits={self.logits!r}" + padded + self.images_repr()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = {"log_priors": self.log_priors.data}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        keep_digits(self, kept)
        return self
