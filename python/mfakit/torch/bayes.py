"""Bayes classifiers as networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .._threads.process import errstate
from ..bayes.classifier import BayesClassifier
from .buffers import make_buffer
from .density import MFAModule
from .rows import RowsModule

__all__ = ["BayesClassifierModule"]

LOGITS = ("log_likelihood", "scaled")


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
        self, clf: BayesClassifier, logits: str = "log_likelihood", *, image_shape: Sequence[int] | None = None
    ) -> None:
        if not isinstance(clf, BayesClassifier):
            raise TypeError(
                f"clf must be a BayesClassifier, got {type(clf).__name__}; for a linear or kernel machine take "
                "SVMModule"
            )
        if logits not in LOGITS:
            raise ValueError(f"logits must be one of {LOGITS}, got {logits!r}")
        super().__init__(clf.n_features, image_shape)
        self.n_classes = clf.n_classes
        self.logits = logits
        self.mixtures = nn.ModuleList(MFAModule(m) for m in clf.mixtures)
        with errstate(divide="ignore"):
            self.register_buffer("log_priors", make_buffer(np.log(clf.priors)))
        self.eval()

    @property
    def scale(self) -> float:
        """1, or 2σ² with the harmonic mean σ² of all noise variances: the tightest noise sets a logit's size."""
        if self.logits == "log_likelihood":
            return 1.0
        models = [cast(MFAModule, m).mfa for m in self.mixtures]
        noise = np.concatenate([m.noise_variance[m.live].ravel() for m in models])
        return float(2.0 / np.mean(1.0 / noise))

    def forward(self, X: Tensor) -> Tensor:
        """Logits [n, C]."""
        X = self.rows(X)
        log_likelihood = torch.stack([mixture(X) for mixture in self.mixtures], dim=1)
        joint = log_likelihood + self.log_priors.to(log_likelihood)
        return joint if self.logits == "log_likelihood" else self.scale * joint

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self.log_priors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.log_priors = before.to(self.log_priors.device)
        return self
