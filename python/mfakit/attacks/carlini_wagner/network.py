"""A model as Carlini and Wagner's attack uses it, in torch: logits, the margin, and the margin's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...bayes.classifier import BayesClassifier
from ..verify import SURE

__all__ = ["PROOFS", "Aim", "Network", "Proof", "as_module", "size_of"]

Array = NDArray[Any]


class Aim(NamedTuple):
    """Which class each of m samples is to leave (sign 1), or to reach (targeted, sign -1), and the size of its logits
    at the start, which bounds their rounding where they cancel.
    """

    classes: Tensor
    sign: float
    size: Tensor

    def take(self, rows: Tensor) -> Aim:
        """The aims of some samples."""
        return Aim(self.classes[rows], self.sign, self.size[rows])

    def margins(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Margins [m], negative where the aim is met, and the strongest other class [m], by logits [m, C]."""
        index = self.classes[:, None]
        # -inf masks whatever the scale; a large constant would not hide log-likelihoods.
        top, rival = z.scatter(1, index, -torch.inf).max(dim=1)
        return self.sign * (z.gather(1, index)[:, 0] - top), rival

    def seeds(self, z: Tensor, rival: Tensor, weight: Tensor) -> Tensor:
        """∂ Σ weight · margin / ∂ z, [m, C]."""
        pull = (self.sign * weight).to(z.dtype)[:, None]
        return torch.zeros_like(z).scatter_(1, self.classes[:, None], pull).scatter_(1, rival[:, None], -pull)


class Proof(NamedTuple):
    """By how much a margin must be beyond 0: units in the last place of the largest logit, and of the change of the
    margin when x is rounded (times √d where `every_feature` may be off by one in the same direction); and whether the
    sample has to meet it alone as well, and not only in its batch.
    """

    logit_units: float
    input_units: float
    every_feature: bool
    alone: bool


