"""MFAClassifier: a mixture fitted to each class, and the Bayes classifier of them, with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from .._arrays.frames import without_index
from .._arrays.lazy_rows import by_blocks
from .._arrays.options import Missing, Options
from .._arrays.rows import RowBlocks, to_numpy, wrap_like
from .._arrays.streams import opened, streamed
from .._checks import as_generator, check_integers
from .._io.outputs import PathLike
from .._sklearn import accuracy, become, check_input, names_of
from ..backends import Backend
from ..bayes.classifier import BayesClassifier
from ..classifiers._checks import as_labels
from .checkpoint import check_checkpoint, numbered
from .estimator import MixtureOfFactorAnalyzers
from .observed import ObservedSource
from .parameters import Init, ModelParameters, Noise, check_parameters
from .source import Source, as_weights

__all__ = ["MFAClassifier"]

Array = NDArray[Any]

# Of the constructor's arguments, those that each class's mixture is fitted with as they are.
SHARED = (
    "n_factors", "noise", "init", "tol", "max_iter", "n_init", "noise_floor", "missing", "backend", "block_rows",
    "n_threads", "progress",
)  # fmt: skip


class MFAClassifier(ClassifierMixin, ModelParameters):  # type: ignore[misc]
    """A mixture of factor analyzers fitted to each class: argmax_c log prior_c + log p_c(x).

    Parameters
    ----------
    n_components : int, sequence of int [C] or mapping of labels to int
        Components of a class: the same for all, one number for each in the order of ``classes_``, or by label.
    n_factors : int
        l, at most d.
    noise : {"isotropic", "diagonal"}
        One variance per component, or one per component and feature.
    priors : array-like [C] or None
        Class probabilities in the order of ``classes_``; None takes the frequencies in the training data.
    init, tol, max_iter, n_init, noise_floor
        Of each class's fit by EM; see :class:`mfakit.MixtureOfFactorAnalyzers`.
    missing : {"error", "marginal"}
        What NaN is: a mistake, or a feature that is not known; see :class:`mfakit.MixtureOfFactorAnalyzers`.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        Each class has a stream of its own, so that a class's mixture depends on its own samples only.
    backend, block_rows, n_threads
        How to compute; see :class:`mfakit._arrays.options.Options`.
    progress : bool or None
        A progress bar for each class; None shows it on a terminal and in notebooks.

    Attributes
    ----------
    bayes_ : BayesClassifier
        The classifier of the fitted densities, which attacks and certificates take. Its labels are 0 .. C - 1, indices
        into ``classes_``.
    classes_ : [C]
        The labels, sorted.
    class_prior_ : float64 [C]
    n_iter_ : int64 [C]
        EM steps of each class.
    converged_ : bool [C]
        Whether each class's fit reached `tol`.
    n_features_in_ : int
        d.
    feature_names_in_ : [d]
        Names of the columns, for a DataFrame with string names.

    References
    ----------
    Richardson & Weiss, A Bayes-Optimal View on Adversarial Examples, JMLR 2021, section 2.1.

    Examples
    --------
    >>> import mfakit
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = mfakit.MFAClassifier(n_components=1, n_factors=2, noise="diagonal").fit(X, y)
    >>> clf.score(X, y)
    0.98
    >>> clf.bayes_.n_classes
    3
    """

    bayes_: BayesClassifier
    classes_: Array
    class_prior_: Array
    n_iter_: Array
    converged_: Array
    n_features_in_: int
    feature_names_in_: Array

    def __init__(
        self,
        n_components: Any = 1,
        n_factors: int = 1,
        *,
        noise: Noise = "isotropic",
        priors: Any = None,
        init: Init = "kmeans",
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        noise_floor: float | None = None,
        missing: Missing = "error",
        random_state: Any = None,
        backend: Backend = "auto",
        block_rows: int | None = None,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        super().__init__(
            n_components, n_factors, noise=noise, init=init, tol=tol, max_iter=max_iter, n_init=n_init,
            noise_floor=noise_floor, random_state=random_state, backend=backend, block_rows=block_rows,
            n_threads=n_threads, progress=progress,
        )  # fmt: skip
        self.priors = priors
        self.missing = missing

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: PathLike | None = None,
        checkpoint_every: float = 60.0,
    ) -> MFAClassifier:  # fmt: skip
        """Fit a mixture to the rows of each class.

        Parameters
        ----------
        X : array-like, [n, d]
        y : array-like, [n]
            Labels of two or more classes: integers, strings or booleans.
        sample_weight : array-like, [n]
            2 counts a row twice, 0 leaves it out, also for the class frequencies.
        checkpoint, checkpoint_every
            As of :meth:`mfakit.MixtureOfFactorAnalyzers.fit`. Each class has a file of its own, numbered as in
            ``classes_``: for ``fit.safetensors`` the first is ``fit-class0.safetensors``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            One class only, labels that are none, more components than samples in a class, and what
            :meth:`mfakit.MixtureOfFactorAnalyzers.fit` refuses.
        TypeError
            X that is not real numbers, or sparse.
        """
        models = {name: getattr(self, name) for name in SHARED}
        check_parameters(MixtureOfFactorAnalyzers(**models))
        check_checkpoint(checkpoint, checkpoint_every)
        options = Options(backend=self.backend, block_rows=self.block_rows, n_threads=self.n_threads)
        X = opened(X)
        kind = Source if self.missing == "error" else ObservedSource
        kind.from_array(X, sample_weight, options)  # refuses bad rows by their number in X
        rows = RowBlocks(X)
        labels = as_labels(y, len(rows), type(self).__name__)
        weights = as_weights(sample_weight, len(rows))
        names = names_of(self, X)
        classes, codes = _classes(labels, weights)
        counts = _components(self.n_components, classes, codes)
        mass = np.bincount(codes[codes >= 0], None if weights is None else weights[codes >= 0])
        streams = as_generator(self.random_state).spawn(len(classes))
        fits = []
        for c, (k, stream) in enumerate(zip(counts, streams, strict=True)):
            members = np.flatnonzero(codes == c)
            # Without a seed a checkpoint is not bound to this run's random numbers.
            unbound = self.random_state is None and checkpoint is not None
            est = MixtureOfFactorAnalyzers(k, random_state=None if unbound else stream, **models)
            own = rows.take(members)
            if self.missing == "marginal":
                _check_known(own, classes.tolist()[c])
            path = None if checkpoint is None else numbered(checkpoint, "class", c)
            own_weights = None if weights is None else weights[members]
            fits.append(est.fit(own, sample_weight=own_weights, checkpoint=path, checkpoint_every=checkpoint_every))
        bayes = BayesClassifier([est.mfa_ for est in fits], mass / mass.sum() if self.priors is None else self.priors)
        fitted = {
            "bayes_": bayes,
            "classes_": classes,
            "class_prior_": bayes.priors,
            "n_iter_": np.array([est.n_iter_ for est in fits]),
            "converged_": np.array([est.converged_ for est in fits]),
        }
        become(self, **fitted, **names)
        return self

    @streamed
    @by_blocks
    def predict(self, X: Any) -> Any:
        """The most probable class of each row, labels [n]; a tie goes to the lower label."""
        codes = to_numpy(self._checked(X).predict(without_index(X), missing=self.missing, **self._how()))
        labels = self.classes_[codes]
        return wrap_like(labels, X) if labels.dtype.kind in "iufb" else labels

    @streamed
    @by_blocks
    def predict_proba(self, X: Any) -> Any:
        """p(class | x), [n, C], columns in the order of ``classes_``."""
        return self._checked(X).predict_proba(without_index(X), missing=self.missing, **self._how())

    @streamed
    @by_blocks
    def predict_log_proba(self, X: Any) -> Any:
        """log p(class | x), [n, C], nats."""
        return self._checked(X).predict_log_proba(without_index(X), missing=self.missing, **self._how())

    @streamed
    @by_blocks
    def decision_function(self, X: Any) -> Any:
        """Log-odds in nats: two classes [n], positive for ``classes_[1]``; more [n, C], log prior_c p_c(x)."""
        return self._checked(X).decision_function(without_index(X), missing=self.missing, **self._how())

    @streamed
    @by_blocks
    def decision_gradient(self, X: Any) -> Any:
        """Gradient of :meth:`decision_function` in X: [n, d] for two classes, [n, C, d] for more."""
        return self._checked(X).decision_gradient(without_index(X), **self._how())

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of rows whose predicted class is `y` [n]."""
        predicted = to_numpy(self.predict(X))
        return accuracy(predicted, as_labels(y, len(predicted), f"{type(self).__name__}.score"), sample_weight)

    def _checked(self, X: Any) -> BayesClassifier:
        check_input(self, X)
        return self.bayes_

    def _how(self) -> dict[str, Any]:
        return {"backend": self.backend, "block_rows": self.block_rows, "n_threads": self.n_threads}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "marginal"
        return tags


