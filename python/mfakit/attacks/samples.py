"""Samples of any shape and place: as rows on the host for the search, and back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import is_cupy, is_torch, wrap_like
from .result import AttackResult

__all__ = ["as_given", "class_names", "on_host"]

Array = NDArray[Any]


def on_host(X: Any) -> tuple[Any, tuple[int, ...]]:
    """X as rows on the host, and the shape of a sample."""
    if is_torch(X) and X.device.type not in ("cpu", "meta"):  # what has no values RowBlocks refuses
        X = X.cpu()
    elif is_cupy(X):
        X = X.get()
    if isinstance(X, list | tuple):
        X = np.asarray(X)
    ndim = getattr(X, "ndim", None)
    if ndim is None or ndim <= 2:  # RowBlocks refuses what is not an array
        return X, () if ndim is None else tuple(X.shape[1:])
    shape = tuple(X.shape[1:])
    return X.reshape(len(X), math.prod(shape)), shape


def as_given(result: AttackResult, X: Any) -> AttackResult:
    """The result with x_adv in X's shape and place."""
    x_adv = result.x_adv
    if getattr(X, "ndim", 2) > 2:
        x_adv = x_adv.reshape(X.shape)
    if is_torch(X):
        x_adv = x_adv.to(X.device)
    elif is_cupy(X):
        x_adv = wrap_like(x_adv, X)
    return result if x_adv is result.x_adv else replace(result, x_adv=x_adv)


def class_names(model: Any) -> Array | None:
    """The labels of a classifier's columns; None for a module, whose columns have no names."""
    if callable(getattr(model, "forward", None)):
        return None
    classes = getattr(model, "classes_", None)
    return None if classes is None else np.asarray(classes)
