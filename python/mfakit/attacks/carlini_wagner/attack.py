"""Carlini and Wagner's ℓ2 attack on any differentiable classifier, sample by sample.

min ‖δ‖² + c · max(0, margin(x + δ) + confidence) by Adam, with a search over c. Every sample has its own constant, end
and best point; masks are -inf; the scale of the logits is measured and not assumed; and a success is verified on the
array that is returned.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._arrays.rows import RowBlocks, check_finite_rows, class_indices
from ..._arrays.streams import streamed
from ..._checks import MOST_INT32, check_integers, check_switches
from ..._io.progress import open_bar
from ..._threads.process import errstate
from ..bounds import inside_bounds
from ..identity import identity
from ..result import AttackResult
from ..samples import as_given, class_names, on_host
from ..state import State
from ..verify import as_result
from .settings import Bounds, Settings

if TYPE_CHECKING:
    from .network import Network

__all__ = ["carlini_wagner_l2"]

Array = NDArray[Any]

# Rows per block when the data's range is found.
RANGE_ROWS = 4096


@streamed
def carlini_wagner_l2(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    max_iterations: int = Settings.max_iterations,
    binary_search_steps: int = Settings.binary_search_steps,
    learning_rate: float | Literal["auto"] = Settings.learning_rate,
    initial_const: float | Literal["auto"] = Settings.initial_const,
    confidence: float = Settings.confidence,
    bounds: Bounds = Settings.bounds,
    targets: Any = None,
    rescue_searches: int = Settings.rescue_searches,
    polish: bool = Settings.polish,
    preset: Literal["paper"] | None = Settings.preset,
    batch_size: int = 128,
    abort_early: bool = Settings.abort_early,
    check_finite: bool = True,
    progress: bool | None = False,
    device: Any = None,
) -> AttackResult:
    """The smallest ℓ2 perturbation that Carlini and Wagner's attack finds, per sample.

    Parameters
    ----------
    model : torch.nn.Module or classifier
        A module in evaluation mode that maps samples to logits [n, C], C ≥ 2, each sample by itself; a
        :class:`mfakit.BayesClassifier` (by :class:`mfakit.torch.BayesClassifierModule`, in float64); a classifier with
        a network in ``module_``; a fitted linear classifier or support vector machine (by
        :class:`mfakit.torch.SVMModule`).
    X : array-like, [n, d]
        For a module also [n, ...], such as images [n, C, H, W], passed on in this shape.
    y : array-like [n], optional
        True classes: of a module columns of its logits, of a classifier values of its ``classes_``, as everywhere.
        None takes the predicted ones. Samples that are already wrong are not attacked. The result's `y` and `y_adv`
        are columns, indices into ``classes_``.
    max_iterations : int
        Adam's steps in one search.
    binary_search_steps : int
        Searches per sample, each with its own constant c: ten times larger after a failure, until one has succeeded,
        then bisected.
    learning_rate : float or "auto"
        Adam's step: in data units without bounds, else in the argument of tanh, where 1 is half the box. "auto" is
        0.01 with bounds. Without them it is a twentieth of a sample's ℓ∞ distance to the boundary, which is found by
        a search along the gradient, so that the data may be in any unit.
    initial_const : float or "auto"
        The first c of ‖δ‖² + c · margin, ‖δ‖ in data units. "auto" measures the scale of the logits: per sample
        4 margin / ‖∇margin‖², twice the constant at which a linear model's loss has its minimum on the boundary.
    confidence : float
        How far the other logit must lead, in logits. The margin is kept in ``x_adv`` where rounding permits.
    bounds : (low, high), None or "data"
        Keep every feature within these, by tanh; None for no box, which is the default because a sample's result then
        depends on this sample alone. "data" takes the range of all rows of X, so that a sample's result depends on the
        other rows. The result's settings record the bounds.
    targets : array-like [n], optional
        The classes to reach, in the terms of `y`, each other than the true one; None for any other class.
    rescue_searches : int
        Number of further searches, with c ten times larger each time, for samples that no search has fooled: margins
        may become flatter by orders of magnitude on the way. Such a sample is bisected afterwards.
    polish : bool
        Move the best points onto the boundary, because Adam stops within a step of it. Norms never grow.
    preset : {None, "paper"}
        "paper": 500 iterations, 3 searches, learning rate 0.01, first constant 0.01 for all, no confidence, no rescue,
        no polish. An argument that disagrees with it is an error.
    batch_size : int
        Samples at a time. No sample's result depends on it, or on the others, beyond the rounding of the model itself.
    abort_early : bool
        End a sample's search, after its first fifth, when 6% of its iterations did not lower its loss by 1e-4 of
        itself. Rescue searches are not ended early.
    check_finite : bool
        Refuse NaN and inf in X; False: only the rows that have them fail, as "NaN logits".
    progress : bool or None
        A progress bar over the searches; None shows it on a terminal and in notebooks.
    device : {None, "cpu", "cuda", "cuda:1", ...}
        The device for the module of an mfakit classifier. A module that is passed runs on its own device.

    Returns
    -------
    AttackResult
        Verified on the returned points in the dtype in which the model runs (float64 for mfakit's Bayes classifiers
        and SVMs): where possible by more than rounding could undo, else, as in half precision, by what the model
        answers in its batch and alone. ``reason`` is "flipped", "already wrong", "max_steps", "no gradient" (it
        vanishes at the sample), "NaN logits", "NaN gradient" or "not verified"; ``n_steps`` are Adam's steps in all
        searches. With `targets`, success means that the decision is the target.

    Raises
    ------
    TypeError
        For any other model, with the reason: a regressor, a classifier that is not fitted, ...
    ValueError
        NaN or inf in X, inputs outside `bounds`, labels or targets that are no classes, a module in training mode, one
        that returns a single logit, is not differentiable, does not take such samples or lets the other samples of a
        batch change its answer (batch normalisation by the batch's statistics), an argument out of range.

    Warns
    -----
    UserWarning
        If the module gives two answers for one input, as with dropout in evaluation mode.

    Notes
    -----
    In other data units, with a model to match, the same samples are fooled, and at the same distances in those units:
    in float64 to rounding; in float32, whose rounding the search multiplies, to about a thousandth (polished 1e-5), and
    exactly for units that differ by a power of two. A number for `initial_const` has to follow with the unit's square,
    so that ``preset="paper"`` is meant for images in [0, 1], and without bounds a number for `learning_rate` with the
    unit. The search moves displacements, not points, so that the data may be far from 0 or in a narrow range, as long
    as the model's dtype resolves it. A module in half precision runs in its own dtype; lengths and Adam are in float32.
    Bounds may be 2e-38 to 6e37 wide, in float64 1e-302 to 1e302. Autocast, torch's default device and other settings
    around the call do not affect the model.

    References
    ----------
    Carlini & Wagner, Towards Evaluating the Robustness of Neural Networks, 2017, section VI; Richardson & Weiss 2021,
    section 2.4.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], np.zeros((1, 2, 1)), 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)
    >>> r = mfakit.attacks.carlini_wagner_l2(clf, np.array([[-1.0, 0.5]]))
    >>> r.success, r.l2.round(6)
    (array([ True]), array([1.]))
    """
    settings = Settings(
        max_iterations=max_iterations, binary_search_steps=binary_search_steps, learning_rate=learning_rate,
        initial_const=initial_const, confidence=confidence, bounds=bounds, rescue_searches=rescue_searches,
        polish=polish, preset=preset, abort_early=abort_early,
    ).with_preset()  # fmt: skip
    check_integers({"batch_size": batch_size}, 1, MOST_INT32)
    check_switches({"check_finite": check_finite})
    host, shape = on_host(X)
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"carlini_wagner_l2 needs torch: pip install 'mfakit[torch]' ({error})") from None

    from ...classifiers.networks.network import settled
    from ...torch import one_thread_after_fork
    from .network import Network, as_module

    one_thread_after_fork()
    width = getattr(model, "n_features", None) or getattr(model, "n_features_in_", None)
    rows = RowBlocks(host, width if len(shape) == 1 else None)
    with torch.inference_mode(False):  # the caller may be in inference mode
        network = Network.of(as_module(model, device), shape, device)
    widest = float(torch.finfo(network.work).max) ** 0.98
    rate = settings.rate
    if rate is not None and not 1 / widest < rate < widest:
        raise ValueError(
            f"learning_rate must be {1 / widest:.0e} to {widest:.0e} for a {network.type} model, got {rate:g}"
        )
    settings = replace(settings, bounds=_box(rows, settings, widest, network, check_finite))
    evidence = {
        "attack": "carlini_wagner_l2", **asdict(settings), "targeted": targets is not None,
        "bounds_from": "data" if isinstance(bounds, str) else "argument", "dtype": rows.dtype.name,
        "runs_in": network.type, "device": str(network.device),
    }  # fmt: skip
    with settled(network.device):
        states, points = _attack(network, rows, _Labels(y, targets, class_names(model)), settings, batch_size, progress)
    return as_given(as_result(points, host, rows, states, evidence, identity(model)), X)


class _Labels(NamedTuple):
    """True classes and targets as they were given, and the classes that they are values of."""

    y: Any
    targets: Any
    classes: Array | None

    def columns(self, n: int, n_classes: int) -> tuple[Array | None, Array | None]:
        """Both as columns of the logits, int64 [n], or None."""
        if self.classes is not None and len(self.classes) != n_classes and n:
            raise ValueError(f"the model returns {n_classes} logits for its {len(self.classes)} classes_")
        pairs = ((self.y, "y"), (self.targets, "targets"))
        y, targets = (
            None if value is None else class_indices(value, self.classes, n, n_classes, name) for value, name in pairs
        )
        return y, targets


def _attack(
    network: Network, rows: RowBlocks, given: _Labels, settings: Settings, batch_size: int, progress: bool | None
) -> tuple[list[State], Array]:
    """Attack all blocks of rows; their states, and the points [n, d] in X's dtype."""
    from ...classifiers.networks.network import bounded_threads
    from .block import Block
    from .probe import operations, probe

    n, states, points = len(rows), [], np.empty(rows.shape, rows.dtype)
    first = rows.block(0, min(n, batch_size))
    first = first[np.isfinite(first).all(axis=1)]
    if not len(first):  # then a sample of zeros serves to count the classes
        first = np.zeros((min(n, 1), rows.shape[1]), rows.dtype)
    # Without samples nothing says how many classes there are.
    n_classes = probe(network, network.tensor(first)) if n else 2
    labels, goals = given.columns(n, n_classes)
    work = min(n, batch_size) * operations(network, network.tensor(first[:1])) if n else 0.0
    with (
        bounded_threads(work),
        open_bar(progress, total=n * settings.binary_search_steps, unit="search", desc="CW") as bar,
    ):
        for start in range(0, n, batch_size):
            part = slice(start, min(start + batch_size, n))
            block = Block(network, rows.block(part.start, part.stop), settings)
            block.decide(None if labels is None else labels[part], None if goals is None else goals[part], start)
            points[part] = block.search(lambda m: bar.update(min(m, bar.total - bar.n)))
            states.append(block.state)
        bar.update(bar.total - bar.n)
    return states, points


