"""The fixed-step gradient attack of appendix C.2, for any noise, any number of classes and any differentiable decision.

From x repeat steps of fixed length along g = ∇ log p_t - ∇ log p_s, where s and t are the most likely components of the
true class and of any other, chosen again at every step, until the whole mixture's decision flips. Of other classifiers
g is the gradient of the best other class's decision minus that of the true class. For linear classifiers one projection
replaces the walk.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..._arrays.sharing import careful_products, plan_crew
from ..._arrays.streams import streamed
from ..blocks import plan_walks, victims_of
from ..bounds import as_limits
from ..coordinates import FactorCoordinates, why_not
from ..models.bayes import MixtureVictim
from ..models.differentiable import GradientVictim
from ..models.linear import LinearVictim
from ..result import AttackResult
from ..task import Task, columns_of, open_task
from .closed_form import ClosedForm
from .resident import ResidentWalk
from .settings import Direction, Path, Settings, Targets
from .walk import FactorWalk, FeatureWalk, may_take_long

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..._arrays.options import RunOptions

__all__ = ["gradient_attack"]

Array = NDArray[Any]

# Block-sized float64 arrays that a walk on a device holds, in addition to those that a density needs.
DEVICE_COPIES = 6
_logger = logging.getLogger("mfakit")


@streamed
def gradient_attack(
    clf: Any,
    X: Any,
    y: Any = None,
    *,
    step_size: float = Settings.step_size,
    max_steps: int = Settings.max_steps,
    polish: bool = Settings.polish,
    targets: Targets = Settings.targets,
    path: Path = Settings.path,
    direction: Direction = Settings.direction,
    bounds: Any = Settings.bounds,
    target: Any = None,
    progress: bool | None = False,
    **options: Unpack[RunOptions],
) -> AttackResult:
    """Walk each sample across the decision boundary in steps of fixed length.

    Parameters
    ----------
    clf : BayesClassifier or classifier
        Anything with ``decision_function`` ([n], positive for the second class, or [n, C]) and ``decision_gradient``
        ([n, d] or [n, C, d]): :class:`mfakit.classifiers.CNN`, ``LinearSVM``, ``RBFSVM``, ...; and scikit-learn's
        classifiers that decide linearly or by one machine of RBF kernels: those with ``coef_``, ``NearestCentroid``,
        ``SVC`` of two classes, ``OneVsRestClassifier`` and ``CalibratedClassifierCV(ensemble=False)`` of these,
        pipelines of affine steps before a linear one, and fitted searches. The weights or kernels read from such a
        classifier are first checked against its own decisions. For a Bayes classifier the walk is between components.
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
        Choose the two components (the other class, for other classifiers) at every step, or keep the first choice.
    path : {"auto", "factor", "features", "closed-form"}
        "features": every step is taken in the d features. "factor": in the span of the loadings and means, the same
        trajectory at a hundredth of the cost, for isotropic Bayes classifiers without bounds. "closed-form": the exact
        smallest perturbation in one step, for linear classifiers without bounds. Neither of these two takes a target
        if there are more than two classes. "auto": "factor" or "closed-form"
        where possible, else "features". The result's settings say which one was taken.
    direction : {"gradient", "log-ratio"}
        "log-ratio" is for RBF machines: ∇ log Σ_{a>0} a K - ∇ log Σ_{a<0} |a| K, the log-ratio of the two densities
        whose difference is the decision. Where kernels vanish the plain gradient walks off to infinity and fails; this
        one reaches the other class, usually over a shorter distance.
    bounds : (low, high), optional
        Two numbers, or arrays [d] with a number per feature: every step is clipped to them, and so are the points that
        are returned. None clips nothing. The samples must be inside. The result's settings record them.
    target : class or array-like [n], optional
        The class to reach, one for all samples or one per sample, in the terms of `y`, other than the true one; None
        for any other class. Steps then lead from the best of the other classes to this one, and success means that the
        decision is this class.
    progress : bool or None
        A progress bar; None shows it on a terminal and in notebooks.
    **options
        ``backend``, ``n_threads``, ``block_rows``; see :class:`mfakit._arrays.options.Options`. The state is float64.

    Returns
    -------
    AttackResult
        Success is verified again on the returned points, by a margin that rounding cannot undo. It is verified in
        float64, or in the model's own precision if that is lower, such as a network on float32 samples. A sample whose
        gradient is zero, or underflows to zero far from every support vector, ends with the reason "no gradient"; one
        whose decision is NaN ends with "NaN logits".

    Raises
    ------
    TypeError
        For anything that cannot be attacked, with the reason: a regressor, an unfitted classifier, a torch module, ...
    ValueError
        NaN or inf in X, labels or targets that are not classes, a target that is the true class, inputs outside
        `bounds`, a step size or option out of range.

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
    settings = Settings(
        step_size=step_size, max_steps=max_steps, polish=polish, targets=targets, path=path, direction=direction,
        bounds=bounds,
    )  # fmt: skip
    with open_task(gradient_attack, clf, X, y, options, direction, DEVICE_COPIES) as task:
        goals = task.goals(target)
        settings = replace(settings, path=_path(task.clf, task.victim, settings, goals is not None))
        limits = as_limits(settings.bounds, task.rows.shape[1], task.rows.dtype)
        coordinates = FactorCoordinates.of(task.clf) if settings.path == "factor" else None
        victims, careful = _victims(task, settings)
        kind = ResidentWalk if task.arrays.is_device else FeatureWalk

        def walk(victim: Any, block: Array, labels: Array | None, aims: Array | None = None) -> FeatureWalk:
            if coordinates is not None:
                made: FeatureWalk = FactorWalk(victim, block, labels, coordinates, aims)
            elif settings.path == "closed-form":
                made = ClosedForm(victim, block, labels, aims)
            else:
                made = kind(victim, block, labels, aims, limits)
            made.run(settings)
            return made

        with careful:
            return task.run("gradient", settings, limits, walk, progress, victims, goals)


def _victims(task: Task, settings: Settings) -> tuple[list[Any], AbstractContextManager[Any]]:
    """A victim for each thread, and the context in which products are computed."""
    if not isinstance(task.victim, MixtureVictim) or task.arrays.is_device:
        return [task.victim], nullcontext()
    n, d, columns, opts = *task.rows.shape, columns_of(task.clf), task.options
    if settings.path != "factor":
        count, own = plan_crew(n, d, columns, task.size, opts, settings.max_steps)
        products: AbstractContextManager[Any] = careful_products(min(n, task.size) * columns * d)
    else:  # Ctrl-C abandons a long walk, which is one call: it runs in this thread
        count, own = (1, opts) if may_take_long(settings) else plan_walks(n, opts)
        products = nullcontext()
    return victims_of(task.clf, count, task.size, own), products


def _path(clf: Any, victim: MixtureVictim | GradientVictim, settings: Settings, targeted: bool) -> Path:
    """The path to take, "factor", "features" or "closed-form"; an explicit choice is never replaced."""
    path, bounds = settings.path, settings.bounds
    if path == "features":
        return path
    linear = isinstance(victim, LinearVictim)
    best: Path = "closed-form" if linear or path == "closed-form" else "factor"
    if path not in ("auto", best):
        best, reason = path, why_not(clf)
    elif bounds is not None:
        reason = "bounds clip single features"
    elif targeted and victim.n_classes > 2:
        reason = "a target must beat every other class"
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