def _check_known(X: Array, label: Any) -> None:
    """Raise for a feature that no sample of a class has."""
    nowhere = np.flatnonzero(np.isnan(X).all(axis=0))
    if len(nowhere):
        raise ValueError(
            f"feature {nowhere[0]} is missing in every row of class {label!r}, so that its density there is not known; "
            f"leave it out ({len(nowhere)} of {X.shape[1]} are)"
        )


def _classes(labels: Array, weights: Array | None) -> tuple[Array, Array]:
    """The distinct labels [C] of rows that have weight, and each row's index into them, int64 [n]; -1 without weight.

    Raises
    ------
    ValueError
        For fewer than two classes, and labels that are real numbers or cannot be sorted.
    """
    check_classification_targets(labels)
    present = np.ones(len(labels), bool) if weights is None else weights > 0
    try:
        classes, found = np.unique(labels[present], return_inverse=True)
    except TypeError as error:
        raise ValueError(f"y must hold labels of one kind that can be sorted, integers or strings: {error}") from None
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only, {classes.tolist()[0]!r}; a classifier needs rows with a positive weight in two "
            "or more"
        )
    codes = np.full(len(labels), -1)
    codes[present] = found.ravel()
    return classes, codes


def _components(n_components: Any, classes: Array, codes: Array) -> list[int]:
    """How many components each class has, checked against its rows."""
    names = classes.tolist()
    if isinstance(n_components, Mapping):
        if set(n_components) != set(names):
            raise ValueError(f"n_components must name the classes {names}, got {list(n_components)}")
        counts = [n_components[name] for name in names]
    elif isinstance(n_components, Iterable) and not isinstance(n_components, str):
        counts = list(n_components)
        if len(counts) != len(names):
            raise ValueError(f"n_components must have one number for each of {len(names)} classes, got {len(counts)}")
    else:
        counts = [n_components] * len(names)
    for c, (name, k) in enumerate(zip(names, counts, strict=True)):
        check_integers({"n_components": k}, 1)
        rows = int((codes == c).sum())
        if k > rows:
            raise ValueError(
                f"n_components={k} needs at least as many samples in each class, and class {name!r} has {rows} with a "
                "positive weight; lower n_components, or give each class its own"
            )
    return [int(k) for k in counts]
