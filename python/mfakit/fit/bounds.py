"""Bounds of components in EM: what one step leaves to the next, so that they cost little in each of them."""

from __future__ import annotations

from collections.abc import Mapping
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

    def packed(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What the next step reads of the steps before it, as arrays and what JSON can hold."""
        tensors: dict[str, Array] = {}
        if self._rows is not None:
            tensors |= {f"bounds.{name}": getattr(self._rows, name) for name in Directions._fields}
        if self._best is not None:
            tensors["bounds.best"] = self._best
        numbers = {"step": self._step, "again": self._again, "sizes": list(self._sizes), "fresh": self._fresh}
        return tensors, numbers

    @classmethod
    def unpacked(cls, source: Source, tensors: Mapping[str, Array], numbers: Mapping[str, Any]) -> Bounds:
        """Those that :meth:`packed` returned, for the same rows.

        Raises
        ------
        KeyError, TypeError, ValueError
            For what is missing or does not fit.
        """
        bounds = cls(source)
        bounds._step, bounds._again = int(numbers["step"]), bool(numbers["again"])
        bounds._sizes = tuple(int(size) for size in numbers["sizes"])
        bounds._fresh = None if numbers["fresh"] is None else float(numbers["fresh"])
        if "bounds.rows" in tensors:
            bounds._rows = Directions(*(tensors[f"bounds.{name}"] for name in Directions._fields))
            if bounds._rows.rows.shape[1:] != (source.survey.n_features,):
                raise ValueError(f"bounds.rows has shape {bounds._rows.rows.shape}")
        bounds._best = tensors.get("bounds.best")
        if bounds._best is not None and bounds._best.shape != (source.n_read,):
            raise ValueError(f"bounds.best has shape {bounds._best.shape}, not ({source.n_read},)")
        return bounds

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
