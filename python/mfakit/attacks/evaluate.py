"""evaluate(): a verified result of anybody's points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.options import Options
from .._arrays.rows import RowBlocks, check_finite_rows, class_indices, to_numpy
from .._arrays.streams import opened
from .._checks import check_integers
from ..classifiers.recognise.recognise import Unrecognised, as_classifier, is_module, machine_form
from .bounds import as_box, as_limits, inside_bounds
from .identity import identity
from .models.recognise import as_victim, differentiable
from .result import AttackResult
from .samples import as_given, class_names, on_host
from .state import Choice, State
from .task import probe_rows
from .verify import as_result, surely_flipped

__all__ = ["evaluate"]

Array = NDArray[Any]

# Of a block: X [n, d], x_adv [n, d] and the true classes [n] or None; what is known of its samples afterwards.
Judge = Callable[[Array, Array, Array | None], State]


def evaluate(
    clf: Any,
    X: Any,
    x_adv: Any,
    y: Any = None,
    *,
    bounds: Any = None,
    name: str = "external",
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 256,
) -> AttackResult:
    """Judge the points of any attack as ours are judged: verified, measured, and ready to be graded.

    Parameters
    ----------
    clf : classifier or torch module
        A BayesClassifier, a classifier of mfakit or scikit-learn, anything with ``predict`` and ``classes_``, or a
        torch module in evaluation mode that returns logits [n, C].
    X : array-like, [n, d]; for torch modules also [n, ...]
        The samples that were attacked.
    x_adv : array-like, of X's shape
        The points. They are rounded to X's dtype, and the rounded points are what is judged and returned.
    y : array-like, [n], optional
        True classes, values of ``classes_``, or columns of a module's logits. None: the classes predicted for X.
    bounds : (low, high), optional
        Two numbers, or arrays [d] with a number per feature. Points outside are an error.
    name : str
        What the attack is called in the result's settings.
    settings : mapping, optional
        What else the settings are to say, such as the attack's own parameters.
    batch_size : int
        Samples that are judged together.

    Returns
    -------
    AttackResult
        `success` where X was right and x_adv is wrong beyond rounding: for mixtures and machines by the rounding of
        their scores, for modules in their batch and alone. Points that do not fool come back as X, with the reason
        "not fooled", or "not verified" where the decision differs by no more than rounding. `n_steps` is 0.

    Raises
    ------
    ValueError
        For points of another shape, NaN or inf in X or x_adv (with the first row), points outside the bounds, and
        labels that are not classes.
    TypeError
        For something other than a fitted classifier.

    See Also
    --------
    run_external : runs an attack of another library and does this.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf, X = mfakit.BayesClassifier(mixtures), np.array([[-1.0, 0.5], [1.0, 0.0]])
    >>> r = mfakit.attacks.evaluate(clf, X, X + [[1.5, 0.0], [0.1, 0.0]], [0, 1])
    >>> r.success, r.l2
    (array([ True, False]), array([1.5, nan]))
    >>> round(r.grade(mfakit.attacks.minimal_perturbation(clf, X, [0, 1])).mean, 3)
    1.5
    """
    check_integers({"batch_size": batch_size}, 1)
    box = as_box(bounds)
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a string that is not empty, got {name!r}")
    host, shape = on_host(opened(X))
    there, there_shape = on_host(opened(x_adv, "x_adv"))
    rows, points = RowBlocks(host), RowBlocks(there)
    if (len(points), there_shape) != (len(rows), shape):
        raise ValueError(f"x_adv must have X's shape {(len(rows), *shape)}, got {(len(points), *there_shape)}")
    result, states, limits = np.empty(rows.shape, rows.dtype), [], as_limits(box, rows.shape[1], rows.dtype)
    with _judge(clf, rows, shape, y) as (judge, labels):
        for first in range(0, len(rows), batch_size):
            part = slice(first, min(first + batch_size, len(rows)))
            x = rows.block(part.start, part.stop)
            with np.errstate(over="ignore"):
                a = points.block(part.start, part.stop).astype(rows.dtype)
            for block, what in ((x, "X"), (a, "x_adv")):
                check_finite_rows(block.sum(axis=1, dtype=np.float64), block, first, what, optional=False)
            inside_bounds(a, limits, first, "x_adv")
            state = judge(x, a, None if labels is None else labels[part])
            result[part] = np.where(state.flipped[:, None], a, x)
            states.append(state)
    evidence = {"attack": name, **dict(settings or {}), "bounds": box, "dtype": rows.dtype.name}
    return as_given(as_result(result, host, rows, states, evidence, identity(clf)), X)


@contextmanager
def _judge(clf: Any, rows: RowBlocks, shape: tuple[int, ...], y: Any) -> Iterator[tuple[Judge, Array | None]]:
    """How the classifier judges points, and the true classes as indices."""
    n = len(rows)
    if is_module(clf):
        from .networks import decisions, opened

        with opened(clf, shape) as network:

            def judge_by_module(x: Array, a: Array, labels: Array | None) -> State:
                before, (after, alone, _) = decisions(network, x)[0], decisions(network, a)
                return _by_decisions(before, after, labels, alone)

            n_classes = decisions(network, rows.block(0, min(n, 1)))[2] if n else 2
            yield judge_by_module, None if y is None else class_indices(y, None, n, n_classes)
        return
    clf = as_classifier(clf)
    if _has_scores(clf, rows):
        victim = as_victim(clf, n, Options(), probe_rows(rows))
        yield lambda x, a, labels: _by_scores(victim, x, a, labels), None if y is None else victim.labels(y, n)
        return
    classes = class_names(clf)
    if not callable(getattr(clf, "predict", None)) or classes is None:
        raise TypeError(f"{type(clf).__name__} has no predict or no classes_; pass a fitted classifier, or a module")

    def judge(x: Array, a: Array, labels: Array | None) -> State:
        before, after = (class_indices(clf.predict(part), classes, len(x), len(classes)) for part in (x, a))
        return _by_decisions(before, after, labels)

    yield judge, None if y is None else class_indices(y, classes, n, len(classes))


def _has_scores(clf: Any, rows: RowBlocks) -> bool:
    """Whether the classifier is one whose scores, and the bounds of their rounding, attacks know."""
    if getattr(clf, "mixtures", None) is not None or differentiable(clf):
        return True
    try:
        machine_form(clf, probe_rows(rows))
    except Unrecognised:
        return False
    return True


def _by_scores(victim: Any, x: Array, a: Array, labels: Array | None) -> State:
    state = State.of(victim, x.astype(np.float64), labels)
    joint, state.choice = victim.final().scores(a.astype(np.float64), state.y)
    decision, flips = surely_flipped(joint, state.y)
    plain = victim.scores(a.astype(np.float64), state.y)[0].argmax(axis=1)
    return _settled(state, decision, plain, flips)


def _by_decisions(before: Array, after: Array, labels: Array | None, alone: Array | None = None) -> State:
    """The state by decisions [n] at the samples and at the points, there also with each point `alone`; -1 is none."""
    n = len(before)
    y = before if labels is None else labels
    wrong = (before != y) | (before < 0)
    state = State(y, before.copy(), wrong, np.zeros(n, bool), np.zeros(n, np.int64),
                  np.where(wrong, "already wrong", "").astype("<U16"), Choice(n))  # fmt: skip
    flips = after != y
    for decision in (after,) if alone is None else (after, alone):
        flips &= (decision != y) & (decision >= 0)
    return _settled(state, after, after, flips)


def _settled(state: State, decision: Array, plain: Array, flips: Array) -> State:
    """The state with the verdict: `plain` [n] are the decisions without an allowance for rounding."""
    state.flipped = flips & ~state.already_wrong
    state.y_adv = np.where(state.flipped, to_numpy(decision), state.y_adv)
    open_ = ~state.already_wrong
    state.reason[open_] = np.where(plain != state.y, "not verified", "not fooled")[open_]
    state.reason[state.flipped] = "flipped"
    return state