def _box(
    rows: RowBlocks, settings: Settings, widest: float, network: Network, check_finite: bool
) -> tuple[float, float] | None:
    """The bounds as numbers; every row of X is examined, for NaN and for values outside. A box must be narrower than
    `widest` and wider than its inverse.
    """
    from_data = isinstance(settings.bounds, str)
    box = None if from_data else settings.box
    low, high = np.inf, -np.inf
    for start in range(0, len(rows), RANGE_ROWS):
        block = rows.block(start, min(start + RANGE_ROWS, len(rows)))
        with errstate(over="ignore", invalid="ignore"):
            sums = block.sum(axis=1, dtype=np.float64)
        if check_finite:
            check_finite_rows(sums, block, start, "X")
        else:
            block = block[np.isfinite(block).all(axis=1)]
        inside_bounds(block, box, start)
        low, high = min(low, float(block.min(initial=np.inf))), max(high, float(block.max(initial=-np.inf)))
    if from_data and len(rows):
        if not low < high:
            raise ValueError(
                f'bounds="data" needs data with a range, and every value of X is {low:g}; pass (low, high)'
            )
        box = low, high
    if box is not None and not 1 / widest < box[1] - box[0] < widest:
        raise ValueError(
            f"bounds must be finite and not wider than {widest:.0e} or narrower than {1 / widest:.0e} for a "
            f"{network.type} model, got {box}; scale the data, or pass None for no bounds"
        )
    return box
