"""What all trained classifiers share: scores, files, and samples checked on entry."""

from __future__ import annotations

import os
from typing import Any, ClassVar, TypeVar

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .._arrays.rows import RowBlocks
from .._sklearn import accuracy, check_input
from ._checks import as_labels, rows_on_host
from ._files import load_classifier, save_classifier

__all__ = ["Classifier"]

Array = NDArray[Any]
Self = TypeVar("Self", bound="Classifier")


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A subclass has ``predict``, and says what of it goes into a file and how it comes back."""

    # What its files are called.
    _kind: ClassVar[str]
    # Python's types of the labels that it takes, and what a list among its parameters is read back as.
    _label_types: ClassVar[tuple[type, ...]] = (int,)
    _sequence: ClassVar[type] = tuple

    classes_: Array
    n_features_in_: int
    feature_names_in_: Array

    def predict(self, X: Any) -> Any:
        """The class of each sample, [n]."""
        raise NotImplementedError

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of samples whose predicted class is `y` [n].

        Raises
        ------
        ValueError
            For no samples, another number of labels, or what are none.
        """
        predicted = self.predict(X)
        return accuracy(predicted, as_labels(y, len(predicted), f"{type(self).__name__}.score"), sample_weight)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learned, the classes and the constructor's arguments to a safetensors file; all but where and
        how it is computed.
        """
        check_is_fitted(self)
        save_classifier(self, path)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """Read a file written by :meth:`save`; nothing in it is executed.

        Raises
        ------
        FileNotFoundError
        ValueError
            Not such a file, cut short, tampered with, or of an unknown version: one sentence with the path.
        """
        return load_classifier(cls, path)

    def _check_parameters(self) -> None:
        """Raise for a constructor's argument that is out of range."""
        raise NotImplementedError

    def _to_file(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What was learned, as tensors and as settings."""
        raise NotImplementedError

    def _from_file(self, tensors: dict[str, Array], settings: dict[str, Any], classes: Array) -> dict[str, Any]:
        """The arguments of :meth:`_fitted` from a file's contents, all checked."""
        raise NotImplementedError

    def _fitted(self, classes: Array, **learned: Any) -> dict[str, Any]:
        """The fitted attributes by name."""
        raise NotImplementedError

    def _checked(self, X: Any) -> RowBlocks:
        check_input(self, X)
        return rows_on_host(X, self.n_features_in_)
