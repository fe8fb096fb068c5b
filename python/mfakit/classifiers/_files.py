"""Files of trained classifiers: what was learned as tensors and settings, the classes and the constructor's arguments.

What a file claims is checked before anything is made of it, so that a width of 10⁹ in the settings allocates nothing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._io.report import jsonable
from .._io.tensor_files import read_tensors, write_tensors
from .._sklearn import become

if TYPE_CHECKING:
    from ._classifier import Classifier

__all__ = ["load_classifier", "save_classifier"]

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
AnyClassifier = TypeVar("AnyClassifier", bound="Classifier")

# How to compute, and where: of this machine and not of the model.
NOT_SAVED = ("device", "n_threads", "progress")


def save_classifier(clf: Classifier, path: PathLike) -> None:
    """Write a fitted classifier. A random state that is no number is not kept."""
    parameters = {name: value for name, value in clf.get_params().items() if name not in NOT_SAVED}
    if not isinstance(parameters.get("random_state", 0), int | np.integer):
        parameters["random_state"] = None
    tensors, settings = clf._to_file()
    settings |= {"parameters": {k: _to_json(v) for k, v in parameters.items()}, "classes": clf.classes_}
    write_tensors(path, clf._kind, tensors, jsonable(settings))


def load_classifier(cls: type[AnyClassifier], path: PathLike) -> AnyClassifier:
    """Read a classifier written by :func:`save_classifier`.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        As :meth:`mfakit.MFA.load`; also for settings that are none of this class, and tensors that do not fit them or
        each other.
    """
    tensors, settings = read_tensors(path, cls._kind)
    try:
        clf, classes = _described(cls, settings)
        learned = clf._from_file(tensors, settings, classes)
    except (TypeError, ValueError, OverflowError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} is not a valid {cls._kind}: {message}") from None
    become(clf, **clf._fitted(classes, **learned))
    return clf


def _described(cls: type[AnyClassifier], settings: dict[str, Any]) -> tuple[AnyClassifier, Array]:
    """The unfitted classifier and the classes [C] that the settings describe."""
    parameters, classes = settings.get("parameters"), settings.get("classes")
    if isinstance(parameters, dict):
        parameters.pop("n_attacked", None)  # of RBF machines, in files of earlier builds
    known = set(inspect.signature(cls).parameters) - set(NOT_SAVED)
    # Earlier files of support vector machines left a random state out that was no number.
    if not isinstance(parameters, dict) or not known - {"random_state"} <= set(parameters) <= known:
        raise ValueError(f"its settings are not the parameters of {cls.__name__}")
    kinds = {type(c) for c in classes} if isinstance(classes, list) else set()
    plain = len(kinds) == 1 and kinds <= set(cls._label_types)
    if not isinstance(classes, list) or not plain or len(classes) < 2 or sorted(set(classes)) != classes:
        what = "integers" if cls._label_types == (int,) else "labels"
        raise ValueError(f"its classes are not two or more different {what} in order")
    clf = cls(**{name: _from_json(value, cls._sequence) for name, value in parameters.items()})
    clf._check_parameters()
    labels = np.array(classes, np.int64 if cls._label_types == (int,) else None)
    if labels.dtype == object:
        raise ValueError(f"its classes are not two or more different labels of up to 64 bits, got {classes[-1]}")
    return clf, labels


def _to_json(value: Any) -> Any:
    """`value` with sequences of any kind as lists, and infinities, such as a bound that is none, as words: JSON would
    make them null.
    """
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_to_json(item) for item in np.asarray(value).tolist()]
    return str(float(value)) if isinstance(value, float | np.floating) and np.isinf(value) else value


def _from_json(value: Any, sequence: type) -> Any:
    if isinstance(value, list):
        return sequence(_from_json(item, sequence) for item in value)
    return float(value) if value in ("inf", "-inf") else value
