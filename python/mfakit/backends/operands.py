"""What operations take: a few arrays that belong together, under one name.

Each is a named tuple of plain arrays, NumPy's or CuPy's, so that it costs a fraction of a microsecond, and kernels know
no models: a mixture is what :class:`Mixture` lists, whatever made it. ``csrc/include/mfakit/operands.hpp`` has the same
structs with the same fields in the same order, and then the sizes that are said here under `sizes`. To add an operand,
add it here and there (and its shape to the check in ``csrc/cpu/operands.hpp``).

n samples, k components, d features, l factors, m pairs. Arrays are C-contiguous; those said to be `real` are float32 or
float64, indices are int64, everything else is float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "Coarse", "Coordinates", "Mixture", "Pairs", "Parameters", "Points", "Projected", "Projection", "Subspaces", "Sums",
    "WalkSettings", "WeightedPairs",
]  # fmt: skip

Array = Any  # NumPy's or, on a device, CuPy's


class Pairs(NamedTuple):
    """Pairs of a sample and a component, sorted by component."""

    rows: Array  # [m] indices of samples
    components: Array  # [m] indices of components, ascending

    @property
    def sizes(self) -> tuple[int, ...]:
        """m."""
        return (len(self.rows),)


class WeightedPairs(NamedTuple):
    """The same, each with its weight and l latent coordinates."""

    rows: Array  # [m]
    components: Array  # [m]
    weights: Array  # [m]
    latents: Array  # [m, l]: y = W (x - μ) for gradients, z = Z y for statistics

    @property
    def sizes(self) -> tuple[int, ...]:
        """m, l."""
        return len(self.rows), self.latents.shape[1]


class Mixture(NamedTuple):
    """A mixture as :mod:`mfakit.mixture.factors` factorizes it; its attributes have these names."""

    means: Array  # [k, d] μ
    whitened: Array  # [k, l, d] W
    latent_map: Array  # [k, l, l] Z
    noise: Array  # [k, 1] isotropic, or [k, d] diagonal: D
    precision: Array  # as noise: 1/D
    log_norm: Array  # [k] log weight less half the log-determinant
    inv_noise: Array  # [k] 1/σ² of isotropic noise
    shift: Array  # [k, l] W (μ - c), c the centre of the samples
    mean_norm: Array  # [k] ‖μ - c‖²_{D⁻¹}

    @classmethod
    def of(cls, factors: Any) -> Mixture:
        """The attributes of these names."""
        return cls._make(getattr(factors, name) for name in cls._fields)

    @property
    def sizes(self) -> tuple[int, ...]:
        """k, l, d, and whether noise is diagonal."""
        return *self.whitened.shape, self.noise.shape[1] != 1


class Coarse(NamedTuple):
    """The product of centred samples with all components, and how far it may be off."""

    products: Array  # real [n, k (l + 1)]: (x - c) · P; a device may pad its rows
    quad: Array  # real [n, k]: (x - c)² · D⁻¹ for diagonal noise, else [n, 0]
    sq_norms: Array  # [n] ‖x - c‖²
    slack: float  # the rounding of a value, relative to the terms that cancel in it

    @property
    def sizes(self) -> tuple[int, ...]:
        """n, and the length of a row of products."""
        return len(self.products), self.products.shape[1]


class Projected(NamedTuple):
    """Samples in the coordinates of a projection B [r, d] with orthonormal rows, each in one of G groups of features;
    see docs/pruning.md. Every array is `real`.
    """

    coordinates: Array  # [n, at least r] B (x - c)
    nearest: Array  # [n, G] the least that ‖Π (x - c)‖ can be in a group, Π what B leaves
    farthest: Array  # [n, G] and the most
    errors: Array  # [n, G] how far the coordinates of a group may be off, as a length

    @property
    def sizes(self) -> tuple[int, ...]:
        """n, the length of a row of coordinates, G."""
        return *self.coordinates.shape, self.nearest.shape[1]


class Projection(NamedTuple):
    """A mixture in those coordinates, with the largest noise of each group. Every array is `real`."""

    means: Array  # [k, r] B (μ - c)
    scales: Array  # [k, r] 1/σ of the coordinate's group
    whitened: Array  # [k, l, r] W of the projected component, of coordinates in units of σ
    rest_means: Array  # [k, G] ‖Π (μ - c)‖ in a group
    rest_loadings: Array  # [k, G] ‖Π A‖₂ in a group
    rest_scales: Array  # [k, G] 1/σ of the group
    latent_scale: Array  # [k] 1/√λ, λ the least eigenvalue of the projected capacitance
    stretch: Array  # [k] 1 / (1 + Σ_g (‖Π A‖/σ)² / λ)
    steepness: Array  # [k, G] 1/σ of the group, rounded up
    offsets: Array  # [k, G] how far the component's own lengths in a group may be off
    log_norm: Array  # [k]

    @property
    def sizes(self) -> tuple[int, ...]:
        """k, l, r, G."""
        return *self.whitened.shape, self.rest_means.shape[1]


class Subspaces(NamedTuple):
    """One side of the pairs of affine subspaces whose distances are asked for."""

    shift: Array  # [k, l] Qᵀ μ
    norm: Array  # [k] ‖μ‖²

    @property
    def sizes(self) -> tuple[int, ...]:
        """k, l."""
        return len(self.shift), self.shift.shape[1]


class Sums(NamedTuple):
    """What the M-step adds up for each component, about its old mean: r = x - μ."""

    x: Array  # [k, d] Σ w r
    xz: Array  # [k, l, d] Σ w z rᵀ
    xx: Array  # [k, d] Σ w r²

    @property
    def sizes(self) -> tuple[int, ...]:
        """k, l, d."""
        return (*self.xz.shape,)


class Coordinates(NamedTuple):
    """A classifier in factor coordinates: K components of all classes, C = K (l + 1) columns; see csrc's header."""

    gram: Array  # [C, C] inner products of the columns
    offset: Array  # [C] of them, each column's with its component's m
    variance: Array  # [K] σ²
    gain: Array  # [K, l] 1/σ² - 1/(S² + σ²)
    spread: Array  # [K, l] 1/(S² + σ²)
    log_const: Array  # [K] log prior + log weight less half the log-determinant
    first: Array  # [classes + 1] where each class's components begin

    @property
    def sizes(self) -> tuple[int, ...]:
        """K, l and the number of classes."""
        return *self.gain.shape, len(self.first) - 1


class WalkSettings(NamedTuple):
    """How the gradient attack walks."""

    step_size: float
    max_steps: int
    frozen: bool  # keep the source and target of the start
    bisections: int  # of the last step, 0 for none

    @property
    def sizes(self) -> tuple[int, ...]:
        """None."""
        return ()


class Points(NamedTuple):
    """n points of a walk, v = α v₀ + w · columns, where v = x - c."""

    a: Array  # [n, C] inner products of v with the columns
    w: Array  # [n, C]
    alpha: Array  # [n]
    sq: Array  # [n] ‖v‖²

    @property
    def sizes(self) -> tuple[int, ...]:
        """n."""
        return (len(self.sq),)


class Parameters(NamedTuple):
    """What samples are made of."""

    means: Array  # [k, d] μ
    loadings: Array  # [k, d, l] A
    noise: Array  # [k, 1] or [k, d]: D

    @property
    def sizes(self) -> tuple[int, ...]:
        """k, d, l, and whether noise is diagonal."""
        return *self.loadings.shape, self.noise.shape[1] != 1
