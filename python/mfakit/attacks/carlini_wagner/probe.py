"""Checks of a model on its first batch, before an attack spends time on it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .network import PROOFS, Aim, Network, size_of

__all__ = ["operations", "probe"]

# Evaluations of the same samples count as different if they differ by more than this many units in the last place of
# the largest logit or, in half precision, by more than this share of it.
ANSWER_UNITS, ANSWER_SHARE = 1e3, 0.1


def probe(network: Network, x: Tensor) -> int:
    """The number of classes, by a first batch x [m, d] without NaN; m ≥ 1.

    Raises
    ------
    ValueError
        A model that does not take such samples, returns no logits, is not differentiable, or whose answer for a sample
        depends on the other samples of its batch.

    Warns
    -----
    UserWarning
        If the model gives two answers for one input.
    """
    z, leaf = _logits(network, x)
    if not z.requires_grad or torch.autograd.grad(z.sum(), leaf, allow_unused=True)[0] is None:
        raise ValueError("the model's logits have no gradient in its input; does it detach them or return labels?")
    z = z.detach()
    unit = network.unit_of(z)
    tolerance = min(ANSWER_UNITS * unit, ANSWER_SHARE) * size_of(z)
    with torch.no_grad():
        again = network(x)
    if _differ(again, z, tolerance):
        warnings.warn(
            "the model gave two answers for one input, as with dropout or noise that is active in evaluation mode; "
            "neither its decisions nor this attack's successes can be reproduced, so switch the randomness off",
            stacklevel=4,
        )
        return int(z.shape[1])
    # Logits may cancel, for instance far from 0. Their rounding, which differs between batches, is then larger than
    # their size suggests.
    aim = Aim(z.argmax(dim=1), 1.0, size_of(z))
    tolerance += network.input_rounding(x, aim, z, PROOFS[1 if network.narrow else 0])
    if not _stands_alone(network, x, z, tolerance):
        raise _coupled(network.module)
    return int(z.shape[1])


def operations(network: Network, x: Tensor) -> float:
    """Operations of one step of the search for one sample x [1, d], forward and backward: those of the layers whose
    outputs are made with a matrix of weights, or two for each parameter where the layers cannot be inspected.
    """
    found = 0.0

    def count(layer: Any, _: Any, output: Any) -> None:
        nonlocal found
        if isinstance(output, Tensor):
            found += 2.0 * layer.weight.numel() * output.numel() / layer.weight.shape[0]

    # A compiled module would be compiled again.
    module = getattr(network.module, "_orig_mod", network.module)
    layers = [
        p
        for p in module.modules()
        if getattr(getattr(p, "weight", None), "ndim", 0) >= 2 and not isinstance(p, torch.jit.ScriptModule)
    ]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            module(x.reshape(-1, *network.shape))
    finally:
        for hook in hooks:
            hook.remove()
    return 2.0 * max(found, 2.0 * sum(p.numel() for p in module.parameters()))


def _logits(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [m, C] of x, and the leaf tensor to differentiate them by."""
    try:
        z, leaf = network.recorded(x)
    except (RuntimeError, ValueError) as error:
        if _needs_company(error):
            raise _coupled(network.module) from None
        if isinstance(error, ValueError) or "allocate" in str(error):  # not the samples' fault
            raise
        shape, reason = [len(x), *network.shape], " ".join(str(error).split())
        raise ValueError(f"the model takes no {str(x.dtype)[6:]} samples {shape}: {reason}") from error
    real = isinstance(z, Tensor) and not z.is_complex()
    if not real or z.ndim != 2 or len(z) != len(x) or z.shape[1] < 2:
        got = tuple(z.shape) if real else z.dtype if isinstance(z, Tensor) else type(z).__name__
        remedy = (
            "of a single logit f make [-f/2, f/2]"
            if isinstance(z, Tensor)
            else "wrap it in a module that returns the tensor of logits alone"
        )
        raise ValueError(
            f"the model must return logits [n, C] for two or more classes, got {got} for {len(x)} samples; {remedy}"
        )
    return z, leaf


def _stands_alone(network: Network, x: Tensor, z: Tensor, tolerance: Tensor) -> bool:
    """Whether the logits z [m, C] of samples x [m, d] are the same in other batches: alone, and beside others."""
    # A single sample is put into a batch with another one, made of its values.
    beside = torch.cat([x, 0.5 * x.flip(1)]) if len(x) == 1 else x[len(x) // 2 :].flip(0)
    rows = slice(0, 1) if len(x) == 1 else slice(len(x) // 2, None)
    try:
        with torch.no_grad():
            first, others = network(x[:1]), network(beside)
    except (RuntimeError, ValueError) as error:
        if _needs_company(error):
            return False
        raise
    others = others[:1] if len(x) == 1 else others.flip(0)
    return not (_differ(first, z[:1], tolerance[:1]) or _differ(others, z[rows], tolerance[rows]))


def _differ(a: Tensor, b: Tensor, tolerance: Tensor) -> bool:
    """Whether two evaluations [m, C] of the same samples differ by more than a tolerance [m]."""
    if a.shape != b.shape:
        return True
    same = (a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= tolerance[:, None])
    return not bool(same.all())


def _needs_company(error: Exception) -> bool:
    """Whether torch's batch normalisation complains of a single sample."""
    return "more than 1 value per channel" in str(error)


def _coupled(module: nn.Module) -> ValueError:
    """The error for a model whose output for a sample depends on the rest of the batch."""
    culprits = [
        (name, type(part).__name__)
        for name, part in module.named_modules()
        if "BatchNorm" in type(part).__name__ and getattr(part, "running_mean", None) is None
    ]
    why = "something in it takes a statistic over the batch, or mixes samples"
    if culprits:
        name, kind = culprits[0]
        why = f"its part {name!r}, a {kind} with track_running_stats=False, normalises by the batch's own statistics"
    return ValueError(
        f"the model's answer for a sample depends on the other samples in its batch: {why}; attack a model that "
        "answers for each sample alone, such as one with running statistics in evaluation mode"
    )
