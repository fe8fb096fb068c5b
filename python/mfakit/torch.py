"""Torch modules: densities and Bayes classifiers with our kernels behind autograd, and support vector machines.

Libraries that attack, explain or certify networks take these as any network. In a module

- samples are [n, d], flattened height-width-channel as everywhere in mfakit; with ``image_shape=(height, width,
  channels)`` also torch's channel-first images [n, C, H, W], which are rearranged;
- a row with NaN or inf gives NaN, as in torch, and not an error, as in the functions on arrays;
- nothing is trained, so a module is in evaluation mode from the start, and its parameters are buffers: ``.to(device)``,
  ``state_dict`` and ``load_state_dict`` move, save and restore them, results follow them, and gradients are in X only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ._threads.process import errstate, forked, single_threaded_products
from ._torch_parts import as_image_shape, as_mfa, equal, make_buffer, numbers, unchanged, versions
from .bayes.classifier import BayesClassifier
from .classifiers.networks.network import bounded_threads
from .classifiers.recognise.forms import LinearForm
from .classifiers.recognise.recognise import is_module, machine_form
from .mixture.mfa import MFA

__all__ = ["BayesClassifierModule", "MFAModule", "SVMModule", "one_thread_after_fork"]

LOGITS = ("log_likelihood", "scaled")
PARAMETERS = ("weights", "means", "loadings", "noise_variance")


def one_thread_after_fork() -> None:
    """Let torch compute in one thread in a forked child, where it would hang in several."""
    if forked() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


# Below so many numbers in a batch, waking threads costs more than they save;
SMALL_BATCH = 2**19
# and below so many multiplications the threads of our product, which go on spinning, cost torch more than they save: an
# attack on 100 digits took five times longer.
SMALL_PRODUCT = 2**27


def _evaluate(method: str, X: Tensor, mfa: MFA) -> Any:
    """A method of the mixture on a batch, with as many threads as it is worth."""
    n_threads = 1 if X.numel() <= SMALL_BATCH else None
    small = X.device.type == "cpu" and X.numel() * mfa.factors.n_columns <= SMALL_PRODUCT
    with single_threaded_products() if small else nullcontext():
        return getattr(mfa, method)(X.detach(), check_finite=False, n_threads=n_threads)


class _Gradient(torch.autograd.Function):
    """∇ log p(x) [n, d]. Its own derivative, the Hessian, does not exist here, and asking for it is an error."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mfa: MFA) -> Any:
        return _evaluate("grad_log_prob", X, mfa).to(X.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "mfakit's log-densities have first derivatives only, and a second one was asked for; do not differentiate "
            "through a gradient of this module (create_graph=True followed by backward)"
        )


