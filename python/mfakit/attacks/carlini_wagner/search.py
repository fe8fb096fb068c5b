"""The search of Carlini and Wagner's attack on one batch: Adam on ‖δ‖² + c · max(0, margin + confidence), and for every
sample its own search over the constant c.

Nothing is shared between samples but the calls of the network: units, constants, brackets, early ends and best points
are vectors over the batch, and finished samples are dropped from it.

‖δ‖ is measured in units of the sample's frame: the term in Adam's divisor means the same whatever the unit of the data,
and nothing is too small or too large for the dtype. Constants that the caller gives are for lengths in data units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from .frame import STEPS_IN_UNIT, Frame, first_lengths
from .network import PROOFS, Aim, Network
from .settings import Settings

__all__ = ["Found", "search"]

# Adam's decay rates and the term that keeps it from dividing by zero, as published and as every CW uses them.
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8
# The learning rate "auto" where there are bounds, in the argument of tanh.
BOXED_RATE = 0.01
# A search ends where the best loss did not fall by 1e-4 of itself in the share PATIENCE of max_iterations, in which it
# is examined LOOKS times; not before the share GRACE, because Adam's momentum carries it far beyond the boundary and
# back.
PATIENCE, PROGRESS, LOOKS, GRACE = 0.06, 0.9999, 4, 0.2
# Each rescue search makes steps this many times longer where their length was measured, and not given.
LONGER = 4.0
# x is pulled in by this factor before arctanh, which is infinite at the bounds.
INSIDE = 0.999999
# "auto" starts at this multiple of the constant at which a linear model's minimum lies on its boundary.
ABOVE_LINEAR = 2.0


class Found(NamedTuple):
    """The outcome of m samples: displacements [m, d] to the nearest points that meet the aim, their squared lengths
    (infinite if none), both in units; the steps taken, and whether the margin's gradient vanished at the start, the
    logits became NaN, or the gradient did.
    """

    displacements: Tensor
    squares: Tensor
    n_steps: Tensor
    no_gradient: Tensor
    nan_logits: Tensor
    nan_gradient: Tensor


class Path:
    """How Adam's variable w makes displacements: p = ½ (tanh w - tanh w₀), which is 1 from bound to bound, or p = w."""

    def __init__(self, frame: Frame) -> None:
        self.boxed = frame.bounds is not None
        if self.boxed:
            self.start = (frame.position() * INSIDE).atanh_()
            self.t = self.start.tanh()
        else:
            self.start = torch.zeros_like(frame.origin)

    def take(self, rows: Tensor) -> None:
        """Continue with some samples."""
        self.start = self.start[rows]
        if self.boxed:
            self.t = self.t[rows]

    def displacement(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """p [m, d], and tanh(w) where there is one."""
        if not self.boxed:
            return w.clone(), None
        t = w.tanh()
        return (t - self.t).mul_(0.5), t

    def chain(self, gradient: Tensor, t: Tensor | None) -> Tensor:
        """∂/∂w from ∂/∂p, in place."""
        if t is None:
            return gradient
        slope = torch.addcmul(torch.tensor(0.5, dtype=t.dtype, device=t.device), t, t, value=-0.5)
        return gradient.mul_(slope)


@dataclass
class Going:
    """The state of the m samples that are still in a search step: every field has a row for each.

    Attributes
    ----------
    rows : int64 [m]
        Their numbers among the samples that the step began with.
    c : [m]
        Their constants.
    may_stop : bool [m]
        Which of them may end early.
    w, first, second : [m, d]
        Adam's variable, and its means of the gradient and of the gradient's square.
    best, best_p : [m], [m, d]
        The smallest ‖p‖² that meets the aim, and its p.
    lowest, mark, stale : [m]
        The lowest loss; the loss at which a sample was last found to make progress; how often it was not since.
    nan_logits, nan_gradient : bool [m]
        Whether logits became NaN, or the gradient did.
    """

    rows: Tensor
    c: Tensor
    may_stop: Tensor
    w: Tensor
    first: Tensor
    second: Tensor
    best: Tensor
    best_p: Tensor
    lowest: Tensor
    mark: Tensor
    stale: Tensor
    nan_logits: Tensor
    nan_gradient: Tensor

    @classmethod
    def at(cls, w: Tensor, c: Tensor, may_stop: Tensor) -> Going:
        """All samples at the start, where Adam's variable is `w`."""
        rows = torch.arange(len(c), device=c.device)
        first, second, best_p = (torch.zeros_like(w) for _ in range(3))
        best, lowest, mark = (torch.full_like(c, math.inf) for _ in range(3))
        nan_logits, nan_gradient = (torch.zeros_like(c, dtype=torch.bool) for _ in range(2))
        return cls(
            rows,
            c,
            may_stop,
            w.clone(),
            first,
            second,
            best,
            best_p,
            lowest,
            mark,
            torch.zeros_like(rows),
            nan_logits,
            nan_gradient,
        )

    def take(self, kept: Tensor) -> Going:
        """The state of some samples."""
        return Going(*(getattr(self, field.name)[kept] for field in fields(self)))


class Descent:
    """One search step of some samples with their constants c: Adam from w₀, reset. `may_stop` [m] are those that may
    end early.
    """

    def __init__(
        self, network: Network, frame: Frame, aim: Aim, c: Tensor, may_stop: Tensor, settings: Settings
    ) -> None:
        self.network, self.settings, self.frame, self.aim = network, settings, frame, aim
        self.path = Path(frame)
        self.going = Going.at(self.path.start, c, may_stop)
        self.size = _step_size(settings)

    def run(self, out: Found) -> Tensor:
        """Descend; improve `out` in place, and return which samples were fooled [m]."""
        most = self.settings.max_iterations
        every = max(2, round(PATIENCE * most / LOOKS))
        fooled = torch.zeros_like(self.going.nan_logits)
        for step in range(1, most + 1):
            self._step(step)
            if step % every == 0 and step < most:
                stale = self._stale() & self.going.may_stop & (step >= GRACE * most)
                self._finish(self.going.nan_logits | self.going.nan_gradient | stale, step, out, fooled)
                if not len(self.going.rows):
                    return fooled
        self._finish(torch.ones_like(self.going.nan_logits), most, out, fooled)
        return fooled

    def _stale(self) -> Tensor:
        """Which samples' lowest loss has not fallen for too long, [m]."""
        g = self.going
        better = g.lowest <= PROGRESS * g.mark
        g.mark = torch.where(better, g.lowest, g.mark)
        g.stale = torch.where(better, 0, g.stale + 1)
        return g.stale >= LOOKS

    def _step(self, step: int) -> None:
        """One evaluation where w is, and one step of Adam."""
        g, confidence = self.going, self.settings.confidence
        p, t = self.path.displacement(g.w)
        margin, gradient = self.network.descend(self.frame.at(p), self.aim, confidence)
        square = torch.einsum("nd,nd->n", p, p)
        missing = margin + confidence
        # Adam cannot leave a point that a NaN gradient has led it to, so a NaN there is no answer of the model.
        g.nan_gradient |= square.isnan()
        g.nan_logits |= missing.isnan() & ~g.nan_gradient
        loss = square + g.c * missing.clamp_min(0.0)
        g.lowest = torch.minimum(g.lowest, loss.nan_to_num_(nan=math.inf, posinf=math.inf))
        nearer = torch.nonzero((missing < 0) & (square < g.best))[:, 0]
        if len(nearer):
            g.best[nearer], g.best_p[nearer] = square[nearer], p[nearer]
        # The unit first: its product with a gradient in data units is of ordinary size, that with c may overflow.
        gradient = self.path.chain(p.mul_(2.0).addcmul_(gradient.mul_(self.frame.unit), g.c[:, None]), t)
        g.first.lerp_(gradient, 1.0 - BETA1)
        g.second.mul_(BETA2).addcmul_(gradient, gradient, value=1.0 - BETA2)
        # Both bias corrections go into the step's length.
        root = math.sqrt(1.0 - BETA2**step)
        scale = torch.sqrt(g.second, out=gradient).add_(TINY * root)
        g.w.addcdiv_(g.first, scale, value=-self.size * root / (1.0 - BETA1**step))

    def _finish(self, done: Tensor, step: int, out: Found, fooled: Tensor) -> None:
        """Record the finished samples, and continue with the others."""
        if not bool(done.any()):
            return
        ended = self.going.take(done)
        rows = ended.rows
        fooled[rows] = torch.isfinite(ended.best)
        nearer = ended.best < out.squares[rows]
        out.displacements[rows[nearer]], out.squares[rows[nearer]] = ended.best_p[nearer], ended.best[nearer]
        out.n_steps[rows] += step
        out.nan_logits[rows] |= ended.nan_logits
        out.nan_gradient[rows] |= ended.nan_gradient
        kept = ~done
        self.aim, self.frame, self.going = self.aim.take(kept), self.frame.take(kept), self.going.take(kept)
        self.path.take(kept)


def _step_size(settings: Settings) -> float:
    """Adam's step in w: in the argument of tanh, or in units without bounds, which are made of such steps."""
    if settings.box is None:
        return 1.0 / STEPS_IN_UNIT
    return BOXED_RATE if settings.rate is None else settings.rate


def _measured(settings: Settings) -> bool:
    """Whether each sample's unit of length is made from the model around it."""
    return settings.box is None and settings.rate is None


def search(
    network: Network, origin: Tensor, aim: Aim, settings: Settings, progress: Callable[[int], None] = lambda n: None
) -> tuple[Frame, Found]:
    """The frame of m samples `origin` [m, d] whose margins are positive, and the nearest points found in it.

    A sample that was never fooled has its constant multiplied by ten, else it is bisected; `rescue_searches` more are
    made for those that no search has fooled, and a rescued sample is then bisected like the others.
    """
    m = len(origin)
    margin, gradient = network.descend(origin.to(network.dtype), aim, None)
    missing = margin + settings.confidence
    frame = Frame(network, origin, _units(network, origin, aim, missing, gradient, settings), settings.box)
    none = torch.zeros(m, dtype=torch.bool, device=origin.device)
    squares = torch.full((m,), math.inf, dtype=origin.dtype, device=origin.device)
    counts = torch.zeros(m, dtype=torch.int64, device=origin.device)
    out = Found(torch.zeros_like(origin), squares, counts, none.clone(), none.clone(), none.clone())
    norm = gradient.double().norm(dim=1)
    out.no_gradient[:], out.nan_logits[:] = norm == 0, margin.isnan()
    out.nan_gradient[:] = ~norm.isfinite() & ~margin.isnan()
    c = _initial(torch.maximum(missing.double(), _least(network, origin, aim, norm)), norm, frame, settings)
    low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
    left = torch.full((m,), settings.binary_search_steps, device=origin.device)
    spare, rescued = torch.full_like(left, settings.rescue_searches), none.clone()
    while True:
        rows = torch.nonzero((left > 0) & ~out.no_gradient & ~out.nan_logits & ~out.nan_gradient)[:, 0]
        if not len(rows):
            break
        # A sample that needs rescue has a margin that is flat somewhere, so its search is not ended early.
        may_stop = ~rescued[rows] & settings.abort_early
        part = Found(*(value[rows] for value in out))
        fooled = Descent(network, frame.take(rows), aim.take(rows), c[rows], may_stop, settings).run(part)
        for whole, new in zip(out, part, strict=True):
            whole[rows] = new
        high[rows] = torch.where(fooled, torch.minimum(high[rows], c[rows]), high[rows])
        low[rows] = torch.where(fooled, low[rows], torch.maximum(low[rows], c[rows]))
        left[rows] -= 1
        won = rows[fooled & rescued[rows]]
        left[won], rescued[won] = settings.binary_search_steps - 1, False
        lost = rows[(left[rows] == 0) & torch.isinf(high[rows]) & (spare[rows] > 0)]
        left[lost], rescued[lost] = 1, True
        spare[lost] -= 1
        if _measured(settings):  # the boundary may be farther than estimated: longer units from here on
            frame.unit[lost] *= LONGER
            c[lost], low[lost] = c[lost] / LONGER**2, low[lost] / LONGER**2
        between = torch.where(low > 0, 0.5 * (low + high), high / settings.shrink)
        c = torch.where(torch.isinf(high), c * 10.0, between).clamp_max(_largest(c.dtype))
        progress(len(rows))
    return frame, out


def _units(
    network: Network, origin: Tensor, aim: Aim, missing: Tensor, gradient: Tensor, settings: Settings
) -> Tensor:  # fmt: skip
    """The length in data units that counts as 1 for each sample, [m, 1]: the width of the bounds or, without them, as
    many steps of Adam as make a unit.
    """
    if settings.box is not None:
        unit = settings.box[1] - settings.box[0]
    elif settings.rate is not None:
        unit = STEPS_IN_UNIT * settings.rate
    else:
        return first_lengths(network, origin, aim, missing, gradient, settings.confidence)
    return torch.full((len(origin), 1), unit, dtype=origin.dtype, device=origin.device)


def _least(network: Network, origin: Tensor, aim: Aim, norm: Tensor) -> Tensor:
    """The least value [m], float64, for what is missing: the rounding of the logits and of the sample, because a
    sample on the boundary needs a positive constant, too.
    """
    size: Tensor = PROOFS[0].logit_units * aim.size.double() + norm * origin.double().norm(dim=1)
    return size.nan_to_num_(nan=0.0).mul_(torch.finfo(network.work).eps)


def _initial(missing: Tensor, norm: Tensor, frame: Frame, settings: Settings) -> Tensor:
    """The first constants [m], for lengths in units. A linear model's loss has its minimum on the boundary for
    c = 2 missing / ‖gradient‖².
    """
    unit, dtype = frame.unit[:, 0].double(), frame.unit.dtype
    if settings.first_const is None:
        slope = unit * norm
        missing = torch.where(missing > 0, missing, slope)  # logits 0 at x = 0 have no size
        c = (ABOVE_LINEAR * 2.0 * missing / slope / slope).nan_to_num(nan=1.0)
    else:
        c = settings.first_const / unit / unit
    return c.clamp(_largest(dtype) ** -1, _largest(dtype)).to(dtype)


def _largest(dtype: torch.dtype) -> float:
    """Constants beyond this would overflow in the square of a gradient."""
    return float(torch.finfo(dtype).max ** 0.4)
