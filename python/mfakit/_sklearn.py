"""What our scikit-learn estimators share."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from ._arrays.containers import as_host_array, check_container

__all__ = ["accuracy", "become", "check_input", "names_of"]

# Fitted attributes that a fit may leave out.
OPTIONAL = ("feature_names_in_", "gamma_path_")


def names_of(estimator: Any, X: Any) -> dict[str, Any]:
    """``n_features_in_`` and, for a DataFrame, ``feature_names_in_`` of X; the estimator stays as it is.

    Raises
    ------
    TypeError
        For a DataFrame whose columns have names of several types.
    """
    other = copy.copy(estimator)
    validate_data(other, X, reset=True, skip_check_array=True)
    return {name: getattr(other, name) for name in ("n_features_in_", "feature_names_in_") if hasattr(other, name)}


def become(estimator: Any, **fitted: Any) -> None:
    """Set all fitted attributes in one step, so that an interrupt finds those of one fit and never of two."""
    kept = {name: value for name, value in vars(estimator).items() if name not in OPTIONAL}
    estimator.__dict__ = {**kept, **fitted}


def check_input(estimator: Any, X: Any) -> None:
    """Raise unless the estimator is fitted and X [n, d] has the features that it was fitted to."""
    check_is_fitted(estimator)
    check_container(X, "X")
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) == 1:
        d = estimator.n_features_in_
        raise ValueError(f"X must be [n, {d}], got shape {shape}. Reshape your data: X[None, :] is one sample")
    validate_data(estimator, X, reset=False, skip_check_array=True)


def accuracy(predicted: Any, y: Any, sample_weight: Any = None) -> float:
    """Share of the predicted labels [n] that are those of `y` [n]; n must not be 0."""
    from sklearn.metrics import accuracy_score

    if not len(predicted):
        raise ValueError("score needs at least one sample")
    labels = as_host_array(y, "y")
    sample_weight = None if sample_weight is None else as_host_array(sample_weight, "sample_weight")
    return float(accuracy_score(labels, np.asarray(predicted), sample_weight=sample_weight))