class _LogProb(torch.autograd.Function):
    """log p(x) [n] by our kernels, and its gradient by our kernels."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mfa: MFA) -> Any:
        ctx.mfa = mfa
        ctx.save_for_backward(X)
        return _evaluate("log_prob", X, mfa)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (X,) = ctx.saved_tensors
        gradient = _Gradient.apply(X, ctx.mfa)  # type: ignore[no-untyped-call]
        with bounded_threads(0) if X.numel() <= SMALL_BATCH else nullcontext():
            return grads[0].to(X.dtype)[:, None] * gradient, None


class _Rows(nn.Module):
    """A module on rows of d features, or on images that are such rows."""

    # Our kernels run where X lies, wherever the buffers are, and have gradients in X only.
    anywhere = True

    def __init__(self, n_features: int, image_shape: Sequence[int] | None) -> None:
        super().__init__()
        self.n_features = n_features
        self.image_shape = as_image_shape(image_shape, n_features)
        self.eval()

    def rows(self, X: Tensor) -> Tensor:
        """X as [n, d]; images [n, C, H, W] become height-width-channel."""
        one_thread_after_fork()
        if not isinstance(X, Tensor):
            raise TypeError(f"X must be a torch tensor, got {type(X).__name__}; pass torch.as_tensor(X)")
        at = next(iter([*self.buffers(), *self.parameters()])).device
        if X.device != at and not (self.anywhere and "meta" not in (X.device.type, at.type)):
            raise ValueError(f"X is on {X.device}, and the module on {at}; move one of them by .to()")
        if self.image_shape is not None and X.ndim == 4:
            height, width, channels = self.image_shape
            if tuple(X.shape[1:]) != (channels, height, width):
                raise ValueError(f"images must be [n, {channels}, {height}, {width}], got {tuple(X.shape)}")
            return X.permute(0, 2, 3, 1).reshape(len(X), -1)
        if X.ndim != 2 or X.shape[1] != self.n_features:
            hint = "" if self.image_shape is not None else "; for images [n, C, H, W] pass image_shape"
            raise ValueError(f"X must be [n, {self.n_features}], got {tuple(X.shape)}{hint}")
        return X

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Refused, but for False: there are no parameters to take gradients in."""
        if requires_grad and not list(self.parameters()):
            raise TypeError(
                f"{type(self).__name__} has no parameters to train, and its buffers take no gradients by "
                "requires_grad_; call X.requires_grad_() for gradients in X"
            )
        return super().requires_grad_(requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_no_parameter(name, value)  # before torch removes the buffer of this name
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refused where our kernels compute, which have no gradients in parameters."""
        self._check_no_parameter(name, param)
        super().register_parameter(name, param)

    def _check_no_parameter(self, name: str, value: Any) -> None:
        if self.anywhere and isinstance(value, nn.Parameter):
            raise TypeError(
                f"{type(self).__name__} has gradients in X only, so {name} cannot be a Parameter; assign a tensor"
            )


class MFAModule(_Rows):
    """log p(x) of a mixture as a torch module: X [n, d] → [n], nats, differentiable once in X.

    Parameters
    ----------
    mfa : MFA
    image_shape : (height, width, channels) or (height, width), optional
        Accept images [n, C, H, W] as well, whose flattened form is height-width-channel.

    Raises
    ------
    TypeError
        For anything but an MFA; for a Parameter, or ``requires_grad_()``: gradients are in X only.
    ValueError
        For an image shape of another size than d; in ``forward``, for X of another shape, and for buffers that have
        been edited so that it is not a mixture, or requires a gradient.
    RuntimeError
        When a second derivative is asked for.

    Notes
    -----
    The result has X's dtype (float32 for half precision). Parameters keep their own: ``.float()`` and ``.half()`` do
    not round them, because a log-density at σ = 0.01 needs their digits.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> module = mfakit.torch.MFAModule(mfakit.MFA([1.0], np.zeros((1, 2)), np.zeros((1, 2, 1)), 0.5))
    >>> X = torch.tensor([[1.0, 0.5]], requires_grad=True)
    >>> module(X).sum().backward()
    >>> X.grad
    tensor([[-2., -1.]])
    """

    _mfa: MFA
    _seen: list[tuple[int, int, bytes]]

    def __init__(self, mfa: MFA, *, image_shape: Sequence[int] | None = None) -> None:
        super().__init__(as_mfa(mfa).n_features, image_shape)
        self.mfa = mfa

    @property
    def mfa(self) -> MFA:
        """The mixture of the buffers as they are now.

        Raises
        ------
        ValueError
            For buffers that are no mixture, of another width, or that require a gradient.
        """
        buffers = self._found()
        if not unchanged(buffers, self._seen):
            for name in (name for name, value in buffers.items() if value.requires_grad):
                raise ValueError(f"{name} requires grad, and gradients are in X only; assign {name}.detach()")
            if not equal(buffers, self._mfa):
                self._mfa = self._checked(MFA(*map(numbers, buffers.values())))
            self._seen = versions(buffers)
        return self._mfa

    @mfa.setter
    def mfa(self, mfa: MFA) -> None:
        self._mfa = self._checked(as_mfa(mfa))
        for name in PARAMETERS:
            self.register_buffer(name, make_buffer(getattr(mfa, name)))
        self._seen = versions(self._found())

    def _checked(self, mfa: MFA) -> MFA:
        if mfa.n_features != self.n_features:
            raise ValueError(f"the mixture must have {self.n_features} features, as before, got {mfa.n_features}")
        return mfa

    def _found(self) -> dict[str, Tensor]:
        found = {name: value for name in PARAMETERS if (value := self._buffers.get(name)) is not None}
        for name in set(PARAMETERS) - set(found):
            raise ValueError(f"the buffer {name} has been removed; assign a tensor")
        return found

    def forward(self, X: Tensor) -> Tensor:
        """log p(x) [n]."""
        log_prob: Tensor = _LogProb.apply(self.rows(X), self.mfa)  # type: ignore[no-untyped-call]
        return log_prob

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = self._found()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            after = self.get_buffer(name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        found = [state_dict.get(prefix + name) for name in PARAMETERS]
        if all(isinstance(value, Tensor) and value.shape == self.get_buffer(n).shape
               for n, value in zip(PARAMETERS, found, strict=True)):  # fmt: skip
            MFA(*map(numbers, found))  # parameters of no mixture are refused before anything is copied
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class BayesClassifierModule(_Rows):
    """The Bayes-optimal classifier as a network: X [n, d] → logits [n, C], differentiable once in X.

    Parameters
    ----------
    clf : BayesClassifier
    logits : {"log_likelihood", "scaled"}
        "log_likelihood": log prior_c p_c(x), nats. At σ = 0.01 these differ by 1e4 to 1e5, and attacks that expect
        logits of order one (a constant of 0.01, a cross-entropy that is not saturated, a mask of 1e4) fail on them.
        "scaled": the same times 2σ², σ² the harmonic mean of all noise variances, hence differences of squared
        distances, in squared data units. Either has the same decisions.
    image_shape : (height, width, channels) or (height, width), optional
        Accept images [n, C, H, W] as well.

    Attributes
    ----------
    scale : float
        What the log-likelihoods are multiplied by: 1 or 2σ².

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As :class:`MFAModule`.

    References
    ----------
    Richardson & Weiss 2021, section 2.1.

    Examples
    --------
    >>> import numpy as np, torch, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> net = mfakit.torch.BayesClassifierModule(mfakit.BayesClassifier(mixtures), logits="scaled")
    >>> z = net(torch.tensor([[0.5, 0.0]]))
    >>> (z[:, 1] - z[:, 0]).round(decimals=4)  # ‖x - μ₀‖² - ‖x - μ₁‖²
    tensor([2.])
    """

    log_priors: Tensor

    def __init__(
        self, clf: BayesClassifier, logits: str = "log_likelihood", *, image_shape: Sequence[int] | None = None
    ) -> None:
        if not isinstance(clf, BayesClassifier):
            raise TypeError(
                f"clf must be a BayesClassifier, got {type(clf).__name__}; for a linear or kernel machine take "
                "SVMModule"
            )
        if logits not in LOGITS:
            raise ValueError(f"logits must be one of {LOGITS}, got {logits!r}")
        super().__init__(clf.n_features, image_shape)
        self.n_classes = clf.n_classes
        self.logits = logits
        self.mixtures = nn.ModuleList(MFAModule(m) for m in clf.mixtures)
        with errstate(divide="ignore"):
            self.register_buffer("log_priors", make_buffer(np.log(clf.priors)))
        self.eval()

    @property
    def scale(self) -> float:
        """1, or 2σ² with the harmonic mean σ² of all noise variances: the tightest noise sets a logit's size."""
        if self.logits == "log_likelihood":
            return 1.0
        models = [cast(MFAModule, m).mfa for m in self.mixtures]
        noise = np.concatenate([m.noise_variance[m.live].ravel() for m in models])
        return float(2.0 / np.mean(1.0 / noise))

    def forward(self, X: Tensor) -> Tensor:
        """Logits [n, C]."""
        X = self.rows(X)
        log_likelihood = torch.stack([mixture(X) for mixture in self.mixtures], dim=1)
        joint = log_likelihood + self.log_priors.to(log_likelihood)
        return joint if self.logits == "log_likelihood" else self.scale * joint

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self.log_priors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.log_priors = before.to(self.log_priors.device)
        return self


class SVMModule(_Rows):
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

    Raises
    ------
    TypeError
        For any other model, with the reason: a regressor, a classifier that is not fitted, another kernel,
        votes of pairwise machines (an SVC of more than two classes), ...
    ValueError
        An image shape of another size than d; in ``forward``, X of another shape.

    Notes
    -----
    Computed in the buffers' dtype, float64 unless ``.float()`` was called; the result has X's dtype.

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

    def __init__(self, svm: Any, *, image_shape: Sequence[int] | None = None) -> None:
        if is_module(svm) or isinstance(svm, BayesClassifier):
            what = "a torch module already" if is_module(svm) else "no machine; take BayesClassifierModule"
            raise TypeError(f"{type(svm).__name__} is {what}")
        form = machine_form(svm)
        super().__init__(form.n_features, image_shape)
        self.n_classes = max(2, form.n_rows)
        if isinstance(form, LinearForm):
            self.kernel = "linear"
            values = {"coef": form.weights, "intercept": form.offset, "center": form.center, "gamma": 0.0}
            values["support_vectors"] = np.zeros((0, form.n_features))
        else:
            self.kernel, m = "rbf", form.machine
            values = {"coef": m.coefficients, "intercept": m.intercept, "center": m.center, "gamma": m.gamma}
            values["support_vectors"] = m.support - m.center  # centred, ‖x‖² + ‖s‖² - 2 x·s loses fewer digits
        for name in ("coef", "intercept", "support_vectors", "center", "gamma"):
            self.register_buffer(name, make_buffer(np.asarray(values[name], np.float64)))

    def decision(self, X: Tensor) -> Tensor:
        """Decision values, [n, 1] for two classes, [n, C] for more, in the buffers' dtype."""
        X = self.rows(X).to(self.coef.dtype) - self.center
        if self.kernel == "linear":
            return X @ self.coef.T + self.intercept
        norms = (self.support_vectors**2).sum(dim=1)
        squares = (X**2).sum(dim=1, keepdim=True) + norms - 2.0 * X @ self.support_vectors.T
        return torch.exp(-self.gamma * squares.clamp_min(0.0)) @ self.coef.T + self.intercept

    def forward(self, X: Tensor) -> Tensor:
        """Logits [n, C] in X's dtype, float32 for integers."""
        f = self.decision(X)
        logits = f if self.n_classes > 2 else torch.cat([-0.5 * f, 0.5 * f], dim=1)
        return logits.to(X.dtype if X.is_floating_point() else torch.float32)
