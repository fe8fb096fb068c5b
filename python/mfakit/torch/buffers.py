"""Parts of the torch modules: what they are made of, and whether buffers still hold what was computed from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import check_model
from ..mixture.mfa import MFA

__all__ = [
    "as_image_shape",
    "as_mfa",
    "equal",
    "frozen",
    "keep_digits",
    "make_buffer",
    "numbers",
    "unchanged",
    "versions",
]

# Up to this many numbers of each buffer, spread over it, are compared with what was seen before at every call.
LOOKED_AT = 2**12


def make_buffer(values: Any) -> Tensor:
    """A tensor of its own on the host that gradients can be taken through, whatever mode the caller is in."""
    with torch.inference_mode(False):
        return torch.tensor(np.asarray(values), device="cpu")


def frozen(value: Tensor) -> nn.Parameter:
    """A tensor as a parameter that is not trained, unless the tensor itself takes gradients."""
    return nn.Parameter(value.detach(), requires_grad=value.requires_grad)


def keep_digits(module: nn.Module, before: dict[str, Tensor]) -> None:
    """Give parameters that were moved and rounded the numbers that they had, where they are now."""
    for name, value in before.items():
        parameter = module.get_parameter(name)
        if parameter.dtype != value.dtype:
            parameter.data = value.to(parameter.device)


def versions(buffers: dict[str, Tensor]) -> list[tuple[int, int, bytes]]:
    """What tells an edited or replaced tensor from the one that was seen before: itself, torch's count of its edits
    and, since edits through ``.data`` are not counted, some of its numbers.
    """
    return [(id(v), 0 if v.is_inference() else v._version, _some_numbers(v)) for v in buffers.values()]


def _some_numbers(value: Tensor) -> bytes:
    if value.device.type != "cpu" or value.requires_grad or value.dtype == torch.bfloat16:
        return b""
    return value.numpy().ravel()[:: 1 + value.numel() // LOOKED_AT].tobytes()


def unchanged(buffers: dict[str, Tensor], seen: list[tuple[int, int, bytes]]) -> bool:
    """Whether the buffers are as they were seen, and take no gradients."""
    return not any(value.requires_grad for value in buffers.values()) and versions(buffers) == seen


def equal(buffers: dict[str, Tensor], mfa: MFA) -> bool:
    """Whether the buffers hold the mixture's parameters."""
    if any(value.device.type == "meta" for value in buffers.values()):
        return True  # no values to differ; torch's own functions refuse them
    return all(np.array_equal(numbers(value), getattr(mfa, name)) for name, value in buffers.items())


def numbers(value: Any) -> Any:
    """A tensor on the host as NumPy has it; bfloat16, which it does not have, as float32."""
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def as_mfa(mfa: Any) -> MFA:
    """An MFA, and nothing else."""
    check_model("mfa", mfa, MFA)
    found: MFA = mfa
    return found


def as_image_shape(shape: Sequence[int] | None, n_features: int) -> tuple[int, int, int] | None:
    """(height, width, channels) of images that are flattened to `n_features`, or None."""
    if shape is None:
        return None
    full = tuple(shape) if isinstance(shape, Sequence | np.ndarray | torch.Size) else ()
    full = (*full, 1) if len(full) == 2 else full
    whole = all(isinstance(s, int | np.integer) and s > 0 for s in full)
    if len(full) != 3 or not whole or math.prod(full) != n_features:
        raise ValueError(
            f"image_shape must be (height, width, channels) with product {n_features}, the number of features, "
            f"got {shape!r}"
        )
    return int(full[0]), int(full[1]), int(full[2])
