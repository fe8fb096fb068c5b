"""The sufficient statistics of one EM step, as an object that adds up: over blocks, files or machines.

Sums are in float64 and around the old means, r = x - μ_k, so that nothing large cancels when the model is already
close. Samples are grouped by component: the entries of the responsibilities that matter are few, and the cost of the
large sums is O(n·d·l), not O(n·k·d·l).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays.options import Options
from .._arrays.rows import RowBlocks
from ..backends import get_arrays, get_backend
from ..backends.host_arrays import HOST, Host
from ..backends.operands import Sums, WeightedPairs
from ..mixture.density import in_order
from ..mixture.evaluator import Evaluator
from ..mixture.mfa import MFA
from ..mixture.parameters import PARAMETERS
from ..mixture.pruning import Pruner
from ..mixture.resident import ResidentMFA
from ..mixture.scores import Scores
from .source import as_weights

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LOST_SHARE", "Statistics", "Totals", "WorstRows"]

Array = Any  # NumPy's; of a block on a device, CuPy's

# Responsibilities below DROPPED / k are left out: together less than DROPPED of a sample.
DROPPED = 1e-12
# Badly explained samples that are remembered, for components that have to start again.
WORST_KEPT = 16
# A component with less than this share of the data has lost its samples.
LOST_SHARE = 1e-10
# Sums that grow with the number of components alone, and those that grow with the number of features, too.
SMALL, LARGE = ("weight", "sum_z", "sum_zz"), ("sum_x", "sum_xx", "sum_xz")
# What else there is, and what is known of the worst rows.
COUNTS, WORST = ("log_likelihood", "total_weight", "n_rows", "n_pairs"), ("log_prob", "rows", "components")


@dataclass(eq=False)
class WorstRows:
    """The samples that the mixture explains worst: log p [m] ascending, rows [m, d], most likely component [m]."""

    log_prob: Array
    rows: Array
    components: Array

    @classmethod
    def none(cls, d: int) -> WorstRows:
        """No rows yet."""
        return cls(np.empty(0), np.empty((0, d)), np.empty(0, np.int64))

    def of_block(self, scores: Scores, log_total: Array, weights: Array | None, arrays: Host) -> WorstRows:
        """Those of a block with log p [n] (on the host) that are worse than the ones kept; a device is waited for
        once.
        """
        index = np.arange(len(log_total)) if weights is None else np.flatnonzero(weights > 0)
        if len(self.log_prob) == WORST_KEPT:
            index = index[log_total[index] < self.log_prob[-1]]
        index = index[np.argsort(log_total[index], kind="stable")[:WORST_KEPT]]
        if not len(index):
            return WorstRows.none(scores.X.shape[1])
        at, xp = arrays.asarray(index), arrays.xp
        found = xp.empty((len(index), scores.X.shape[1] + 1))
        found[:, :-1], found[:, -1] = scores.X[at], scores.most_likely(at)
        found = arrays.to_host(found)
        return WorstRows(log_total[index], found[:, :-1], found[:, -1].astype(np.int64))

    def merge(self, other: WorstRows) -> None:
        """Consider the rows of another one."""
        log_prob = np.concatenate([self.log_prob, other.log_prob])
        order = np.argsort(log_prob, kind="stable")[:WORST_KEPT]
        self.log_prob = log_prob[order]
        self.rows = np.concatenate([self.rows, other.rows])[order]
        self.components = np.concatenate([self.components, other.components])[order]


@dataclass(eq=False, kw_only=True)
class Totals:
    """Sums over samples with responsibilities R times sample weights; r = x - μ_k.

    Attributes
    ----------
    weight : [k]
        Σ R.
    sum_x : [k, d]
        Σ R r.
    sum_xx : [k, d]
        Σ R r².
    sum_z : [k, l]
        Σ R z, z the posterior mean of the factors.
    sum_zz : [k, l, l]
        Σ R z zᵀ, without the posterior covariance M⁻¹.
    sum_xz : [k, l, d]
        Σ R z rᵀ.
    log_likelihood : float
        Σ log p(x), weighted, nats.
    total_weight : float
    n_rows, n_pairs : int
        Rows, and pairs of a row and a component that were scored exactly.
    worst : WorstRows
    """

    weight: Array
    sum_x: Array
    sum_xx: Array
    sum_z: Array
    sum_zz: Array
    sum_xz: Array
    log_likelihood: float = 0.0
    total_weight: float = 0.0
    n_rows: int = 0
    n_pairs: int = 0
    worst: WorstRows = field(default_factory=lambda: WorstRows.none(0))

    def __iadd__(self, other: Self) -> Self:
        for name in (*SMALL, *LARGE):
            getattr(self, name).__iadd__(getattr(other, name))
        self.log_likelihood += other.log_likelihood
        self.total_weight += other.total_weight
        self.n_rows += other.n_rows
        self.n_pairs += other.n_pairs
        self.worst.merge(other.worst)
        return self

    def __add__(self, other: Self) -> Self:
        total = replace(
            self, **{name: getattr(self, name).copy() for name in (*SMALL, *LARGE)}, worst=replace(self.worst)
        )
        total += other
        return total

    @classmethod
    def of(cls, other: Totals, **more: Any) -> Self:
        """The same sums, not copied, with what this class has `more`."""
        return cls(**{one.name: getattr(other, one.name) for one in fields(Totals)}, **more)


@dataclass(eq=False, kw_only=True)
class Statistics(Totals):
    """The sums that the mixture `mfa` gives, which add up.

    Attributes
    ----------
    mfa : MFA
        The mixture of the E-step: its means are what r = x - μ is taken from.
    arrays : Host
        Where the sums are. On a device blocks are added without reading any of them, until :meth:`read_small` or
        :meth:`to_host` does.
    others
        See :class:`Totals`.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> from mfakit.fit import Statistics
    >>> mfa = mfakit.MFA([1.0], np.zeros((1, 3)), np.ones((1, 3, 1)), 0.1)
    >>> X, _ = mfa.sample(100, rng=0)
    >>> whole = Statistics.zeros(mfa).add(X)
    >>> parts = Statistics.zeros(mfa).add(X[:30]) + Statistics.zeros(mfa).add(X[30:])
    >>> bool(np.allclose(whole.sum_xz, parts.sum_xz))
    True
    """

    mfa: MFA
    arrays: Host = HOST

    @classmethod
    def zeros(cls, mfa: MFA, arrays: Host = HOST) -> Statistics:
        """No samples yet; on a device for the arrays of one, which must be the current one."""
        k, d, l = mfa.n_components, mfa.n_features, mfa.n_factors
        shapes = ((k,), (k, d), (k, d), (k, l), (k, l, l), (k, l, d))
        names = ("weight", "sum_x", "sum_xx", "sum_z", "sum_zz", "sum_xz")
        sums = {name: arrays.xp.zeros(shape) for name, shape in zip(names, shapes, strict=True)}
        return cls(mfa=mfa, worst=WorstRows.none(d), arrays=arrays, **sums)

    def read_small(self) -> None:
        """Bring to the host what grows with the number of components alone; a device is waited for once."""
        self._read(SMALL)

    def to_host(self) -> Statistics:
        """The same sums on the host; a device is waited for twice at most."""
        if self.arrays.is_device:
            self._read(("sum_xz",))
            self._read((*SMALL, "sum_x", "sum_xx"))
        return replace(self, arrays=HOST)

    def _read(self, names: tuple[str, ...]) -> None:
        sums = {name: getattr(self, name) for name in names if not isinstance(getattr(self, name), np.ndarray)}
        found = self.arrays.all_to_host(tuple(sums.values())) if sums else ()
        for name, total in zip(sums, found, strict=True):
            setattr(self, name, total)

    def packed(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The sums by name as arrays on the host, and the counts; they stay where they are."""
        sums = {name: getattr(self, name) for name in (*SMALL, *LARGE)}
        there = {name: value for name, value in sums.items() if not isinstance(value, np.ndarray)}
        with self.arrays.active():
            sums |= zip(there, self.arrays.all_to_host(tuple(there.values())) if there else (), strict=True)
        sums |= {f"worst.{name}": getattr(self.worst, name) for name in WORST}
        return sums, {name: getattr(self, name) for name in COUNTS}

    @classmethod
    def unpacked(cls, mfa: MFA, tensors: Mapping[str, Array], counts: Mapping[str, Any], arrays: Host) -> Statistics:
        """Those that :meth:`packed` returned, under the same mixture; the large sums are on a device if that is there.

        Raises
        ------
        KeyError, ValueError
            For sums that are missing, or of another shape.
        """
        stats = cls.zeros(mfa)
        for name in (*SMALL, *LARGE):
            value, shape = tensors[name], getattr(stats, name).shape
            if value.shape != shape or value.dtype != np.float64:
                raise ValueError(f"{name} is {value.dtype} {value.shape}, not float64 {shape}")
            setattr(stats, name, value)
        for name in COUNTS:
            setattr(stats, name, type(getattr(stats, name))(counts[name]))
        stats.worst = WorstRows(*(tensors[f"worst.{name}"] for name in WORST))
        m = len(stats.worst.log_prob)
        if (stats.worst.rows.shape, stats.worst.components.shape) != ((m, mfa.n_features), (m,)):
            raise ValueError(f"worst.rows has shape {stats.worst.rows.shape}, not ({m}, {mfa.n_features})")
        if not isinstance(mfa, ResidentMFA):
            return stats
        with arrays.active():
            for name in LARGE:
                setattr(stats, name, arrays.asarray(getattr(stats, name)))
        return replace(stats, arrays=arrays)

    @property
    def present(self) -> Array:
        """Indices of the components that have samples; weights are on the host."""
        return np.flatnonzero(self.weight > LOST_SHARE * self.total_weight)

    @property
    def mean_log_likelihood(self) -> float:
        """Per unit of weight, nats."""
        return self.log_likelihood / self.total_weight

    @property
    def candidates(self) -> float:
        """Components per row that could not be left out by what is known of them without their residual."""
        return self.n_pairs / max(self.n_rows, 1)

    def add(
        self, X: Any, sample_weight: Any = None, options: Options | None = None, pruner: Pruner | None = None
    ) -> Statistics:
        """Add the samples X [n, d] with weights [n]; returns self. `pruner` bounds components of `mfa`, which changes
        nothing else.

        Raises
        ------
        ValueError
            NaN or inf in X, a wrong rank or width.
        """
        rows = X if isinstance(X, RowBlocks) else RowBlocks(X, self.mfa.n_features)
        weights, options = as_weights(sample_weight, len(rows)), options or Options()
        arrays = get_arrays(get_backend(options.backend, rows.device), rows.device)
        with arrays.active():
            sums = Statistics.zeros(self.mfa, arrays) if arrays.is_device else self

            def work(evaluator: Evaluator, block: Array, first: int) -> None:
                part = slice(first, first + len(block))
                sums.add_block(
                    evaluator(block, first, rows.name), evaluator, None if weights is None else weights[part]
                )

            in_order(rows, self.mfa.factors, options, work, pruner=pruner)
            if sums is not self:
                self += sums.to_host()
        return self

    def add_block(self, scores: Scores, evaluator: Evaluator, sample_weight: Array | None = None) -> None:
        """Add a block that was scored under `mfa`; `sample_weight` is on the host. A device that is out of memory
        raises before anything is added.
        """
        arrays = evaluator.arrays
        share, log_total = _pair_responsibilities(scores, evaluator)
        kept = share >= DROPPED / len(self.weight)
        if sample_weight is not None:
            share = share * arrays.asarray(sample_weight)[scores.rows]
            kept &= share > 0
        pairs = WeightedPairs(scores.rows, scores.components, share, scores.whitened_latent)
        chosen = evaluator.xp.flatnonzero(kept)
        if len(chosen) < len(kept):
            pairs = WeightedPairs._make(part[chosen] for part in pairs)
        log_total = arrays.to_host(log_total)
        worst = self.worst.of_block(scores, log_total, sample_weight, arrays)
        self._add_pairs(scores.X, pairs, evaluator)
        self.worst.merge(worst)
        self.n_rows += len(scores.X)
        self.n_pairs += len(scores.rows)
        if sample_weight is None:
            self.log_likelihood += float(log_total.sum())
            self.total_weight += len(log_total)
        else:
            present = sample_weight > 0  # 0 · -inf would be NaN
            self.log_likelihood += float(sample_weight[present] @ log_total[present])
            self.total_weight += float(sample_weight.sum())

    def _add_pairs(self, X: Array, pairs: WeightedPairs, evaluator: Evaluator) -> None:
        """Add pairs that are weighted by their responsibilities, with their whitened latents y [l]."""
        (k, l, _), xp, factors = self.sum_xz.shape, evaluator.xp, evaluator.factors
        z = _latents(pairs.latents, pairs.components, factors.latent_map, evaluator)
        # The sums over samples (z, 1) about the mean 0 are Σ R z and Σ R, and Σ R z zᵀ.
        points = xp.concatenate([z, xp.ones((len(z), 1))], axis=1)
        own = tuple(self.arrays.xp.zeros(shape) for shape in ((k, l + 1), (k, l, l + 1), (k, l + 1)))
        add, threads = evaluator.ops.accumulate_statistics, evaluator.threads
        with evaluator.arrays.sums_into((self.sum_x, self.sum_xz, self.sum_xx, *own)) as sums:
            add(X, pairs._replace(latents=z), factors.means, Sums(*sums[:3]), threads)
            each_once = pairs._replace(rows=xp.arange(len(z)), latents=z)
            add(points, each_once, xp.zeros((k, l + 1)), Sums(*sums[3:]), threads)
        self.weight += own[0][:, l]
        self.sum_z += own[0][:, :l]
        self.sum_zz += own[1][:, :, :l]

    def __iadd__(self, other: Self) -> Self:
        if other.mfa is not self.mfa and not _same(self.mfa, other.mfa):
            raise ValueError("statistics of different mixtures do not add up; take both under the same mfa")
        return super().__iadd__(other)


