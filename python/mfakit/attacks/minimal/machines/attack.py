"""Certified minima of classifiers that are no mixtures: which kind a model is, and the walk over its samples."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...._arrays.options import Options, only_on_host
from ...._arrays.rows import RowBlocks, check_finite_rows
from ...._io.progress import open_bar
from ....backends.host_arrays import HOST
from ....classifiers.recognise.forms import KernelForm, LinearForm
from ....classifiers.recognise.neighbours import TAKEN as NEIGHBOURS
from ....classifiers.recognise.neighbours import NeighbourForm, is_neighbours, neighbour_form
from ....classifiers.recognise.recognise import TAKEN, Unrecognised, is_module, machine_form
from ...blocks import attack_blocks, plan_walks
from ...identity import identity
from ...models.kernel import KernelVictim
from ...models.linear import LinearVictim
from ...models.neighbours import NeighbourVictim
from ...result import MinimalResult
from ...state import State
from ...task import probe_rows
from ...verify import as_result, push_until_flipped
from .bracket import Bracketer
from .expansion import Span
from .kernel import KernelBracketer
from .linear import LinearBracketer
from .neighbours import NeighbourBracketer

__all__ = ["bracket_machine"]

Array = NDArray[Any]

# Samples of a block: few where each takes a while, so that progress shows.
BLOCK_ROWS = {"linear": 4096, "kernel": 16, "neighbours": 16}
HAVE_BRACKETS = (
    "brackets are there for BayesClassifier and MFAClassifier, linear classifiers and machines of RBF kernels, ours "
    "and scikit-learn's (more than two classes: each against the rest), and for KNeighborsClassifier(n_neighbors=1) "
    "with the Euclidean metric; attack others by gradient_attack, or networks by carlini_wagner_l2"
)

Form = LinearForm | KernelForm | NeighbourForm


def bracket_machine(name: str, clf: Any, X: Any, y: Any, options: Options, progress: bool | None) -> MinimalResult:
    """Brackets of a linear classifier, a machine of RBF kernels or a classifier by its nearest neighbour; see
    :func:`mfakit.attacks.minimal_perturbation`. `name` is the public function's.

    Raises
    ------
    TypeError
        For other models, with the reason and those that have brackets.
    ValueError
        As :func:`mfakit.attacks.minimal_perturbation`.
    """
    form = _form(clf, None)
    rows = RowBlocks(X, form.n_features)
    only_on_host(name, options, rows)
    sample = probe_rows(rows)
    form = _form(clf, sample)
    count, own = plan_walks(len(rows), options)
    kind, bracketers = _bracketers(clf, form, sample, count, own)
    labels = None if y is None else bracketers[0].victim.labels(y, len(rows))
    points, lower, examined = np.empty(rows.shape, rows.dtype), np.empty(len(rows)), np.empty(len(rows), np.int64)

    def attack(bracketer: Bracketer, block: Array, first: int) -> State:
        part = slice(first, first + len(block))
        if options.check_finite:
            check_finite_rows(block.sum(axis=1, dtype=np.float64), block, first, "X")
        with np.errstate(all="ignore"):  # numbers beyond float64 end as samples without a certificate
            found = bracketer.bracket(block, None if labels is None else labels[part])
            found.give_up()
            points[part] = push_until_flipped(bracketer.victim.final(), found, block, None)
        state: State = found.state
        state.choice.target_class[:] = np.where(state.flipped, state.y_adv, -1)
        lower[part], examined[part] = found.lower, found.examined
        return state

    with HOST.active(), open_bar(progress, total=len(rows), unit="sample", desc="certify") as bar:
        states = attack_blocks(rows, BLOCK_ROWS[kind], HOST, bracketers, attack, bar)
    evidence = {"attack": "minimal", "path": kind, "dtype": rows.dtype.name, "bounds": None}
    result = as_result(points, X, rows, states, evidence, identity(clf))
    upper = np.where(result.already_wrong, 0.0, np.where(result.success, result.l2, np.inf))
    undecided = result.reason == "NaN logits"
    lower, upper = np.where(undecided, np.nan, lower), np.where(undecided, np.nan, upper)
    return MinimalResult(**result.__dict__, lower=np.minimum(lower, upper), upper=upper, n_pairs_examined=examined)


def _form(clf: Any, sample: Array | None) -> Form:
    """What a model computes, compared with its decisions where there are samples [b, d]."""
    try:
        if is_module(clf):
            raise Unrecognised(f"{type(clf).__name__} is a torch module")
        inner = getattr(clf, "best_estimator_", clf)
        return neighbour_form(inner) if is_neighbours(inner) else machine_form(clf, sample)
    except TypeError as error:
        reason = str(error).removesuffix(f"; taken are {TAKEN}").replace(f"; {NEIGHBOURS}", "")
        raise TypeError(f"{type(clf).__name__} is not a BayesClassifier, and {reason}; {HAVE_BRACKETS}") from None


def _bracketers(
    clf: Any, form: Form, sample: Array, count: int, options: Options
) -> tuple[str, list[LinearBracketer] | list[KernelBracketer] | list[NeighbourBracketer]]:
    """The kind, and one that brackets for each of `count` threads."""
    if isinstance(form, LinearForm):
        return "linear", [LinearBracketer(LinearVictim(clf, options, sample, form)) for _ in range(count)]
    if isinstance(form, NeighbourForm):
        neighbours = NeighbourVictim(clf, options, sample, form)
        return "neighbours", [NeighbourBracketer(copy(neighbours)) for _ in range(count)]
    kernel, span = KernelVictim(clf, options, sample, form.machine), Span(form.machine)
    return "kernel", [KernelBracketer(copy(kernel), span) for _ in range(count)]
