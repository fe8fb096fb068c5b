"""Blocks of samples on their way through an attack, several at once where that is quicker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from .._arrays import RowBlocks
from .._shares import open_crew
from ..backends.host import Host
from .walk import State

__all__ = ["attack_blocks"]

# What is done with a block, given the number of its first row; it says what is known of the samples then.
Attack = Callable[[Any, Any, int], State]


def attack_blocks(
    rows: RowBlocks, size: int, arrays: Host, victims: Sequence[Any], attack: Attack, bar: Any
) -> list[State]:
    """``attack(victim, block, first)`` for all blocks of at most `size` rows, by as many threads as there are victims,
    each with its own; the states in the order of the rows.
    """
    states: dict[int, State] = {}
    together = threading.Lock()

    def go(victim: Any, start: int, end: int) -> None:
        def work(block: Any, first: int) -> None:
            state = attack(victim, block, first)
            with together:
                states[first] = state
                bar.update(len(block))

        with arrays.active():
            arrays.each_block(rows, size, work, victim.resize, start, end)

    if len(victims) == 1:
        go(victims[0], 0, len(rows))
    else:
        with open_crew(len(victims)) as crew:
            for victim in victims:
                victim.heed = crew.heed
            crew.share(len(rows), lambda i, start, end: go(victims[i], start, end))
    return [states[first] for first in sorted(states)]
