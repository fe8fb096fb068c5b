"""Where the rows come from: an array, or blocks that can be read again and again. Fitting sees no difference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._arrays.containers import as_host_array, check_container
from .._arrays.options import Options
from .._arrays.rows import RowBlocks, to_numpy
from .._arrays.streams import Form, opened, same_form
from ..backends import get_arrays, get_backend
from ..backends.host_arrays import HOST, Host
from .survey import MOST_WEIGHT, Survey, SurveySums, VarianceSums, rough_center

if TYPE_CHECKING:
    import torch

__all__ = ["Source", "as_weights"]

Array = NDArray[Any]
Part = tuple[RowBlocks, "Array | None"]

# Initialisation looks at this many rows at most and, for images, at this many values, but at enough for the model.
SAMPLE_ROWS = 20_000
SAMPLE_VALUES = 2**26


class Source:
    """Rows with weights, readable any number of times.

    Parameters
    ----------
    parts : callable
        Returns an iterator over (RowBlocks, weights [n_i] or None).
    options : Options

    Attributes
    ----------
    survey : Survey
        From one pass over the data, made here.

    Raises
    ------
    ValueError
        For no rows, NaN or inf (with the first bad row), weights that are negative, all zero, huge or in sum tiny, and
        data whose variance overflows.
    """

    # Whether an EM step leaves to the next one what explained each row best.
    remembers: ClassVar[bool] = True

    def __init__(self, parts: Callable[[], Iterator[Part]], options: Options) -> None:
        self._open, self.options = parts, options
        self._rows_read: int | None = None
        self._devices: set[str | None] = set()  # of the rows; None: the host
        self.survey = self._survey()

    @classmethod
    def from_array(cls, X: Any, sample_weight: Any = None, options: Options | None = None) -> Source:
        """The rows of an array-like [n, d], or of a file of one, weighted by `sample_weight` [n]."""
        rows = _rows(opened(X))
        weights = as_weights(sample_weight, len(rows))
        parts = [(rows, weights)] if len(rows) else []
        return cls(lambda: iter(parts), options or Options())

    @classmethod
    def from_blocks(cls, blocks: Any, options: Options | None = None, *, weighted: bool = False) -> Source:
        """The rows of blocks [n_i, d] or, if `weighted`, of pairs (block, its sample weights [n_i]).

        `blocks` is a callable that returns a new iterator at each call, or an object that can be iterated repeatedly.
        """
        if isinstance(blocks, Mapping) or hasattr(blocks, "forward"):  # a torch module, which is callable
            raise TypeError(
                f"blocks is {_kind(blocks)}; pass a list of arrays [n_i, d], or a callable that yields them"
            )
        if not callable(blocks) and (not isinstance(blocks, Iterable) or iter(blocks) is blocks):
            raise TypeError(
                f"blocks must be readable more than once: a list, or a callable that returns a new iterator, "
                f"got {type(blocks).__name__}"
            )

        def parts() -> Iterator[Part]:
            d: int | None = None
            form: Form | None = None
            found = blocks() if callable(blocks) else blocks
            if not isinstance(found, Iterable):
                raise TypeError(f"blocks() must return an iterator over arrays, got {_kind(found)}")
            for i, item in enumerate(found):
                X, weight = _weighted_block(item, i) if weighted else (_plain_block(item, i), None)
                rows = RowBlocks(X, d, name=f"block {i}")
                d, form = rows.shape[1], same_form(f"block {i}", X, form, any_float=True)
                weights = as_weights(weight, len(rows), f"the sample_weight of block {i}")
                if len(rows):
                    yield rows, weights

        return cls(parts, options or Options())

    def parts(self) -> Iterator[Part]:
        """One pass over the data; a pass that yields another number of rows than the last one is an error."""
        seen = 0
        for rows, weights in self._open():
            seen += len(rows)
            yield rows, weights
        if self._rows_read is not None and seen != self._rows_read:
            raise ValueError(
                f"every pass over the blocks must yield the same rows, got {self._rows_read} rows at first and {seen} "
                f"later; pass a callable that starts afresh at each call"
            )
        self._rows_read = seen

    def _survey(self) -> Survey:
        sums: SurveySums | None = None
        for rows, weights in self.parts():
            if sums is None:
                sums = SurveySums(rough_center(rows, weights), rows.dtype)
            sums.add(rows, weights, self.options)
            self._devices.add(rows.device)
        if sums is None:
            raise ValueError("X has no rows; fitting needs at least one sample")
        return sums.survey()

    @property
    def on_device(self) -> bool:
        """Whether the rows are computed on a device: because they are there, or because the options say so."""
        return self._devices != {None} or self.options.backend == "cuda"

    @property
    def arrays(self) -> Host:
        """Where sums over the rows belong: on a device if all of them are computed on that one, else on the host."""
        backend = self.options.backend
        found = {get_arrays(get_backend(backend, device), device) for device in self._devices}
        return found.pop() if len(found) == 1 else HOST

    @property
    def n_read(self) -> int:
        """Rows of a pass, those of weight zero among them."""
        assert self._rows_read is not None
        return self._rows_read

    def feature_variances(self) -> Array:
        """Weighted variance [d] of each feature, float64, from a pass of its own; exactly 0 where no row differs."""
        sums: VarianceSums | None = None
        for rows, weights in self.parts():
            present = _present(rows, weights)
            if sums is None and len(present):
                sums = VarianceSums(to_numpy(rows.take(present[:1], np.float64))[0])
            if sums is not None and len(present):
                sums.add(rows, weights, self.options)
        assert sums is not None  # the survey found rows
        return sums.variances(self.survey.total_weight)

    def digest(self) -> str:
        """Of all rows, in the dtype that they are computed in, and their weights; whatever the container and the sizes
        of blocks. From a pass of its own.
        """
        values, weighted = hashlib.sha256(), hashlib.sha256()
        step = self.options.plan_block(self.survey.n_features, 1, 8)
        for rows, weights in self.parts():
            for _, block in rows.walk(0, len(rows), step):
                values.update(np.ascontiguousarray(to_numpy(block)).data)
            weighted.update((np.ones(len(rows)) if weights is None else weights).data)
        values.update(weighted.digest())
        return values.hexdigest()[:16]

    def sample(self, rng: np.random.Generator, least: int) -> tuple[Array, Array | None]:
        """A random sample of rows [m, d] in their order, and their weights [m], on the host: the same rows whatever the
        container.

        All rows where they are few enough, else SAMPLE_ROWS, or SAMPLE_VALUES values but not below `least` rows.
        """
        index, found, first = self._chosen(rng, least), [], 0
        for rows, weights in self.parts():
            present = _present(rows, weights)
            local = index[np.searchsorted(index, first) : np.searchsorted(index, first + len(present))] - first
            first += len(present)
            whole = len(local) == len(rows)
            block = rows.block(0, len(rows)) if whole else rows.take(present[local])
            found.append((to_numpy(block), None if weights is None else weights[present[local]]))
        return _joined(found)

    def _chosen(self, rng: np.random.Generator, least: int) -> Array:
        """Which of the rows with weight are in a sample, ascending."""
        n, d = self.survey.n_rows, self.survey.n_features
        m = min(n, SAMPLE_ROWS, max(SAMPLE_VALUES // d, least))
        return np.arange(n) if m == n else np.sort(rng.choice(n, size=m, replace=False))

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Array, Array | None]]:
        """Mini-batches of one epoch, in random order within a part; an array is one part."""
        import torch

        for rows, weights in self.parts():
            present = _present(rows, weights)
            order = present[torch.randperm(len(present), generator=generator, device="cpu").numpy()]
            for start in range(0, len(order), size):
                batch = np.sort(order[start : start + size])  # a memory map is read front to back
                yield to_numpy(rows.take(batch)), None if weights is None else weights[batch]


def _rows(X: Any) -> RowBlocks:
    check_container(X, "X")
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) == 1:
        raise ValueError(
            f"X must be [n, d], got shape {shape}. Reshape your data: X[None, :] is one sample, X[:, None] one feature"
        )
    rows = RowBlocks(X)
    if rows.shape[1] == 0:
        raise ValueError(f"X has 0 feature(s) (shape={rows.shape}) while a minimum of 1 is required.")
    return rows


def _plain_block(item: Any, i: int) -> Any:
    """A block without weights; pairs are refused, because what stands beside samples is mostly their labels."""
    if isinstance(item, tuple) or (isinstance(item, list) and any(len(getattr(a, "shape", ())) > 1 for a in item)):
        raise TypeError(
            f"block {i} is a {type(item).__name__} of {len(item)}, and blocks are arrays [n_i, d]: drop labels, or "
            f"pass weighted=True where each block is a pair of samples and their weights"
        )
    return item


def _weighted_block(item: Any, i: int) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise TypeError(f"block {i} must be a pair of samples and their weights (weighted=True), got {_kind(item)}")
    return item[0], item[1]


def _kind(item: Any) -> str:
    if isinstance(item, tuple | list):
        return f"a {type(item).__name__} of {len(item)}"
    return "None" if item is None else f"a {type(item).__name__}"


def as_weights(sample_weight: Any, n: int, name: str = "sample_weight") -> Array | None:
    """Weights as float64 [n], checked; None stays None."""
    if sample_weight is None:
        return None
    weights = as_host_array(sample_weight, name)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have one weight per row, shape ({n},), got {weights.shape}")
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {weights.dtype}")
    weights = weights.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ValueError(f"{name} must be finite and not negative, got {weights[bad[0]]} in row {bad[0]}")
    large = np.flatnonzero(weights > MOST_WEIGHT)
    if len(large):
        raise ValueError(
            f"{name} must be at most {MOST_WEIGHT:g}, got {weights[large[0]]:g} in row {large[0]}; only ratios "
            f"of weights matter, so divide them by their mean"
        )
    return weights


def _present(rows: RowBlocks, weights: Array | None) -> Array:
    """Indices of the rows with a positive weight."""
    return np.arange(len(rows)) if weights is None else np.flatnonzero(weights > 0)


def _joined(found: list[tuple[Array, Array | None]]) -> tuple[Array, Array | None]:
    if len(found) == 1:
        return found[0]
    X = np.concatenate([block for block, _ in found])
    if all(weights is None for _, weights in found):
        return X, None
    return X, np.concatenate([np.ones(len(block)) if w is None else w for block, w in found])
