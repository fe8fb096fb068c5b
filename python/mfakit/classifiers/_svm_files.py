"""Files of fitted SVMs: support vectors and coefficients as tensors, classes and the constructor's arguments as
settings.
"""

from __future__ import annotations

import inspect
import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..files import read_tensors, write_tensors
from ..report import jsonable
from ._gamma_path import GammaPath
from ._svm_solver import Solution

if TYPE_CHECKING:
    from ._svm_base import KernelSVM

__all__ = ["load_svm", "save_svm"]

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Classifier = TypeVar("Classifier", bound="KernelSVM")

# How to compute: of this machine and not of the model.
NOT_SAVED = ("n_threads", "progress")
PATH_FIELDS = ("gammas", "accuracy", "n_support", "mean_l2", "adversarial_accuracy")


def save_svm(clf: KernelSVM, path: PathLike) -> None:
    """Write a fitted machine. A random state that is no number is not kept."""
    parameters = {name: value for name, value in clf.get_params().items() if name not in NOT_SAVED}
    if not isinstance(parameters.get("random_state"), int | np.integer):
        parameters.pop("random_state", None)
    settings: dict[str, Any] = {"parameters": parameters, "classes": clf.classes_}
    tensors = {"support": clf.support_, "support_vectors": clf.support_vectors_, "dual": clf.dual_coef_}
    tensors["n_iter"] = clf.n_iter_.astype(np.int64)
    if hasattr(clf, "coef_"):
        tensors |= {"weights": clf.coef_, "center": clf.center_, "offset": clf.offset_}
    else:
        tensors["intercept"], settings["gamma"] = clf.intercept_, clf.gamma_
    if hasattr(clf, "gamma_path_"):
        # No column is negative, so -1 stands for NaN, which a file that is read back and compared cannot hold.
        tensors |= {f"path.{name}": np.nan_to_num(getattr(clf.gamma_path_, name), nan=-1.0) for name in PATH_FIELDS}
        settings["chosen"] = clf.gamma_path_.chosen
    write_tensors(path, clf._kind, tensors, jsonable(settings))


def load_svm(cls: type[Classifier], path: PathLike) -> Classifier:
    """Read a machine written by :func:`save_svm`.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        As :func:`mfakit.files.load_mfa`; also for settings that are none of this class, and tensors that do not fit
        each other.
    """
    tensors, settings = read_tensors(path, cls._kind)
    try:
        clf, classes = _described(cls, settings)
        rows = 1 if len(classes) == 2 else len(classes)
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
    except (TypeError, ValueError, OverflowError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} is not a valid {cls._kind}: {message}") from None
    clf._become(classes, Solution(support, dual, intercept, n_iter), vectors, **learned)
    return clf


def _described(cls: type[Classifier], settings: dict[str, Any]) -> tuple[Classifier, Array]:
    """The unfitted machine and the classes [C] that the settings describe."""
    parameters, classes = settings.get("parameters"), settings.get("classes")
    known = set(inspect.signature(cls).parameters) - set(NOT_SAVED)
    if not isinstance(parameters, dict) or not known - {"random_state"} <= set(parameters) <= known:
        raise ValueError(f"its settings are not the parameters of {cls.__name__}")
    kinds = {type(c) for c in classes} if isinstance(classes, list) else set()
    plain = len(kinds) == 1 and kinds <= {int, float, str, bool}
    if not isinstance(classes, list) or not plain or len(classes) < 2 or sorted(set(classes)) != classes:
        raise ValueError("its classes are not two or more different labels in order")
    clf = cls(**parameters)
    clf._check_parameters()
    return clf, np.array(classes)


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
    """The path that was searched, if it is there; -1 was NaN."""
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
        fields[name] = np.where(value < 0, np.nan, value) if value.dtype.kind == "f" else value
    return GammaPath(gammas, chosen=chosen, **fields)
