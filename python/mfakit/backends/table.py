"""The operation table: every kernel that a backend supplies, by name. Signatures and meaning: ``numpy_ops.py``."""

from __future__ import annotations

__all__ = ["TABLE"]

TABLE = (
    # the density: coarse step, candidates, refinement
    "center_rows",
    "mixture_epilogue",
    "refine",
    "log_sum_exp",
    "softmax",
    # its gradient
    "accumulate_gradient",
    # distances between samples and subspaces, and between subspaces
    "point_distances",
    "pair_distances",
    # the gradient attack: a step in d dimensions, and whole walks in factor coordinates
    "attack_step",
    "factor_walk",
    # fitting
    "accumulate_statistics",
)
