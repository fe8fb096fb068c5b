"""Our densities as operations of torch: with derivatives, batches of batches (vmap) and shapes for torch.compile.

An operation takes tensors and the number of a source, a mixture or a module that has one: a number is what a compiled
graph can hold, while the numbers of a mixture stay where they are.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor

from .._threads.process import single_threaded_products
from ..classifiers.networks.network import bounded_threads
from ..mixture.mfa import MFA

__all__ = ["log_prob", "number_of"]

# Below this many numbers in a batch, waking threads costs more time than they save.
SMALL_BATCH = 2**19
# Below this many multiplications the threads of our product, which keep spinning after it, cost torch more time than
# they save: an attack on 100 digits took five times longer.
SMALL_PRODUCT = 2**27

_count = itertools.count()
_numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_sources: WeakValueDictionary[int, Any] = WeakValueDictionary()


def number_of(source: Any) -> int:
    """The number of a mixture, or of a module with an attribute ``mfa``, for as long as it lives."""
    number = _numbers.get(source)
    if number is None:
        number = _numbers[source] = next(_count)
        _sources[number] = source
    return number


def _mixture(number: int) -> MFA:
    source = _sources[number]
    return source if isinstance(source, MFA) else source.mfa


def _evaluate(method: str, X: Tensor, mfa: MFA) -> Any:
    """A method of the mixture on a batch, with as many threads as it is worth."""
    n_threads = 1 if X.numel() <= SMALL_BATCH else None
    small = X.device.type == "cpu" and X.numel() * mfa.factors.n_columns <= SMALL_PRODUCT
    with single_threaded_products() if small else nullcontext():
        return getattr(mfa, method)(X.detach(), check_finite=False, n_threads=n_threads)


def _dtype(X: Tensor) -> torch.dtype:
    """Of a density of X: X's, or float32 for half precision and integers."""
    return X.dtype if X.dtype in (torch.float32, torch.float64) else torch.float32


def log_prob(X: Tensor, source: Any) -> Tensor:
    """log p(x) [n] of X [n, d], nats, of a mixture or of a module that has one; differentiable once in X.

    Compiled graphs and transformed functions hold the module, and ask it for its mixture where its numbers can be read;
    otherwise a gradient is that of the mixture at the time of the call.
    """
    if torch.compiler.is_compiling():
        compiled: Tensor = _log_prob(X, source.number)
        return compiled
    number = source.number if torch._C._are_functorch_transforms_active() else number_of(source.mfa)
    result: Tensor = _LogProb.apply(X, number)  # type: ignore[no-untyped-call]
    return result


@torch.library.custom_op("mfakit::log_prob", mutates_args=())
def _log_prob(X: Tensor, number: int) -> Tensor:
    result: Tensor = _evaluate("log_prob", X, _mixture(number))
    return result


@torch.library.custom_op("mfakit::grad_log_prob", mutates_args=())
def _grad_log_prob(X: Tensor, number: int) -> Tensor:
    gradient: Tensor = _evaluate("grad_log_prob", X, _mixture(number)).to(X.dtype)
    return gradient


@_log_prob.register_fake
def _(X: Tensor, number: int) -> Tensor:
    return X.new_empty((X.shape[0],), dtype=_dtype(X))


@_grad_log_prob.register_fake
def _(X: Tensor, number: int) -> Tensor:
    return torch.empty_like(X)


def _keep(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    X, ctx.number = inputs
    ctx.source = _sources.get(ctx.number)  # must outlive the graph
    ctx.save_for_backward(X)


def _refuse(ctx: Any, *grads: Tensor) -> Any:
    raise RuntimeError(
        "mfakit's log-densities have first derivatives only, and a second one was asked for; do not differentiate "
        "through a gradient of this module (create_graph=True followed by backward), or take TrainableMFA, which has "
        "second derivatives"
    )


def _compiled_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (X,) = ctx.saved_tensors
    return grad.to(X.dtype)[:, None] * _grad_log_prob(X, ctx.number), None


_log_prob.register_autograd(_compiled_backward, setup_context=_keep)
_grad_log_prob.register_autograd(_refuse, setup_context=lambda ctx, inputs, output: None)


class _Rows(torch.autograd.Function):
    """A function of rows X [n, d]: for vmap, the rows of one more batch dimension are rows like all others."""

    setup_context = staticmethod(_keep)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, None], X: Tensor, number: int) -> tuple[Tensor, int]:
        assert in_dims[0] is not None  # the only tensor
        X = X.movedim(in_dims[0], 0)
        result = cls.apply(X.reshape(-1, X.shape[-1]), number)  # type: ignore[no-untyped-call]
        return result.reshape(*X.shape[:2], *result.shape[1:]), 0


class _GradLogProb(_Rows):
    """∇ log p(x) [n, d]. Its own derivative, the Hessian, does not exist here, and asking for it is an error."""

    @staticmethod
    def forward(X: Tensor, number: int) -> Any:
        return _evaluate("grad_log_prob", X, _mixture(number)).to(X.dtype)

    backward = staticmethod(_refuse)


class _LogProb(_Rows):
    """log p(x) [n] by our kernels, and its gradient by our kernels."""

    @staticmethod
    def forward(X: Tensor, number: int) -> Any:
        return _evaluate("log_prob", X, _mixture(number))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (X,) = ctx.saved_tensors
        gradient = _GradLogProb.apply(X, ctx.number)  # type: ignore[no-untyped-call]
        with bounded_threads(0) if X.numel() <= SMALL_BATCH else nullcontext():
            return grads[0].to(X.dtype)[:, None] * gradient, None
