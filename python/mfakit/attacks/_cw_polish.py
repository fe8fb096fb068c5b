"""What follows the search: from a point that fools a model to a nearer one, since Adam stops within its step of the
boundary; then the caller's dtype, and the last word.

In turn: cut the ray from the sample to its point where it crosses the boundary; put the boundary's tangent plane there,
and aim at the plane's point nearest to the sample. For a linear model that is the answer after one turn. A turn is kept
where it shortened the way, else a shorter step towards the same aim is tried.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._cw_network import Aim, Network
from .verify import least_length

__all__ = ["polish", "settle"]

Array = NDArray[Any]

TURNS, CUTS = 20, 9
# A sample is done when a full turn shortens its way by less than this share, or when no step of this size helps.
ENOUGH, SMALLEST = 1e-6, 2e-3
# Rounds in which features come to be held by a bound.
HOLDS = 8


def polish(
    network: Network, x: Tensor, points: Tensor, aim: Aim, confidence: float, bounds: tuple[float, float] | None
) -> Tensor:
    """Points [m, d] that meet the aim and are no farther from x [m, d] than `points` are, which meet it."""
    start = network.sure_margin(x, aim)[0] + confidence
    here, _ = _cut(network, x, points, start, aim, confidence)
    best = here.clone()
    rows, size = torch.arange(len(x), device=x.device), torch.ones(len(x), dtype=x.dtype, device=x.device)
    for _ in range(TURNS):
        if not len(rows):
            break
        origin, target = x[rows], aim.take(rows)
        length = (best[rows] - origin).norm(dim=1)
        towards = _towards(network, origin, best[rows], target, confidence, bounds)
        way = best[rows] - origin + size[:, None] * (towards - best[rows])
        new = origin + way * (length / way.norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny))[:, None]
        if bounds is not None:
            new = new.clamp(*bounds)
        new, met = _cut(network, origin, new, start[rows], target, confidence)
        gain = 1.0 - (new - origin).norm(dim=1) / length
        better = met & (gain > 0)
        best[rows[better]] = new[better]
        done = ((better & (gain < ENOUGH)) & (size == 1.0)) | (~better & (size < SMALLEST)) | ~gain.isfinite()
        size = torch.where(better, (2.0 * size).clamp_max(1.0), 0.25 * size)[~done]
        rows = rows[~done]
    return best


def _towards(
    network: Network, x: Tensor, here: Tensor, aim: Aim, confidence: float, bounds: tuple[float, float] | None
) -> Tensor:
    """The point [m, d] within the bounds nearest to x on the tangent plane of the boundary at `here`: a multiple of the
    gradient, but for the features that it takes to a bound, which stay there while the others do more.
    """
    margin, g = network.descend(here, aim, torch.ones(len(x), dtype=x.dtype, device=x.device), None)
    # Gradients of log-likelihoods reach 1e5: their squares must not leave float32's range further along.
    norm = g.norm(dim=1, keepdim=True)
    g = torch.where(norm > 0, g / norm, 0.0)
    level = (g * (here - x)).sum(dim=1) - (margin + confidence) / norm[:, 0]
    scale = level / g.square().sum(dim=1)
    step = scale[:, None] * g
    if bounds is None:
        return torch.add(x, step)
    low, high = bounds[0] - x, bounds[1] - x
    for _ in range(HOLDS):
        held = (step <= low) | (step >= high)
        step = step.clamp(low, high)
        rest = level - torch.where(held, g * step, 0.0).sum(dim=1)
        scale = rest / torch.where(held, 0.0, g).square().sum(dim=1)
        step = torch.where(held, step, scale[:, None] * g)
    return torch.add(x, step.clamp(low, high))


def _cut(network: Network, x: Tensor, far: Tensor, start: Tensor, aim: Aim, confidence: float) -> tuple[Tensor, Tensor]:
    """The first point found on the way from x to `far` [m, d] that meets the aim, and whether `far` itself does [m].

    By false position with every third cut in the middle; `start` [m] are the margins at x. Where `far` does not meet
    the aim it comes back.
    """
    value = network.sure_margin(far, aim)[0] + confidence
    met = value < 0
    low, high = torch.zeros_like(start, dtype=x.dtype), torch.ones_like(start, dtype=x.dtype)
    above, below = start.to(x.dtype), value.to(x.dtype)
    rows = torch.nonzero(met)[:, 0]
    for k in range(CUTS if len(rows) else 0):
        a, b, fa, fb = low[rows], high[rows], above[rows], below[rows]
        share = torch.where(torch.isfinite(fa / (fa - fb)) & (k % 3 != 2), fa / (fa - fb), 0.5).clamp(0.0, 1.0)
        # A little beyond the crossing that a straight line predicts: a cut that just misses it gains nothing.
        t = a + (b - a) * (share + (1e-3 * (1.0 - share)))
        there = x[rows] + t[:, None] * (far[rows] - x[rows])
        value = (network.sure_margin(there, aim.take(rows))[0] + confidence).to(t)
        inside = value < 0
        high[rows], below[rows] = torch.where(inside, t, b), torch.where(inside, value, fb)
        low[rows], above[rows] = torch.where(inside, a, t), torch.where(inside, fa, value)
    return torch.where(met[:, None], x + high[:, None] * (far - x), far), met


def settle(
    network: Network, X: Array, here: Array, aim: Aim, bounds: tuple[float, float] | None
) -> tuple[Array, Array, Array]:
    """The points to return in X's dtype [m, d], whether they are verified [m], and the decisions there [m].

    `here` [m, d] float64 is rounded, scored again, and where it does not meet the aim any more pushed on by growing
    hairs along the margin's gradient; X where that does not help either.
    """
    points, sure, decisions = X.copy(), np.zeros(len(X), bool), np.zeros(len(X), np.int64)
    rows, push, onward = np.arange(len(X)), 0.0, np.zeros_like(here)
    while len(rows) and push < 0.1:
        there = here[rows] + push * onward[rows]
        rounded = (there if bounds is None else np.clip(there, *bounds)).astype(X.dtype)
        left = torch.as_tensor(rows, device=network.device)
        margin, decision = network.proven_margin(network.tensor(rounded), aim.take(left))
        met = (margin < 0).cpu().numpy()
        points[rows[met]], sure[rows[met]] = rounded[met], True
        decisions[rows[met]] = decision.cpu().numpy()[met]
        rows = rows[~met]
        if push == 0.0 and len(rows):
            onward[rows] = _onward(network, here[rows], X[rows], aim.take(left[~torch.as_tensor(met)]))
        push = max(2 * push, float(np.finfo(X.dtype).eps))
    return points, sure, decisions


def _onward(network: Network, here: Array, X: Array, aim: Aim) -> Array:
    """Steps [m, d] down the margin, as long as the way so far or as what X's dtype resolves; along the way itself where
    the margin has no gradient.
    """
    way = here - X
    length = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), least_length(X))
    x = network.tensor(here)
    _, gradient = network.descend(x, aim, torch.ones(len(x), dtype=x.dtype, device=x.device), None)
    down = -gradient.double().cpu().numpy()
    norm = np.linalg.norm(down, axis=1, keepdims=True)
    sound = (norm > 0) & np.isfinite(norm)
    unit = np.divide(down, norm, out=np.zeros_like(down), where=sound)
    return np.asarray(np.where(sound, unit * length, way))
