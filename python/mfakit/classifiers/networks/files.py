"""What a file of a trained network holds: every parameter as a tensor, and the image shape."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .layout import Layout

__all__ = ["check_tensors", "read_image_shape"]

Array = NDArray[Any]


def read_image_shape(settings: dict[str, Any]) -> tuple[int, int, int]:
    """(height, width, channels), or a ValueError."""
    shape = settings.get("image_shape")
    if not _are_integers(shape) or len(shape) != 3 or min(shape) < 1 or math.prod(shape) > 2**40:
        raise ValueError("its image_shape is not three positive integers (height, width, channels)")
    return shape[0], shape[1], shape[2]


def _are_integers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def check_tensors(tensors: dict[str, Array], layout: Layout) -> None:
    """Raise a ValueError unless these are the parameters of a network of this layout, finite."""
    expected = layout.shapes()
    for what, names in (("lacks", expected.keys() - tensors.keys()), ("has", tensors.keys() - expected.keys())):
        if names:
            raise ValueError(f"it {what} {sorted(names)[0]}, unlike a network of its width and depth")
    for name, shape in expected.items():
        value = tensors[name]
        if value.shape != shape or value.dtype != np.float32:
            raise ValueError(f"{name} must be float32 {shape}, got {value.dtype} {value.shape}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has NaN or inf")
