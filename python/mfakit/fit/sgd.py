"""``solver="sgd"``: Adam on the log-density, the paper's own way of training (appendix B.1), in torch.

The log-density is :class:`mfakit.torch.TrainableMFA`'s: a batch costs one product with k (l + 1) columns, and nothing
is [n, k, d]. Parameters live in the units of the standardised data, so that one learning rate suits all data, and in
float64, so that torch's global precision settings change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..mixture.density import Filling, each_block
from ..mixture.evaluator import Evaluator
from ..mixture.mfa import MFA
from .em import maximization, progress_bar
from .result import FitResult
from .source import Source
from .workers import expectation

if TYPE_CHECKING:
    import torch

__all__ = ["fit_sgd"]

Array = NDArray[Any]

# Epochs in a row that raise the best log-likelihood by less than tol before training ends.
PATIENCE = 3
# Training has diverged where it ends this far below its start, in nats per sample and feature. Near an optimum Adam's
# noise is a tenth of that or less; with too high a learning rate the fall is several times as much, or without limit.
DIVERGED = 0.05


@dataclass
class _Model:
    """Parameters in units of (x - center) / scale; the noise is floor + exp(log_excess), never below the floor."""

    center: Array
    scale: float
    floor: float
    isotropic: bool
    logits: torch.Tensor
    means: torch.Tensor
    loadings: torch.Tensor
    log_excess: torch.Tensor

    @classmethod
    def of(cls, mfa: MFA, center: Array, scale: float, floor: float) -> _Model:
        import torch

        floor = floor / scale**2
        noise = mfa.noise_variance.reshape(mfa.n_components, -1) / scale**2
        start = (
            np.log(np.maximum(mfa.weights, 1e-30)),
            (mfa.means - center) / scale,
            mfa.loadings / scale,
            np.log(np.maximum(noise - floor, 1e-3 * floor)),
        )
        tensors = [torch.tensor(a, dtype=torch.float64, device="cpu", requires_grad=True) for a in start]
        return cls(center, scale, floor, mfa.is_isotropic, *tensors)

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [self.logits, self.means, self.loadings, self.log_excess]

    def log_density(self, X: Array) -> torch.Tensor:
        import torch

        from ..torch.trainable import log_density

        batch = torch.from_numpy((X - self.center) / self.scale)
        return log_density(batch, self.logits, self.means, self.loadings, self.floor + self.log_excess.exp())

    def mfa(self) -> MFA:
        logits, means, loadings, log_excess = (p.detach().numpy() for p in self.parameters)
        weights = np.exp(logits - logits.max())
        noise = (self.floor + np.exp(log_excess)) * self.scale**2
        return MFA(
            weights / weights.sum(),
            means * self.scale + self.center,
            loadings * self.scale,
            noise[:, 0] if self.isotropic else noise,
        )


def fit_sgd(
    mfa: MFA,
    source: Source,
    *,
    floor: float,
    tol: float,
    max_iter: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: bool | None,
) -> FitResult:
    """Adam from `mfa` for at most `max_iter` epochs; the best epoch's mixture is the result.

    Ends early when PATIENCE epochs in a row raise the best mean log-likelihood by less than `tol` nats per sample, and
    when parameters leave the range in which they are a mixture. The result's `problem` says where training diverged, or
    did not improve on a start that EM would; then it has not converged.

    Raises
    ------
    ImportError
        Without torch.
    """
    torch = _torch()
    from ..classifiers.networks.network import bounded_threads
    from ..torch import one_thread_after_fork

    one_thread_after_fork()
    operations = 6.0 * batch_size * mfa.n_features * mfa.n_components * (mfa.n_factors + 2)  # forward and backward
    survey = source.survey
    start = _mean_log_likelihood(mfa, source)
    result, stale = FitResult(mfa, start, [start]), 0
    generator = torch.Generator(device="cpu").manual_seed(seed)
    # What the caller may have switched off around us is on inside.
    with torch.inference_mode(False), torch.enable_grad(), progress_bar(max_iter, progress, "SGD") as bar:
        model = _Model.of(mfa, survey.mean, math.sqrt(survey.scale), floor)
        optimizer = torch.optim.Adam(model.parameters, lr=learning_rate)
        for epoch in range(1, max_iter + 1):
            batches = source.batches(batch_size, generator)
            with bounded_threads(operations):
                new = _epoch(model, optimizer, batches, survey.total_weight / survey.n_rows)
            value = -math.inf if new is None else _mean_log_likelihood(new, source)
            result.n_iter = epoch
            if new is None or math.isnan(value):
                result.events.append({"iteration": epoch, "event": "diverged"})
                break
            result.log_likelihood.append(value)
            bar(value)
            stale = 0 if value - result.lower_bound >= tol else stale + 1
            if value > result.lower_bound:
                result.lower_bound, result.mfa = value, new
            if stale == PATIENCE:
                result.converged = True
                break
    problem = _divergence(result, mfa.n_features) or _standstill(result, mfa, source, floor, tol)
    if problem:
        result.converged, result.problem = False, f"{problem} (learning_rate={learning_rate:g})"
    return result


def _divergence(result: FitResult, d: int) -> str | None:
    """How training diverged, and what to do; None: it did not."""
    values = result.log_likelihood
    kept = f"the best mixture, that after {values.index(result.lower_bound)} epochs, is kept; lower learning_rate"
    if result.events:
        return f"training diverged: in epoch {result.n_iter} its parameters overflowed; {kept}"
    fall = values[0] - values[-1]
    if fall > DIVERGED * d:
        return f"training diverged: it ended {fall:.3g} nats per sample below its start; {kept}"
    return None


def _standstill(result: FitResult, start: MFA, source: Source, floor: float, tol: float) -> str | None:
    """What to do where training gained less than `tol` although a step of EM gains more; None: all is well."""
    values = result.log_likelihood
    gain = result.lower_bound - values[0]
    if result.n_iter == 0 or gain >= tol:
        return None
    possible = _mean_log_likelihood(maximization(expectation(start, source), floor), source) - values[0]
    if possible < tol:  # the start is an optimum, by the measure of EM
        return None
    return (
        f"training did not improve on its start: {result.n_iter} epochs gained {gain:.3g} nats per sample, and one "
        f"step of EM gains {possible:.3g}; {'raise' if max(values[1:]) > values[0] else 'lower'} learning_rate"
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError('solver="sgd" needs torch, which is not installed: pip install mfakit[torch]') from error
    return torch


def _epoch(
    model: _Model, optimizer: Any, batches: Iterable[tuple[Array, Array | None]], mean_weight: float
) -> MFA | None:
    """One pass of Adam over the batches; None where the parameters left the range in which they are a mixture."""
    import torch

    for X, weights in batches:
        try:
            _step(model, optimizer, X, weights, mean_weight)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # the capacitance matrix of NaN, or of loadings beyond all rounding
            return None
    if not all(bool(p.isfinite().all()) for p in (*model.parameters, model.log_excess.exp())):
        return None
    try:
        return model.mfa()
    except ValueError:  # finite, but not in the units of the data
        return None


def _step(model: _Model, optimizer: Any, X: Array, weights: Array | None, mean_weight: float) -> None:
    import torch

    log_p = model.log_density(X)
    # Divided by the mean weight of all rows, not of the batch: the gradient stays unbiased.
    loss = -log_p.mean() if weights is None else -(torch.from_numpy(weights / mean_weight) * log_p).mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _mean_log_likelihood(mfa: MFA, source: Source) -> float:
    """Weighted mean log p(x) over the source, by the package's own kernels."""

    def fill(evaluator: Evaluator, block: Any, first: int, part: Any) -> None:
        part[:] = evaluator.log_prob(block, first)

    total = 0.0
    for rows, weights in source.parts():
        log_p = np.empty(len(rows))
        each_block(rows, [mfa.factors], source.options, Filling(fill, log_p))
        total += float(log_p.sum()) if weights is None else float(weights @ log_p)
    return total / source.survey.total_weight