# In order, the strictest first; each point is tried with one after the other. The first holds in any batch and in a
# model with the same weights in a wider dtype. No point may meet it far from 0 or in half precision; then the network's
# answers in its own dtype decide, in the batch and alone, if possible by more than rounding.
PROOFS = (
    Proof(16.0, 2.0, True, False), Proof(2.0, 0.5, False, True), Proof(2.0, 0.0, False, True),
    Proof(0.0, 0.0, False, True),
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, its dtype and device, and the `shape` of a sample, which is flattened to d here."""

    module: nn.Module
    dtype: torch.dtype
    device: torch.device
    shape: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.Module, shape: tuple[int, ...], device: Any) -> Network:
        """The module on its own device and in the dtype of its parameters; without parameters in float64 if it takes
        that, else in float32.
        """
        training = [name for name, part in module.named_modules() if part.training]
        if training:
            where = f"its part {training[0]!r}" if training[0] else type(module).__name__
            raise ValueError(f"the model must be in evaluation mode, but {where} is in training mode; call .eval()")
        tensors = [*module.parameters(), *module.buffers()]
        dtype = next((t.dtype for t in tensors if t.dtype.is_floating_point), None)
        wanted = None if device is None or str(device) == "auto" else _device(device)
        at = tensors[0].device if tensors else wanted or torch.device("cpu")
        if at.type == "meta":
            raise ValueError("the model is on meta, where it has no numbers; load it on a device first")
        if wanted is not None and (wanted.type != at.type or wanted.index not in (None, at.index)):
            raise ValueError(f"device is {device}, but the model is on {at}; move it with .to({str(device)!r}) first")
        return cls(module, dtype or _taken(module, at, shape), at, shape)

    @property
    def work(self) -> torch.dtype:
        """The dtype of displacements, lengths and Adam: float32 for a model in half precision."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def type(self) -> str:
        """The dtype's name."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def narrow(self) -> bool:
        """Whether the model runs in half precision."""
        return self.dtype != self.work

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """The proofs to try, in this order. In half precision no point meets the first."""
        return PROOFS[1:] if self.narrow else PROOFS

    def tensor(self, X: Array) -> Tensor:
        """An array in the network's dtype and on its device."""
        return torch.tensor(X, dtype=self.dtype, device=self.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [n, C] of samples x [n, d]."""
        return self._logits(x.reshape(-1, *self.shape))

    def recorded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [m, C] for autograd, and the leaf [m, *shape] that they are made from: torch.compile warns of tensors
        with a history.
        """
        leaf = x.detach().reshape(-1, *self.shape).requires_grad_()
        with torch.enable_grad():
            return self._logits(leaf), leaf

    def _logits(self, samples: Tensor) -> Tensor:
        z: Tensor = self.module(samples)
        return z.to(self.work) if self.narrow and isinstance(z, Tensor) and z.dtype.is_floating_point else z

    def alone(self, x: Tensor) -> Tensor:
        """Logits [m, C] of samples that are each given to the model by itself."""
        with torch.no_grad():
            return torch.cat([self(x[i : i + 1]) for i in range(len(x))])

    def unit_of(self, z: Tensor) -> float:
        """One unit in the last place of 1, in the coarser of the dtypes of the model and its logits."""
        return max(torch.finfo(self.dtype).eps, torch.finfo(z.dtype).eps)

    def sure_margin(self, x: Tensor, aim: Aim) -> Tensor:
        """Margins [m] plus a bound on their rounding, so that a negative one is negative in any batch."""
        with torch.no_grad():
            z = self(x)
        return aim.margins(z)[0] + self._logit_rounding(z, aim, self.proofs[0])

    def proven(self, x: Tensor, aim: Aim, proof: Proof) -> tuple[Tensor, Tensor]:
        """Which samples meet the aim by a proof [m], and the decisions [m]."""
        with torch.no_grad():
            z = self(x)
        allowance = self._logit_rounding(z, aim, proof)
        if proof.input_units:
            allowance = allowance + self.input_rounding(x, aim, z, proof)
        met = aim.margins(z)[0] + allowance < 0
        rows = torch.nonzero(met)[:, 0]
        if proof.alone and len(rows):
            by_itself, part = self.alone(x[rows]), aim.take(rows)
            met[rows] &= part.margins(by_itself)[0] + self._logit_rounding(by_itself, part, proof) < 0
        return met, z.argmax(dim=1)

    def input_rounding(self, x: Tensor, aim: Aim, z: Tensor, proof: Proof) -> Tensor:
        """A bound on the change of the margin by rounding of x and in the layers, [m]."""
        _, gradient = self.descend(x, aim, None)
        moved: Tensor = gradient.double().norm(dim=1) * x.double().norm(dim=1)
        features = float(x.shape[1]) ** 0.5 if proof.every_feature else 1.0
        return (proof.input_units * features * self.unit_of(z) * moved).to(z.dtype)

    def _logit_rounding(self, z: Tensor, aim: Aim, proof: Proof) -> Tensor:
        size = torch.maximum(size_of(z), aim.size.to(z.dtype))
        return (proof.logit_units * self.unit_of(z) + SURE * (proof.logit_units > 0)) * size

    def descend(self, x: Tensor, aim: Aim, hinge: float | None) -> tuple[Tensor, Tensor]:
        """Margins [m], and their gradient [m, d], 0 for samples whose margin is below -hinge (for none where hinge is
        None); both in ``work``.
        """
        z, leaf = self.recorded(x)
        margin, rival = aim.margins(z.detach())
        # A sample on the boundary is not beyond it.
        over = torch.ones_like(margin) if hinge is None else (margin + hinge >= 0).to(margin)
        (gradient,) = torch.autograd.grad(z, leaf, aim.seeds(z.detach(), rival, over))
        return margin.to(self.work), gradient.reshape(x.shape).to(self.work)


def size_of(z: Tensor) -> Tensor:
    """The largest finite logit [m] in absolute value, by logits [m, C]."""
    return torch.where(torch.isfinite(z), z.abs(), 0.0).amax(dim=1)


def _taken(module: nn.Module, at: torch.device, shape: tuple[int, ...]) -> torch.dtype:
    """The dtype that a module without parameters takes: float64, but for one that computes with float32 of its own."""
    for dtype in (torch.float64, torch.float32):
        try:
            with torch.no_grad():
                module(torch.zeros((1, *shape), dtype=dtype, device=at))
        except (RuntimeError, ValueError):  # the samples may be at fault, which is reported later
            continue
        return dtype
    return torch.float64


def _device(device: Any) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be None or one of torch's, such as 'cpu' or 'cuda', got {device!r}") from None


def as_module(model: Any, device: Any) -> nn.Module:
    """The torch module of a model: itself, a network that a classifier carries, or one made around our kernels.

    Raises
    ------
    TypeError
        For anything else, with the reason.
    """
    from ...classifiers.networks.network import as_device
    from ...classifiers.recognise.recognise import Unrecognised, as_classifier
    from ...torch import BayesClassifierModule, SVMModule

    if isinstance(model, nn.Module):
        return model
    model = as_classifier(model)
    at = torch.device("cpu") if device is None else as_device(device)
    if isinstance(model, BayesClassifier):
        return BayesClassifierModule(model).to(at)
    network = getattr(model, "module_", None)
    if network is None and callable(getattr(model, "to_torch", None)):
        network = model.to_torch()
    if isinstance(network, nn.Module):
        return network
    try:
        return SVMModule(model).to(at)
    except Unrecognised as error:
        raise TypeError(f"{error}; or pass a torch module, or a classifier that has one as its module_") from error
