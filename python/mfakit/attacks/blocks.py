"""The loop over blocks of samples of an attack, in several threads where that is faster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays.options import Options
from .._arrays.rows import RowBlocks
from .._arrays.sharing import useful_threads
from .._threads.rows import open_crew
from ..backends.host_arrays import Host
from ..bayes.classifier import BayesClassifier
from .models.bayes import MixtureVictim
from .state import State

__all__ = ["attack_blocks", "plan_walks", "victims_of"]

# A thread is worth starting for this many samples: their walks in factor coordinates take longer than its start.
SAMPLES_PER_THREAD = 2

# Attacks a block, given the number of its first row, and returns the state of its samples.
Attack = Callable[[Any, Any, int], State]


def plan_walks(n: int, options: Options) -> tuple[int, Options]:
    """How many threads should share n samples that compiled code processes one after the other, and the options of
    each.
    """
    threads = useful_threads(options)
    count = max(1, min(threads, n // SAMPLES_PER_THREAD))
    return count, options if threads == 1 else replace(options, n_threads=1)


def victims_of(clf: BayesClassifier, count: int, size: int, options: Options) -> list[MixtureVictim]:
    """A victim for each of `count` threads, whose blocks together have at most `size` samples."""
    if count > 1:
        for mixture in clf.mixtures:
            mixture.factors.prepare(np.float64)  # once here instead of in every thread
    return [MixtureVictim(clf, -(-size // count), options) for _ in range(count)]


def attack_blocks(
    rows: RowBlocks, size: int, arrays: Host, victims: Sequence[Any], attack: Attack, bar: Any
) -> list[State]:
    """Call ``attack(victim, block, first)`` for all samples in a thread per victim, in blocks that together have at
    most `size` samples. Returns the states in the order of the samples.
    """
    states: dict[int, State] = {}
    size = -(-size // len(victims))
    together = threading.Lock()

    def go(i: int, start: int, end: int) -> None:
        def work(block: Any, first: int) -> None:
            state = attack(victims[i], block, first)
            with together:
                states[first] = state
                bar.update(len(block))

        with arrays.active():
            arrays.each_block(rows, size, work, victims[i].resize, start, end)

    with open_crew(len(victims)) as crew:
        for victim in victims if crew.count > 1 else ():
            victim.raise_if_cancelled = crew.raise_if_cancelled
        crew.share(len(rows), go)
    return [states[first] for first in sorted(states)]
