"""The fixed-step gradient attack of appendix C.2, for any noise, any number of classes and any differentiable decision.

From x repeat steps of fixed length along g = ∇ log p_t - ∇ log p_s, where s and t are the most likely components of the
true class and of any other, chosen again at every step, until the whole mixture's decision flips. Of other classifiers
g is the gradient of the best other class's decision less the true one's; of a linear one the way is one projection.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._arrays.options import Options, no_out, refuse_unknown
from ..._arrays.rows import RowBlocks, check_finite_rows, to_numpy
from ..._arrays.sharing import careful_products, plan_crew
from ..._checks import as_bounds
from ..._io.progress import open_bar
from ...backends import get_arrays, get_backend
from ...backends.host_arrays import Host
from ..blocks import attack_blocks, plan_walks, victims_of
from ..coordinates import FactorCoordinates, why_not
from ..identity import identity
from ..models.bayes import MixtureVictim
from ..models.differentiable import PROBES, GradientVictim
from ..models.kernel import KernelVictim
from ..models.linear import LinearVictim
from ..models.recognise import as_victim, attackable
from ..result import AttackResult
from ..state import State, Steps
from ..verify import as_result, inside_bounds, push_until_flipped
from .closed_form import ClosedForm
from .walk import FactorWalk, FeatureWalk, may_take_long

__all__ = ["gradient_attack"]

Array = NDArray[Any]

TARGETS = ("rechosen", "frozen")
PATHS = ("auto", "factor", "features", "closed-form")
DIRECTIONS = ("gradient", "log-ratio")
# Float64 arrays as large as the block that a walk on a device holds, beyond those that a density needs.
DEVICE_COPIES = 3
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
    direction: str = "gradient",
    bounds: tuple[float, float] | None = None,
    progress: bool | None = False,
    **options: Any,
) -> AttackResult:
    """Walk each sample across the decision boundary in steps of fixed length.

    Parameters
    ----------
    clf : BayesClassifier or classifier
        Anything with ``decision_function`` ([n], positive for the second class, or [n, C]) and ``decision_gradient``
        ([n, d] or [n, C, d]): :class:`mfakit.classifiers.CNN`, ``LinearSVM``, ``RBFSVM``, ...; and of scikit-learn
        what decides linearly or by one machine of RBF kernels: classifiers with ``coef_``, ``NearestCentroid``,
        ``SVC`` of two classes, ``OneVsRestClassifier`` and ``CalibratedClassifierCV(ensemble=False)`` of these,
        pipelines of affine steps before a linear one, and fitted searches. What is read off is compared with the
        classifier's own decisions first. For a Bayes classifier the walk is between components.
    X : array-like, [n, d]
    y : array-like [n], optional
        True classes, as values of ``clf.classes_`` (a Bayes classifier's are 0, 1, ...); None takes the predicted ones.
        Samples that are already wrong are not attacked. The result's `y` and `y_adv` are indices into ``classes_``.
    step_size : float
        ℓ2 length η of a step, in data units.
    max_steps : int
        A sample that has not crossed by then has failed.
    polish : bool
        Bisect the last step, so that the norm does not depend on η.
    targets : {"rechosen", "frozen"}
        Choose the two components (of other classifiers: the other class) again at every step, or keep the first.
    path : {"auto", "factor", "features", "closed-form"}
        "features": every step is taken in the d features. "factor": in the span of the loadings and means, the same
        trajectory at a hundredth of the cost, for isotropic Bayes classifiers without bounds. "closed-form": the exact
        smallest perturbation in one step, for linear classifiers without bounds. "auto": "factor" or "closed-form"
        where possible, else "features". The result's settings say which one was taken.
    direction : {"gradient", "log-ratio"}
        "log-ratio" is for RBF machines: ∇ log Σ_{a>0} a K - ∇ log Σ_{a<0} |a| K, the step between the two densities
        that the decision is the difference of. Where kernels vanish the plain gradient walks off to infinity and fails;
        this one goes to the other class, and mostly by a shorter way.
    bounds : (low, high), optional
        Keep every coordinate of x within these; None clips nothing.
    progress : bool or None
        A progress bar; None shows it on a terminal.
    **options
        ``backend``, ``n_threads``, ``block_rows``; see :class:`mfakit._arrays.options.Options`. The state is float64.

    Returns
    -------
    AttackResult
        Success is verified again on the returned points: in float64, but for models that compute in less, such as a
        network on float32 samples, in what they compute in; it must exceed what rounding can do. A sample whose
        gradient is zero, or underflows to zero far from every support vector, ends with the reason "no gradient"; one
        whose decision is NaN with "NaN logits".

    Raises
    ------
    TypeError
        A classifier that cannot be attacked, with the reason: a regressor, one that is not fitted, a torch module, ...
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
    _check_settings(step_size, max_steps, targets, path, direction)
    settings = {
        "attack": "gradient", "step_size": step_size, "max_steps": max_steps, "polish": polish, "targets": targets,
        "direction": direction, "bounds": as_bounds(bounds), "path": path,
    }  # fmt: skip
    clf = attackable(clf)
    refuse_unknown("gradient_attack", options, gradient_attack.__kwdefaults__ or ())
    no_out("gradient_attack", options)
    opts = Options(**options)
    rows = RowBlocks(X, getattr(clf, "n_features", None) or getattr(clf, "n_features_in_", None))
    arrays = get_arrays(get_backend(opts.backend, rows.device), rows.device)
    with arrays.active():
        return _attack(clf, X, y, rows, arrays, opts, settings, progress)


def _attack(
    clf: Any, X: Any, y: Any, rows: RowBlocks, arrays: Host, opts: Options, settings: dict[str, Any],
    progress: bool | None,
) -> AttackResult:  # fmt: skip
    """The attack with checked settings, on the device that is the current one."""
    bounds, direction = settings["bounds"], settings["direction"]
    size = arrays.plan_block(opts, rows, _columns(clf), 8, DEVICE_COPIES)
    for mixture in getattr(clf, "mixtures", ()):
        mixture.check_device(rows.device, opts.backend)
    victim = as_victim(clf, size, opts, _probe(rows), direction == "log-ratio", rows.device)
    if direction == "log-ratio" and not isinstance(victim, KernelVictim):
        raise ValueError(f'direction="log-ratio" is for RBF machines, got a {type(clf).__name__}; use "gradient"')
    labels = None if y is None else victim.labels(y, len(rows))
    taken = _path(clf, victim, settings["path"], bounds)
    coordinates = FactorCoordinates.of(clf) if taken == "factor" else None
    settings |= {"path": taken, "dtype": rows.dtype.name}
    steps = Steps(
        float(settings["step_size"]),
        int(settings["max_steps"]),
        settings["targets"] == "frozen",
        settings["polish"],
        bounds,
    )
    points = arrays.empty_result(rows.shape, rows.dtype, rows)
    victims: list[Any] = [victim]
    products: AbstractContextManager[Any] = nullcontext()
    if isinstance(victim, MixtureVictim) and not arrays.is_device:
        if taken != "factor":
            n, d, columns = *rows.shape, _columns(clf)
            count, own = plan_crew(n, d, columns, size, opts, steps.most)
            products = careful_products(min(n, size) * columns * d)
        else:  # a long walk is one call, which is given up by waiting for it no longer: in this thread
            count, own = (1, opts) if may_take_long(steps) else plan_walks(len(rows), opts)
        victims = victims_of(clf, count, size, own)
    with products, open_bar(progress, total=len(rows), unit="sample", desc="attack") as bar:

        def attack(victim: Any, block: Array, first: int) -> State:
            part = slice(first, first + len(block))
            if opts.check_finite:
                check_finite_rows(block.sum(axis=1, dtype=np.float64), block, first, "X")
            inside_bounds(block, bounds, first)
            walk = _walk(victim, block, None if labels is None else labels[part], coordinates, taken)
            walk.run(steps)
            there = push_until_flipped(victim.final(), walk, block, bounds)
            points[part] = there if rows.device is not None else arrays.to_host(there)
            return walk.state

        states = attack_blocks(rows, size, arrays, victims, attack, bar)
    return as_result(points, X, rows, states, settings, identity(clf))


def _probe(rows: RowBlocks) -> Array:
    """Some samples to look at a classifier with; those with NaN are reported where all samples are checked."""
    block = to_numpy(rows.block(0, min(PROBES, len(rows))))
    return np.asarray(block[np.isfinite(block).all(axis=1)])


def _path(
    clf: Any, victim: MixtureVictim | GradientVictim, path: str, bounds: tuple[float, float] | None
) -> str:  # fmt: skip
    """The path to take, "factor", "features" or "closed-form"; one that was asked for is never swapped."""
    if path == "features":
        return path
    linear = isinstance(victim, LinearVictim)
    best = "closed-form" if linear or path == "closed-form" else "factor"
    if path not in ("auto", best):
        best, reason = path, why_not(clf)
    elif bounds is not None:
        reason = "bounds clip single features"
    elif best == "closed-form":
        reason = None if linear else f"{type(clf).__name__} is not linear"
    else:
        reason = why_not(clf)
    if reason is None:
        return best
    if path != "auto":
        raise ValueError(f'path="{path}" cannot be taken: {reason}; use path="features"')
    _logger.info("gradient_attack takes the path in the d features: %s", reason)
    return "features"


def _walk(
    victim: MixtureVictim | GradientVictim, X: Array, y: Array | None, coordinates: FactorCoordinates | None, path: str
) -> FeatureWalk:
    if coordinates is not None and isinstance(victim, MixtureVictim):
        return FactorWalk(victim, X, y, coordinates)
    if path == "closed-form" and isinstance(victim, LinearVictim):
        return ClosedForm(victim, X, y)
    return FeatureWalk(victim, X, y)


def _check_settings(step_size: float, max_steps: int, targets: str, path: str, direction: str) -> None:
    number = isinstance(step_size, int | float | np.integer | np.floating) and not isinstance(step_size, bool)
    if not (number and np.isfinite(step_size) and step_size > 0):
        raise ValueError(f"step_size must be a positive length, got {step_size!r}")
    whole = isinstance(max_steps, int | np.integer) and not isinstance(max_steps, bool)
    if not (whole and 1 <= max_steps < 2**31):
        raise ValueError(f"max_steps must be a positive integer below 2^31, got {max_steps!r}")
    if targets not in TARGETS:
        raise ValueError(f"targets must be one of {TARGETS}, got {targets!r}")
    if path not in PATHS:
        raise ValueError(f"path must be one of {PATHS}, got {path!r}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {DIRECTIONS}, got {direction!r}")


def _columns(clf: Any) -> int:
    """Numbers per sample that a step needs beside the sample: components, support vectors, weights of all classes."""
    mixtures = max((m.factors.n_columns for m in getattr(clf, "mixtures", ())), default=1)
    support = getattr(getattr(clf, "support_vectors_", None), "shape", (1,))[0]
    return max(mixtures, support, int(np.size(getattr(clf, "coef_", 1))))
