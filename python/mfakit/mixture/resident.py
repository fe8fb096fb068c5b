"""A mixture that was made on a device and stays there, as EM's are between one step and the next.

It is factorized there, too. Gram-Schmidt, twice, makes (D^-1/2 A)ᵀ = Rᵀ Q with orthonormal rows of Q. Only the
triangles R [k, l, l] come to the host, and their SVD R = u S Vᵀ gives what :mod:`mfakit.mixture.factors` takes from
that of D^-1/2 A = (Qᵀ u) S Vᵀ. A Cholesky factor of the products Aᵀ D⁻¹ A would square the condition number of loadings
that depend on each other or vanish; here such a loading leaves a row of zeros in Q and changes no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._lazy import lazy
from .._threads.process import errstate
from ..backends.cuda_arrays import Cuda, DeviceFactors
from .factors import Factors, component_parts, loadings_overflow, thin_svd
from .mfa import MFA

__all__ = ["ResidentMFA", "orthogonalize"]

Array = Any  # NumPy's or, on a device, CuPy's

# Values of the components that are factorized together: large enough for any device, small beside its memory.
PART_VALUES = 2**25
# Of a column orthogonalized once, what must be left after the second time: else the first left nothing but rounding.
LEFT = 0.5
# Columns of what is read of each component besides its R.
READ = ("finite", "noise", "log_noise", "most_precise", "mean_norm", "panel_norm", "least_noise", "most_noise")


class ResidentMFA(MFA):
    """A mixture with its parameters on a device; means, loadings and diagonal noise are copied to the host when they
    are first read there.

    Parameters
    ----------
    weights : [k]
        On the host.
    means : [k, d]
    rows : [k, l, d]
        The loadings, float64 as all the others; a component's columns are rows here.
    noise : [k, 1] or [k, d]
    arrays : Cuda
        The device that all but `weights` are on, which must be the current one.

    Raises
    ------
    ValueError
        When a component's covariance cannot be factorized in float64, as `factorize` does.
    """

    arrays: Cuda
    there: tuple[Array, Array, Array]  # means, rows and noise
    _sizes: tuple[int, int, int]  # k, d, l

    def __init__(self, weights: Array, means: Array, rows: Array, noise: Array, arrays: Cuda) -> None:
        k, l, d = rows.shape
        self.__dict__.update(weights=weights, there=(means, rows, noise), arrays=arrays, _sizes=(k, d, l))
        self.__dict__["factors"] = ResidentFactors(weights, means, rows, noise, arrays)

    @classmethod
    def of(cls, mfa: MFA, arrays: Cuda) -> ResidentMFA:
        """The mixture on a device."""
        means, rows, noise = (
            arrays.asarray(np.ascontiguousarray(array, np.float64))
            for array in (mfa.means, np.swapaxes(mfa.loadings, 1, 2), mfa.noise_variance.reshape(mfa.n_components, -1))
        )
        there = cls(mfa.weights, means, rows, noise, arrays)
        there.__dict__["_origin"] = mfa
        return there

    def plain(self) -> MFA:
        """The mixture on the host: the one that it was made of, if any."""
        origin: MFA | None = self.__dict__.get("_origin")
        return origin or MFA(self.weights, self.means, self.loadings, self.noise_variance)

    @property
    def n_components(self) -> int:
        """k."""
        return int(self._sizes[0])

    @property
    def n_features(self) -> int:
        """d."""
        return int(self._sizes[1])

    @property
    def n_factors(self) -> int:
        """l."""
        return int(self._sizes[2])

    @property
    def is_isotropic(self) -> bool:
        """Whether the noise is one variance per component rather than one per feature."""
        return bool(self.there[2].shape[1] == 1)

    @lazy
    def means(self) -> Array:
        """μ [k, d], on the host."""
        return self._read(self.there[0])

    @lazy
    def loadings(self) -> Array:
        """A [k, d, l], on the host."""
        return np.swapaxes(self._read(self.there[1]), 1, 2)

    @lazy
    def noise_variance(self) -> Array:
        """σ² [k] or D [k, d], on the host."""
        noise = self._read(self.there[2])
        return noise[:, 0] if self.is_isotropic else noise

    def _read(self, array: Array) -> Array:
        with self.arrays.active():
            return self.arrays.to_host(array)


class ResidentFactors(Factors):
    """Factors made on a device: what has a number or a small matrix for each component is on both sides, and the rest
    is copied to the host when it is first read there.
    """

    arrays: Cuda
    _made: dict[Any, Any]
    _sizes: tuple[int, int, int]
    _isotropic: bool

    def __init__(self, weights: Array, means: Array, rows: Array, noise: Array, arrays: Cuda) -> None:
        (k, l, d), xp, put = rows.shape, arrays.xp, arrays.asarray
        live, isotropic = weights > 0, noise.shape[1] == 1
        center = (put(weights)[:, None] * means).sum(axis=0)
        if not live.all():  # points at the centre with the noise of a live component, as `factorize` makes them
            there = put(live)[:, None]
            means, noise = xp.where(there, means, center), xp.where(there, noise, noise[int(weights.argmax())])
        whitened, found, R = xp.empty((k, l, d)), xp.empty((k, len(READ))), xp.empty((k, l, l))
        for p in component_parts(k, max(l, 1) * d, PART_VALUES):
            with errstate(over="ignore", invalid="ignore", divide="ignore"):
                whitened[p] = rows[p] / xp.sqrt(noise[p])[:, None, :]
                if not live[p].all():
                    whitened[p] *= put(live[p].astype(np.float64))[:, None, None]
                found[p, 0] = xp.isfinite(whitened[p]).all(axis=(1, 2))
                R[p] = orthogonalize(whitened[p], xp)
                centered = means[p] - center
                summary = (
                    noise[p, 0], xp.log(noise[p]).sum(axis=1), (1.0 / noise[p]).max(axis=1),
                    (centered**2 / noise[p]).sum(axis=1), ((centered / noise[p]) ** 2).sum(axis=1),
                    noise[p].min(axis=1), noise[p].max(axis=1),
                )  # fmt: skip
                for i, values in enumerate(summary, 1):
                    found[p, i] = values
        read = arrays.to_host(xp.concatenate([found, R.reshape(k, l * l)], axis=1))
        values = dict(zip(READ, read[:, : len(READ)].T, strict=True))
        bad = np.flatnonzero(values["finite"] == 0)
        if len(bad):
            raise loadings_overflow(int(bad[0]), float(values["least_noise"][bad[0]]))
        u, S, Vt = thin_svd(read[:, len(READ) :].reshape(k, l, l))
        gain = 1.0 / np.hypot(1.0, S)
        latent_map = np.ascontiguousarray(np.swapaxes(Vt, 1, 2) * gain[:, None, :])
        log_det = values["log_noise"] * (d if isotropic else 1) - 2.0 * np.log(gain).sum(axis=1)
        with errstate(divide="ignore"):
            log_norm = np.log(weights) - 0.5 * (d * np.log(2 * np.pi) + log_det)
        turn = put(np.ascontiguousarray((S * gain)[:, :, None] * np.swapaxes(u, 1, 2)))
        shift = xp.empty((k, l))
        for p in component_parts(k, max(l, 1) * d, PART_VALUES):
            whitened[p] = xp.matmul(turn[p], whitened[p]) / xp.sqrt(noise[p])[:, None, :]
            shift[p] = (whitened[p] * (means[p] - center)[:, None, :]).sum(axis=2)
        small = {
            "latent_map": latent_map, "log_norm": log_norm, "inv_noise": values["most_precise"].copy(),
            "mean_norm": values["mean_norm"].copy(),
        }  # fmt: skip
        made = {name: put(value) for name, value in small.items()}
        made |= {"center": center, "means": means, "whitened": whitened, "noise": noise, "precision": 1.0 / noise}
        made |= {"shift": shift}
        kept = {("device", arrays.name): DeviceFactors(self, arrays, made)}
        # Rows of W are at most as long as the largest 1/√D.
        column = float(max(values["most_precise"].max(), values["panel_norm"].max())) ** 0.5
        self.__dict__.update(small, arrays=arrays, _made=made, _panels=kept, _sizes=(k, l, d), _isotropic=isotropic)
        self.__dict__["_safe_float32_norm"] = self._safe_norm(
            column, float(values["least_noise"].min()), float(values["most_noise"].max())
        )
        if isotropic:
            self.__dict__["noise"] = values["noise"][:, None].copy()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(k, l, d)."""
        return self._sizes

    @property
    def is_isotropic(self) -> bool:
        """Whether a component's noise is one variance for all features."""
        return bool(self._isotropic)

    @lazy
    def center(self) -> Array:
        """[d], on the host."""
        return self._read("center")

    @lazy
    def means(self) -> Array:
        """[k, d], on the host."""
        return self._read("means")

    @lazy
    def whitened(self) -> Array:
        """W [k, l, d], on the host."""
        return self._read("whitened")

    @lazy
    def noise(self) -> Array:
        """D [k, 1] or [k, d], on the host."""
        return self._read("noise")

    def _read(self, name: str) -> Array:
        with self.arrays.active():
            return self.arrays.to_host(self._made[name])


def orthogonalize(rows: Array, xp: Any) -> Array:
    """R [k, l, l], upper triangular, and in place of `rows` [k, l, d] Q with orthonormal rows, so that rows = Rᵀ Q to
    rounding of each row. A row that depends on those before it leaves a zero row of Q and a zero on the diagonal.
    """
    k, l, _ = rows.shape
    R = xp.zeros((k, l, l))
    if not l:
        return R
    scale = xp.abs(rows).max(axis=2)  # their squares may be beyond float64
    scale = xp.where(scale > 0, scale, 1.0)
    rows /= scale[:, :, None]
    for i in range(l):
        row, before = rows[:, i], rows[:, :i]
        for again in range(2):
            if i:
                along = (before * row[:, None]).sum(axis=2)
                row -= (before * along[:, :, None]).sum(axis=1)
                R[:, :i, i] += along
            length = xp.sqrt((row * row).sum(axis=1))
            if not again:
                first = length
        left = (length > 0) & (length >= LEFT * first)
        row *= xp.where(left, 1.0 / xp.where(left, length, 1.0), 0.0)[:, None]
        R[:, i, i] = xp.where(left, length, 0.0)
    R *= scale[:, None]
    return R
