"""What the two support vector machines share: scikit-learn's interface around decisions and gradients of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from ..._arrays.lazy_rows import by_blocks
from ..._arrays.options import Options
from ..._arrays.rows import RowBlocks, check_finite_rows, wrap_like
from ..._arrays.streams import opened, streamed
from ..._checks import check_integers, check_numbers
from ..._sklearn import become, names_of
from .._checks import as_labels, rows_on_host
from .._classifier import Classifier
from .files import learned_by, tensors_of
from .gram import data_mean
from .solver import Penalty, Solution

__all__ = ["KernelSVM"]

Array = NDArray[Any]
Self = TypeVar("Self", bound="KernelSVM")


# libsvm counts its iterations in 32 bits.
MOST_ITERATIONS = 2**31 - 1


class KernelSVM(Classifier):
    """See :class:`mfakit.classifiers.LinearSVM`; a subclass says how it is trained and evaluated on blocks."""

    _label_types = (int, float, str, bool)
    _sequence = list
    # What scikit-learn's SVC calls it, so that code for those machines takes ours.
    kernel: ClassVar[str]

    C: float
    tol: float
    max_iter: int
    block_rows: int | None
    n_threads: int | None

    support_: Array
    support_vectors_: Array
    dual_coef_: Array
    intercept_: Array
    n_iter_: Array

    def fit(self: Self, X: Any, y: Any) -> Self:
        """Train on the rows of X.

        Parameters
        ----------
        X : array-like, [n, d]
            NumPy array in any layout, memory map, CPU torch tensor or nested sequence; only blocks of it are converted.
            The kernel matrix takes 8 n² bytes.
        y : array-like, [n]
            Labels of two or more classes: integers or strings.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            NaN or inf in X (with the first bad row), one class only, rows that are all equal, bad parameters; for
            ``gamma="largest-accurate"`` also if no γ is accurate.
        TypeError
            X that is not real numbers, or sparse.
        MemoryError
            A kernel matrix beyond this machine's memory.
        """
        self._check_parameters()
        X = opened(X)
        rows, options = rows_on_host(X), self._options()
        n, d = rows.shape
        if not n or not d:
            what = "sample(s)" if not n else "feature(s)"
            raise ValueError(f"X has 0 {what} (shape={rows.shape}) while a minimum of 1 is required.")
        classes, codes = _encode(y, n, type(self).__name__)
        names = names_of(self, X)
        center = data_mean(rows, options)
        solution, learned = self._train(rows, codes, len(classes), center)
        fitted = self._fitted(classes, solution=solution, support_vectors=rows.take(solution.support), **learned)
        become(self, **fitted | names)
        return self

    @streamed
    @by_blocks
    def decision_function(self, X: Any) -> Any:
        """Two classes: [n], positive for ``classes_[1]``; more: [n, C], each class against all others. In X's dtype.

        Parameters
        ----------
        X : array-like, [n, d]

        Raises
        ------
        NotFittedError
        ValueError, TypeError
            X of another width, with NaN or inf, or not real numbers.
        """
        rows = self._checked(X)
        values = self._decisions(rows)
        return wrap_like((values[:, 0] if len(self.classes_) == 2 else values).astype(rows.dtype), X)

    @streamed
    @by_blocks
    def decision_gradient(self, X: Any) -> Any:
        """Gradient of :meth:`decision_function` in X: [n, d] for two classes, [n, C, d] for more. In X's dtype."""
        rows = self._checked(X)
        n, d = rows.shape
        result = np.empty((n, len(self.intercept_), d), rows.dtype)
        for part, block in self._blocks(rows):
            result[part] = self._gradients(block)
        return wrap_like(result[:, 0] if len(self.classes_) == 2 else result, X)

    @streamed
    @by_blocks
    def predict(self, X: Any) -> Any:
        """The class of each sample, [n], by its decision in float64; a tie goes to the lower label."""
        values = self._decisions(self._checked(X))
        codes = (values[:, 0] > 0).astype(np.int64) if len(self.classes_) == 2 else values.argmax(axis=1)
        labels = self.classes_[codes]
        return wrap_like(labels, X) if labels.dtype.kind in "iufb" else labels

    def _train(self, rows: RowBlocks, codes: Array, n_classes: int, center: Array) -> tuple[Solution, dict[str, Any]]:
        """The solution, and what else was learned."""
        raise NotImplementedError

    def _fitted(self, classes: Array, **learned: Any) -> dict[str, Any]:
        solution, support_vectors = learned["solution"], learned["support_vectors"]
        return {
            "classes_": classes,
            "support_": solution.support,
            "dual_coef_": solution.dual,
            "support_vectors_": support_vectors,
            "n_features_in_": support_vectors.shape[1],
            "n_iter_": solution.n_iter,
        }

    def _values(self, X: Array) -> Array:
        """Decisions [n, C] of a block in float64; C = 1 for two classes."""
        raise NotImplementedError

    def _gradients(self, X: Array) -> Array:
        """Gradients [n, C, d] of a block in float64."""
        raise NotImplementedError

    def _to_file(self) -> tuple[dict[str, Array], dict[str, Any]]:
        return tensors_of(self)

    def _from_file(self, tensors: dict[str, Array], settings: dict[str, Any], classes: Array) -> dict[str, Any]:
        return learned_by(type(self), tensors, settings, len(classes))

    def _check_parameters(self) -> None:
        check_numbers({"C": self.C, "tol": self.tol}, positive=True)
        if self.max_iter != -1:
            check_integers({"max_iter": self.max_iter}, 1, MOST_ITERATIONS, "or -1 for no limit")
        self._options()

    def _options(self) -> Options:
        return Options(block_rows=self.block_rows, n_threads=self.n_threads)

    def _penalty(self) -> Penalty:
        return Penalty(float(self.C), float(self.tol), int(self.max_iter))

    def _blocks(self, rows: RowBlocks) -> Iterator[tuple[slice, Array]]:
        """Blocks of X in float64, refused where they hold NaN or inf."""
        step = self._options().plan_block(rows.shape[1], len(self.support_), 8)
        for start in range(0, len(rows), step):
            stop = min(start + step, len(rows))
            block = rows.block(start, stop, np.float64)
            check_finite_rows(block.sum(axis=1), block, start, rows.name)
            yield slice(start, stop), block

    def _decisions(self, rows: RowBlocks) -> Array:
        values = np.empty((len(rows), len(self.intercept_)))
        for part, block in self._blocks(rows):
            values[part] = self._values(block)
        return values


def _encode(y: Any, n: int, name: str) -> tuple[Array, Array]:
    """The classes [C] in order, and each sample's index into them, int64 [n]."""
    labels = as_labels(y, n, name)
    check_classification_targets(labels)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y has one class only, {classes[0]}; a classifier needs two or more")
    return classes, codes.astype(np.int64)
