"""The fixed-step gradient attack of appendix C.2, by the direct path: any noise, any number of classes.

From x repeat steps of fixed length along g = ∇ log p_t - ∇ log p_s, where s and t are the most likely components of the
true class and of any other, chosen again at every step, until the whole mixture's decision flips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import RowBlocks, as_labels, check_finite_rows
from .._options import Options
from .result import AttackResult
from .verify import as_result, inside_bounds, push_until_flipped
from .victims import Choice, GradientVictim, MixtureVictim, as_victim

__all__ = ["gradient_attack"]

Array = NDArray[Any]

TARGETS = ("rechosen", "frozen")
PATHS = ("auto", "direct")
# Halvings of the last step: 0.05 · 2^-40 is 5e-14, below the rounding of a float64 pixel sum.
BISECTIONS = 40


def gradient_attack(
    clf: Any,
    X: Any,
    y: Any = None,
    *,
    step_size: float = 0.05,
    max_steps: int = 5000,
    polish: bool = False,
    targets: str = "rechosen",
    path: str = "auto",
    bounds: tuple[float, float] | None = None,
    progress: bool | None = False,
    **options: Any,
) -> AttackResult:
    """Walk each sample across the decision boundary in steps of fixed length.

    Parameters
    ----------
    clf : BayesClassifier or classifier
        Anything with ``decision_function`` and ``decision_gradient``; for a Bayes classifier the walk is between components.
    X : array-like, [n, d]
    y : array-like [n], optional
        True classes; None takes the predicted ones. Samples that are already wrong are not attacked.
    step_size : float
        ℓ2 length η of a step, in data units.
    max_steps : int
        A sample that has not crossed by then has failed.
    polish : bool
        Bisect the last step, so that the norm does not depend on η.
    targets : {"rechosen", "frozen"}
        Choose the two components again at every step, or keep those of the start.
    path : {"auto", "direct"}
        "direct": every step in the d features.
    bounds : (low, high), optional
        Keep every coordinate of x within these; None clips nothing.
    progress : bool or None
        A progress bar; None shows it on a terminal.
    **options
        ``backend``, ``n_threads``, ``block_rows``; see :class:`mfakit._options.Options`. The state is float64.

    Returns
    -------
    AttackResult
        Success is verified again in float64 on the returned points.

    Raises
    ------
    TypeError
        A classifier that cannot be attacked.
    ValueError
        NaN or inf in X, labels that are not classes, inputs outside `bounds`, a step size or option out of range.

    References
    ----------
    Richardson & Weiss 2021, appendix C.2.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)
    >>> r = mfakit.attacks.gradient_attack(clf, np.array([[-1.0, 0.5]]), polish=True)
    >>> r.success, r.l2.round(6)
    (array([ True]), array([1.]))
    """
    settings = {
        "attack": "gradient", "step_size": step_size, "max_steps": max_steps, "polish": polish, "targets": targets,
        "path": "direct", "bounds": bounds,
    }  # fmt: skip
    _check_settings(step_size, max_steps, targets, path)
    opts = Options(**options)
    rows = RowBlocks(X, getattr(clf, "n_features", None))
    settings["dtype"] = rows.dtype.name
    size = max(1, min(opts.plan_block(rows.shape[1], _columns(clf), 8), len(rows)))
    victim = as_victim(clf, size, opts)
    labels = None if y is None else as_labels(y, len(rows), victim.n_classes)
    from tqdm import tqdm

    states, points = [], np.empty(rows.shape, rows.dtype)
    with tqdm(total=len(rows), unit="sample", disable=None if progress is None else not progress, desc="attack") as bar:
        for start in range(0, len(rows), size):
            stop = min(start + size, len(rows))
            block = rows.block(start, stop)
            if opts.check_finite:
                check_finite_rows(block.sum(axis=1, dtype=np.float64), block, start, "X")
            inside_bounds(block, bounds, start)
            walk = Walk(victim, block, None if labels is None else labels[start:stop], start)
            walk.run(step_size, max_steps, targets == "frozen", bounds)
            if polish:
                walk.polish()
            points[start:stop] = push_until_flipped(victim, walk, block, bounds)
            states.append(walk.state)
            bar.update(stop - start)
    return as_result(points, X, rows, states, settings)


def _check_settings(step_size: float, max_steps: int, targets: str, path: str) -> None:
    if not (np.isfinite(step_size) and step_size > 0):
        raise ValueError(f"step_size must be a positive length, got {step_size!r}")
    if not isinstance(max_steps, int | np.integer) or max_steps < 1:
        raise ValueError(f"max_steps must be a positive integer, got {max_steps!r}")
    if targets not in TARGETS:
        raise ValueError(f"targets must be one of {TARGETS}, got {targets!r}")
    if path not in PATHS:
        raise ValueError(f"path must be one of {PATHS}, got {path!r}")


def _columns(clf: Any) -> int:
    return max((m.factors.n_columns for m in getattr(clf, "mixtures", ())), default=1)


@dataclass
class State:
    """What is known of each of n samples so far."""

    y: Array
    y_adv: Array
    already_wrong: Array
    flipped: Array
    n_steps: Array
    reason: Array
    choice: Choice = field(default_factory=lambda: Choice(0))


class Walk:
    """One block of samples on their way: `here` [n, d] float64, and `before` [n, d], one step earlier."""

    def __init__(self, victim: MixtureVictim | GradientVictim, X: Array, y: Array | None, start: int) -> None:
        self.victim = victim
        self.here = X.astype(np.float64)
        self.before = self.here.copy()
        n = len(X)
        joint, _ = victim.scores(self.here, np.zeros(n, np.int64) if y is None else y)
        predicted = joint.argmax(axis=1)
        labels = predicted if y is None else y
        wrong = predicted != labels
        reason = np.where(wrong, "already wrong", "max_steps").astype("<U16")
        self.state = State(labels, predicted.copy(), wrong, np.zeros(n, bool), np.zeros(n, np.int64), reason, Choice(n))

    def run(self, step_size: float, max_steps: int, frozen: bool, bounds: tuple[float, float] | None) -> None:
        """Step until every sample has flipped, stands still, or has used up its steps; who is done leaves the batch."""
        state, active = self.state, np.flatnonzero(~self.state.already_wrong)
        for step in range(max_steps + 1):
            if not len(active):
                return
            X, y = self.here[active], state.y[active]
            joint, choice = self.victim.scores(X, y)
            done = joint.argmax(axis=1) != y
            state.flipped[active[done]] = True
            state.reason[active[done]] = "flipped"
            if step == max_steps:
                return
            active, X, y, choice = active[~done], X[~done], y[~done], choice.take(~done)
            if frozen and step > 0:
                choice = state.choice.take(active)
            state.choice.put(active, choice)
            moved = self._step(active, X, y, choice, step_size, bounds)
            state.reason[active[~moved]] = "no gradient"
            active = active[moved]
            state.n_steps[active] += 1

    def _step(
        self, active: Array, X: Array, y: Array, choice: Choice, step_size: float, bounds: tuple[float, float] | None
    ) -> Array:
        """One step of the active samples, X being where they are; which of them moved."""
        direction = self.victim.direction(X, y, choice)
        new = X.copy()
        self.victim.ops.attack_step(new, direction, step_size, self.victim.threads)
        if bounds is not None:
            np.clip(new, *bounds, out=new)
        moved = (new != X).any(axis=1)
        self.before[active], self.here[active] = X, new
        return np.asarray(moved)

    def polish(self) -> None:
        """Bisect the last step of the flipped samples: `before` stays on this side, `here` on the other."""
        rows = np.flatnonzero(self.state.flipped & (self.state.n_steps > 0))
        if not len(rows):
            return
        y, low, high = self.state.y[rows], self.before[rows], self.here[rows]
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            crossed = (self.victim.scores(middle, y)[0].argmax(axis=1) != y)[:, None]
            low, high = np.where(crossed, low, middle), np.where(crossed, middle, high)
        self.before[rows], self.here[rows] = low, high
