"""What a classifier computes: the one place that takes models of scikit-learn, ours, and a user's own for linear or
kernel machines.

A model is recognised by its structure, and believed only where its own decisions at probe points are those of the form
that was read off. Everything that takes classifiers asks here, so that all agree, and a refusal has one text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bayes.classifier import BayesClassifier
from ..svm.kernel_machine import RBFMachine
from .agreement import dense, disagreement
from .forms import KernelForm, LinearForm, MachineForm
from .pipeline_steps import AFFINE_STEPS, before, is_identity, scikit_learn_names

__all__ = ["TAKEN", "Unrecognised", "as_classifier", "bayes_inside", "is_module", "machine_form"]

Array = NDArray[Any]

TAKEN = (
    "a BayesClassifier, mfakit's CNN, TRADES and SVMs, and fitted linear classifiers, SVC(kernel='rbf') of two "
    "classes, and OneVsRestClassifier, CalibratedClassifierCV (ensemble=False) and pipelines of these"
)
# What sklearn.utils' tags call estimators that only look like classifiers.
OTHER_KINDS = {
    "regressor": "a regressor", "clusterer": "a clusterer", "outlier_detector": "an outlier detector",
    "density_estimator": "a density estimator", "transformer": "a transformer",
}  # fmt: skip

# Sizes of what distances to centroids are computed from, in squares of a centroid's length; 4 for a sample as long.
SQUARES = 16.0


class Unrecognised(TypeError):
    """A model that is neither a linear classifier nor a machine of RBF kernels, with the reason."""


def is_module(model: Any) -> bool:
    """Whether a model is a torch module; torch need not be there."""
    return any(c.__module__.startswith("torch.nn.") for c in type(model).__mro__)


def as_classifier(model: Any) -> Any:
    """The fitted classifier that a model is, or that a fitted search, a frozen estimator or an MFAClassifier holds.

    Raises
    ------
    TypeError
        For a regressor, a clusterer, an outlier detector, a density, a class, or an estimator that is not fitted.
    """
    name = _name(model)
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class, not a fitted classifier; pass {model.__name__}(...).fit(X, y)")
    kind = _kind(model)
    if kind in OTHER_KINDS:
        raise TypeError(f"{name} is {OTHER_KINDS[kind]}, not a classifier; taken are {TAKEN}")
    if callable(getattr(model, "log_prob", None)) or hasattr(model, "mfa_"):
        raise TypeError(f"{name} is a density, not a classifier; make a BayesClassifier of one density per class")
    names = scikit_learn_names(model)
    if "BaseSearchCV" in names and not hasattr(model, "best_estimator_"):
        searched = hasattr(model, "cv_results_")
        missing = "was fitted with refit=False and has no best_estimator_" if searched else "is not fitted"
        raise TypeError(f"{name} {missing}; {'search with refit=True' if searched else 'call fit first'}")
    if kind == "classifier" and not _is_fitted(model):
        raise TypeError(f"{name} is not fitted; call fit first")
    inner = _inner(model, names)
    return model if inner is None else as_classifier(inner)


def machine_form(clf: Any, samples: Array | None = None) -> MachineForm:
    """The linear or kernel machine that a classifier is.

    Parameters
    ----------
    clf : classifier
    samples : [n, d], optional
        Some samples to compare decisions at, beside points that the form itself gives.

    Raises
    ------
    Unrecognised
        With the reason, and what would be taken.
    TypeError
        As :func:`as_classifier`.
    """
    clf = as_classifier(clf)
    form = _read(clf)
    if samples is not None and samples.shape[1] != form.n_features:
        raise ValueError(f"X must be [n, {form.n_features}] (this model has d={form.n_features}), got {samples.shape}")
    if not isinstance(getattr(clf, "kernel_machine", None), RBFMachine):  # that one is what decides
        reason = disagreement(clf, form, samples)
        if reason is not None:
            raise Unrecognised(f"{_name(clf)} {reason}; taken are {TAKEN}")
    return form


def _read(clf: Any) -> MachineForm:
    """The form by the structure of a classifier, not yet compared with its decisions."""
    names = scikit_learn_names(clf)
    machine = getattr(clf, "kernel_machine", None)
    if isinstance(machine, RBFMachine):
        return KernelForm(machine)
    reader = next((_READERS[name] for name in names if name in _READERS), None)
    try:
        if reader is not None:
            return reader(clf)
        if hasattr(clf, "support_vectors_") or getattr(clf, "kernel", None) == "precomputed":
            return _support_vectors(clf)
        return _weights(clf)
    except (AttributeError, IndexError) as error:
        raise Unrecognised(f"{_name(clf)} cannot be read as a linear or RBF machine: {error}") from error


def _weights(clf: Any) -> LinearForm:
    """Of coef_ and intercept_, in any of the shapes that they come in."""
    name = _name(clf)
    missing = [part for part in ("coef_", "intercept_", "classes_") if getattr(clf, part, None) is None]
    if missing:
        raise Unrecognised(
            f"{name} is not recognised as a linear classifier or a machine of RBF kernels, because it has no "
            f"{', no '.join(missing)}; taken are {TAKEN}"
        )
    if not callable(getattr(clf, "decision_function", None)):
        raise Unrecognised(f"{name} has coef_ but no decision_function to compare them with; taken are {TAKEN}")
    coef = np.atleast_2d(dense(clf.coef_))
    unit = _unit(coef)
    try:
        W = np.asarray(coef, np.float64)
        b = np.broadcast_to(np.ravel(dense(clf.intercept_)).astype(np.float64), len(W)).copy()
    except (TypeError, ValueError):
        raise Unrecognised(
            f"{name} has coef_ and intercept_ that are no weights of a linear decision, of shapes {np.shape(coef)} and "
            f"{np.shape(clf.intercept_)}; taken are {TAKEN}"
        ) from None
    _check_rows(name, len(W), len(clf.classes_), "coef_")
    if W.ndim != 2 or not (np.isfinite(W).all() and np.isfinite(b).all()):
        raise Unrecognised(f"{name} has a coef_ or intercept_ that is not finite, or not two-dimensional; fit it again")
    if hasattr(clf, "offset_") and hasattr(clf, "center_"):  # ours: trained about the data's mean
        return LinearForm(W, np.asarray(clf.offset_, np.float64), np.asarray(clf.center_, np.float64))
    return LinearForm(W, b, np.zeros(W.shape[1]), unit * _cancelled(clf, W))


def _unit(weights: Any) -> float:
    """Half a unit in the last place of what computes with these."""
    return 2.0**-24 if weights.dtype.itemsize < 8 else 2.0**-53


def _cancelled(clf: Any, W: Array) -> float:
    """By how much sums over support vectors, which decide instead of W x, are larger than W; 1 without any."""
    support, dual = (getattr(clf, name, None) for name in ("support_vectors_", "dual_coef_"))
    largest = float(np.linalg.norm(W, axis=1).max())
    if support is None or dual is None or not largest > 0:
        return 1.0
    lengths = np.linalg.norm(np.asarray(dense(support), np.float64), axis=1)
    return max(1.0, float((np.abs(dense(dual)) @ lengths).max()) / largest)


def _support_vectors(clf: Any) -> MachineForm:
    """Of a support vector machine of scikit-learn, dense or fitted to sparse samples, or of one with its attributes."""
    name, n_classes = _name(clf), len(getattr(clf, "classes_", ()))
    kernel = getattr(clf, "kernel", "rbf")
    if kernel not in ("linear", "rbf"):
        what = "a kernel function of its own" if callable(kernel) else f"kernel={kernel!r}"
        because = ", whose input is a kernel matrix and no samples" if kernel == "precomputed" else ""
        raise Unrecognised(f"{name} has {what}{because}; kernels that are taken are 'rbf' and 'linear'")
    dual = np.atleast_2d(np.asarray(dense(clf.dual_coef_), np.float64))
    if n_classes > 2 and len(dual) != n_classes:
        raise Unrecognised(
            f"{name} decides between its {n_classes} classes by the votes of machines for each pair, which is neither "
            f"linear nor one machine of RBF kernels; take OneVsRestClassifier({name}(...)) or mfakit.classifiers."
            f"{'LinearSVM' if kernel == 'linear' else 'RBFSVM'}"
        )
    if kernel == "linear":
        return _weights(clf)
    if not n_classes or not callable(getattr(clf, "decision_function", None)):
        raise Unrecognised(f"{name} has support_vectors_ but no classes_ and decision_function; taken are {TAKEN}")
    _check_rows(name, len(dual), n_classes, "dual_coef_")
    gamma = getattr(clf, "_gamma", None)
    gamma = clf.gamma_ if gamma is None else gamma
    intercept = np.ravel(dense(clf.intercept_)).astype(np.float64)
    support = np.asarray(dense(clf.support_vectors_))
    if not len(support):
        raise Unrecognised(f"{name} has no support vectors: its decision is a constant; check its training data")
    support = support if support.dtype.kind == "f" else support.astype(np.float64)
    return KernelForm(RBFMachine(support, dual, np.broadcast_to(intercept, len(dual)), float(gamma)))


def _check_rows(name: str, rows: int, n_classes: int, attribute: str) -> None:
    if n_classes < 2 or rows != (1 if n_classes == 2 else n_classes):
        wanted = f"{n_classes} classes need {1 if n_classes == 2 else n_classes} row(s)"
        raise Unrecognised(f"{name} has {rows} row(s) in {attribute}, and {wanted}; taken are {TAKEN}")


def _pipeline(clf: Any) -> MachineForm:
    *steps, (_, last) = _flat(clf)
    form = machine_form(last)
    for label, step in reversed(steps):
        if is_identity(step):
            continue
        if isinstance(form, KernelForm):
            raise Unrecognised(
                f"{_name(clf)} puts {_name(step)} ({label!r}) before a machine of RBF kernels, whose distances are "
                "then not those of X; transform X with the steps before and attack the last one"
            )
        earlier = before(form, step)
        if earlier is None:
            raise Unrecognised(
                f"{_name(clf)} has the step {_name(step)} ({label!r}), which is not known to be affine, or clips; "
                f"affine steps are {AFFINE_STEPS}"
            )
        form = earlier
    return form


def _flat(pipeline: Any) -> list[tuple[str, Any]]:
    """All steps, with those of pipelines among them in their place."""
    steps: list[tuple[str, Any]] = []
    for label, step in pipeline.steps:
        steps += _flat(step) if "Pipeline" in scikit_learn_names(step) else [(label, step)]
    return steps


def _one_against_rest(clf: Any) -> MachineForm:
    name = _name(clf)
    if getattr(clf, "multilabel_", False):
        raise Unrecognised(f"{name} was fitted to several labels per sample; an attack needs one class per sample")
    forms = [_part(name, e) for e in clf.estimators_]
    n_classes = len(clf.classes_)
    _check_rows(name, len(forms), n_classes, "its estimators_")
    linear = [f for f in forms if isinstance(f, LinearForm)]
    if len(linear) == len(forms):
        center = np.mean([f.center for f in linear], axis=0)
        return LinearForm(
            np.concatenate([f.weights for f in linear]), np.concatenate([f.values(center[None])[0] for f in linear]),
            center, max(f.unit for f in linear), any(f.stepwise for f in linear),
        )  # fmt: skip
    machines = [f.machine for f in forms if isinstance(f, KernelForm)]
    if len(machines) != len(forms) or len({m.gamma for m in machines}) > 1:
        raise Unrecognised(f"{name} mixes machines of several kinds or several γ; give all of its machines one γ")
    coefficients = np.zeros((len(machines), sum(len(m.support) for m in machines)))
    start = 0
    for c, m in enumerate(machines):
        coefficients[c, start : start + len(m.support)] = m.coefficients[0]
        start += len(m.support)
    support = np.concatenate([m.support for m in machines])
    return KernelForm(
        RBFMachine(support, coefficients, np.concatenate([m.intercept for m in machines]), machines[0].gamma)
    )


def _part(name: str, estimator: Any) -> MachineForm:
    """The form of one machine against the rest."""
    if "_ConstantPredictor" in scikit_learn_names(estimator):
        raise Unrecognised(f"{name} has a class that all or none of its training samples belong to; fit it without it")
    form = machine_form(estimator)
    if not form.is_decision:
        raise Unrecognised(f"{name} compares probabilities of {_name(estimator)}; take machines with decision_function")
    return form


def _pairs(clf: Any) -> MachineForm:
    name, n_classes = _name(clf), len(clf.classes_)
    if n_classes > 2:
        raise Unrecognised(
            f"{name} decides between its {n_classes} classes by the votes of machines for each pair, which is neither "
            "linear nor one machine of RBF kernels; take OneVsRestClassifier of the same estimator"
        )
    return replace(machine_form(clf.estimators_[0]), is_decision=False)  # its own is bent, with the same sign


def _calibrated(clf: Any) -> MachineForm:
    """Sigmoids rise with the decisions, so that the largest of one calibrated classifier is linear where those are."""
    name, parts = _name(clf), clf.calibrated_classifiers_
    if len(parts) > 1:
        raise Unrecognised(
            f"{name} averages the probabilities of {len(parts)} calibrated classifiers, which is not linear; fit it "
            "with ensemble=False"
        )
    form = machine_form(parts[0].estimator)
    if parts[0].method == "temperature":
        return replace(form, is_decision=False)
    if parts[0].method != "sigmoid" or not form.is_decision:
        raise Unrecognised(
            f"{name} calibrates by method={parts[0].method!r}, with which its decision is not linear; take 'sigmoid' "
            "or 'temperature' and an estimator with decision_function"
        )
    slopes, shifts = (np.array([-getattr(c, part) for c in parts[0].calibrators]) for part in ("a_", "b_"))
    return replace(form.rescaled(slopes, shifts), is_decision=False)


def _centroids(clf: Any) -> LinearForm:
    """-‖S (x - m_c)‖² + 2 log π_c, less what is equal for all classes; S is what predict takes, not decision_function,
    which scales features also where predict does not.
    """
    if clf.metric != "euclidean":
        raise Unrecognised(f"{_name(clf)} has metric={clf.metric!r}, with which it is not linear; take 'euclidean'")
    priors = np.asarray(getattr(clf, "class_prior_", np.full(len(clf.classes_), 1 / len(clf.classes_))), np.float64)
    unit, centroids = _unit(clf.centroids_), np.asarray(dense(clf.centroids_), np.float64)
    center, scale = centroids.mean(axis=0), np.ones(centroids.shape[1])
    if not np.isclose(priors, 1 / len(priors)).all():
        spread = clf.within_class_std_dev_
        scale = np.where(spread != 0, spread, 1.0)
    scaled = (centroids - center) / scale
    weights, offset = 2.0 * scaled / scale, 2.0 * np.log(priors) - (scaled**2).sum(axis=1)
    if len(priors) == 2:
        weights, offset = weights[1:] - weights[:1], offset[1:] - offset[:1]
    # It rounds squares of the samples' and the centroids' own lengths, which are about equal, not of their differences.
    length, largest = np.linalg.norm(centroids, axis=1).max(), np.linalg.norm(weights, axis=1).max()
    squares = SQUARES * (np.linalg.norm(centroids / scale, axis=1) ** 2).max()
    unit *= max(1.0, squares / (length * largest)) if length * largest > 0 else 1.0
    return LinearForm(weights, offset, center, unit, is_decision=False)


def _eliminated(clf: Any) -> MachineForm:
    form = machine_form(clf.estimator_)
    kept = before(form, clf) if isinstance(form, LinearForm) else None
    if kept is None:
        raise Unrecognised(f"{_name(clf)} selects features for {_name(clf.estimator_)}, which is not linear")
    return kept


def _other_threshold(clf: Any) -> MachineForm:
    raise Unrecognised(
        f"{_name(clf)} moves the threshold of its estimator's decisions; pass the fitted estimator, its estimator_"
    )


# By scikit-learn's class.
_READERS: dict[str, Callable[[Any], MachineForm]] = {
    "Pipeline": _pipeline, "OneVsRestClassifier": _one_against_rest, "OneVsOneClassifier": _pairs,
    "CalibratedClassifierCV": _calibrated, "NearestCentroid": _centroids, "BaseThresholdClassifier": _other_threshold,
    "RFE": _eliminated,
}  # fmt: skip


def bayes_inside(model: Any) -> Any:
    """The Bayes classifier that mixtures fitted to the classes hold, of the labels 0 .. C - 1; for anything else the
    model itself.
    """
    bayes = getattr(model, "bayes_", None)
    return bayes if isinstance(bayes, BayesClassifier) else model


def _inner(model: Any, names: list[str]) -> Any:
    """What a fitted search, a frozen estimator or mixtures of the classes decide by; None for anything else."""
    if "BaseSearchCV" in names:
        return model.best_estimator_
    bayes = bayes_inside(model)
    if bayes is not model and np.array_equal(model.classes_, bayes.classes_):
        return bayes
    return model.estimator if "FrozenEstimator" in names else None


def _kind(model: Any) -> str | None:
    """What scikit-learn's tags call an estimator: "classifier", "regressor", ...; None for what has none."""
    if callable(getattr(type(model), "__sklearn_tags__", None)):
        try:
            kind = model.__sklearn_tags__().estimator_type
        except (AttributeError, TypeError, ValueError):  # of a pipeline without a last step, or a class half-made
            kind = None
        if kind is None and callable(getattr(model, "transform", None)) and not hasattr(model, "decision_function"):
            kind = "transformer"
    else:
        kind = getattr(model, "_estimator_type", None)
    return kind if isinstance(kind, str) else None


def _is_fitted(model: Any) -> bool:
    """Of a classifier in scikit-learn's way."""
    if getattr(model, "classes_", None) is not None:
        return True
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except (NotFittedError, TypeError):
        return False
    return True


def _name(model: Any) -> str:
    return type(model).__name__
