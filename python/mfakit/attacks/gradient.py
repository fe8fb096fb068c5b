"""The fixed-step gradient attack of appendix C.2, for any noise and any number of classes.

From x repeat steps of fixed length along g = ∇ log p_t - ∇ log p_s, where s and t are the most likely components of the
true class and of any other, chosen again at every step, until the whole mixture's decision flips.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from .._arrays import RowBlocks, as_labels, check_finite_rows
from .._options import Options
from .coordinates import FactorCoordinates, why_not
from .result import AttackResult
from .verify import as_result, inside_bounds, push_until_flipped
from .victims import MixtureVictim, as_victim
from .walk import DirectWalk, FactorWalk, Steps

__all__ = ["gradient_attack"]

TARGETS = ("rechosen", "frozen")
PATHS = ("auto", "direct", "factor")
_logger = logging.getLogger("mfakit")


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
        Anything with ``decision_function`` and ``decision_gradient``; for a Bayes classifier the walk is between
        components.
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
    path : {"auto", "direct", "factor"}
        "direct": every step in the d features. "factor": in the span of the loadings and means, the same trajectory at
        a hundredth of the cost, for isotropic Bayes classifiers without bounds. "auto": "factor" where it is possible.
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
        "bounds": bounds,
    }  # fmt: skip
    _check_settings(step_size, max_steps, targets, path)
    opts = Options(**options)
    rows = RowBlocks(X, getattr(clf, "n_features", None))
    size = max(1, min(opts.plan_block(rows.shape[1], _columns(clf), 8), len(rows)))
    victim = as_victim(clf, size, opts)
    labels = None if y is None else as_labels(y, len(rows), victim.n_classes)
    coordinates = _coordinates(clf, path, bounds)
    settings |= {"path": "direct" if coordinates is None else "factor", "dtype": rows.dtype.name}
    steps = Steps(step_size, max_steps, targets == "frozen", polish, bounds)
    from tqdm import tqdm

    states, points = [], np.empty(rows.shape, rows.dtype)
    with tqdm(total=len(rows), unit="sample", disable=None if progress is None else not progress, desc="attack") as bar:
        for start in range(0, len(rows), size):
            stop = min(start + size, len(rows))
            block = rows.block(start, stop)
            if opts.check_finite:
                check_finite_rows(block.sum(axis=1, dtype=np.float64), block, start, "X")
            inside_bounds(block, bounds, start)
            y_block = None if labels is None else labels[start:stop]
            if coordinates is not None and isinstance(victim, MixtureVictim):
                walk: DirectWalk = FactorWalk(victim, block, y_block, coordinates)
            else:
                walk = DirectWalk(victim, block, y_block)
            walk.run(steps)
            points[start:stop] = push_until_flipped(victim, walk, block, bounds)
            states.append(walk.state)
            bar.update(stop - start)
    return as_result(points, X, rows, states, settings)


def _coordinates(clf: Any, path: str, bounds: tuple[float, float] | None) -> FactorCoordinates | None:
    """The factor coordinates to walk in, or None for the direct path; a path that was asked for is never swapped."""
    if path == "direct":
        return None
    reason = "bounds clip single features" if bounds is not None else why_not(clf)
    if reason is None:
        return FactorCoordinates.of(clf)
    if path == "factor":
        raise ValueError(f'path="factor" cannot be taken: {reason}; use path="direct"')
    _logger.info("gradient_attack takes the direct path: %s", reason)
    return None


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
