"""Bounds of components in EM: what one step leaves to the next, so that they cost little in each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import RowBlocks
from ..mixture.choose import choose_pruner
from ..mixture.directions import Directions
from ..mixture.mfa import MFA
from ..mixture.pruning import Pruner
from .source import Source

__all__ = ["Bounds"]

Array = NDArray[Any]

# The projection is made anew when samples have this many times the candidates that they had with the new one, and half
# a candidate more.
GROWN = 1.5


class Bounds:
    """Whether the E-steps of a fit bound components, from what rows of B, and which component each sample had.

    The bound holds for any orthonormal rows and any reference component (docs/pruning.md): both are kept from step to
    step, and what a step changes of the mixture costs time and never truth. The rows are made anew when candidates
    grow; where the dense product was cheaper, bounds are tried again after 1, 2, 4 ... steps.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._step = 0
        self._again = True
        self._rows: Directions | None = None  # B of the current projection; None: the dense product
        self._sizes: tuple[int, ...] = ()
        self._fresh: float | None = None  # candidates per sample when the projection was new
        self._best: Array | None = None

    def pruner(self, mfa: MFA, rows: RowBlocks) -> Pruner | None:
        """What bounds the components of the next step's mixture, None for the dense product; `rows` are the source's
        first ones.
        """
        found = self.plan(mfa, rows)
        return None if found is None else Pruner([mfa.factors], *found, {})

    def plan(self, mfa: MFA, rows: RowBlocks) -> tuple[Directions, tuple[int, ...]] | None:
        """B and how many of its rows :meth:`pruner` takes; what a worker needs to bound components."""
        due = self._rows is None and self._step & (self._step - 1) == 0
        self._step += 1
        if self._again or due:
            self._choose(mfa, rows)
        return None if self._rows is None else (self._rows, self._sizes)

    def _choose(self, mfa: MFA, rows: RowBlocks) -> None:
        chosen = choose_pruner(rows, [mfa.factors], self.source.options, self.source.n_read)
        self._again, self._fresh, self._rows = False, None, None
        if chosen is not None:
            self._sizes, self._rows = chosen.sizes, chosen.directions.first(max(chosen.sizes))
            if self._best is None and self.source.remembers:
                self._best = np.full(self.source.n_read, -1, np.int32)

    @property
    def method(self) -> str:
        """What the last step was computed by: "pruned", or what the options say."""
        if self._rows is not None:
            return "pruned"
        return "residual" if self.source.options.method == "residual" else "dense"

    def reference(self, start: int, end: int) -> Array | None:
        """Of the source's rows start:end, the component that explained each best in the step before; None: unknown."""
        if self._best is None or start == end or self._best[start] < 0:
            return None
        return self._best[start:end]

    def remember(self, start: int, best: Array) -> None:
        """The component that explains the source's rows from `start` best."""
        if self._best is not None:
            self._best[start : start + len(best)] = best

    def finish(self, candidates: float) -> None:
        """After a step whose samples had this many candidates each."""
        if self._rows is None:
            return
        if self._fresh is None:
            self._fresh = candidates
        self._again = candidates > GROWN * self._fresh + 0.5
