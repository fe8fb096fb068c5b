"""The classifiers that the paper trains, with scikit-learn's interface: CNN, TRADES, linear and RBF SVM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .networks.cnn import CNN
    from .networks.trades import TRADES
    from .svm.machines import RBFSVM, LinearSVM

# Kind of file, which is also the name in `mfakit train` -> class and its module, which is loaded on first use: networks
# import torch, and SVMs scikit-learn's solver.
_REGISTRY = {
    "cnn": ("CNN", "networks.cnn"),
    "trades": ("TRADES", "networks.trades"),
    "linear-svm": ("LinearSVM", "svm.machines"),
    "rbf-svm": ("RBFSVM", "svm.machines"),
}
_MODULES = dict(_REGISTRY.values())
# Kind -> name of the class.
KINDS = {kind: name for kind, (name, _) in _REGISTRY.items()}

__all__ = ["CNN", "KINDS", "RBFSVM", "TRADES", "LinearSVM", "load"]


def load(path: str | os.PathLike[str]) -> Any:
    """A fitted classifier of whatever kind the file holds; a Bayes classifier's file is read as well.

    Parameters
    ----------
    path : path
        Written by a classifier's ``save``.

    Returns
    -------
    CNN, TRADES, LinearSVM, RBFSVM or BayesClassifier

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a file of a classifier, cut short, tampered with, or of an unknown version.

    Examples
    --------
    >>> import tempfile, mfakit
    >>> clf = mfakit.datasets.load_bayes_pair("mnist-06")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clf.save(f"{folder}/clf.safetensors")
    ...     mfakit.classifiers.load(f"{folder}/clf.safetensors").n_features
    784
    """
    from .._io.tensor_files import read_kind
    from ..bayes.classifier import BayesClassifier

    kind = read_kind(path)
    if kind == "bayes-classifier":
        return BayesClassifier.load(path)
    if kind not in KINDS:
        raise ValueError(f"{path} holds a {kind}, not a classifier ({', '.join(KINDS)}); load it with its own class")
    return __getattr__(KINDS[kind]).load(path)


__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)
