"""Final verification of an attack: round to the caller's dtype, push until the rounded point flips, verify, measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays.rows import (
    RowBlocks,
    array_module,
    gather,
    scatter,
    to_numpy,
    wrap_like,
)
from .._threads.process import errstate
from .bounds import Limits, moved_inside
from .models.aimed import Aimed
from .result import AttackResult

if TYPE_CHECKING:
    from .state import State

__all__ = ["as_result", "least_length", "push_until_flipped", "surely_flipped"]

Array = Any  # NumPy's; with d columns and on a device, CuPy's

# Relative margin of a verified flip: some thousand roundings of the scores, and 1e-13 of a distance.
SURE = 1e-12
# The least length of a push, in units of X's rounding or of that margin.
PUSHED_UNITS = 1e3


def least_length(X: Array) -> Array:
    """Lengths [n, 1] that X's dtype resolves easily at each sample [n, d]: a sample on the boundary has not moved at
    all, and still has to be pushed over.
    """
    norm = array_module(X).linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    return PUSHED_UNITS * max(float(np.finfo(X.dtype).eps), SURE) * norm


def push_until_flipped(victim: Any, walk: Any, X: Array, limits: Limits) -> Array:
    """The points to return, in X's dtype [n, d] and within the limits: the ends of the walk, moved outward along the
    gradient there in doubling steps, starting at one rounding unit, until the rounded point flips too, and to its goal
    if it has one; X itself for samples that were not fooled. `walk` has the points `here` [n, d] float64 and the
    `state`; `victim` is what verifies.
    """
    state, points = walk.state, X.copy()
    if state.goal is not None:
        victim = Aimed(victim).lowered()
    rows, push = np.flatnonzero(state.flipped), 0.0
    xp = array_module(X)
    onward = xp.zeros_like(walk.here)
    while len(rows) and push < 0.1:
        there = gather(walk.here, rows) + push * gather(onward, rows)
        rounded = moved_inside(there.astype(X.dtype), limits)
        y = state.aim[rows]
        joint, choice = victim.scores(rounded.astype(np.float64), y)
        decision, flips = surely_flipped(joint, y, state.goal is not None)
        scatter(points, rows[flips], gather(rounded, flips))
        state.y_adv[rows[flips]] = decision[flips]
        rows = rows[~flips]
        if push == 0.0 and len(rows):
            way = _onward(victim, gather(walk.here, rows), gather(X, rows), y[~flips], choice.take(~flips))
            scatter(onward, rows, way)
        push = max(2 * push, float(np.finfo(X.dtype).eps))
    state.flipped[rows] = False
    state.reason[rows] = "not verified"
    return points


def _onward(victim: Any, here: Array, X: Array, y: Array, choice: Any) -> Array:
    """Steps [n, d] in the direction in which the other class gains, as long as the displacement so far or as what X's
    dtype resolves; along the displacement where the gradient is zero or not finite.
    """
    xp, way = array_module(here), here - X
    direction = victim.margin_gradient(here, y, choice)
    norm = xp.linalg.norm(direction, axis=1, keepdims=True)
    sound = (norm > 0) & xp.isfinite(norm)
    unit = xp.where(sound, direction, 0.0) / xp.where(sound, norm, 1.0)
    length = xp.maximum(xp.linalg.norm(way, axis=1, keepdims=True), least_length(X))
    return xp.where(sound, unit * length, way)


def surely_flipped(joint: Array, y: Array, reach: bool = False) -> tuple[Array, Array]:
    """The decisions [n] by scores [n, C], and which differ from y by more than rounding or, with `reach`, are y by more
    than that: scores of the same point in another batch may differ in their last bits, which must not undo a success.
    """
    rows = np.arange(len(y))
    decision = joint.argmax(axis=1)
    margin = joint[rows, decision] - joint[rows, y]
    if reach:
        others = joint.copy()
        others[rows, y] = -np.inf
        margin = joint[rows, y] - others.max(axis=1)
    size = np.abs(np.where(np.isfinite(joint), joint, 0.0)).max(axis=1)  # -inf is exact: the class is impossible
    return decision, margin > SURE * size


def as_result(
    points: Array, X: Any, rows: RowBlocks, states: list[State], settings: dict[str, Any], classifier: str
) -> AttackResult:
    """One result of all blocks. `flipped` was established on `points` themselves; ℓ2 is of the arrays returned."""
    success = np.concatenate([s.flipped for s in states]) if states else np.zeros(0, bool)
    l2 = np.full(len(success), np.nan)
    step = max(1, 2**23 // max(rows.shape[1], 1))
    for start in range(0, len(success), step):
        part = slice(start, min(start + step, len(success)))
        with errstate(invalid="ignore"):  # inf - inf, if the caller allowed inf
            change = points[part].astype(np.float64) - rows.block(part.start, part.stop, np.float64)
        l2[part] = np.where(success[part], to_numpy(array_module(change).linalg.norm(change, axis=1)), np.nan)

    def gather(name: str, dtype: Any) -> Array:
        return np.concatenate([getattr(s, name) for s in states]) if states else np.zeros(0, dtype)

    def chosen(name: str) -> Array:
        return np.concatenate([getattr(s.choice, name) for s in states]) if states else np.zeros(0, np.int64)

    return AttackResult(
        x_adv=wrap_like(points, X), success=success, l2=l2, n_steps=gather("n_steps", np.int64),
        y=gather("y", np.int64), y_adv=gather("y_adv", np.int64), already_wrong=gather("already_wrong", bool),
        source=chosen("source"), target=chosen("target"), target_class=chosen("target_class"), reason=gather("reason",
        "<U16"), settings=settings, classifier=classifier,
    )  # fmt: skip
