"""The search of Carlini and Wagner's attack on one batch: Adam on ‖δ‖² + c · max(0, margin + confidence), and for every
sample its own search over the constant c.

Nothing is shared between samples but the calls of the network: constants, brackets, early ends and best points are
vectors over the batch, and whoever is done leaves it.

‖δ‖ is measured in widths of the bounds: the term in Adam's divisor means the same whatever the unit of the data, and
nothing is too small or too large for the model's dtype. Constants that the caller gives are for lengths in data units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ._cw_network import Aim, Network

__all__ = ["Found", "Settings", "search"]

# Adam's decay rates and the term that keeps it from dividing by zero, as published and as every CW uses them.
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8
# Without bounds the learning rate is the only length that is given: this many of it are the unit, 1 for the paper's.
UNIT_STEPS = 100.0
# A search ends where the best loss did not fall by 1e-4 of itself in this share of max_iterations; it is looked at so
# many times in that share. Not before GRACE of it: Adam's momentum carries it far beyond the boundary, and back.
PATIENCE, PROGRESS, LOOKS, GRACE = 0.06, 0.9999, 4, 0.2
# x is pulled in by this factor before arctanh, which is infinite at the bounds.
INSIDE = 0.999999
# "auto" starts at so many times the constant at which a linear model's minimum lies on its boundary.
ABOVE_LINEAR = 2.0


class Settings(NamedTuple):
    """How to search; see :func:`mfakit.attacks.carlini_wagner_l2`."""

    max_iterations: int
    searches: int
    rescue_searches: int
    learning_rate: float
    initial_const: float | None
    confidence: float
    bounds: tuple[float, float] | None
    abort_early: bool
    polish: bool
    # What a constant is divided by while no smaller one is known to fail.
    shrink: float


class Found(NamedTuple):
    """What became of m samples: the nearest points [m, d] that meet the aim, their squared distances (in units of the
    box; infinite if none), the steps taken, and whether the margin's gradient vanished at the start or the logits
    became NaN.
    """

    points: Tensor
    squares: Tensor
    n_steps: Tensor
    stuck: Tensor
    spoilt: Tensor


class Box:
    """x = middle + half · tanh(w), or x = w without bounds; `unit` is the length that counts as 1, in data units."""

    def __init__(self, settings: Settings) -> None:
        self.bounds = bounds = settings.bounds
        if bounds is None:
            self.unit = UNIT_STEPS * settings.learning_rate
        else:
            self.unit = bounds[1] - bounds[0]
            self.middle, self.half = 0.5 * (bounds[0] + bounds[1]), 0.5 * self.unit

    def enter(self, x: Tensor) -> Tensor:
        """The w of samples."""
        return x.clone() if self.bounds is None else ((x - self.middle) * (INSIDE / self.half)).atanh_()

    def points(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """x, and tanh(w) where there is one."""
        if self.bounds is None:
            return w, None
        t = w.tanh()
        return torch.add(torch.tensor(self.middle, dtype=w.dtype, device=w.device), t, alpha=self.half), t

    def chain(self, gradient: Tensor, t: Tensor | None) -> Tensor:
        """∂/∂w from the gradient in x / unit, in place; without bounds that itself, which is as long for Adam."""
        if t is None:
            return gradient
        slope = torch.addcmul(torch.tensor(0.5, dtype=t.dtype, device=t.device), t, t, value=-0.5)
        return gradient.mul_(slope)


class Descent:
    """One search step of some samples with their constants c: Adam from w₀, reset, `rows` being who is still in it.

    `hasty` [m] are those that may leave early.
    """

    def __init__(
        self, network: Network, box: Box, x: Tensor, aim: Aim, c: Tensor, hasty: Tensor, settings: Settings
    ) -> None:
        self.network, self.box, self.settings = network, box, settings
        self.rows = torch.arange(len(x), device=x.device)
        self.x, self.aim, self.c, self.hasty = x, aim, c, hasty
        self.w = box.enter(x)
        self.first, self.second = torch.zeros_like(x), torch.zeros_like(x)
        self.best_x = x.clone()
        self.best, self.lowest, self.mark = (torch.full_like(c, math.inf) for _ in range(3))
        self.stale = torch.zeros_like(self.rows)
        self.spoilt = torch.zeros_like(c, dtype=torch.bool)

    def run(self, out: Found) -> Tensor:
        """Descend; improve `out` in place, and return who was fooled [m]."""
        s = self.settings
        every = max(2, round(PATIENCE * s.max_iterations / LOOKS))
        fooled = torch.zeros_like(self.spoilt)
        for step in range(1, s.max_iterations + 1):
            self._step(step)
            if step % every == 0 and step < s.max_iterations:
                late = step >= GRACE * s.max_iterations
                self._leave(self.spoilt | (self._stale() & self.hasty & late), step, out, fooled)
                if not len(self.rows):
                    return fooled
        self._leave(torch.ones_like(self.spoilt), s.max_iterations, out, fooled)
        return fooled

    def _stale(self) -> Tensor:
        """Whose best loss has not fallen for too long, [rows]."""
        better = self.lowest <= PROGRESS * self.mark
        self.mark = torch.where(better, self.lowest, self.mark)
        self.stale = torch.where(better, 0, self.stale + 1)
        return self.stale >= LOOKS

    def _step(self, step: int) -> None:
        """One evaluation where w is, and one step of Adam."""
        s = self.settings
        x, t = self.box.points(self.w)
        margin, gradient = self.network.descend(x, self.aim, self.box.unit * self.c, s.confidence)
        change = (x - self.x).div_(self.box.unit)
        square = torch.einsum("nd,nd->n", change, change)
        missing = margin + s.confidence
        self.spoilt |= missing.isnan()
        loss = square + self.c * missing.clamp_min(0.0)
        self.lowest = torch.minimum(self.lowest, loss.nan_to_num_(nan=math.inf, posinf=math.inf))
        nearer = torch.nonzero((missing < 0) & (square < self.best))[:, 0]
        if len(nearer):
            self.best[nearer], self.best_x[nearer] = square[nearer], x[nearer]
        gradient = self.box.chain(torch.add(gradient, change, alpha=2.0), t)
        self.first.lerp_(gradient, 1.0 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1.0 - BETA2)
        # Both bias corrections go into the step's length.
        root = math.sqrt(1.0 - BETA2**step)
        scale = torch.sqrt(self.second, out=change).add_(TINY * root)
        self.w.addcdiv_(self.first, scale, value=-s.learning_rate * root / (1.0 - BETA1**step))

    def _leave(self, done: Tensor, step: int, out: Found, fooled: Tensor) -> None:
        """Write down those who are done, and go on with the others."""
        if not bool(done.any()):
            return
        rows = self.rows[done]
        best = self.best[done]
        fooled[rows] = torch.isfinite(best)
        nearer = best < out.squares[rows]
        out.points[rows[nearer]], out.squares[rows[nearer]] = self.best_x[done][nearer], best[nearer]
        out.n_steps[rows] += step
        out.spoilt[rows] |= self.spoilt[done]
        going = ~done
        self.aim = self.aim.take(going)
        for name in (
            "rows",
            "x",
            "c",
            "w",
            "first",
            "second",
            "best_x",
            "best",
            "lowest",
            "mark",
            "stale",
            "spoilt",
            "hasty",
        ):
            setattr(self, name, getattr(self, name)[going])


def search(
    network: Network, x: Tensor, aim: Aim, settings: Settings, progress: Callable[[int], None] = lambda n: None
) -> Found:
    """The nearest points found for m samples x [m, d] whose margins are positive; see :class:`Found`.

    A sample that was never fooled has its constant multiplied by ten, else it is bisected; `rescue_searches` more are
    made for those that no search has fooled, and a rescued sample is then bisected like the others.
    """
    box, m = Box(settings), len(x)
    margin, gradient = network.descend(x, aim, torch.ones(m, dtype=x.dtype, device=x.device), None)
    none = torch.zeros(m, dtype=torch.bool, device=x.device)
    squares = torch.full((m,), math.inf, dtype=x.dtype, device=x.device)
    out = Found(x.clone(), squares, torch.zeros(m, dtype=torch.int64, device=x.device), none.clone(), none.clone())
    norm = gradient.double().norm(dim=1)
    out.stuck[:], out.spoilt[:] = norm == 0, margin.isnan() | norm.isnan()
    c = _initial(margin.double() + settings.confidence, norm, box, settings, x.dtype)
    low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
    left = torch.full((m,), settings.searches, device=x.device)
    spare, rescued = torch.full_like(left, settings.rescue_searches), none.clone()
    while True:
        rows = torch.nonzero((left > 0) & ~out.stuck & ~out.spoilt)[:, 0]
        if not len(rows):
            break
        # The margin of a sample that needs rescue is flat somewhere: there, a search is given all its time.
        hasty = ~rescued[rows] & settings.abort_early
        part = Found(*(value[rows] for value in out))
        fooled = Descent(network, box, x[rows], aim.take(rows), c[rows], hasty, settings).run(part)
        for whole, new in zip(out, part, strict=True):
            whole[rows] = new
        high[rows] = torch.where(fooled, torch.minimum(high[rows], c[rows]), high[rows])
        low[rows] = torch.where(fooled, low[rows], torch.maximum(low[rows], c[rows]))
        left[rows] -= 1
        won = rows[fooled & rescued[rows]]
        left[won], rescued[won] = settings.searches - 1, False
        lost = rows[(left[rows] == 0) & torch.isinf(high[rows]) & (spare[rows] > 0)]
        left[lost], rescued[lost] = 1, True
        spare[lost] -= 1
        between = torch.where(low > 0, 0.5 * (low + high), high / settings.shrink)
        c = torch.where(torch.isinf(high), c * 10.0, between).clamp_max(_largest(x.dtype))
        progress(len(rows))
    return out


def _initial(missing: Tensor, norm: Tensor, box: Box, settings: Settings, dtype: torch.dtype) -> Tensor:
    """The first constants [m], for lengths in units of the box. A linear model's loss has its minimum on the boundary
    for c = 2 margin / ‖gradient‖².
    """
    if settings.initial_const is None:
        slope = box.unit * norm
        c = (ABOVE_LINEAR * 2.0 * missing / slope / slope).nan_to_num(nan=1.0)
    else:
        c = torch.full_like(missing, settings.initial_const / box.unit / box.unit)
    return c.clamp(_largest(dtype) ** -1, _largest(dtype)).to(dtype)


def _largest(dtype: torch.dtype) -> float:
    """Constants beyond this would overflow in the square of a gradient."""
    return float(torch.finfo(dtype).max ** 0.4)
