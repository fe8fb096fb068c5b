"""Densities: our kernels behind autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..mixture.mfa import MFA
from ..mixture.parameters import PARAMETERS
from .buffers import as_mfa, equal, keep_digits, numbers, unchanged, versions
from .operations import log_prob, number_of
from .rows import RowsModule

__all__ = ["MFAModule"]


class MFAModule(RowsModule):
    """log p(x) of a mixture as a torch module: X [n, d] → [n], nats, differentiable once in X.

    Parameters
    ----------
    mfa : MFA
    image_shape : (height, width, channels) or (height, width), optional
        Accept images [n, C, H, W] as well, whose flattened form is height-width-channel.

    Raises
    ------
    TypeError
        For anything but an MFA; for a Parameter, or ``requires_grad_()``: gradients are in X only.
    ValueError
        For an image shape of another size than d; in ``forward``, for X of another shape, and for parameters that have
        been edited so that it is not a mixture, or requires a gradient.
    RuntimeError
        When a second derivative is asked for.

    Notes
    -----
    The result has X's dtype (float32 for half precision). Parameters keep their own: ``.float()`` and ``.half()`` do
    not round them, because a log-density at σ = 0.01 needs their digits.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> module = mfakit.torch.MFAModule(mfakit.MFA([1.0], np.zeros((1, 2)), np.zeros((1, 2, 1)), 0.5))
    >>> X = torch.tensor([[1.0, 0.5]], requires_grad=True)
    >>> module(X).sum().backward()
    >>> X.grad
    tensor([[-2., -1.]])
    """

    weights: Tensor
    means: Tensor
    loadings: Tensor
    noise_variance: Tensor
    _mfa: MFA
    number: int
    _seen: list[tuple[int, int, bytes]]

    def __init__(self, mfa: MFA, *, image_shape: Sequence[int] | None = None) -> None:
        super().__init__(as_mfa(mfa).n_features, image_shape)
        self.mfa = mfa
        self.number = number_of(self)

    @property
    def mfa(self) -> MFA:
        """The mixture of the parameters as they are now.

        Raises
        ------
        ValueError
            For parameters that are no mixture, of another width, or that require a gradient.
        """
        buffers = self._found()
        if not unchanged(buffers, self._seen):
            for name in (name for name, value in buffers.items() if value.requires_grad):
                raise ValueError(f"{name} requires grad, and gradients are in X only; assign {name}.detach()")
            if not equal(buffers, self._mfa):
                self._mfa = self._checked(MFA(*map(numbers, buffers.values())))
            self._seen = versions(buffers)
        return self._mfa

    @mfa.setter
    def mfa(self, mfa: MFA) -> None:
        self._mfa = self._checked(as_mfa(mfa))
        for name in PARAMETERS:
            self.freeze(name, getattr(mfa, name))
        self._seen = versions(self._found())

    def _checked(self, mfa: MFA) -> MFA:
        if mfa.n_features != self.n_features:
            raise ValueError(f"the mixture must have {self.n_features} features, as before, got {mfa.n_features}")
        return mfa

    def _found(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {
            name: value for name in PARAMETERS if (value := self._parameters.get(name)) is not None
        }
        for name in set(PARAMETERS) - set(found):
            raise ValueError(f"the parameter {name} has been removed; assign a tensor")
        return found

    def forward(self, X: Tensor) -> Tensor:
        """log p(x) [n]."""
        return log_prob(self.rows(X), self)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.number = number_of(self)

    def extra_repr(self) -> str:
        """k, d and l, and the shape of images."""
        k, d, l = self.loadings.shape
        return f"k={k}, d={d}, l={l}" + self.images_repr()

    def to_distribution(self) -> torch.distributions.MixtureSameFamily:
        """The density as one of :mod:`torch.distributions`: it samples, and is computed with dense operations."""
        means, noise = self.means.double(), self.noise_variance.double()
        D = noise[:, None].expand_as(means) if noise.ndim == 1 else noise
        components = torch.distributions.LowRankMultivariateNormal(means, self.loadings.double(), D)
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(self.weights), components)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = {name: value.data for name, value in self._found().items()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        keep_digits(self, kept)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        found = [state_dict.get(prefix + name) for name in PARAMETERS]
        if all(isinstance(value, Tensor) and value.shape == self.get_parameter(n).shape
               for n, value in zip(PARAMETERS, found, strict=True)):  # fmt: skip
            MFA(*map(numbers, found))  # parameters of no mixture are refused before anything is copied
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
