"""The gradient attack in factor coordinates, compiled: the walk of csrc/include/mfakit/{coordinates,walk}.hpp.

A point x = c + v is known by its inner products a [C] with the columns and by ‖v‖²; ``numpy_walk.py`` is the readable
version. What changes here is in one file, as in ``kernels.py`` and for the same reason.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..numpy_ops import Array
from ..operands import Coordinates, Points, WalkSettings
from .kernels import inlined, kernel, not_negative

# How a walk ends, as in walk_ends.py.
MAX_STEPS, FLIPPED, NO_GRADIENT, ALREADY_WRONG = 0, 1, 2, 3


class Scratch(NamedTuple):
    """Buffers of one walk."""

    log_prob: Array  # [K]
    best: Array  # [n_classes], each class's most likely component
    column: Array  # [2 l + 2], which columns a gradient combines
    coefficient: Array  # [2 l + 2]
    before_a: Array  # [C], the point one step before
    before_w: Array  # [C]
    between: Array  # [C], a point of the last step


@inlined
def latent_at(q: Coordinates, a: Array, j: int, f: int) -> float:
    """Entry f of y = U_j (v - m_j)."""
    i = j * (q.gain.shape[1] + 1) + f
    return float(a[i] - q.offset[i])


@inlined
def component_log_prob(q: Coordinates, a: Array, sq: float, j: int) -> float:
    """log (prior weight p_j) at the point (a, sq)."""
    l = q.gain.shape[1]
    m = j * (l + 1) + l
    off, on = sq - 2.0 * a[m] + q.offset[m], 0.0
    for f in range(l):
        y = latent_at(q, a, j, f)
        off -= y * y
        on += q.spread[j, f] * y * y
    return float(q.log_const[j] - 0.5 * (not_negative(off) / q.variance[j] + on))


@inlined
def log_total(log_prob: Array, begin: int, end: int) -> float:
    """Log Σ exp of log_prob [begin:end]; -inf when all are."""
    top = -np.inf
    for j in range(begin, end):
        top = max(top, log_prob[j])
    if np.isinf(top):
        return top
    total = 0.0
    for j in range(begin, end):
        total += np.exp(log_prob[j] - top)
    return float(top + np.log(total))


@inlined
def decide(q: Coordinates, a: Array, sq: float, s: Scratch) -> int:
    """The class with the largest total, a tie going to the lower label; s.log_prob and s.best are of this point."""
    decided, highest = 0, -np.inf
    for c in range(len(s.best)):
        begin, end = q.first[c], q.first[c + 1]
        s.best[c] = begin
        for j in range(begin, end):
            s.log_prob[j] = component_log_prob(q, a, sq, j)
            if s.log_prob[j] > s.log_prob[s.best[c]]:
                s.best[c] = j
        total = log_total(s.log_prob, begin, end)
        if c == 0 or total > highest:
            decided, highest = c, total
    return decided


@inlined
def rival_class(s: Scratch, y: int) -> int:
    """The class other than y whose most likely component is the likeliest."""
    rival = 1 if y == 0 else 0
    for c in range(rival + 1, len(s.best)):
        if c != y and s.log_prob[s.best[c]] > s.log_prob[s.best[rival]]:
            rival = c
    return rival


@inlined
def add_gradient(q: Coordinates, a: Array, j: int, sign: float, offset: int, s: Scratch) -> float:
    """sign · ∇ log p_j: its coefficients from `offset` on, and its multiple of v, which is returned."""
    l = q.gain.shape[1]
    for f in range(l):
        s.column[offset + f] = j * (l + 1) + f
        s.coefficient[offset + f] = sign * q.gain[j, f] * latent_at(q, a, j, f)
    s.column[offset + l] = j * (l + 1) + l
    s.coefficient[offset + l] = sign / q.variance[j]
    return float(-sign / q.variance[j])


@inlined
def inner_products(q: Coordinates, a: Array, sq: float, along_v: float, s: Scratch) -> tuple[float, float]:
    """‖g‖² and v · g of the gradient in s."""
    linear = quadratic = 0.0
    for i in range(len(s.column)):
        linear += s.coefficient[i] * a[s.column[i]]
        dot = 0.0
        for k in range(len(s.column)):
            dot += q.gram[s.column[i], s.column[k]] * s.coefficient[k]
        quadratic += s.coefficient[i] * dot
    return along_v * along_v * sq + 2.0 * along_v * linear + quadratic, along_v * sq + linear


@inlined
def move(q: Coordinates, a: Array, w: Array, along_v: float, tau: float, s: Scratch) -> None:
    """Move v by tau g, in its inner products and coefficients."""
    keep = 1.0 + tau * along_v
    for i in range(len(a)):
        a[i] *= keep
        w[i] *= keep
    for k in range(len(s.column)):
        c, step = s.column[k], tau * s.coefficient[k]
        w[c] += step
        for i in range(len(a)):
            a[i] += step * q.gram[c, i]  # symmetric: a row is a column


@inlined
def share_of_step(
    q: Coordinates, a: Array, sq0: float, line: float, curve: float, y: int, times: int, s: Scratch
) -> float:
    """The smallest share of the last step, found by halving, at which the decision is no longer y; a is at its end."""
    low, high = 0.0, 1.0
    for _ in range(times):
        share = 0.5 * (low + high)
        for i in range(len(a)):
            s.between[i] = s.before_a[i] + share * (a[i] - s.before_a[i])
        if decide(q, s.between, not_negative(sq0 + share * line + share * share * curve), s) != y:
            high = share
        else:
            low = share
    return high


@kernel
def factor_walk(
    start: int, stop: int, q: Coordinates, y: Array, settings: WalkSettings, points: Points, reports: Array
) -> None:
    a, w, alpha, sq = points
    step_size, max_steps, frozen, bisections = settings
    (K, l), C = q.gain.shape, len(q.gram)
    best, column = np.empty(len(q.first) - 1, np.int64), np.empty(2 * l + 2, np.int64)
    s = Scratch(np.empty(K), best, column, np.empty(2 * l + 2), np.empty(C), np.empty(C), np.empty(C))
    for i in range(start, stop):
        source = target = rival = -1
        end, step = MAX_STEPS, 0
        alpha[i] = alpha0 = 1.0
        sq0, line, curve = sq[i], 0.0, 0.0  # ‖v‖² along the last step is sq0 + share · line + share² · curve
        while True:
            if decide(q, a[i], sq[i], s) != y[i]:
                end = FLIPPED if step else ALREADY_WRONG
                break
            if step == max_steps:
                break
            if step == 0 or not frozen:
                rival = rival_class(s, y[i])
                source, target = s.best[y[i]], s.best[rival]
            along_v = add_gradient(q, a[i], target, 1.0, 0, s)
            along_v += add_gradient(q, a[i], source, -1.0, l + 1, s)
            norm2, along = inner_products(q, a[i], sq[i], along_v, s)
            if not (norm2 > 0.0 and np.isfinite(norm2)):
                end = NO_GRADIENT
                break
            tau = step_size / np.sqrt(norm2)
            s.before_a[:], s.before_w[:], alpha0, sq0 = a[i], w[i], alpha[i], sq[i]
            line, curve = 2.0 * tau * along, tau * tau * norm2
            move(q, a[i], w[i], along_v, tau, s)
            alpha[i] *= 1.0 + tau * along_v
            sq[i] = not_negative(sq0 + line + curve)
            step += 1
        if end == FLIPPED and bisections:
            share = share_of_step(q, a[i], sq0, line, curve, y[i], bisections, s)
            for c in range(C):
                a[i, c] = s.before_a[c] + share * (a[i, c] - s.before_a[c])
                w[i, c] = s.before_w[c] + share * (w[i, c] - s.before_w[c])
            alpha[i] = alpha0 + share * (alpha[i] - alpha0)
            sq[i] = not_negative(sq0 + share * line + share * share * curve)
        reports[i, 0], reports[i, 1] = end, step
        reports[i, 2], reports[i, 3], reports[i, 4] = source, target, rival
