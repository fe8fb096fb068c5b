"""Whether a classifier decides as a form that was read off it says."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._threads.process import errstate
from .forms import MachineForm

__all__ = ["dense", "disagreement"]

Array = NDArray[Any]

# A form is believed where the classifier's own decisions agree with it this well, relative to their size,
AGREEMENT = 1e-5
# at this many points of its own, and at as many samples.
PROBES = 8


def disagreement(clf: Any, form: MachineForm, samples: Array | None) -> str | None:
    """Why a form is not believed, as the end of a sentence that begins with the classifier's name; None if it is.

    Compared are decision_function, where the form is meant to be that, and the labels of predict, at points about the
    form's boundary and at some samples [n, d].
    """
    x = form.probes(PROBES)
    if samples is not None:
        x = np.concatenate([x, samples[:PROBES].astype(np.float64)])
    with warnings.catch_warnings(), errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of names of columns, which arrays do not have
        try:
            same = (not form.is_decision or _same_decisions(clf, form, x)) and _same_labels(clf, form, x)
        except MemoryError:
            raise
        except Exception as error:  # whatever a user's own class or a step that wants a table raises
            return f"cannot score float64 samples [n, {form.n_features}]: {' '.join(str(error).split())}"
    if same:
        return None
    return "decides otherwise than its coefficients say, so it is not the machine that it looks like"


def _same_decisions(clf: Any, form: MachineForm, x: Array) -> bool:
    own = np.asarray(dense(clf.decision_function(x)), np.float64)
    if own.ndim == 1:
        own = own[:, None]
    values = form.values(x)
    return own.shape == values.shape and bool((np.abs(own - values) <= AGREEMENT * form.sizes(x)[:, None]).all())


def _same_labels(clf: Any, form: MachineForm, x: Array) -> bool:
    """Whether predict, if there is one, gives the class of the largest value wherever that is clear."""
    if not callable(getattr(clf, "predict", None)):
        return True
    f = form.values(x)
    f = np.concatenate([np.zeros_like(f), f], axis=1) if form.n_rows == 1 else f
    clear = _lead(f) > AGREEMENT * form.sizes(x)
    if not form.is_decision and callable(getattr(clf, "predict_proba", None)):
        clear &= _lead(np.asarray(clf.predict_proba(x))) > 0  # probabilities that are both rounded to 1 are a tie
    labels, expected = np.asarray(clf.predict(x)), np.asarray(clf.classes_)[f.argmax(axis=1)]
    return labels.shape == expected.shape and bool((labels == expected)[clear].all())


def _lead(values: Array) -> Array:
    """By how much the largest of each row exceeds the second, [n]."""
    top = np.partition(values, -2, axis=1)
    return np.asarray(top[:, -1] - top[:, -2])


def dense(value: Any) -> Any:
    """An array of what may be sparse, a matrix or a torch tensor, in its own dtype."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)
