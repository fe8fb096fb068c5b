"""Linear and kernel machines as networks, in torch's own operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bayes.classifier import BayesClassifier
from ..classifiers.recognise.forms import LinearForm
from ..classifiers.recognise.recognise import is_module, machine_form
from .rows import RowsModule, as_n_logits, pad_logits

__all__ = ["SVMModule"]


class SVMModule(RowsModule):
    """A fitted linear classifier or support vector machine as a network: X [n, d] → logits [n, C], in torch's own
    operations.

    Two classes give [-f/2, f/2], f the decision value, so that the difference of the logits is f; more (one decision
    for each class) give the decision values. Column c is class ``classes_[c]``. Differentiable any number
    of times.

    Parameters
    ----------
    svm : classifier
        :class:`mfakit.classifiers.LinearSVM` or ``RBFSVM``; of scikit-learn what decides linearly or by one machine of
        RBF kernels, as in :func:`mfakit.attacks.gradient_attack`; or anything with ``classes_``, ``decision_function``
        and ``coef_`` and ``intercept_``, or ``support_vectors_``, ``dual_coef_``, ``intercept_`` and ``gamma_``. What
        is read off is compared with its own decisions first.
    image_shape : (height, width, channels) or (height, width), optional
        Accept images [n, C, H, W] as well.
    n_logits : int, optional
        Return this many logits; see :class:`BayesClassifierModule`.

    Raises
    ------
    TypeError
        For any other model, with the reason: a regressor, a classifier that is not fitted, another kernel,
        votes of pairwise machines (an SVC of more than two classes), ...
    ValueError
        An image shape of another size than d; in ``forward``, X of another shape.

    Notes
    -----
    Computed in the parameters' dtype, float64 unless ``.float()`` was called; the result has X's dtype.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> from sklearn.svm import SVC
    >>> X, y = np.array([[-1.0, 0.0], [1.0, 0.0]]), [0, 1]
    >>> mfakit.torch.SVMModule(SVC(kernel="linear").fit(X, y))(torch.from_numpy(X))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """

    anywhere = False

    support_vectors: Tensor
    coef: Tensor
    intercept: Tensor
    center: Tensor
    gamma: Tensor

    def __init__(self, svm: Any, *, image_shape: Sequence[int] | None = None, n_logits: int | None = None) -> None:
        if is_module(svm) or isinstance(svm, BayesClassifier):
            what = "a torch module already" if is_module(svm) else "no machine; take BayesClassifierModule"
            raise TypeError(f"{type(svm).__name__} is {what}")
        form = machine_form(svm)
        super().__init__(form.n_features, image_shape)
        self.n_classes = max(2, form.n_rows)
        self.n_logits = as_n_logits(n_logits, self.n_classes)
        if isinstance(form, LinearForm):
            self.kernel = "linear"
            values = {"coef": form.weights, "intercept": form.offset, "center": form.center, "gamma": 0.0}
            values["support_vectors"] = np.zeros((0, form.n_features))
        else:
            self.kernel, m = "rbf", form.machine
            values = {"coef": m.coefficients, "intercept": m.intercept, "center": m.center, "gamma": m.gamma}
            values["support_vectors"] = m.support - m.center  # centred, ‖x‖² + ‖s‖² - 2 x·s loses fewer digits
        for name in ("coef", "intercept", "support_vectors", "center", "gamma"):
            self.freeze(name, np.asarray(values[name], np.float64))

    def decision(self, X: Tensor) -> Tensor:
        """Decision values, [n, 1] for two classes, [n, C] for more, in the parameters' dtype."""
        X = self.rows(X).to(self.coef.dtype) - self.center
        if self.kernel == "linear":
            return X @ self.coef.T + self.intercept
        norms = (self.support_vectors**2).sum(dim=1)
        squares = (X**2).sum(dim=1, keepdim=True) + norms - 2.0 * X @ self.support_vectors.T
        return torch.exp(-self.gamma * squares.clamp_min(0.0)) @ self.coef.T + self.intercept

    def forward(self, X: Tensor) -> Tensor:
        """Logits [n, C], or with ``n_logits`` [n, n_logits], in X's dtype, float32 for integers."""
        f = self.decision(X)
        logits = f if self.n_classes > 2 else torch.cat([-0.5 * f, 0.5 * f], dim=1)
        logits = pad_logits(logits, self.n_logits)
        return logits.to(X.dtype if X.is_floating_point() else torch.float32)

    def extra_repr(self) -> str:
        """The kernel, the number of classes and features, and of support vectors."""
        support = f", support={len(self.support_vectors)}" if self.kernel == "rbf" else ""
        padded = "" if self.n_logits is None else f", n_logits={self.n_logits}"
        return f"{self.kernel}, C={self.n_classes}, d={self.n_features}" + support + padded + self.images_repr()
