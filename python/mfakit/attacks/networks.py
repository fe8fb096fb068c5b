"""Torch modules under the attacks of others: opened for a block of code, and their decisions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .carlini_wagner.network import Network

__all__ = ["decisions", "opened"]

Array = NDArray[Any]


@contextmanager
def opened(model: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None = None) -> Iterator[Network]:
    """The module of a model, for samples of this shape, in float32 proper whatever the caller has set around.

    Parameters
    ----------
    dtype : numpy.dtype, optional
        In which mfakit's own modules, which compute in that of their samples, get them; None: that of their parameters.
    """
    import torch

    from ..classifiers.networks.network import settled
    from ..torch import BayesClassifierModule, MFAModule, one_thread_after_fork
    from .carlini_wagner.network import Network, as_module

    one_thread_after_fork()
    with torch.inference_mode(False):
        module = as_module(model, None)
        network = Network.of(module, shape, None)
        if dtype is not None and isinstance(module, BayesClassifierModule | MFAModule):
            network = replace(network, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
        with settled(network.device):
            yield network


def decisions(network: Network, X: Array) -> tuple[Array, Array, int]:
    """The module's decisions about samples X [n, d], int64 [n], -1 where logits are NaN; those about each sample alone;
    and the number of classes.
    """
    import torch

    x = network.tensor(X)
    with torch.no_grad():
        together, alone = network(x), network.alone(x)
    found = [torch.where(z.isnan().any(dim=1), -1, z.argmax(dim=1)).cpu().numpy() for z in (together, alone)]
    return found[0], found[1], int(together.shape[1])
