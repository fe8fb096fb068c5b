"""What every attack on a classifier's decisions does before and after its own search: it checks its arguments, walks
blocks of samples, and returns a verified result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._arrays.options import Options, RunOptions, no_out, only_on_host, refuse_unknown
from .._arrays.rows import RowBlocks, check_finite_rows, to_numpy
from .._io.progress import open_bar
from ..backends import get_arrays, get_backend
from ..backends.host_arrays import Host
from .blocks import attack_blocks
from .bounds import Limits, inside_bounds
from .goals import as_goals, check_goals
from .identity import identity
from .models.differentiable import PROBES
from .models.recognise import as_victim, attackable
from .result import AttackResult
from .state import State
from .verify import as_result, push_until_flipped

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Task", "Walked", "columns_of", "open_task", "probe_rows"]

Array = NDArray[Any]


class Walked(Protocol):
    """A block of samples after an attack: the points `here` [n, d] float64, and what is known of the samples."""

    here: Array
    state: State


# What an attack does with a block, given the victim, the samples [n, d], their classes [n] or None and, if there are
# any, the classes to reach.
Walk = Callable[..., Walked]


@dataclass
class Task:
    """A classifier and the samples to attack, checked.

    Attributes
    ----------
    clf : classifier
    victim : MixtureVictim or GradientVictim
        The classifier as attacks see it: scores, directions, margins.
    X : array-like, [n, d]
        As given.
    rows : RowBlocks
        The same in blocks.
    labels : int64 [n] or None
        True classes as indices.
    arrays : Host or Cuda
        The arrays of blocks: NumPy's, or those of a device.
    options : Options
    size : int
        Samples of a block.
    """

    clf: Any
    victim: Any
    X: Any
    rows: RowBlocks
    labels: Array | None
    arrays: Host
    options: Options
    size: int

    def goals(self, target: Any) -> Array | None:
        """The classes that `target` says are to be reached, as indices, int64 [n]; None where it is None."""
        return as_goals(target, len(self.rows), self.victim.labels)

    def run(
        self, name: str, settings: DataclassInstance, limits: Limits, walk: Walk, progress: bool | None,
        victims: Sequence[Any] = (), goals: Array | None = None,
    ) -> AttackResult:  # fmt: skip
        """Attack all samples, and verify and measure the points that are returned.

        Parameters
        ----------
        name : str
            The attack's, recorded in the result together with its `settings`.
        limits : (low, high) or None
            The samples must be within these, and the points returned are.
        walk : callable
            ``walk(victim, block, labels)`` attacks a block; with goals ``walk(victim, block, labels, goals)``.
        progress : bool or None
            A progress bar; None shows it on a terminal and in notebooks.
        victims : sequence
            One for each thread that takes blocks; by default the task's own in this thread.
        goals : int64 [n] or None
            The classes to reach, as indices; None for any other than the true one.
        """
        rows, arrays, labels = self.rows, self.arrays, self.labels
        points = arrays.empty_result(rows.shape, rows.dtype, rows)
        with open_bar(progress, total=len(rows), unit="sample", desc="attack") as bar:

            def attack(victim: Any, block: Array, first: int) -> State:
                part = slice(first, first + len(block))
                if self.options.check_finite:
                    check_finite_rows(block.sum(axis=1, dtype=np.float64), block, first, "X")
                inside_bounds(block, limits, first)
                aims = () if goals is None else (goals[part],)
                walked = walk(victim, block, None if labels is None else labels[part], *aims)
                check_goals(walked.state, first)
                there = push_until_flipped(victim.final(), walked, block, limits)
                points[part] = there if rows.device is not None else arrays.to_host(there)
                return walked.state

            states = attack_blocks(rows, self.size, arrays, victims or [self.victim], attack, bar)
        evidence = {"attack": name, **asdict(settings), "targeted": goals is not None, "dtype": rows.dtype.name}
        return as_result(points, self.X, rows, states, evidence, identity(self.clf))


@contextmanager
def open_task(
    attack: Callable[..., AttackResult], clf: Any, X: Any, y: Any, options: RunOptions,
    direction: str = "gradient", device_copies: int | None = None,
) -> Iterator[Task]:  # fmt: skip
    """The arguments of a public attack, checked, on the device that is the current one within the block.

    Parameters
    ----------
    attack : callable
        The public function, named in errors.
    options : dict
        Its keyword arguments of :class:`mfakit._arrays.options.Options`.
    direction : {"gradient", "log-ratio"}
        The latter is a direction that only RBF machines have.
    device_copies : int, optional
        Float64 arrays as large as a block that the attack holds on a device, beside what a density needs; None for an
        attack that computes on the host only.

    Raises
    ------
    TypeError
        For a classifier that cannot be attacked, and for unknown options.
    ValueError
        For samples, labels or options that do not fit.
    """
    clf = attackable(clf)
    refuse_unknown(attack.__name__, options, attack.__kwdefaults__ or ())
    no_out(attack.__name__, options)
    opts = Options(**options)
    rows = RowBlocks(X, getattr(clf, "n_features", None) or getattr(clf, "n_features_in_", None))
    if device_copies is None:
        only_on_host(attack.__name__, opts, rows)
    arrays = get_arrays(get_backend(opts.backend, rows.device), rows.device)
    with arrays.active():
        size = arrays.plan_block(opts, rows, columns_of(clf), 8, device_copies or 0)
        for mixture in getattr(clf, "mixtures", ()):
            mixture.check_device(rows.device, opts.backend)
        victim = as_victim(clf, size, opts, probe_rows(rows), direction == "log-ratio", rows.device)
        labels = None if y is None else victim.labels(y, len(rows))
        yield Task(clf, victim, X, rows, labels, arrays, opts, size)


def columns_of(clf: Any) -> int:
    """Numbers per sample that a step needs beside the sample: components, support vectors, weights of all classes."""
    mixtures = max((m.factors.n_columns for m in getattr(clf, "mixtures", ())), default=1)
    support = getattr(getattr(clf, "support_vectors_", None), "shape", (1,))[0]
    return max(mixtures, support, int(np.size(getattr(clf, "coef_", 1))))


def probe_rows(rows: RowBlocks) -> Array:
    """Some samples to probe a classifier with; those with NaN are reported where all samples are checked."""
    block = to_numpy(rows.block(0, min(PROBES, len(rows))))
    return np.asarray(block[np.isfinite(block).all(axis=1)])
