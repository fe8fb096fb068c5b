"""TRADES: the same network, trained to answer alike on a sample and on its worst neighbour (Zhang et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ..._checks import as_bounds, check_choice, check_integers, check_numbers
from .base import NetworkClassifier

if TYPE_CHECKING:
    import torch

    from .network import Network

__all__ = ["TRADES", "TradesLoss"]

Norm = Literal["l2", "linf"]
# The divergence has no gradient at the sample itself, so the ascent starts this far beside it, in every feature.
START = 1e-3


class TRADES(NetworkClassifier):
    """:class:`CNN` with the loss CE(x, y) + β max KL(p(·|x) ‖ p(·|x′)) over ‖x′ - x‖ ≤ ε.

    The maximum is sought by projected gradient steps from a small random start.

    Parameters
    ----------
    image_shape, width, depth, epochs, batch_size, learning_rate, label_smoothing, negative_slope
        As :class:`CNN`'s.
    norm : {"l2", "linf"}
        Of the perturbations.
    epsilon : float
        ε, their largest norm, in data units.
    n_attack_steps : int
    step_size : float or None
        Length of a step in this norm; None is 2.5 ε / n_attack_steps.
    beta : float
        β, what robustness is worth against accuracy; 0 is the CNN.
    bounds : (low, high) or None
        Keep perturbed samples within these; None clips nothing.
    device, random_state, n_threads, progress
        As :class:`CNN`'s.

    Attributes
    ----------
    module_, classes_, image_shape_, history_, n_features_in_, feature_names_in_
        As :class:`CNN`'s; history_ has also "divergence" (mean KL, nats) and "adversarial_accuracy", both on the
        perturbed training samples as they were met. With β = 0 there are none.

    Notes
    -----
    The paper states no norm, ε or list of β; ours are ℓ2 and a parameter, and an experiment says which it used.

    References
    ----------
    Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019.
    Richardson & Weiss, A Bayes-Optimal View on Adversarial Examples, JMLR 2021, section 3 and Figure 10.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    >>> y = (X.mean(axis=1) > 0).astype(int)
    >>> clf = mfakit.classifiers.TRADES(width=4, depth=1, epsilon=0.1, epochs=10, batch_size=20, device="cpu")
    >>> sorted(clf.fit(X, y).history_)
    ['accuracy', 'adversarial_accuracy', 'divergence', 'loss', 'step']
    """

    _kind = "trades"

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        *,
        norm: Norm = "l2",
        epsilon: float = 1.0,
        n_attack_steps: int = 10,
        step_size: float | None = None,
        beta: float = 6.0,
        bounds: tuple[float, float] | None = None,
        width: int = 32,
        depth: int = 6,
        epochs: int = 6,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        label_smoothing: float = 0.0,
        negative_slope: float = 0.2,
        device: str = "auto",
        random_state: Any = 0,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.norm = norm
        self.epsilon = epsilon
        self.n_attack_steps = n_attack_steps
        self.step_size = step_size
        self.beta = beta
        self.bounds = bounds
        self.width = width
        self.depth = depth
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.label_smoothing = label_smoothing
        self.negative_slope = negative_slope
        self.device = device
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("norm", self.norm, get_args(Norm))
        check_integers({"n_attack_steps": self.n_attack_steps}, 1)
        check_numbers({"epsilon": self.epsilon}, positive=True)
        check_numbers({"beta": self.beta}, positive=False)
        if self.step_size is not None:
            check_numbers({"step_size": self.step_size}, positive=True)
        as_bounds(self.bounds)

    def _loss(self, rng: np.random.Generator) -> Any:
        from .training import CrossEntropy

        return CrossEntropy(self.label_smoothing) if self.beta == 0 else TradesLoss(self, rng)


class TradesLoss:
    """The loss of a :class:`TRADES`; `rng` draws the starts of the ascent."""

    # Two samples, each with its gradient. The steps of the ascent come one by one.
    passes = 6

    def __init__(self, trades: TRADES, rng: np.random.Generator) -> None:
        import torch

        self.norm, self.epsilon, self.beta = trades.norm, float(trades.epsilon), float(trades.beta)
        self.n_steps, self.label_smoothing = int(trades.n_attack_steps), float(trades.label_smoothing)
        self.step_size = 2.5 * self.epsilon / self.n_steps if trades.step_size is None else float(trades.step_size)
        self.bounds = as_bounds(trades.bounds)
        # On the CPU whatever the device, so that the starts do not depend on it.
        self.generator = torch.Generator(device="cpu").manual_seed(int(rng.integers(2**63 - 1)))

    def __call__(
        self, network: Network, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum over the samples of CE + β KL, and of what the history counts."""
        import torch
        from torch.nn.functional import cross_entropy

        logits = network(x)
        log_p = torch.log_softmax(logits, dim=1)
        perturbed = network(self.worst(network, x, log_p.detach()))
        divergence = kl_divergence(log_p, torch.log_softmax(perturbed, dim=1)).sum()
        loss = cross_entropy(logits, y, reduction="sum", label_smoothing=self.label_smoothing)
        return loss + self.beta * divergence, {
            "accuracy": (logits.detach().argmax(dim=1) == y).sum(),
            "adversarial_accuracy": (perturbed.detach().argmax(dim=1) == y).sum(),
            "divergence": divergence.detach(),
        }

    def worst(self, network: Network, x: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
        """Samples [n, d] within ε of x [n, d] that the network answers differently from log_p [n, C] as it can."""
        import torch

        self._check_bounds(x)
        start = START * torch.randn(x.shape, generator=self.generator, dtype=x.dtype, device="cpu").to(x.device)
        perturbed = self._project(x + start, x)
        for _ in range(self.n_steps):
            perturbed = perturbed.detach().requires_grad_()
            divergence = kl_divergence(log_p, torch.log_softmax(network(perturbed), dim=1)).sum()
            (gradient,) = torch.autograd.grad(divergence, perturbed)
            perturbed = self._project(perturbed.detach() + self.step_size * self._direction(gradient), x)
        return perturbed.detach()

    def _direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """The steepest direction of length 1 in this norm, [n, d]; 0 where there is no gradient."""
        if self.norm == "linf":
            return gradient.sign()
        # Divided by its largest value first: the squares of tiny gradients would vanish in float32.
        largest = gradient.abs().amax(dim=1, keepdim=True)
        gradient = gradient / largest.where(largest > 0, 1.0)
        length = gradient.norm(dim=1, keepdim=True)
        unit: torch.Tensor = gradient / length.where(length > 0, 1.0)
        return unit

    def _project(self, perturbed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        delta = perturbed - x
        if self.norm == "linf":
            delta = delta.clamp(-self.epsilon, self.epsilon)
        else:
            length = delta.norm(dim=1, keepdim=True)
            delta = delta * (self.epsilon / length.clamp_min(self.epsilon))
        return x + delta if self.bounds is None else (x + delta).clamp(*self.bounds)

    def _check_bounds(self, x: torch.Tensor) -> None:
        if self.bounds is None or not x.numel():
            return
        low, high = float(x.min()), float(x.max())
        if low < self.bounds[0] or high > self.bounds[1]:
            raise ValueError(
                f"X must be within bounds={self.bounds}, got values from {low:g} to {high:g}; clip X or pass None"
            )


def kl_divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) [n], nats, of log-probabilities [n, C]: no logarithm of a probability that has become 0."""
    import torch

    return (torch.exp(log_p) * (log_p - log_q)).sum(dim=1)
