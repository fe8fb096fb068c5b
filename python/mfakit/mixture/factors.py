"""factorize(): the per-component algebra, done once in float64, in the layout that the kernels read.

With the thin SVD  D^-1/2 A = U S Vᵀ  the capacitance is M = I + Aᵀ D⁻¹ A = V (I + S²) Vᵀ, and with

    W = S (I + S²)^-1/2 Uᵀ D^-1/2      [l, d]   whitened loadings
    Z = V (I + S²)^-1/2                [l, l]   from y = W (x - μ) to the posterior mean E[z | x] = Z y, and M⁻¹ = Z Zᵀ

    log N(x) = -½ (d log 2π + log det M + Σ log D) - ½ (‖x - μ‖²_{D⁻¹} - ‖W (x - μ)‖²).

The SVD rather than a Cholesky factor of M, because dependent or vanishing loadings as σ → 0 leave M with a condition
number of 1/σ² and W with one of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._lazy import lazy
from .._threads.process import errstate, keeps_errstate, product_threads, single_threaded_products
from .._threads.room import require_room
from ..backends.operands import Mixture
from .far import Gaussian

__all__ = [
    "Factors",
    "Share",
    "Work",
    "alone",
    "component_parts",
    "factorize",
    "loadings_overflow",
    "orthonormal_bases",
    "subspace_factors",
    "symmetric_eigh",
    "thin_svd",
    "whiten",
]

Array = NDArray[Any]
# Of a thread's number and its range of parts; and what deals parts out, as mfakit._threads.rows.Crew.share does.
Work = Callable[[int, int, int], None]
Share = Callable[[int, Work], None]

# Float64 values of the loadings of the components that are factorized together.
PART_VALUES = 2**19


@dataclass(frozen=True, eq=False)
class Factors:
    """What is computed of a mixture once; everything float64. Kernels get its `mixture`.

    Attributes
    ----------
    center : [d]
        The mixture's mean; samples are centred by it before the product, so that less cancels.
    means : [k, d]
    whitened : [k, l, d]
        W, see the module's docstring.
    latent_map : [k, l, l]
        Z.
    noise : [k, 1] or [k, d]
        Noise variances D; one column when isotropic.
    log_norm : [k]
        log weight - ½ (d log 2π + log det(A Aᵀ + D)), nats.
    """

    center: Array
    means: Array
    whitened: Array
    latent_map: Array
    noise: Array
    log_norm: Array
    _panels: dict[Any, Any] = field(default_factory=dict, repr=False)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make()`` gives, computed once and kept with the factors."""
        value = self._panels.get(key)
        if value is None:  # two threads may both get here; they store equal values
            value = self._panels[key] = make()
        return value

    @property
    def shape(self) -> tuple[int, int, int]:
        """(k, l, d)."""
        k, l, d = self.whitened.shape
        return k, l, d

    @property
    def is_isotropic(self) -> bool:
        """Whether a component's noise is one variance for all features."""
        return bool(self.noise.shape[1] == 1)

    @property
    def n_columns(self) -> int:
        """Columns of the block product: k (l + 1), and k more for diagonal noise."""
        k, l, _ = self.shape
        return k * (l + 1 if self.is_isotropic else l + 2)

    def component(self, j: int) -> Gaussian:
        """What tells component `j` from another one."""
        return Gaussian(self.means[j], self.whitened[j], self.noise[j])

    @lazy
    def mixture(self) -> Mixture:
        """What the kernels read, and nobody may write to."""
        mixture = Mixture._make(array.view() for array in Mixture.of(self))
        for array in mixture:
            array.flags.writeable = False
        return mixture

    @lazy
    def precision(self) -> Array:
        """1/D, as noise."""
        return 1.0 / self.noise

    @lazy
    def inv_noise(self) -> Array:
        """[k], 1/σ² of each component; for diagonal noise the largest 1/D_j."""
        return np.ascontiguousarray(self.precision.max(axis=1))

    @lazy
    def centered_means(self) -> Array:
        """[k, d], μ - center."""
        return self.means - self.center

    @lazy
    def shift(self) -> Array:
        """[k, l], W (μ - center)."""
        return np.ascontiguousarray(np.matmul(self.whitened, self.centered_means[:, :, None])[:, :, 0])

    @lazy
    def mean_norm(self) -> Array:
        """[k], ‖μ - center‖²_{D⁻¹}."""
        return np.ascontiguousarray((self.centered_means**2 / self.noise).sum(axis=1))

    def panel(self, dtype: Any) -> Array:
        """P [d, k (l + 1)]: for each component its l rows of W and D⁻¹ (μ - center), as columns."""
        return self._cached("panel", dtype, self._make_panel)

    def thin_panel(self, dtype: Any) -> Array:
        """D⁻¹ᵀ [d, k], for the second product that diagonal noise needs."""
        return self._cached("thin", dtype, lambda: (1.0 / self.noise).T)

    def prepare(self, dtype: Any) -> None:
        """Make what a product in `dtype` reads, so that threads which share the factors find it made."""
        self.panel(dtype)
        self.largest_safe_norm(dtype)
        if not self.is_isotropic:
            self.thin_panel(dtype)

    def largest_safe_norm(self, dtype: Any) -> float:
        """The largest ‖x - center‖ whose products with the panels cannot overflow `dtype`; 0 if a panel does by
        itself.
        """
        if np.dtype(dtype) == np.float64:
            return np.inf
        return self._safe_float32_norm

    @lazy
    def _safe_float32_norm(self) -> float:
        longest = 0.0
        with errstate(over="ignore", under="ignore", invalid="ignore"):
            for p in component_parts(len(self.means), self.means.shape[1]):
                rows, means = self.whitened[p], self.centered_means[p] / self.noise[p]
                squares = np.einsum("kld,kld->kl", rows, rows), np.einsum("kd,kd->k", means, means)
                longest = max(longest, *(float(one.max(initial=0.0)) for one in squares))
        return self._safe_norm(longest**0.5, float(self.noise.min()), float(self.noise.max()))

    def _safe_norm(self, column: float, low: float, high: float) -> float:
        """That norm, for panels with columns at most this long and noise variances between `low` and `high`."""
        limit = float(np.finfo(np.float32).max) / 16
        bound = limit / max(column, 1.0) if column < limit else 0.0
        if self.is_isotropic:
            return bound
        # (X∘X) D⁻¹ squares what it is given: outside this range of D its entries leave float32 before they meet.
        return min(bound, (limit * min(low, 1.0)) ** 0.5) if low > 1e-12 and high < 1e12 else 0.0

    def _make_panel(self) -> Array:
        k, l, d = self.shape
        rows = np.empty((k, l + 1, d))
        rows[:, :l] = self.whitened
        rows[:, l] = self.centered_means / self.noise
        return rows.reshape(k * (l + 1), d).T

    def _cached(self, kind: str, dtype: Any, make: Any) -> Array:
        def panel() -> Array:
            with errstate(over="ignore", under="ignore"):
                return np.ascontiguousarray(make(), dtype=dtype)

        return np.asarray(self.kept((kind, np.dtype(dtype)), panel))


