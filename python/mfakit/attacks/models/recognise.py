"""The victim that represents a classifier; a new kind of model is one file in this folder and one line here."""

from __future__ import annotations

from copy import copy
from typing import Any

from ..._arrays.options import Options
from ...bayes.classifier import BayesClassifier
from ...classifiers.recognise.forms import KernelForm
from ...classifiers.recognise.recognise import Unrecognised, as_classifier, is_module, machine_form
from .bayes import MixtureVictim
from .differentiable import GradientVictim
from .kernel import KernelVictim
from .linear import LinearVictim

__all__ = ["as_victim", "attackable", "differentiable"]

Array = Any  # NumPy's


def as_victim(
    clf: Any, rows: int, options: Options, sample: Array, log_ratio: bool = False, device: str | None = None
) -> MixtureVictim | GradientVictim:
    """The victim that represents a classifier in an attack, for blocks of at most `rows` samples; `sample` [b, d] are
    some of them, in the data's dtype. `device`: the device they are on, None for the host. `log_ratio`: walk along the
    log-ratio of a machine's kernel sums.
    """
    victim = _victim(clf, rows, options, sample, log_ratio, device)
    if log_ratio and not isinstance(victim, KernelVictim):
        raise ValueError(f'direction="log-ratio" is for RBF machines, got a {type(clf).__name__}; use "gradient"')
    return victim


def _victim(
    clf: Any, rows: int, options: Options, sample: Array, log_ratio: bool, device: str | None
) -> MixtureVictim | GradientVictim:
    if isinstance(clf, BayesClassifier):
        return MixtureVictim(clf, rows, options, device)
    if device is not None or options.backend == "cuda":
        where = "to be copied to a device" if device is None else f"on {device}"
        raise ValueError(
            f"a {type(clf).__name__} is attacked on the host, but X is {where}; pass X.get() or X.cpu(), and a "
            "backend of the host"
        )
    try:
        form = machine_form(clf, sample)
    except Unrecognised as error:
        if differentiable(clf):
            return GradientVictim(_nameless(clf), options, sample)
        raise TypeError(f"{error}; or give it decision_gradient beside decision_function") from error
    if isinstance(form, KernelForm):
        return KernelVictim(clf, options, sample, form.machine, log_ratio)
    return LinearVictim(clf, options, sample, form)


def attackable(clf: Any) -> Any:
    """The classifier itself, or the one that a fitted search holds.

    Raises
    ------
    TypeError
        For anything but a fitted classifier, and for torch modules.
    """
    if is_module(clf):
        raise TypeError(
            f"{type(clf).__name__} is a torch module, and gradient_attack takes classifiers with decision_function; "
            "call carlini_wagner_l2, which takes modules, or pass the classifier that the module was made of"
        )
    return as_classifier(clf)


def differentiable(clf: Any) -> bool:
    """Whether a classifier has methods for its decisions and their gradients."""
    return all(callable(getattr(clf, name, None)) for name in ("decision_function", "decision_gradient"))


def _nameless(clf: Any) -> Any:
    """The classifier without the column names that it was fitted with: scikit-learn's would warn for every block of
    rows, because arrays have no names.
    """
    if "feature_names_in_" in getattr(clf, "__dict__", {}):
        clf = copy(clf)
        del clf.feature_names_in_
    return clf
