"""Torch modules: densities and Bayes classifiers with our kernels behind autograd, and support vector machines.

Libraries that attack, explain or certify networks take these as any network. In a module

- samples are [n, d], flattened height-width-channel as everywhere in mfakit; with ``image_shape=(height, width,
  channels)`` also torch's channel-first images [n, C, H, W], which are rearranged;
- a row with NaN or inf gives NaN, as in torch, and not an error, as in the functions on arrays;
- nothing is trained, so a module is in evaluation mode from the start, and its parameters take no gradients:
  ``.to(device)``, ``state_dict`` and ``load_state_dict`` move, save and restore them, results follow them, and
  gradients are in X only. :class:`TrainableMFA` is the exception: a density in torch's own operations, to train.

``torch.compile`` and ``torch.func.grad``, ``vmap`` and ``jacrev`` take the modules as they take any network.
"""

from __future__ import annotations

from .bayes import BayesClassifierModule
from .density import MFAModule
from .rows import one_thread_after_fork
from .svm import SVMModule
from .trainable import TrainableMFA

__all__ = ["BayesClassifierModule", "MFAModule", "SVMModule", "TrainableMFA", "one_thread_after_fork"]


def __dir__() -> list[str]:
    return sorted(__all__)
