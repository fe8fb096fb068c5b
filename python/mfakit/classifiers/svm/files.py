"""What a file of a fitted SVM holds: support vectors, coefficients, and the path of γ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .gamma_path import GammaPath
from .solver import Solution

if TYPE_CHECKING:
    from .base import KernelSVM

__all__ = ["learned_by", "tensors_of"]

Array = NDArray[Any]

PATH_FIELDS = ("gammas", "accuracy", "n_support")


def tensors_of(clf: KernelSVM) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and settings of a fitted machine."""
    settings: dict[str, Any] = {}
    tensors = {"support": clf.support_, "support_vectors": clf.support_vectors_, "dual": clf.dual_coef_}
    tensors["n_iter"] = clf.n_iter_.astype(np.int64)
    if hasattr(clf, "coef_"):
        tensors |= {"weights": clf.coef_, "center": clf.center_, "offset": clf.offset_}
    else:
        tensors["intercept"], settings["gamma"] = clf.intercept_, clf.gamma_
    if hasattr(clf, "gamma_path_"):
        tensors |= {f"path.{name}": getattr(clf.gamma_path_, name) for name in PATH_FIELDS}
        settings["chosen"] = clf.gamma_path_.chosen
    return tensors, settings


def learned_by(
    cls: type[KernelSVM], tensors: dict[str, Array], settings: dict[str, Any], n_classes: int
) -> dict[str, Any]:
    """The learned attributes of a machine of this class for `n_classes` classes; a ValueError for tensors that do
    not fit each other.
    """
    rows = 1 if n_classes == 2 else n_classes
    vectors = _tensor(tensors, "support_vectors", (None, None), (np.float32, np.float64))
    m, d = vectors.shape
    if not m or not d:
        raise ValueError(f"its support_vectors are [{m}, {d}], and a machine has some")
    dual = _tensor(tensors, "dual", (rows, m))
    support, n_iter = (_tensor(tensors, k, (s,), (np.int64,)) for k, s in (("support", m), ("n_iter", rows)))
    if cls._kind == "linear-svm":
        learned: dict[str, Any] = {
            "weights": _tensor(tensors, "weights", (rows, d)),
            "center": _tensor(tensors, "center", (d,)),
        }
        intercept = _tensor(tensors, "offset", (rows,))
    else:
        learned = {"gamma": _positive(settings.get("gamma")), "path": _path(tensors, settings)}
        intercept = _tensor(tensors, "intercept", (rows,))
    return learned | {"solution": Solution(support, dual, intercept, n_iter), "support_vectors": vectors}


def _tensor(
    tensors: dict[str, Array], name: str, shape: tuple[int | None, ...], dtypes: tuple[Any, ...] = (np.float64,)
) -> Array:
    """A finite tensor of this shape; None leaves a length open."""
    if name not in tensors:
        raise ValueError(f"it lacks {name}")
    value = tensors[name]
    fits = len(shape) == value.ndim and all(s in (None, v) for s, v in zip(shape, value.shape, strict=True))
    if not fits or value.dtype not in [np.dtype(t) for t in dtypes]:
        wanted = "[" + ", ".join("any" if s is None else str(s) for s in shape) + "]"
        names = " or ".join(np.dtype(t).name for t in dtypes)
        raise ValueError(f"{name} must be {names} {wanted}, got {value.dtype} {list(value.shape)}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has NaN or inf")
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"gamma must be a positive number, got {value!r}")
    return float(value)


def _path(tensors: dict[str, Array], settings: dict[str, Any]) -> GammaPath | None:
    """The path that was searched, if it is there."""
    if "path.gammas" not in tensors:
        return None
    gammas, chosen = _tensor(tensors, "path.gammas", (None,)), settings.get("chosen")
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(gammas):
        raise ValueError(f"chosen must be one of the {len(gammas)} γ of its path, got {chosen!r}")
    fields = {}
    for name in PATH_FIELDS[1:]:
        value = tensors.get(f"path.{name}", np.zeros(0))
        if value.shape != gammas.shape or value.dtype.kind not in "if":
            raise ValueError(f"path.{name} must be {len(gammas)} numbers, got {value.dtype} {list(value.shape)}")
        fields[name] = value
    return GammaPath(gammas, chosen=chosen, **fields)
