"""The nearest point of a prototype's Voronoi cell among the prototypes of another class, with a bound that is a proof.

In the cell of p against s_1, ..., s_m every x + δ has a_i·δ ≥ β_i for a_i = p - s_i, 2β_i = ‖p - x‖² - ‖s_i - x‖².
For every λ ≥ 0 then Σ λ_i β_i ≤ Σ λ_i a_i·δ ≤ ‖Σ λ_i a_i‖ ‖δ‖, whatever λ it is. The shortest δ is a problem of least
distance, which is one of nonnegative least squares (Lawson & Hanson 1974, chapter 23); planes join as they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["Cell", "nearest_in_cell"]

Array = NDArray[Any]

EPS = float(np.finfo(np.float64).eps)
# Planes that join in a round, rounds, and by how much of its size a plane may be missed.
JOINING, ROUNDS, MISSED = 4, 200, 1e-12


@dataclass(frozen=True)
class Cell:
    """A sample among prototypes of its own class, all of them about one centre.

    Attributes
    ----------
    x : float64 [d]
    own : float64 [m, d]
    own_squares, squares : float64 [m]
        ‖s_i‖² and ‖s_i - x‖².
    noise : float
        What rounding may change a β by, and a decision of the classifier itself.
    """

    x: Array
    own: Array
    own_squares: Array
    squares: Array
    noise: float


def nearest_in_cell(cell: Cell, p: Array, below: float) -> tuple[float, Array | None, int]:
    """The shortest way of a sample into the cell of a prototype.

    Parameters
    ----------
    cell : Cell
        The sample, and the prototypes of its own class.
    p : float64 [d]
        The other class's prototype, about the centre.
    below : float
        A length that is known already.

    Returns
    -------
    bound : float
        No way into the cell is shorter.
    delta : float64 [d] or None
        The way itself; None once the bound reaches `below`, or if it is not found to rounding.
    solved : int
        Least-squares problems.
    """
    own, noise = cell.own, cell.noise
    beta = 0.5 * (float((p - cell.x) @ (p - cell.x)) - cell.squares)
    length = float(np.sqrt(p @ p))
    apart = np.sqrt(np.maximum(cell.own_squares + length**2 - 2.0 * (own @ p), 0.0))
    sizes = np.maximum(apart, MISSED * (length + np.sqrt(cell.own_squares)) + np.finfo(np.float64).tiny)
    active = np.zeros(0, np.int64)
    delta, bound = np.zeros(len(p)), 0.0
    for solved in range(ROUNDS):
        missed = (beta - noise - (p @ delta - own @ delta)) / sizes
        missed[active] = -np.inf
        new = np.argsort(-missed, kind="stable")[:JOINING]
        new = new[missed[new] > MISSED * float(np.linalg.norm(delta))]
        if not len(new):
            return bound, delta, solved
        active = np.concatenate([active, new])
        rows = (p - own[active]) / sizes[active, None]
        wanted = beta[active] / sizes[active]
        weights, _ = nnls(np.vstack([rows.T, wanted / np.abs(wanted).max()]), np.append(np.zeros(len(p)), 1.0))
        pulled = weights @ rows
        gain, least = float(weights @ wanted), float(np.linalg.norm(pulled))
        # Rounding of β, and of the sum and its parts.
        lost = noise * float(weights @ (1.0 / sizes[active]))
        longer = 64.0 * EPS * float(weights @ ((length + np.sqrt(cell.own_squares[active])) / sizes[active]))
        if not (least > 0.0 and gain > lost):
            return bound, None, solved + 1
        bound = max(bound, (gain - lost) / (least + longer) * (1.0 - 1e-12))
        if bound >= below:
            return bound, None, solved + 1
        delta = pulled * (gain / least**2)  # along the sum, as long as the dual says
        active = active[weights > 0]
    return bound, None, ROUNDS
