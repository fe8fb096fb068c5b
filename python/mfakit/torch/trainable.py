"""A density to train: in torch's own operations, differentiable any number of times in samples and parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..mixture.mfa import MFA
from .buffers import as_mfa, make_buffer

__all__ = ["TrainableMFA", "log_density"]


def log_density(X: Tensor, logits: Tensor, means: Tensor, loadings: Tensor, noise: Tensor) -> Tensor:
    """log p(x) [n] of X [n, d], nats, differentiable in all parameters.

    They are softmax `logits` [k], `means` [k, d], `loadings` [k, d, l] and variances `noise` [k, 1] or [k, d]. With
    C Cᵀ = I + Aᵀ D⁻¹ A and W = C⁻¹ Aᵀ D⁻¹ the Mahalanobis distance is ‖x - μ‖²_{D⁻¹} - ‖W (x - μ)‖².
    """
    k, d, l = loadings.shape
    scaled = loadings / noise[:, :, None]
    capacitance = torch.eye(l, dtype=X.dtype, device=X.device) + loadings.mT @ scaled
    C = torch.linalg.cholesky(capacitance)
    W = torch.linalg.solve_triangular(C, scaled.mT, upper=False)
    y = (X @ W.reshape(k * l, d).T).reshape(len(X), k, l) - (W @ means[:, :, None])[:, :, 0]
    precision = (1.0 / noise).expand(k, d)
    maha = (X * X) @ precision.T - 2.0 * (X @ (means * precision).T) + (means**2 * precision).sum(dim=1)
    log_det = 2.0 * C.diagonal(dim1=1, dim2=2).log().sum(dim=1) + noise.log().expand(k, d).sum(dim=1)
    log_norm = torch.log_softmax(logits, dim=0) - 0.5 * (d * math.log(2 * math.pi) + log_det)
    return torch.logsumexp(log_norm - 0.5 * (maha - (y**2).sum(dim=2)), dim=1)


class TrainableMFA(nn.Module):
    """A mixture of factor analyzers whose parameters are trained: X [n, d] → log p(x) [n], nats.

    Parameters
    ----------
    mfa : MFA
        Where training starts. Components without weight get one of 1e-30.
    noise_floor : float
        No noise variance falls below this; in squared data units.

    Attributes
    ----------
    logits : Parameter [k]
        The weights are their softmax.
    means : Parameter [k, d]
    loadings : Parameter [k, d, l]
    log_excess : Parameter [k, 1] or [k, d]
        The noise variances are ``noise_floor + exp(log_excess)``.

    Raises
    ------
    TypeError
        For anything but an MFA.
    ValueError
        For a noise floor that is negative or not below the mixture's noise; in ``forward``, for X of another shape.

    Notes
    -----
    Float64 unless ``.float()`` was called; the result has the parameters' dtype. Samples and means are centred by the
    start's mean, so that less cancels; for σ far below the spread of the data keep float64. Where nothing is trained,
    :class:`MFAModule` is faster and exact to rounding.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> start = mfakit.MFA([1.0], np.zeros((1, 2)), 0.1 * np.ones((1, 2, 1)), 1.0)
    >>> density, X = mfakit.torch.TrainableMFA(start), 3 + torch.zeros(10, 2, dtype=torch.float64)
    >>> optimizer = torch.optim.Adam(density.parameters(), lr=0.1)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (-density(X).mean()).backward()
    ...     optimizer.step()
    >>> bool(density.mfa().log_prob(X).mean() > start.log_prob(X).mean())
    True
    """

    center: Tensor
    logits: nn.Parameter
    means: nn.Parameter
    loadings: nn.Parameter
    log_excess: nn.Parameter

    def __init__(self, mfa: MFA, *, noise_floor: float = 0.0) -> None:
        super().__init__()
        least = float(as_mfa(mfa).noise_variance.min())
        if not 0 <= noise_floor < least:
            raise ValueError(f"noise_floor must be from 0 to below the mixture's least noise {least:.4g}, "
                             f"got {noise_floor!r}")  # fmt: skip
        self.n_features, self.noise_floor, self.isotropic = mfa.n_features, float(noise_floor), mfa.is_isotropic
        center = mfa.weights @ mfa.means.astype(np.float64)
        noise = mfa.noise_variance.reshape(mfa.n_components, -1)
        start: dict[str, Any] = {
            "logits": np.log(np.maximum(mfa.weights, 1e-30)),
            "means": mfa.means.astype(np.float64),
            "loadings": mfa.loadings.astype(np.float64),
            "log_excess": np.log(noise - noise_floor),
        }
        self.register_buffer("center", make_buffer(center))
        for name, values in start.items():
            self.register_parameter(name, nn.Parameter(make_buffer(values)))

    def forward(self, X: Tensor) -> Tensor:
        """log p(x) [n]."""
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"X must be [n, {self.n_features}], got {tuple(X.shape)}")
        noise = self.noise_floor + self.log_excess.exp()
        X = X.to(self.means.dtype) - self.center
        return log_density(X, self.logits, self.means - self.center, self.loadings, noise)

    def mfa(self) -> MFA:
        """The mixture as it is now, float64.

        Raises
        ------
        ValueError
            Where training has diverged: parameters with NaN or inf.
        """
        with torch.no_grad():
            noise = self.noise_floor + self.log_excess.double().exp()
            weights = torch.softmax(self.logits.double(), dim=0)
            values = (weights, self.means.double(), self.loadings.double(), noise[:, 0] if self.isotropic else noise)
            return MFA(*(value.cpu().numpy() for value in values))

    def extra_repr(self) -> str:
        """k, d and l."""
        k, d, l = self.loadings.shape
        return f"k={k}, d={d}, l={l}, noise_floor={self.noise_floor:g}"
