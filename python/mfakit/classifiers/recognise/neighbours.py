"""Nearest-neighbour classifiers as numbers: prototypes and their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .agreement import dense
from .pipeline_steps import scikit_learn_names
from .recognise import Unrecognised, as_classifier

__all__ = ["NeighbourForm", "is_neighbours", "neighbour_form"]

Array = NDArray[Any]

TAKEN = "taken is KNeighborsClassifier(n_neighbors=1) with the Euclidean metric"
WEIGHTS = ("uniform", "distance")  # of one neighbour both are the same


@dataclass(frozen=True, eq=False)
class NeighbourForm:
    """The class of the nearest prototype, by Euclidean distance.

    Attributes
    ----------
    prototypes : [m, d]
        In the dtype that the classifier keeps.
    codes : int64 [m]
        Of each prototype its class's index into `classes`.
    classes : [C]
    """

    prototypes: Array
    codes: Array
    classes: Array

    @property
    def n_features(self) -> int:
        """d."""
        return int(self.prototypes.shape[1])


def is_neighbours(clf: Any) -> bool:
    """Whether a model is one of scikit-learn's classifiers by neighbours."""
    return any(name in ("KNeighborsClassifier", "RadiusNeighborsClassifier") for name in scikit_learn_names(clf))


def neighbour_form(clf: Any) -> NeighbourForm:
    """The prototypes of a fitted classifier by its nearest neighbour.

    Raises
    ------
    Unrecognised
        For any other rule than the one nearest prototype by Euclidean distance, with the reason.
    TypeError
        As :func:`as_classifier`.
    """
    clf = as_classifier(clf)
    name = type(clf).__name__
    if "KNeighborsClassifier" not in scikit_learn_names(clf):
        raise Unrecognised(f"{name} is not a classifier by its nearest neighbour; {TAKEN}")
    if clf.n_neighbors != 1:
        raise Unrecognised(f"{name} has n_neighbors={clf.n_neighbors}, whose votes make other cells; {TAKEN}")
    metric = getattr(clf, "effective_metric_", clf.metric)
    if metric != "euclidean":
        raise Unrecognised(f"{name} has the metric {metric!r}, whose cells are not bounded by planes; {TAKEN}")
    if not isinstance(clf.weights, str | None) or clf.weights not in (*WEIGHTS, None):
        raise Unrecognised(f"{name} has weights={clf.weights!r}, of which one may be 0; {TAKEN}")
    if getattr(clf, "outputs_2d_", False):
        raise Unrecognised(f"{name} was fitted to several outputs per sample; {TAKEN} and one class per sample")
    prototypes = dense(clf._fit_X)
    if prototypes.dtype.kind != "f":
        prototypes = prototypes.astype(np.float64)
    return NeighbourForm(prototypes, np.asarray(clf._y, np.int64), np.asarray(clf.classes_))
