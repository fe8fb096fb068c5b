"""The paper's network as a torch module, and torch's global settings held still while mfakit computes with it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import leaky_relu_

from ..._errors import BackendUnavailable
from ..._threads.process import Guard, Holder, Setting, forked
from .layout import Layout

__all__ = ["Network", "as_device", "bounded_threads", "settled"]

Array = NDArray[Any]

# A thread of torch is worth starting for this many operations of one step, forward and backward: some 20 ms. Torch's
# threads wait for each other after every operation, and where another process takes a core that wait is milliseconds.
OPERATIONS_PER_THREAD = 2**29


class Network(nn.Module):
    """Flattened images [n, d] to logits [n, C].

    Parameters
    ----------
    layout : Layout
    negative_slope : float
        Of LeakyReLU.
    rng : numpy.random.Generator or None
        Draws the weights (He's uniform law for this slope, biases 0), on the CPU whatever the device; None leaves them
        to be loaded.
    """

    def __init__(self, layout: Layout, negative_slope: float, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        layout.check()
        self.layout, self.negative_slope = layout, float(negative_slope)
        # skip_init: torch's own initialisation would draw from its global generator.
        make: Any = partial(nn.utils.skip_init, device="cpu", dtype=torch.float32)
        self.convolutions = nn.ModuleList(
            make(nn.Conv2d, layer.n_in, layer.n_out, 3, stride=layer.stride, padding=1) for layer in layout.layers
        )
        self.output = make(nn.Linear, layout.n_last, layout.n_classes)
        if rng is not None:
            self._draw(rng)

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator) -> None:
        generator = torch.Generator(device="cpu").manual_seed(int(rng.integers(2**63 - 1)))
        for parameter in self.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
                continue
            # He et al. 2015: the variance of the signal stays the same from layer to layer. The last layer is linear.
            gain = 1.0 if parameter.ndim == 2 else 2.0 / (1.0 + self.negative_slope**2)
            bound = math.sqrt(3.0 * gain / parameter[0].numel())
            parameter.uniform_(-bound, bound, generator=generator)

    @property
    def n_features(self) -> int:
        """d."""
        return self.layout.n_features

    @property
    def n_classes(self) -> int:
        """C."""
        return self.layout.n_classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, C] of x [n, d], flattened height-width-channel."""
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x must be a torch tensor, got {type(x).__name__}; pass torch.as_tensor(x)")
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ValueError(f"x must be [n, {self.n_features}], got {tuple(x.shape)}; flatten images [n, h, w, c]")
        if x.device != self.output.weight.device:
            raise ValueError(f"x is on {x.device}, and the network on {self.output.weight.device}; move one of them")
        image = x.reshape(len(x), *self.layout.image_shape).permute(0, 3, 1, 2).contiguous()
        for convolution in self.convolutions:
            image = leaky_relu_(convolution(image), self.negative_slope)
        return cast(torch.Tensor, self.output(image.flatten(1)))


def as_device(device: Any) -> torch.device:
    """The device of a name such as "cpu" or "cuda:1"; "auto" is CUDA where there is any.

    Raises
    ------
    BackendUnavailable
        For a CUDA device that is not there.
    ValueError
        For anything else.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", got {device!r}')
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(f'device={device!r}: torch finds no CUDA device; use device="cpu"')
    return found


def settled(device: torch.device, n_threads: int | None = None) -> Any:
    """A context manager: torch in float32 proper, with gradients, whatever the caller has set around; all as it was
    afterwards. Threads may overlap: the first one in sets what is the process's, the last one out puts back what the
    first one found.

    Raises
    ------
    MemoryError
        Where torch could not allocate; as one sentence instead of torch's RuntimeError.
    """
    threads = 1 if forked() else n_threads
    shared = _shared_settings(device.type)
    if threads is not None:
        shared.append(Setting("torch's threads", torch.get_num_threads, torch.set_num_threads, threads))
    holder, local, gradients = Holder(shared), contextlib.ExitStack(), torch.is_grad_enabled()

    def take() -> None:
        holder.take()
        for context in _local_settings(device):
            local.enter_context(context)

    def put_back() -> None:
        local.close()
        if torch.is_grad_enabled() != gradients:  # an interrupt at the end of a block of no_grad leaves them off
            torch.set_grad_enabled(gradients)
        holder.let_go()

    def translate(error: BaseException) -> None:
        if isinstance(error, RuntimeError) and "allocate" in str(error):
            raise MemoryError(f"a network on {device} ran out of memory; lower batch_size, width or depth") from None

    return Guard(take, put_back, translate)


def bounded_threads(operations: float) -> Any:
    """A context manager: torch in as many threads as steps of this many operations are worth, at most those it had."""
    threads = min(torch.get_num_threads(), max(1, int(operations / OPERATIONS_PER_THREAD)))
    holder = Holder([Setting("torch's threads", torch.get_num_threads, torch.set_num_threads, threads)])
    return Guard(holder.take, holder.let_go)


def _local_settings(device: torch.device) -> Iterator[contextlib.AbstractContextManager[Any]]:
    """What this thread has set otherwise: what is not entered costs nothing, and need not be left."""
    if torch.is_inference_mode_enabled():
        yield torch.inference_mode(False)
    if not torch.is_grad_enabled():
        yield torch.enable_grad()
    yield torch.autocast(device.type, enabled=False)
    if torch.empty(0).device != device:
        yield device


def _attribute(owner: Any, name: str, wanted: Any, *fine: Any) -> Setting:
    return Setting((id(owner), name), partial(getattr, owner, name), partial(setattr, owner, name), wanted, fine)


def _shared_settings(device: str) -> list[Setting]:
    """The process's settings: what mfakit computes with."""
    if device not in ("cpu", "cuda"):  # a module of the user's, attacked where it is
        return []
    backends: Any = torch.backends
    named = hasattr(backends, "fp32_precision")  # since torch 2.9; before, the older switches
    # "none" is full precision by another name, and writing it would stop it from following its parent.
    precise = ("fp32_precision", "ieee", "none")
    if device == "cpu":
        if named:
            return [_attribute(o, *precise) for o in (backends.mkldnn.matmul, backends.mkldnn.conv)]
        precision = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        return [Setting("torch's float32 products", *precision, "highest")]
    algorithms = [_attribute(backends.cudnn, "deterministic", True), _attribute(backends.cudnn, "benchmark", False)]
    if named:
        owners = (backends.cuda.matmul, backends.cudnn.conv)
        return [*algorithms, *(_attribute(o, *precise) for o in owners)]
    return [*algorithms, *(_attribute(o, "allow_tf32", False) for o in (backends.cuda.matmul, backends.cudnn))]
