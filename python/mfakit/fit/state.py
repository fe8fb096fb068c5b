"""Where EM is between two steps, and that as arrays and numbers for a checkpoint: the next step is the same, bit for
bit, whether it follows at once or after the state was written and read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..mixture.mfa import MFA
from .bounds import Bounds
from .checkpoint import Saved
from .resident import on_host, place
from .result import FitResult
from .source import Source
from .statistics import Statistics

__all__ = ["State"]

Array = NDArray[Any]

# The fields of a FitResult that a checkpoint has, beside the mixture.
FIELDS = ("lower_bound", "log_likelihood", "candidates", "methods", "events", "converged", "n_iter")


@dataclass
class State:
    """What the next step of EM needs.

    Attributes
    ----------
    stats : Statistics
        Of all rows under the mixture of the last step.
    result : FitResult
        Up to that step.
    bounds : Bounds
    reseeds : int [k]
        How often each component has started again.
    gain : float
        By how much the last step raised the mean log-likelihood, nats.
    """

    stats: Statistics
    result: FitResult
    bounds: Bounds
    reseeds: Array
    gain: float = np.inf

    def note(self) -> None:
        """Add what the last step found to the history."""
        self.result.log_likelihood.append(self.stats.mean_log_likelihood)
        self.result.candidates.append(self.stats.candidates)
        self.result.methods.append(self.bounds.method)

    def packed(self) -> Saved:
        """As arrays on the host and what JSON can hold."""
        mfa = on_host(self.result.mfa)
        sums, counts = self.stats.packed()
        bounds, how = self.bounds.packed()
        tensors = {**mfa.to_tensors("mfa"), **sums, **bounds, "reseeds": self.reseeds}
        result = {name: getattr(self.result, name) for name in FIELDS}
        return tensors, {**result, "gain": self.gain, "counts": counts, "bounds": how}

    @classmethod
    def unpacked(cls, saved: Saved, source: Source, path: Any) -> State:
        """That of a file at `path`.

        Raises
        ------
        ValueError
            For a file that does not hold one.
        """
        tensors, numbers = saved
        mfa = place(MFA.from_tensors(tensors, "mfa", path), source.arrays)
        try:
            result = FitResult(mfa, **{name: numbers[name] for name in FIELDS})
            stats = Statistics.unpacked(mfa, tensors, numbers["counts"], source.arrays)
            bounds = Bounds.unpacked(source, tensors, numbers["bounds"])
            return cls(stats, result, bounds, _counts(tensors, mfa.n_components), float(numbers["gain"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no whole checkpoint of a fit ({error}); remove it to start anew") from None


def _counts(tensors: Mapping[str, Array], k: int) -> Array:
    reseeds = tensors["reseeds"]
    if reseeds.shape != (k,):
        raise ValueError(f"reseeds has shape {reseeds.shape}, not ({k},)")
    return reseeds
