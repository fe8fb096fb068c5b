"""One side of the pairs: the subspaces of a mixture in memory, or of a file that is mapped and read part by part."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._io.messages import one_line
from ..._io.tensor_files import map_tensors
from ..._lazy import lazy
from ..factors import component_parts, orthonormal_bases
from ..mfa import KIND, MFA
from ..parameters import PARAMETERS, checked_weights

__all__ = ["Side", "open_side"]

Array = NDArray[Any]


class Side(NamedTuple):
    """The subspaces of a mixture, which of its components have no weight [k], and the device of a model."""

    factors: Any  # Factors or, of a file, what is read of them here
    gone: Array
    device: str | None

    @property
    def live(self) -> Array:
        """Indices of the components that have weight."""
        return np.flatnonzero(~self.gone)

    def reach(self, center: Array) -> float:
        """The largest distance of a mean from a point, of components with weight."""
        live = self.live
        parts = (live[part] for part in component_parts(len(live), self.factors.shape[2]))
        return max(float(np.linalg.norm(self.factors.means[part] - center, axis=1).max()) for part in parts)


def open_side(given: Any, name: str) -> Side:
    """The side of an argument `name`: a mixture, or the path of a file that :meth:`mfakit.MFA.save` has written.

    Raises
    ------
    TypeError, FileNotFoundError, ValueError
        For anything else, and for a file that is not there or no mixture.
    """
    if isinstance(given, MFA):
        return Side(given.subspaces, given.weights == 0, given.device)
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{name} must be an MFA or the path of its file, got {type(given).__name__}")
    mapped = _Mapped(given)
    return Side(mapped, mapped.gone, None)


class _Mapped:
    """What is read of factors here, from a file: parts of means and bases are float64, made when asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        tensors = map_tensors(path, KIND)
        missing = [f"0.{p}" for p in PARAMETERS if f"0.{p}" not in tensors]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}; was it written by MFA.save?")
        self.path, self._means, self._loadings = path, tensors["0.means"], tensors["0.loadings"]
        shapes = self._means.shape, self._loadings.shape
        kinds = {self._means.dtype.kind, self._loadings.dtype.kind}
        if (len(shapes[0]), len(shapes[1])) != (2, 3) or shapes[1][:2] != shapes[0] or 0 in shapes[0] or kinds != {"f"}:
            raise ValueError(f"{path} is not a valid mixture: means {shapes[0]} and loadings {shapes[1]} do not match")
        try:
            self.gone = checked_weights(np.array(tensors["0.weights"]), len(self._means)) == 0
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a valid mixture: {one_line(error)}") from None
        self.means, self.whitened = _Parts(self._read_means), _Parts(self._read_bases)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(k, l, d)."""
        k, d, l = self._loadings.shape
        return k, l, d

    @lazy
    def center(self) -> Array:
        """[d], the mean of the means; those of components without weight stand in their middle, as in memory."""
        total, live = np.zeros(self.shape[2]), np.flatnonzero(~self.gone)
        for part in component_parts(len(live), self.shape[2]):
            total += self._finite(self._means[live[part]], "means").sum(axis=0)
        return np.asarray(total / len(live))

    def _read_means(self, part: Any) -> Array:
        means = np.array(self._means[part], np.float64)
        gone = self.gone[part]
        means[gone] = self.center
        return self._finite(means, "means")

    def _read_bases(self, part: Any) -> Array:
        loadings = np.array(self._loadings[part], np.float64)
        loadings[self.gone[part]] = 0.0
        return orthonormal_bases(self._finite(loadings, "loadings"))

    def _finite(self, values: Array, name: str) -> Array:
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path} is not a valid mixture: {name} has NaN or inf")
        return values


class _Parts:
    """Some rows of an array that is never whole: ``parts[which]``, a slice or indices."""

    def __init__(self, read: Any) -> None:
        self._read = read

    def __getitem__(self, part: Any) -> Array:
        if isinstance(part, int | np.integer):
            return np.asarray(self._read(slice(part, part + 1))[0])
        return np.asarray(self._read(part))
