"""Polish and final verification after the search. Adam stops within its step of the boundary, so that a nearer point
can be found; it is then rounded to the caller's dtype and verified.

A turn cuts the ray from the sample to its point where it crosses the boundary, takes the boundary's tangent plane
there, and moves towards the plane's point nearest to the sample. For a linear model one turn gives the answer. A turn
is kept if it shortened the displacement; otherwise a shorter step towards the same point is tried.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..verify import least_length
from .frame import Frame
from .network import Aim, Network, Proof

__all__ = ["polish", "settle"]

Array = NDArray[Any]

TURNS, CUTS = 20, 9
# A sample is done when a full turn shortens its displacement by less than this share, or no step of this size helps.
ENOUGH, SMALLEST = 1e-6, 2e-3
# Rounds in which features are fixed at a bound.
HOLDS = 8
# A point is pushed outward by at most this share of its displacement, starting at one rounding or, in half precision,
# at the second share.
LONGEST_PUSH, SHORTEST_PUSH = 0.1, 1e-4


def polish(frame: Frame, points: Tensor, aim: Aim, confidence: float) -> Tensor:
    """Displacements [m, d] that meet the aim and are no longer than `points` are, which meet it."""
    network = frame.network
    start: Tensor = network.sure_margin(frame.at(torch.zeros_like(points)), aim) + confidence
    best, _ = _cut(frame, points, start, aim, confidence)
    rows, size = torch.arange(len(points), device=points.device), torch.ones_like(frame.unit[:, 0])
    for _ in range(TURNS):
        if not len(rows):
            break
        there, target = frame.take(rows), aim.take(rows)
        length = best[rows].norm(dim=1)
        towards = _towards(there, best[rows], target, confidence)
        way = best[rows] + size[:, None] * (towards - best[rows])
        new = way * (length / way.norm(dim=1).clamp_min(torch.finfo(way.dtype).tiny))[:, None]
        room = there.room()
        new, met = _cut(there, new if room is None else new.clamp(*room), start[rows], target, confidence)
        gain = 1.0 - new.norm(dim=1) / length
        better = met & (gain > 0)
        best[rows[better]] = new[better]
        done = ((better & (gain < ENOUGH)) & (size == 1.0)) | (~better & (size < SMALLEST)) | ~gain.isfinite()
        size = torch.where(better, (2.0 * size).clamp_max(1.0), 0.25 * size)[~done]
        rows = rows[~done]
    return best


def _towards(frame: Frame, here: Tensor, aim: Aim, confidence: float) -> Tensor:
    """The displacement [m, d] within the bounds that is nearest to the sample on the tangent plane of the boundary at
    `here`: a multiple of the gradient, except in features that reach a bound, which stay there while the others move
    farther.
    """
    margin, g = frame.network.descend(frame.at(here), aim, None)
    # Gradients of log-likelihoods reach 1e5: their squares must not leave float32's range further along.
    norm = g.double().norm(dim=1)
    g = torch.where(norm[:, None] > 0, g / norm[:, None], 0.0).to(here.dtype)
    level = (g * here).sum(dim=1) - ((margin + confidence) / norm / frame.unit[:, 0].double()).to(here.dtype)
    step: Tensor = (level / g.square().sum(dim=1))[:, None] * g
    room = frame.room()
    if room is None:
        return step
    low, high = room
    for _ in range(HOLDS):
        held = (step <= low) | (step >= high)
        step = step.clamp(low, high)
        rest = level - torch.where(held, g * step, 0.0).sum(dim=1)
        scale = rest / torch.where(held, 0.0, g).square().sum(dim=1)
        step = torch.where(held, step, scale[:, None] * g)
    return step.clamp(low, high)


def _cut(frame: Frame, far: Tensor, start: Tensor, aim: Aim, confidence: float) -> tuple[Tensor, Tensor]:
    """The shortest displacement found along `far` [m, d] that meets the aim, and whether `far` itself does [m].

    By false position with every third cut in the middle; `start` [m] are the margins at the samples. Where `far` does
    not meet the aim it is returned.
    """
    network = frame.network
    value = network.sure_margin(frame.at(far), aim) + confidence
    met = value < 0
    low, high = torch.zeros_like(start, dtype=far.dtype), torch.ones_like(start, dtype=far.dtype)
    above, below = start.to(far.dtype), value.to(far.dtype)
    rows = torch.nonzero(met)[:, 0]
    there, target = frame.take(rows), aim.take(rows)
    for k in range(CUTS if len(rows) else 0):
        a, b, fa, fb = low[rows], high[rows], above[rows], below[rows]
        share = torch.where(torch.isfinite(fa / (fa - fb)) & (k % 3 != 2), fa / (fa - fb), 0.5).clamp(0.0, 1.0)
        # A little beyond the crossing that a straight line predicts: a cut that just misses it gains nothing.
        t = a + (b - a) * (share + (1e-3 * (1.0 - share)))
        value = (network.sure_margin(there.at(t[:, None] * far[rows]), target) + confidence).to(t)
        inside = value < 0
        high[rows], below[rows] = torch.where(inside, t, b), torch.where(inside, value, fb)
        low[rows], above[rows] = torch.where(inside, a, t), torch.where(inside, fa, value)
    return torch.where(met[:, None], high[:, None] * far, far), met


def settle(
    frame: Frame, X: Array, displacements: Tensor, aim: Aim, bounds: tuple[float, float] | None
) -> tuple[Array, Array, Array]:
    """The points to return in X's dtype [m, d], whether they are verified [m], and the decisions there [m].

    Displacements [m, d] are added to X, rounded and scored again; points that no longer meet the aim are pushed outward
    along the margin's gradient in doubling steps, starting at one rounding; X is returned where that fails. Points
    that do not meet a proof are tried with the next, less strict one.
    """
    points, sure, decisions = X.copy(), np.zeros(len(X), bool), np.zeros(len(X), np.int64)
    here = X + (displacements.double() * frame.unit.double()).cpu().numpy()
    rows = np.arange(len(X))
    for proof in frame.network.proofs:
        if not len(rows):
            break
        left = torch.as_tensor(rows, device=frame.network.device)
        start = here[rows]
        # The last proof also tries the points of the search, which are rounded to the network's own dtype.
        seen = frame.take(left).at(displacements[left]).double().cpu().numpy() if proof.logit_units == 0 else None
        part = _pushed(frame.network, X[rows], start, seen, aim.take(left), bounds, proof)
        won = part[1]
        points[rows[won]], sure[rows[won]], decisions[rows[won]] = part[0][won], True, part[2][won]
        rows = rows[~won]
    return points, sure, decisions


def _pushed(
    network: Network, X: Array, here: Array, seen: Array | None, aim: Aim, bounds: tuple[float, float] | None,
    proof: Proof,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """What :func:`settle` returns, for one proof; `seen` [m, d] are further points to try."""
    points, sure, decisions = X.copy(), np.zeros(len(X), bool), np.zeros(len(X), np.int64)
    rows, onward = np.arange(len(X)), np.zeros_like(here)
    least = min(max(float(np.finfo(X.dtype).eps), float(torch.finfo(network.dtype).eps)), SHORTEST_PUSH)
    pushes = [0.0]
    while max(2 * pushes[-1], least) < LONGEST_PUSH:
        pushes.append(max(2 * pushes[-1], least))
    for push in pushes if seen is None else (None, *pushes):
        if not len(rows):
            break
        there = seen[rows] if push is None and seen is not None else here[rows] + (push or 0.0) * onward[rows]
        rounded = (there if bounds is None else np.clip(there, *bounds)).astype(X.dtype)
        target = aim.take(torch.as_tensor(rows, device=network.device))
        met, decision = (value.cpu().numpy() for value in network.proven(network.tensor(rounded), target, proof))
        points[rows[met]], sure[rows[met]], decisions[rows[met]] = rounded[met], True, decision[met]
        rows = rows[~met]
        if push == 0.0 and len(rows):
            target = aim.take(torch.as_tensor(rows, device=network.device))
            onward[rows] = _onward(network, here[rows], X[rows], target, proof)
    return points, sure, decisions


def _onward(network: Network, here: Array, X: Array, aim: Aim, proof: Proof) -> Array:
    """Steps [m, d] down the margin, as long as the displacement so far, or as what the dtypes resolve where that is
    longer; not so for a proof against the rounding of x, which could then lengthen the displacement by any factor.
    Along the displacement where the margin has no gradient.
    """
    way = here - X
    length = np.linalg.norm(way, axis=1, keepdims=True)
    resolved = least_length(X) * max(1.0, torch.finfo(network.dtype).eps / float(np.finfo(X.dtype).eps))
    length = np.where((length < resolved) & ((proof.input_units == 0) | (length == 0)), resolved, length)
    _, gradient = network.descend(network.tensor(here), aim, None)
    down = -gradient.double().cpu().numpy()
    norm = np.linalg.norm(down, axis=1, keepdims=True)
    sound = (norm > 0) & np.isfinite(norm)
    unit = np.divide(down, norm, out=np.zeros_like(down), where=sound)
    return np.asarray(np.where(sound, unit * length, way))
