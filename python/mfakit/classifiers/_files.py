"""Files of trained networks: every parameter as a tensor, the constructor's arguments, classes and image shape as
settings.

What a file claims is compared with the tensors that it has before any network is built, so that a width of 10⁹ in the
settings allocates nothing.
"""

from __future__ import annotations

import inspect
import math
import os
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..files import read_tensors, write_tensors
from ..report import jsonable
from ._layout import Layout

if TYPE_CHECKING:
    from ._base import NetworkClassifier

__all__ = ["load_network", "save_network"]

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Classifier = TypeVar("Classifier", bound="NetworkClassifier")

# How to compute, and where: of this machine and not of the model.
NOT_SAVED = ("device", "n_threads", "progress")


def save_network(clf: NetworkClassifier, path: PathLike) -> None:
    """Write a fitted classifier. A random state that is no number is not kept."""
    parameters = {name: value for name, value in clf.get_params().items() if name not in NOT_SAVED}
    if not isinstance(parameters["random_state"], int | np.integer):
        parameters["random_state"] = None
    parameters = {name: _to_json(value) for name, value in parameters.items()}
    settings = {"parameters": parameters, "classes": clf.classes_, "image_shape": clf.image_shape_}
    tensors = {name: value.detach().cpu().numpy() for name, value in clf.module_.named_parameters()}
    write_tensors(path, clf._kind, tensors, jsonable(settings))


def load_network(cls: type[Classifier], path: PathLike) -> Classifier:
    """Read a classifier written by :func:`save_network`.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        As :func:`mfakit.files.load_mfa`; also for settings that are none of this class, or that the tensors do not fit.
    """
    tensors, settings = read_tensors(path, cls._kind)
    try:
        clf, classes = _described(cls, settings)
        layout = Layout(_image_shape(settings), len(classes), clf.width, clf.depth)
        _check_tensors(tensors, layout)
    except (TypeError, ValueError, OverflowError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} is not a valid {cls._kind}: {message}") from None
    clf._restore(layout, classes, tensors)
    return clf


def _described(cls: type[Classifier], settings: dict[str, Any]) -> tuple[Classifier, Array]:
    """The unfitted classifier and the classes [C] that the settings describe."""
    parameters, classes = settings.get("parameters"), settings.get("classes")
    known = set(inspect.signature(cls).parameters) - set(NOT_SAVED)
    if not isinstance(parameters, dict) or set(parameters) != known:
        raise ValueError(f"its settings are not the parameters of {cls.__name__}")
    if not _are_integers(classes) or len(classes) < 2 or sorted(set(classes)) != classes:
        raise ValueError("its classes are not two or more different integers in order")
    clf = cls(**{name: _from_json(value) for name, value in parameters.items()})
    clf._check_parameters()
    return clf, np.array(classes, np.int64)


def _to_json(value: Any) -> Any:
    """`value` with infinities, such as a bound that is none, as words: JSON would make them null."""
    if isinstance(value, tuple | list | np.ndarray):
        return [_to_json(item) for item in value]
    return str(float(value)) if isinstance(value, float | np.floating) and np.isinf(value) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_from_json, value))
    return float(value) if value in ("inf", "-inf") else value


def _image_shape(settings: dict[str, Any]) -> tuple[int, int, int]:
    shape = settings.get("image_shape")
    if not _are_integers(shape) or len(shape) != 3 or min(shape) < 1 or math.prod(shape) > 2**40:
        raise ValueError("its image_shape is not three positive integers (height, width, channels)")
    return shape[0], shape[1], shape[2]


def _are_integers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _check_tensors(tensors: dict[str, Array], layout: Layout) -> None:
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
