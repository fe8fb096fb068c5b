"""Parts of the torch modules: what they are made of, and whether buffers still hold what was computed from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .mfa import MFA

__all__ = ["as_image_shape", "as_mfa", "equal", "make_buffer", "numbers", "unchanged", "versions"]

# So many numbers of each buffer, spread over it, are compared with what was computed from them at every call.
LOOKED_AT = 2**14


def make_buffer(values: Any) -> Tensor:
    """A tensor of its own on the host that gradients can be taken through, whatever mode the caller is in."""
    with torch.inference_mode(False):
        return torch.tensor(np.asarray(values), device="cpu")


def versions(buffers: dict[str, Tensor]) -> list[tuple[int, int]]:
    """What tells an edited or replaced tensor from the one that was seen before."""
    return [(id(value), 0 if value.is_inference() else value._version) for value in buffers.values()]


def unchanged(buffers: dict[str, Tensor], mfa: MFA, seen: list[tuple[int, int]]) -> bool:
    """Whether the buffers are still the mixture's parameters, as far as that can be seen at no cost beside a density:
    edits through ``.data``, which torch does not count, are looked for in a part of large buffers.
    """
    if versions(buffers) != seen or any(value.requires_grad for value in buffers.values()):
        return False
    return any(value.device.type != "cpu" for value in buffers.values()) or equal(buffers, mfa, LOOKED_AT)


def equal(buffers: dict[str, Tensor], mfa: MFA, most: int | None = None) -> bool:
    """Whether the buffers hold the mixture's parameters, judged by `most` numbers of each if that is given."""
    if any(value.device.type == "meta" for value in buffers.values()):
        return True  # no values to differ; torch's own functions refuse them
    for name, value in buffers.items():
        array, step = getattr(mfa, name), 1 if most is None else 1 + value.numel() // most
        if value.shape != array.shape or not np.array_equal(numbers(value).ravel()[::step], array.ravel()[::step]):
            return False
    return True


def numbers(value: Any) -> Any:
    """A tensor on the host as NumPy has it; bfloat16, which it does not have, as float32."""
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def as_mfa(mfa: Any) -> MFA:
    """An MFA, and nothing else."""
    if not isinstance(mfa, MFA):
        raise TypeError(f"mfa must be an MFA, got {type(mfa).__name__}; a fitted estimator has one in its mfa_")
    return mfa


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
