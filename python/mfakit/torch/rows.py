"""What the modules share: samples as rows or images, and buffers instead of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._threads.process import forked
from .buffers import as_image_shape

__all__ = ["RowsModule", "one_thread_after_fork"]


def one_thread_after_fork() -> None:
    """Let torch compute in one thread in a forked child, where it would hang in several."""
    if forked() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


class RowsModule(nn.Module):
    """A module on rows of d features, or on images that are such rows."""

    # Our kernels run where X is, wherever the buffers are, and have gradients in X only.
    anywhere = True

    def __init__(self, n_features: int, image_shape: Sequence[int] | None) -> None:
        super().__init__()
        self.n_features = n_features
        self.image_shape = as_image_shape(image_shape, n_features)
        self.eval()

    def rows(self, X: Tensor) -> Tensor:
        """X as [n, d]; images [n, C, H, W] become height-width-channel."""
        one_thread_after_fork()
        if not isinstance(X, Tensor):
            raise TypeError(f"X must be a torch tensor, got {type(X).__name__}; pass torch.as_tensor(X)")
        at = next(iter([*self.buffers(), *self.parameters()])).device
        if X.device != at and not (self.anywhere and "meta" not in (X.device.type, at.type)):
            raise ValueError(f"X is on {X.device}, and the module on {at}; move one of them by .to()")
        if self.image_shape is not None and X.ndim == 4:
            height, width, channels = self.image_shape
            if tuple(X.shape[1:]) != (channels, height, width):
                raise ValueError(f"images must be [n, {channels}, {height}, {width}], got {tuple(X.shape)}")
            return X.permute(0, 2, 3, 1).reshape(len(X), -1)
        if X.ndim != 2 or X.shape[1] != self.n_features:
            hint = "" if self.image_shape is not None else "; for images [n, C, H, W] pass image_shape"
            raise ValueError(f"X must be [n, {self.n_features}], got {tuple(X.shape)}{hint}")
        return X

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Refused, but for False: there are no parameters to take gradients in."""
        if requires_grad and not list(self.parameters()):
            raise TypeError(
                f"{type(self).__name__} has no parameters to train, and its buffers take no gradients by "
                "requires_grad_; call X.requires_grad_() for gradients in X"
            )
        return super().requires_grad_(requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_no_parameter(name, value)  # before torch removes the buffer of this name
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refused where our kernels compute, which have no gradients in parameters."""
        self._check_no_parameter(name, param)
        super().register_parameter(name, param)

    def _check_no_parameter(self, name: str, value: Any) -> None:
        if self.anywhere and isinstance(value, nn.Parameter):
            raise TypeError(
                f"{type(self).__name__} has gradients in X only, so {name} cannot be a Parameter; assign a tensor"
            )
