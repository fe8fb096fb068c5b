"""Linear and RBF support vector machines (appendices B.4, B.5): one float64 kernel matrix by blocked products for
training, kernel expansions by products afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ..._arrays.rows import RowBlocks
from ..._checks import as_generator, check_numbers
from ..._threads.process import errstate
from .base import KernelSVM
from .gamma_path import GammaPath, PathSettings, search_gamma, stratified_split
from .gram import centered_gram, squared_distances
from .kernel_machine import RBFMachine
from .solver import Solution, solve

__all__ = ["RBFSVM", "LinearSVM"]

Array = NDArray[Any]

GAMMAS = ("largest-accurate", "scale")
# libsvm's own least limit.
MOST_ITERATIONS = 10_000_000


class LinearSVM(KernelSVM):
    """The linear support vector machine of appendix B.4 (hinge loss, C; more than two classes: one against the rest).

    Parameters
    ----------
    C : float
        Penalty of a sample on the wrong side of its margin.
    tol : float
        Where the solver stops, in units of the decision.
    max_iter : int
        Its most iterations, beyond which it stops with a warning; -1 sets no limit. Classes that overlap in data of
        large scale (C counts in its units) take very many.
    block_rows, n_threads
        How to compute; see :class:`mfakit._arrays.options.Options`.

    Attributes
    ----------
    classes_ : [C]
    coef_ : float64 [1 or C, d]
        w: the decision is w·x + b.
    intercept_ : float64 [1 or C]
        b.
    center_ : float64 [d]
        The training data's mean, about which decisions are computed:
    offset_ : float64 [1 or C]
        b + w·center_.
    support_ : int64 [m]
        Rows of the training data that support the margin.
    support_vectors_ : [m, d]
        In the training data's dtype.
    dual_coef_ : float64 [1 or C, m]
        Their signed coefficients.
    n_iter_ : int64 [1 or C]
        Iterations of the solver.
    n_features_in_ : int
        d.

    References
    ----------
    Richardson & Weiss 2021, appendix B.4.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> X = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    >>> svm = mfakit.classifiers.LinearSVM(C=10).fit(X, [3, 8, 3, 8])
    >>> svm.predict([[0.9, 5.0], [1.1, 5.0]]), svm.coef_.round(3)
    (array([3, 8]), array([[1., 0.]]))
    """

    _kind = "linear-svm"
    kernel = "linear"

    coef_: Array
    center_: Array
    offset_: Array

    def __init__(
        self,
        C: float = 1.0,
        *,
        tol: float = 1e-3,
        max_iter: int = MOST_ITERATIONS,
        block_rows: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.block_rows = block_rows
        self.n_threads = n_threads

    def _train(self, rows: RowBlocks, codes: Array, n_classes: int, center: Array) -> tuple[Solution, dict[str, Any]]:
        gram = centered_gram(rows, center, self._options())
        if not np.diagonal(gram).max() > 0:
            raise ValueError("the squared lengths of the centred rows of X underflow; scale X up")
        # libsvm holds the kernel in float32. Scaled by a power of two it fits, and the same steps solve C / scale.
        scale = 2.0 ** -np.frexp(max(np.diagonal(gram).max(), np.finfo(np.float64).tiny))[1]
        gram *= scale
        penalty = self._penalty()
        found = solve(gram, codes, n_classes, penalty._replace(C=penalty.C / scale))
        found = found._replace(dual=found.dual * scale)
        weights, step = np.zeros((len(found.dual), rows.shape[1])), 1024
        for start in range(0, len(found.support), step):
            part = rows.take(found.support[start : start + step], np.float64) - center
            weights += found.dual[:, start : start + step] @ part
        return found, {"center": center, "weights": weights}

    def _fitted(self, classes: Array, **learned: Any) -> dict[str, Any]:
        center, weights, offset = learned["center"], learned["weights"], learned["solution"].intercept
        return {
            **super()._fitted(classes, **learned),
            "center_": center,
            "coef_": weights,
            "offset_": offset,
            "intercept_": offset - weights @ center,
        }

    def _values(self, X: Array) -> Array:
        return np.asarray((X - self.center_) @ self.coef_.T + self.offset_)

    def _gradients(self, X: Array) -> Array:
        return np.broadcast_to(self.coef_, (len(X), *self.coef_.shape))


class RBFSVM(KernelSVM):
    """The support vector machine with K(x, s) = exp(-γ ‖x - s‖²) of appendix B.5 (more than two classes: one against
    the rest).

    Parameters
    ----------
    C : float
        Penalty of a sample on the wrong side of its margin.
    gamma : {"largest-accurate", "scale"} or float
        γ. "largest-accurate" fits a path of them to a part of the samples, keeps the largest that is accurate on the
        rest, and fits that to all. "scale": 1 / (d · variance of all entries of X), as scikit-learn has it.
    accuracy_threshold : float or "best"
        What is accurate: the least share of the held-out samples that is right; "best": what the most accurate γ of the
        path reaches, so that there is always one.
    validation_share : float
        Share of each class that is held out for the path.
    gammas : sequence of float, optional
        The path; None takes half octaves from 1/4 to 64 over the mean squared distance between samples.
    tol : float
        Where the solver stops, in units of the decision.
    max_iter : int
        Its most iterations, beyond which it stops with a warning; -1 sets no limit. Classes that overlap in data of
        large scale (C counts in its units) take very many.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        Of the split.
    block_rows, n_threads
        How to compute; see :class:`mfakit._arrays.options.Options`. Fits of a path run in up to `n_threads` threads.
    progress : bool or None
        A progress bar over the path; None shows it on a terminal and in notebooks.

    Attributes
    ----------
    gamma_ : float
        γ.
    gamma_path_ : GammaPath
        Accuracy and support vectors of every γ; only after a search.
    classes_, support_, support_vectors_, dual_coef_, intercept_, n_iter_, n_features_in_
        As of :class:`LinearSVM`: the decision is Σ dual_coef_ K(x, support_vectors_) + intercept_.

    Notes
    -----
    How many samples a gradient attack fails to fool depends on γ far more than accuracy does: where γ is large the
    decision far from all support vectors is the intercept, and samples of the class that has it walk away for ever.
    That is a failure of the attack and no robustness; see ``direction`` of :func:`mfakit.attacks.gradient_attack`.

    References
    ----------
    Richardson & Weiss 2021, appendix B.5.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> inside = (X**2).sum(axis=1) < 1
    >>> svm = mfakit.classifiers.RBFSVM(accuracy_threshold=0.9, random_state=0).fit(X, inside)
    >>> svm.score(X, inside) > 0.9, bool(svm.gamma_path_.accuracy[svm.gamma_path_.chosen] >= 0.9)
    (True, True)
    """

    _kind = "rbf-svm"
    kernel = "rbf"

    gamma_: float
    gamma_path_: GammaPath
    _machine: RBFMachine

    def __init__(
        self,
        C: float = 1.0,
        gamma: Literal["largest-accurate", "scale"] | float = "largest-accurate",
        *,
        accuracy_threshold: float | Literal["best"] = 0.99,
        validation_share: float = 0.2,
        gammas: Sequence[float] | None = None,
        tol: float = 1e-3,
        max_iter: int = MOST_ITERATIONS,
        random_state: Any = None,
        block_rows: int | None = None,
        n_threads: int | None = None,
        progress: bool | None = False,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.accuracy_threshold = accuracy_threshold
        self.validation_share = validation_share
        self.gammas = gammas
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.block_rows = block_rows
        self.n_threads = n_threads
        self.progress = progress

    @property
    def kernel_machine(self) -> RBFMachine:
        """Decisions and gradients of float64 blocks without checks, for attacks."""
        check_is_fitted(self)
        return self._machine

    def _train(self, rows: RowBlocks, codes: Array, n_classes: int, center: Array) -> tuple[Solution, dict[str, Any]]:
        gram = centered_gram(rows, center, self._options())
        distances, scatter = squared_distances(gram, center)
        if not distances.max() > 0:
            raise ValueError("the distances between rows of X are lost in rounding; scale X up or centre it")
        learned: dict[str, Any] = {"path": None}
        if self.gamma == "largest-accurate":
            threshold = None if isinstance(self.accuracy_threshold, str) else float(self.accuracy_threshold)
            settings = PathSettings(
                threshold, self._penalty(), self._options().threads,
                self.progress,
            )  # fmt: skip
            split = stratified_split(codes, self.validation_share, as_generator(self.random_state))
            learned["path"] = search_gamma(distances, codes, split, self.gammas, settings)
            learned["gamma"] = learned["path"].gamma
        else:
            learned["gamma"] = len(rows) / scatter if self.gamma == "scale" else float(self.gamma)
        with errstate(under="ignore", over="ignore"):  # far apart is 0, whatever the caller has asked of NumPy
            distances *= -learned["gamma"]
            kernel = np.exp(distances, out=distances)
        return solve(kernel, codes, n_classes, self._penalty()), learned

    def _fitted(self, classes: Array, **learned: Any) -> dict[str, Any]:
        solution, path = learned["solution"], learned["path"]
        machine = RBFMachine(learned["support_vectors"], solution.dual, solution.intercept, learned["gamma"])
        return {
            **super()._fitted(classes, **learned),
            "intercept_": solution.intercept,
            "gamma_": learned["gamma"],
            "_machine": machine,
            **({} if path is None else {"gamma_path_": path}),
        }

    def _values(self, X: Array) -> Array:
        with errstate(under="ignore"):
            return self._machine.values(X)

    def _gradients(self, X: Array) -> Array:
        with errstate(under="ignore"):
            return self._machine.gradient(X)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.gamma, str):
            if self.gamma not in GAMMAS:
                raise ValueError(f"gamma must be a positive number or one of {GAMMAS}, got {self.gamma!r}")
        else:
            check_numbers({"gamma": self.gamma}, positive=True)
        if isinstance(self.accuracy_threshold, str):
            if self.accuracy_threshold != "best":
                raise ValueError(f'accuracy_threshold must be a share of 1 or "best", got {self.accuracy_threshold!r}')
        else:
            check_numbers({"accuracy_threshold": self.accuracy_threshold}, positive=False, below=np.nextafter(1.0, 2.0))
        check_numbers({"validation_share": self.validation_share}, positive=True, below=1.0)
        if self.gammas is not None:
            try:
                values = np.asarray(self.gammas, np.float64)
            except (TypeError, ValueError):
                values = np.zeros(0)
            if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
                raise ValueError(f"gammas must be a sequence of positive numbers, got {self.gammas!r}")
