"""Steps of scikit-learn's pipelines that are affine maps of a sample, and linear decisions behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forms import LinearForm

__all__ = ["AFFINE_STEPS", "before", "is_identity", "scikit_learn_names"]

Array = NDArray[Any]


def scikit_learn_names(estimator: Any) -> list[str]:
    """Names of the scikit-learn classes that an object is of, the most derived first."""
    return [c.__name__ for c in type(estimator).__mro__ if c.__module__.split(".")[0] == "sklearn"]


def is_identity(step: Any) -> bool:
    """Whether a step passes samples on as they are."""
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return True
    return "FunctionTransformer" in scikit_learn_names(step) and step.func is None


def before(form: LinearForm, step: Any) -> LinearForm | None:
    """The decision of what `step` is given, by the linear decision of what it returns; None if it is not affine."""
    if is_identity(step):
        return form
    names = scikit_learn_names(step)
    found = next((_STEPS[name] for name in names if name in _STEPS), None)
    if found is None or getattr(step, "clip", False):
        return None
    weights, center = found(step, form.weights)
    at_center = form.values(_image(step, center)[None])[0]
    return replace(form, weights=weights, offset=at_center, center=center, stepwise=True)


def _image(step: Any, center: Array) -> Array:
    """What the step makes of one point, [d]."""
    image: Array = np.asarray(step.transform(np.asarray(center, np.float64)[None]), np.float64)[0]
    return image


def _standard(step: Any, W: Array) -> tuple[Array, Array]:
    scale = 1.0 if step.scale_ is None else step.scale_
    return W / scale, np.zeros(W.shape[1]) if step.mean_ is None or not step.with_mean else step.mean_


def _robust(step: Any, W: Array) -> tuple[Array, Array]:
    scale = 1.0 if step.scale_ is None else step.scale_
    return W / scale, np.zeros(W.shape[1]) if step.center_ is None else step.center_


def _min_max(step: Any, W: Array) -> tuple[Array, Array]:
    return W * step.scale_, (step.data_min_ + step.data_max_) / 2


def _max_abs(step: Any, W: Array) -> tuple[Array, Array]:
    return W / step.scale_, np.zeros(W.shape[1])


def _principal(step: Any, W: Array) -> tuple[Array, Array]:
    if step.whiten:
        W = W / np.maximum(np.sqrt(step.explained_variance_), np.finfo(np.float64).eps)
    return W @ step.components_, step.mean_


def _projection(step: Any, W: Array) -> tuple[Array, Array]:
    components = step.components_
    components = components.toarray() if hasattr(components, "toarray") else components
    return W @ components, np.zeros(components.shape[1])


def _selection(step: Any, W: Array) -> tuple[Array, Array]:
    kept = step.get_support()
    weights = np.zeros((len(W), len(kept)))
    weights[:, kept] = W
    return weights, np.zeros(len(kept))


# By scikit-learn's class: the weights [R, d] before the step by those [R, e] behind it, and a point [d] near the data.
_STEPS: dict[str, Callable[[Any, Array], tuple[Array, Array]]] = {
    "StandardScaler": _standard, "RobustScaler": _robust, "MinMaxScaler": _min_max, "MaxAbsScaler": _max_abs,
    "PCA": _principal, "IncrementalPCA": _principal, "TruncatedSVD": _projection,
    "BaseRandomProjection": _projection, "SelectorMixin": _selection,
}  # fmt: skip
AFFINE_STEPS = "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA, TruncatedSVD, feature selection"
