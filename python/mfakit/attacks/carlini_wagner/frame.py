"""The variables of Carlini and Wagner's search: displacements of the samples, each in its own unit of length.

A displacement is never computed as a difference of two points: far from 0, or in a narrow range, that difference would
be rounding alone. A displacement in units is of ordinary size whatever the data's unit, range and offset are, and only
the point that the model evaluates is rounded to the model's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Aim, Network

__all__ = ["STEPS_IN_UNIT", "Frame", "first_lengths"]

# Without bounds the unit is this many steps of Adam. It is 1 for the paper's learning rate.
STEPS_IN_UNIT = 100.0
# A step of the learning rate "auto": this share of the ℓ∞ distance to the boundary, so that Adam, whose first steps
# change every feature equally, needs twenty of them for a linear model.
STEP_SHARE = 0.05
# Lengths along the gradient that are tried in search of the boundary: powers of two of the linear model's distance.
SHORTEST, LONGEST = -16, 8


class Frame:
    """m samples, and points at displacements p [m, d] of them.

    Parameters
    ----------
    network : Network
    origin : Tensor, [m, d]
        The samples, in ``network.work``.
    unit : Tensor, [m, 1]
        The length, in data units, that a displacement of 1 has.
    bounds : (low, high) or None
        In data units.
    """

    def __init__(self, network: Network, origin: Tensor, unit: Tensor, bounds: tuple[float, float] | None) -> None:
        self.network, self.origin, self.unit, self.bounds = network, origin, unit, bounds

    def take(self, rows: Tensor) -> Frame:
        """The frame of some samples."""
        return Frame(self.network, self.origin[rows], self.unit[rows], self.bounds)

    def at(self, p: Tensor) -> Tensor:
        """The points x + unit · p within the bounds, [m, d], as the network takes them."""
        x = torch.addcmul(self.origin, p, self.unit)
        if self.bounds is not None:
            x.clamp_(*self.bounds)
        return x.to(self.network.dtype)

    def room(self) -> tuple[Tensor, Tensor] | None:
        """The displacements [m, d] of the lower and of the upper bounds, or None."""
        if self.bounds is None:
            return None
        x, unit = self.origin.double(), self.unit.double()
        low, high = (((bound - x) / unit).to(self.origin.dtype) for bound in self.bounds)
        return low.clamp_max_(0.0), high.clamp_min_(0.0)

    def position(self) -> Tensor:
        """The positions of the samples between the bounds, [m, d], from -1 to 1."""
        low, high = self.bounds or (-1.0, 1.0)
        middle, half = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
        # In float64: in the data's dtype the difference may round to more than half the box.
        return ((self.origin.double() - middle) / half).clamp_(-1.0, 1.0).to(self.origin.dtype)


def first_lengths(network: Network, x: Tensor, aim: Aim, missing: Tensor, gradient: Tensor, hinge: float) -> Tensor:
    """A unit of length [m, 1] for each sample x [m, d], from the model around this sample alone: `STEPS_IN_UNIT` steps
    of `STEP_SHARE` of the ℓ∞ distance to the boundary.

    The boundary is searched for along the gradient, because a linear model's distance, missing / ‖gradient‖, is too
    large by orders of magnitude where the margin saturates. `missing` [m] and `gradient` [m, d] are those at x; `hinge`
    is the confidence wanted.
    """
    norm = gradient.double().norm(dim=1)
    spacing = torch.finfo(network.dtype).eps * (x.double().norm(dim=1) + aim.size.double() / norm)
    linear = torch.maximum(missing.double() / norm, spacing)
    linear = torch.where(torch.isfinite(linear) & (linear > 0), linear, 1.0)
    direction = torch.where(norm > 0, -1.0 / norm, 0.0)[:, None] * gradient.double()
    length, found = linear.clone(), torch.zeros_like(linear, dtype=torch.bool)
    for power in range(SHORTEST, LONGEST + 1):
        there = x + (linear * 2.0**power)[:, None] * direction
        with torch.no_grad():
            beyond = (aim.margins(network(there.to(network.dtype)))[0] + hinge < 0) & ~found
        length = torch.where(beyond, linear * 2.0**power, length)
        found |= beyond
        if bool(found.all()):
            break
    largest = length * norm / gradient.double().abs().sum(dim=1)
    unit = (STEPS_IN_UNIT * STEP_SHARE) * torch.where(torch.isfinite(largest), largest, length)
    info = torch.finfo(network.work)
    return unit.clamp(info.tiny, 1e-3 * info.max)[:, None].to(network.work)
