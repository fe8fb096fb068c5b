"""Distances between the affine subspaces μ + span A of components, and from samples to them (Theorem 2, Figure 14)."""

from .distances import subspace_distances
from .pairs import ClosestPoints, closest_points
from .points import point_subspace_distances

__all__ = ["ClosestPoints", "closest_points", "point_subspace_distances", "subspace_distances"]
