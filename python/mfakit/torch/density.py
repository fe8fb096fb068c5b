"""Densities: our kernels behind autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .._threads.process import single_threaded_products
from ..classifiers.networks.network import bounded_threads
from ..mixture.mfa import MFA
from .buffers import as_mfa, equal, make_buffer, numbers, unchanged, versions
from .rows import RowsModule

__all__ = ["MFAModule"]

PARAMETERS = ("weights", "means", "loadings", "noise_variance")
# Below this many numbers in a batch, waking threads costs more time than they save.
SMALL_BATCH = 2**19
# Below this many multiplications the threads of our product, which keep spinning after it, cost torch more time than
# they save: an attack on 100 digits took five times longer.
SMALL_PRODUCT = 2**27


def _evaluate(method: str, X: Tensor, mfa: MFA) -> Any:
    """A method of the mixture on a batch, with as many threads as it is worth."""
    n_threads = 1 if X.numel() <= SMALL_BATCH else None
    small = X.device.type == "cpu" and X.numel() * mfa.factors.n_columns <= SMALL_PRODUCT
    with single_threaded_products() if small else nullcontext():
        return getattr(mfa, method)(X.detach(), check_finite=False, n_threads=n_threads)


class _Gradient(torch.autograd.Function):
    """∇ log p(x) [n, d]. Its own derivative, the Hessian, does not exist here, and asking for it is an error."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mfa: MFA) -> Any:
        return _evaluate("grad_log_prob", X, mfa).to(X.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "mfakit's log-densities have first derivatives only, and a second one was asked for; do not differentiate "
            "through a gradient of this module (create_graph=True followed by backward)"
        )


class _LogProb(torch.autograd.Function):
    """log p(x) [n] by our kernels, and its gradient by our kernels."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mfa: MFA) -> Any:
        ctx.mfa = mfa
        ctx.save_for_backward(X)
        return _evaluate("log_prob", X, mfa)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (X,) = ctx.saved_tensors
        gradient = _Gradient.apply(X, ctx.mfa)  # type: ignore[no-untyped-call]
        with bounded_threads(0) if X.numel() <= SMALL_BATCH else nullcontext():
            return grads[0].to(X.dtype)[:, None] * gradient, None


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
        For an image shape of another size than d; in ``forward``, for X of another shape, and for buffers that have
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

    _mfa: MFA
    _seen: list[tuple[int, int, bytes]]

    def __init__(self, mfa: MFA, *, image_shape: Sequence[int] | None = None) -> None:
        super().__init__(as_mfa(mfa).n_features, image_shape)
        self.mfa = mfa

    @property
    def mfa(self) -> MFA:
        """The mixture of the buffers as they are now.

        Raises
        ------
        ValueError
            For buffers that are no mixture, of another width, or that require a gradient.
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
            self.register_buffer(name, make_buffer(getattr(mfa, name)))
        self._seen = versions(self._found())

    def _checked(self, mfa: MFA) -> MFA:
        if mfa.n_features != self.n_features:
            raise ValueError(f"the mixture must have {self.n_features} features, as before, got {mfa.n_features}")
        return mfa

    def _found(self) -> dict[str, Tensor]:
        found = {name: value for name in PARAMETERS if (value := self._buffers.get(name)) is not None}
        for name in set(PARAMETERS) - set(found):
            raise ValueError(f"the buffer {name} has been removed; assign a tensor")
        return found

    def forward(self, X: Tensor) -> Tensor:
        """log p(x) [n]."""
        log_prob: Tensor = _LogProb.apply(self.rows(X), self.mfa)  # type: ignore[no-untyped-call]
        return log_prob

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = self._found()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            after = self.get_buffer(name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        found = [state_dict.get(prefix + name) for name in PARAMETERS]
        if all(isinstance(value, Tensor) and value.shape == self.get_buffer(n).shape
               for n, value in zip(PARAMETERS, found, strict=True)):  # fmt: skip
            MFA(*map(numbers, found))  # parameters of no mixture are refused before anything is copied
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