def alone(count: int, work: Work) -> None:
    """All parts, in this thread."""
    work(0, 0, count)


@keeps_errstate
def factorize(weights: Array, means: Array, loadings: Array, noise_variance: Array, share: Share = alone) -> Factors:
    """Factors of a mixture from its parameters ``weights`` [k], ``means`` [k, d], ``loadings`` [k, d, l],
    ``noise_variance`` [k] or [k, d]; ``share`` may deal parts of the components out to threads.

    A component without weight is a point at the centre with the noise of a live one: whatever its parameters are, no
    number that is computed for it can leave float64, or widen a bound.

    Raises
    ------
    ValueError
        When a component's covariance cannot be factorized in float64: it is named, with what to change.
    """
    weights = np.asarray(weights, np.float64)
    k, d, l = loadings.shape
    noise = np.ascontiguousarray(np.asarray(noise_variance, np.float64).reshape(k, -1))
    means = np.ascontiguousarray(means, np.float64)
    live = weights > 0
    whitened, latent_map, log_det = np.empty((k, l, d)), np.empty((k, l, l)), np.empty(k)
    parts = component_parts(k, d * l)  # the SVD of all at once would hold another copy of the loadings

    def work(_: int, first: int, last: int) -> None:
        for p in parts[first:last]:
            whitened[p], latent_map[p], log_det[p] = whiten(loadings[p], noise[p], live[p], p.start)

    share(len(parts), work)
    with errstate(divide="ignore"):
        log_norm = np.log(weights) - 0.5 * (d * np.log(2 * np.pi) + log_det)
    center = weights[live] @ means[live]
    if not live.all():
        means, noise = (np.where(live[:, None], a, b) for a, b in ((means, center), (noise, noise[weights.argmax()])))
    return Factors(center, means, whitened, latent_map, noise, log_norm)


