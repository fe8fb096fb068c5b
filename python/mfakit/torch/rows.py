"""What the modules share: samples as rows or images, and parameters that are not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._arrays.containers import check_real_tensor
from .._checks import check_integers
from .._threads.process import forked
from .buffers import as_image_shape, frozen, make_buffer

__all__ = ["RowsModule", "as_n_logits", "one_thread_after_fork", "pad_logits"]

# How far a padded logit is below the least of the others: e^-100 of a softmax is nothing even in float64.
PADDED = 100.0


def one_thread_after_fork() -> None:
    """Let torch compute in one thread in a forked child, where it would hang in several.

    Examples
    --------
    >>> import mfakit.torch
    >>> mfakit.torch.one_thread_after_fork()  # first of all in a child; elsewhere nothing happens
    """
    if forked() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def as_n_logits(n_logits: Any, n_classes: int) -> int | None:
    """How many logits to return, checked; None: one for each class."""
    if n_logits is not None:
        check_integers({"n_logits": n_logits}, n_classes, also="the number of classes, or None")
    return None if n_logits is None else int(n_logits)


def pad_logits(z: Tensor, n_logits: int | None) -> Tensor:
    """Logits z [n, C] with more columns that no sample is of, [n, n_logits]."""
    if n_logits is None or n_logits == z.shape[1]:
        return z
    finite = torch.where(z.isfinite(), z, torch.inf).detach().amin(dim=1, keepdim=True)  # -inf: a class of prior 0
    least = torch.where(finite.isfinite(), finite, 0.0) - PADDED
    return torch.cat([z, least.expand(-1, n_logits - z.shape[1])], dim=1)


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
        if not isinstance(X, Tensor):
            raise TypeError(f"X must be a torch tensor, got {type(X).__name__}; pass torch.as_tensor(X)")
        if not torch.compiler.is_compiling():
            one_thread_after_fork()
            check_real_tensor(X, "X")
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

    def images_repr(self) -> str:
        """The shape of images for a module's repr, if it takes any."""
        return "" if self.image_shape is None else f", image_shape={self.image_shape}"

    def freeze(self, name: str, values: Any) -> None:
        """Make values a parameter that takes no gradients: the module then has a device, as optimizers and attacks of
        other libraries ask for it, and nothing to train.
        """
        self._parameters[name] = frozen(make_buffer(values))

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Refused, but for False: the parameters take no gradients."""
        if requires_grad and not any(parameter.requires_grad for parameter in self.parameters()):
            raise TypeError(
                f"{type(self).__name__} has no parameters to train, and those that it has take no gradients by "
                "requires_grad_; call X.requires_grad_() for gradients in X, or train a TrainableMFA"
            )
        return super().requires_grad_(requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_frozen(name, value)
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and name in self._its_parameters():
            value = frozen(value)
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refused for a parameter to train where our kernels compute, which have no gradients in parameters."""
        self._check_frozen(name, param)
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """As of any module; a buffer of the name of a parameter takes its place."""
        if name in self._its_parameters():
            setattr(self, name, tensor)
        else:
            super().register_buffer(name, tensor, persistent)

    def _its_parameters(self) -> dict[str, nn.Parameter | None]:
        found: dict[str, nn.Parameter | None] = self.__dict__.get("_parameters", {})
        return found

    def _check_frozen(self, name: str, value: Any) -> None:
        if self.anywhere and isinstance(value, nn.Parameter) and value.requires_grad:
            raise TypeError(
                f"{type(self).__name__} has gradients in X only, so {name} cannot be a Parameter to train; assign a "
                "tensor, or train a TrainableMFA"
            )
