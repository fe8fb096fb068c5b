"""What Carlini and Wagner's attack asks of a model: logits, the margin to be lost, and its gradient; here in torch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..bayes import BayesClassifier
from .verify import SURE

__all__ = ["Aim", "Network", "as_module", "size_of"]

Array = NDArray[Any]


class Aim(NamedTuple):
    """Which class each of m samples is to leave (sign 1), or to reach (targeted, sign -1), and the size of its logits
    at the start, which tells what rounding may do to them where they cancel.
    """

    classes: Tensor
    sign: float
    size: Tensor

    def take(self, rows: Tensor) -> Aim:
        """The aims of some samples."""
        return Aim(self.classes[rows], self.sign, self.size[rows])

    def margins(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What is still missing [m], negative where the aim is met, and the strongest other class [m], by logits
        [m, C].
        """
        index = self.classes[:, None]
        # -inf masks whatever the scale; a large constant would not hide log-likelihoods.
        top, rival = z.scatter(1, index, -math.inf).max(dim=1)
        return self.sign * (z.gather(1, index)[:, 0] - top), rival

    def seeds(self, z: Tensor, rival: Tensor, weight: Tensor) -> Tensor:
        """∂ Σ weight · margin / ∂ z, [m, C]."""
        pull = (self.sign * weight).to(z.dtype)[:, None]
        return torch.zeros_like(z).scatter_(1, self.classes[:, None], pull).scatter_(1, rival[:, None], -pull)


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, where and in which dtype it runs; a sample has `shape`, flattened to d here."""

    module: nn.Module
    dtype: torch.dtype
    device: torch.device
    shape: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.Module, shape: tuple[int, ...], device: Any) -> Network:
        """The module where it is, in the dtype of its parameters; float64 where it has none."""
        training = [name for name, part in module.named_modules() if part.training]
        if training:
            where = f"its part {training[0]!r}" if training[0] else type(module).__name__
            raise ValueError(f"the model must be in evaluation mode, but {where} is in training mode; call .eval()")
        tensors = [*module.parameters(), *module.buffers()]
        dtype = next((t.dtype for t in tensors if t.dtype.is_floating_point), torch.float64)
        wanted = None if device is None or str(device) == "auto" else _device(device)
        at = tensors[0].device if tensors else wanted or torch.device("cpu")
        if at.type == "meta":
            raise ValueError("the model is on meta, where it has no numbers; load it on a device first")
        if wanted is not None and wanted.type != at.type:
            raise ValueError(f"device is {device}, but the model is on {at}; move it with .to({str(device)!r}) first")
        return cls(module, dtype, at, shape)

    def tensor(self, X: Array) -> Tensor:
        """An array as the network runs it."""
        return torch.tensor(X, dtype=self.dtype, device=self.device)

    def __call__(self, x: Tensor) -> Tensor:
        z: Tensor = self.module(x.reshape(-1, *self.shape))
        return z

    def probe(self, x: Tensor) -> int:
        """The number of classes, after what can be wrong with a model has been looked for on a first batch."""
        try:
            with torch.enable_grad():
                z = self(x := x.detach().requires_grad_())
        except RuntimeError as error:
            if "allocate" in str(error):  # no fault of the samples
                raise
            shape, reason = [len(x), *self.shape], " ".join(str(error).split())
            raise ValueError(f"the model takes no {str(x.dtype)[6:]} samples {shape}: {reason}") from error
        real = isinstance(z, Tensor) and not z.is_complex()
        if not real or z.ndim != 2 or len(z) != len(x) or z.shape[1] < 2:
            got = tuple(z.shape) if real else z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"the model must return logits [n, C] for two or more classes, got {got} for {len(x)} samples; "
                "of a single logit f make [-f/2, f/2]"
            )
        if not z.requires_grad or torch.autograd.grad(z.sum(), x, allow_unused=True)[0] is None:
            raise ValueError("the model's logits have no gradient in its input; does it detach them or return labels?")
        with torch.no_grad():
            again = self(x)
        size = torch.nan_to_num(z.detach().abs(), posinf=0.0).max()
        if ((again - z.detach()).abs() > 1e3 * torch.finfo(z.dtype).eps * size).any():
            warnings.warn(
                "the model gave two answers for one input; it is not deterministic, and neither is this attack",
                stacklevel=4,
            )
        return int(z.shape[1])

    def sure_margin(self, x: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """Margins [m] with what rounding may take off them added, so that a negative one stays so in any batch, and
        the decisions [m].
        """
        with torch.no_grad():
            z = self(x)
        size = torch.maximum(size_of(z), aim.size.to(z.dtype))
        return aim.margins(z)[0] + (16.0 * torch.finfo(z.dtype).eps + SURE) * size, z.argmax(dim=1)

    def proven_margin(self, x: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """:meth:`sure_margin` with what rounding x and the layers may move it by as well: a negative one stays so in
        any batch, and in a model of the same weights in a wider dtype.
        """
        margin, decision = self.sure_margin(x, aim)
        _, gradient = self.descend(x, aim, torch.ones(len(x), dtype=x.dtype, device=x.device), None)
        slope = gradient.double().norm(dim=1) * x.double().norm(dim=1)
        unit = 0.5 * torch.finfo(x.dtype).eps
        return margin + (4.0 * math.sqrt(x.shape[1]) * unit * slope).to(margin), decision

    def descend(self, x: Tensor, aim: Aim, weight: Tensor, hinge: float | None) -> tuple[Tensor, Tensor]:
        """Margins [m], and the gradient [m, d] of Σ weight · margin over the samples whose margin is not below -hinge
        (all for None).
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            z = self(x)
        margin, rival = aim.margins(z.detach())
        if hinge is not None:
            weight = weight * (margin + hinge >= 0)  # a sample on the boundary is not over it
        (gradient,) = torch.autograd.grad(z, x, aim.seeds(z.detach(), rival, weight))
        return margin.to(x.dtype), gradient


def size_of(z: Tensor) -> Tensor:
    """The largest finite logit [m] in absolute value, by logits [m, C]."""
    return torch.where(torch.isfinite(z), z.abs(), 0.0).amax(dim=1)


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
    from ..classifiers._recognise import Unrecognised, as_classifier
    from ..classifiers.network import as_device
    from ..torch import BayesClassifierModule, SVMModule

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
