"""The paper's network as a torch module, and torch's global settings held still while mfakit computes with it."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import leaky_relu_

from .._errors import BackendUnavailable
from .._threads import forked
from ._layout import Layout

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


@contextlib.contextmanager
def settled(device: torch.device, n_threads: int | None = None) -> Iterator[None]:
    """Torch in float32 proper, with gradients, whatever the caller has set around; all as it was afterwards.

    Raises
    ------
    MemoryError
        Where torch could not allocate; as one sentence instead of torch's RuntimeError.
    """
    threads = 1 if forked() else n_threads
    # A default device costs every call of torch some microseconds, so it is set only where there is another.
    there = contextlib.nullcontext() if torch.empty(0).device == device else device
    try:
        with (
            _held(device.type), _threads(threads), torch.inference_mode(False), torch.enable_grad(),
            torch.autocast(device.type, enabled=False), there,
        ):  # fmt: skip
            yield
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise MemoryError(f"a network on {device} ran out of memory; lower batch_size, width or depth") from None


@contextlib.contextmanager
def bounded_threads(operations: float) -> Iterator[None]:
    """Torch in no more threads than steps of this many operations are worth, and in no more than it was set to."""
    with _threads(min(torch.get_num_threads(), max(1, int(operations / OPERATIONS_PER_THREAD)))):
        yield


@contextlib.contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if n_threads is not None and n_threads != before:
            torch.set_num_threads(n_threads)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


class _Knob:
    """A global setting of torch: how it is read, how it is set, and what mfakit computes with."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any], wanted: Any) -> None:
        self.get, self.put, self.wanted = get, put, wanted

    @classmethod
    def of(cls, owner: Any, name: str, wanted: Any) -> _Knob:
        """An attribute."""
        return cls(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), wanted)


def _knobs(device: str) -> list[_Knob]:
    if device not in ("cpu", "cuda"):  # a module of the user's, attacked where it is
        return []
    backends: Any = torch.backends
    named = hasattr(backends, "fp32_precision")  # since torch 2.9; before, the older switches
    if device == "cpu":
        if named:
            return [_Knob.of(o, "fp32_precision", "ieee") for o in (backends.mkldnn.matmul, backends.mkldnn.conv)]
        return [_Knob(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")]
    algorithms = [_Knob.of(backends.cudnn, "deterministic", True), _Knob.of(backends.cudnn, "benchmark", False)]
    if named:
        owners = (backends.cuda.matmul, backends.cudnn.conv)
        return [*algorithms, *(_Knob.of(o, "fp32_precision", "ieee") for o in owners)]
    return [*algorithms, *(_Knob.of(o, "allow_tf32", False) for o in (backends.cuda.matmul, backends.cudnn))]


_lock = threading.Lock()
_holders: Counter[str] = Counter()
_found: dict[str, list[tuple[_Knob, Any]]] = {}


@contextlib.contextmanager
def _held(device: str) -> Iterator[None]:
    """Global settings at what mfakit wants. Threads may overlap: the first one in sets them, the last one out puts back
    what the first one found.
    """
    with _lock:
        if not _holders[device]:
            before = [(knob, knob.get()) for knob in _knobs(device)]
            # "none" is full precision by another name, and writing it would stop it from following its parent.
            _found[device] = [(k, value) for k, value in before if value not in (k.wanted, "none")]
            for knob, _ in _found[device]:
                knob.put(knob.wanted)
        _holders[device] += 1
    try:
        yield
    finally:
        with _lock:
            _holders[device] -= 1
            if not _holders[device]:
                for knob, value in _found.pop(device):
                    knob.put(value)
