"""A digest of a classifier's parameters, which tells which classifier a result belongs to; equal for copies, after
saving and loading, and on any device.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import is_torch, to_numpy
from ..bayes.classifier import BayesClassifier
from ..classifiers.recognise.recognise import bayes_inside
from ..mixture.mfa import MFA
from ..mixture.parameters import PARAMETERS

__all__ = ["identity"]

Array = NDArray[Any]

# Numbers digested at a time, so that Ctrl-C is answered in between.
PART = 2**21
# Where scikit-learn's classifiers by neighbours keep their samples, whose names do not end in an underscore.
NEIGHBOURS = ("_fit_X", "_y")
# Mixtures are immutable, so a digest stays valid.
_known: WeakKeyDictionary[MFA, bytes] = WeakKeyDictionary()


def identity(model: Any) -> str:
    """A name of what a classifier computes, or "" if its parameters are not found.

    A Bayes classifier and its torch module have the same name; a classifier with a network has the network's. The
    parameters' dtype does not matter, and priors count to nine digits because a module stores their logarithms.
    """
    torch_modules, model = sys.modules.get("mfakit.torch"), bayes_inside(model)
    if isinstance(model, BayesClassifier):
        return _bayes(model.mixtures, model.priors)
    if torch_modules is not None and isinstance(model, torch_modules.BayesClassifierModule):
        return _bayes([m.mfa for m in model.mixtures], np.exp(to_numpy(model.log_priors)))
    network = getattr(model, "module_", model)
    if callable(getattr(network, "state_dict", None)):
        return _named(network, network.state_dict())
    return _named(
        model, {k: v for k, v in getattr(model, "__dict__", {}).items() if k.endswith("_") or k in NEIGHBOURS}
    )


def _bayes(mixtures: Iterable[MFA], priors: Array) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for mixture, prior in zip(mixtures, priors, strict=True):
        if mixture not in _known:
            _known[mixture] = _of_arrays({name: getattr(mixture, name) for name in PARAMETERS})
        digest.update(f"{prior:.9g}".encode() + _known[mixture])
    return f"bayes-{digest.hexdigest()}"


def _named(model: Any, values: dict[str, Any]) -> str:
    """Of the arrays among named values, and the class."""
    arrays = {k: to_numpy(v.detach() if is_torch(v) else v) for k, v in values.items() if hasattr(v, "__array__")}
    arrays = {k: v for k, v in arrays.items() if v.dtype.kind in "biuf"}
    return f"{type(model).__name__}-{_of_arrays(arrays).hex()}" if arrays else ""


def _of_arrays(arrays: dict[str, Array]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.shape}".encode())
        flat = np.ascontiguousarray(array).reshape(-1)
        for start in range(0, len(flat), PART):
            digest.update(flat[start : start + PART].astype("<f8").tobytes())
    return digest.digest()
