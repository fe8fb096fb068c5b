"""What a Bayes classifier keeps beside its mixtures, checked and copied: priors, arrays, and what JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays.containers import sum_tolerance, to_numpy
from .._io.messages import one_line
from ..mixture.mfa import MFA

__all__ = ["OUTLIER", "Parts", "as_priors", "checked_extras", "checked_metadata"]

Array = NDArray[Any]
# The extras that :meth:`mfakit.BayesClassifier.asymmetric` takes: the data's mean [d], the step √λ v [d] to an outlier,
# and which principal direction that is, 50 where it is not said.
OUTLIER = ("outlier_mean", "outlier_step", "outlier_direction")


class Parts(TypedDict, total=False):
    """The arguments of :class:`mfakit.BayesClassifier`, or some of them."""

    mixtures: Sequence[MFA]
    priors: ArrayLike | None
    extras: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None


def as_priors(priors: ArrayLike | None, n_classes: int) -> Array:
    """Class probabilities, frozen; uniform for None."""
    values = np.full(n_classes, 1.0 / n_classes) if priors is None else to_numpy(priors, "priors")
    if values.dtype.kind not in "fiu":
        raise TypeError(f"priors must be real numbers, got dtype {values.dtype}")
    values = np.array(values, np.float64)
    if values.shape != (n_classes,) or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"priors must be {n_classes} non-negative numbers, got {priors!r}")
    if not abs(values.sum() - 1.0) <= sum_tolerance(priors):
        raise ValueError(f"priors must sum to 1, got {values.sum():.6g}")
    values /= values.sum()  # of priors in float32, too, what samples are drawn with sums to 1
    values.flags.writeable = False
    return values.view()  # which cannot be made writeable again


def checked_extras(extras: Mapping[str, Any] | None, d: int) -> dict[str, Array]:
    """Arrays by name; those of the outlier must fit a model of d features."""
    if extras is not None and not isinstance(extras, Mapping):
        raise TypeError(f"extras must be a mapping of names to arrays, got a {type(extras).__name__}")
    arrays = {name: to_numpy(value, name) for name, value in (extras or {}).items()}
    for name in OUTLIER[:2]:
        if name in arrays and (arrays[name].shape != (d,) or arrays[name].dtype.kind != "f"):
            got = f"shape {arrays[name].shape} and dtype {arrays[name].dtype}"
            raise ValueError(f"extras[{name!r}] must be real numbers [{d}], one a feature, got {got}")
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise ValueError(f"extras[{name!r}] has NaN or inf")
    direction = arrays.get(OUTLIER[2])
    if direction is not None and (direction.shape != () or direction.dtype.kind not in "iu"):
        raise ValueError(f"extras[{OUTLIER[2]!r}] must be an integer, got shape {direction.shape}")
    return arrays


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy as JSON gives it back: tuples are lists, and keys are text."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, got a {type(metadata).__name__}")
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata must be what JSON can hold: {one_line(error)}") from None
    return copied