def component_parts(k: int, values: int, together: int = PART_VALUES) -> list[slice]:
    """The components, some at a time, that have `values` numbers each and at most `together` in all: their float64
    copies take a few megabytes.
    """
    step = max(1, together // max(values, 1))
    return [slice(start, min(start + step, k)) for start in range(0, k, step)]


@keeps_errstate
def whiten(loadings: Array, noise: Array, live: Array, first: int) -> tuple[Array, Array, Array]:
    """W [c, l, d], Z [c, l, l] and log det(A Aᵀ + D) [c] of some components, the first of which has the number `first`:
    loadings [c, d, l], noise [c, 1] or [c, d], live [c].
    """
    c, d, l = loadings.shape
    root = np.sqrt(noise)
    with errstate(over="ignore"):
        scaled = np.asarray(loadings, np.float64) / root[:, :, None]
    scaled[~live] = 0.0
    bad = np.flatnonzero(~np.isfinite(scaled).all(axis=(1, 2)))
    if len(bad):
        raise loadings_overflow(int(first + bad[0]), float(noise[bad[0]].min()))
    U, S, Vt = thin_svd(scaled)
    # d < l leaves fewer singular vectors than factors: the rest of W stays zero.
    gain, whitened = 1.0 / np.hypot(1.0, S), np.zeros((c, l, d))
    np.divide((S * gain)[:, :, None] * np.swapaxes(U, 1, 2), root[:, None, :], out=whitened[:, : S.shape[1]])
    log_det = -2.0 * np.log(gain).sum(axis=1) + np.log(noise).sum(axis=1) * (d if noise.shape[1] == 1 else 1)
    return whitened, _latent_map(Vt, gain, l), log_det


def loadings_overflow(j: int, noise: float) -> ValueError:
    """What is said of a component `j` whose least noise variance is too small for its loadings."""
    return ValueError(
        f"component {j}: loadings / sqrt(noise_variance) overflows float64; raise noise_variance above {noise:.3g} or "
        f"rescale the data"
    )


@keeps_errstate
def thin_svd(A: Array) -> tuple[Array, Array, Array]:
    """U [..., d, r], S [..., r] and Vᵀ [..., r, l] of A [..., d, l], r = min(d, l). In one thread: a tall matrix is no
    faster in several, and where others compute beside us it takes many times longer.
    """
    with single_threaded_products():
        U, S, Vt = np.linalg.svd(A, full_matrices=False)
    return U, S, Vt


@cache
def _eigh() -> Callable[..., Any]:
    """SciPy's solver, with SciPy's BLAS among those that can be held at one thread."""
    from scipy.linalg import blas, eigh

    require_room(1)
    blas.dgemm(1.0, np.eye(2), np.eye(2))  # it has its memory from here on
    product_threads()
    solver: Callable[..., Any] = eigh
    return solver


def symmetric_eigh(S: Array, first: int, last: int) -> tuple[Array, Array]:
    """Eigenvalues [q], ascending, and eigenvectors [m, q] of a symmetric S [m, m], those with numbers first .. last.

    In one thread: several gain little, and lose a factor of ten and more where another process has one of the cores,
    because they wait for each other at every column.
    """
    eigh = _eigh()
    with single_threaded_products():
        values, vectors = eigh(S, subset_by_index=(first, last))
    return values, vectors


@keeps_errstate
def _latent_map(Vt: Array, gain: Array, l: int) -> Array:
    """Z = V (I + S²)^-1/2 [c, l, l] from Vᵀ [c, r, l]; directions that A does not reach (only when d < l) get the
    prior's unit scale.
    """
    rank = gain.shape[1]
    scaled = np.swapaxes(Vt, 1, 2) * gain[:, None, :]
    if rank == l:
        return scaled
    rest = np.linalg.svd(Vt, full_matrices=True)[2][:, rank:]
    return np.concatenate([scaled, np.swapaxes(rest, 1, 2)], axis=2)


def orthonormal_bases(loadings: Array) -> Array:
    """Orthonormal bases Qᵀ [k, l, d] of the columns of A [k, d, l], rank revealing: a zero or dependent column leaves
    a zero row.

    Columns are brought to one length first, which changes nothing of what they span: how long a column is says nothing
    of whether it depends on the others. What is left counts if it is more than rounding.
    """
    k, d, l = loadings.shape
    bases = np.zeros((k, l, d))
    for j in range(k):
        if l:
            A = np.asarray(loadings[j], np.float64)
            A = A / np.maximum(np.abs(A).max(axis=0), np.finfo(np.float64).tiny)  # their squares may be beyond float64
            U, S, _ = thin_svd(A / np.maximum(np.linalg.norm(A, axis=0), np.finfo(np.float64).tiny))
            rank = int((max(d, l) * np.finfo(np.float64).eps * S[0] < S).sum())
            bases[j, :rank] = U.T[:rank]
    return bases


def subspace_factors(means: Array, loadings: Array) -> Factors:
    """Factors with D = I, W = Qᵀ, Z = 0 and log_norm = 0: their "log-density" is -½ dist²(x, subspace), so that samples
    meet subspaces through the same kernels as they meet densities.
    """
    k, _, l = loadings.shape
    means = np.ascontiguousarray(means, np.float64)
    return Factors(
        means.mean(axis=0), means, orthonormal_bases(loadings), np.zeros((k, l, l)), np.ones((k, 1)), np.zeros(k)
    )