def _latents(latent: Array, components: Array, latent_map: Array, evaluator: Evaluator) -> Array:
    """z = Z y [m, l] of pairs that are sorted by component: on a device one product for all, else one a component."""
    xp = evaluator.xp
    if evaluator.arrays.is_device:
        return xp.matmul(latent_map[components], latent[:, :, None])[:, :, 0]
    z = np.empty_like(latent)
    edges = np.searchsorted(components, np.arange(len(latent_map) + 1))
    for j in np.flatnonzero(np.diff(edges)):
        part = slice(edges[j], edges[j + 1])
        np.matmul(latent[part], latent_map[j].T, out=z[part])
    return z


def _pair_responsibilities(scores: Scores, evaluator: Evaluator) -> tuple[Array, Array]:
    """p(component | x) [m] of the pairs that were refined, and log p(x) [n].

    What was not refined is 40 nats below a row's best: summing over pairs instead of all n k entries is exact to
    rounding, and cheap where each row has few candidates.
    """
    if evaluator.certain(scores):
        log_total, share = evaluator.totals(scores)
        return share, log_total
    xp, relative = evaluator.xp, evaluator.relative(scores)
    log_total, share = xp.empty(len(relative)), xp.empty(relative.shape)
    evaluator.ops.log_sum_exp(scores.log_prob, log_total, evaluator.threads)
    evaluator.ops.softmax(relative, share, evaluator.threads)
    # A sample of log p = -inf, whose squares no float holds, would leave no sum finite: it belongs to none.
    return xp.where(xp.isinf(log_total)[:, None], 0.0, share)[scores.rows, scores.components], log_total


def _same(a: MFA, b: MFA) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in PARAMETERS)
