"""The path of γ of an RBF SVM, from one matrix of squared distances: accuracy and support vectors of each."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._io.progress import open_bar
from ..._threads.process import WAIT_SECONDS, Guard, finish_start, single_threaded_products
from .gram import LIBSVM_BYTES, THREAD_BYTES, check_room
from .solver import Penalty, solve

__all__ = ["GammaPath", "PathSettings", "search_gamma", "stratified_split"]

Array = NDArray[Any]
_logger = logging.getLogger("mfakit")

# Kernel matrices of fits at the same time may take this much in all.
KERNEL_BYTES = 2**31
# γ times the mean squared distance between samples, in half octaves: from nearly linear to one bump per sample.
DEFAULT_MULTIPLES = 2.0 ** np.arange(-2, 6.5, 0.5)


@dataclass(frozen=True, eq=False)
class GammaPath:
    """What each γ gave on the samples held out, in ascending order of γ.

    Attributes
    ----------
    gammas, accuracy : float64 [p]
    n_support : int64 [p]
        Support vectors of the fit to the rest.
    chosen : int
        Index of the largest γ whose accuracy is at least the threshold.
    """

    gammas: Array
    accuracy: Array
    n_support: Array
    chosen: int

    @property
    def gamma(self) -> float:
        """The γ chosen."""
        return float(self.gammas[self.chosen])


class PathSettings(NamedTuple):
    """How to search: threshold (None: the best accuracy of the path), and how to compute."""

    threshold: float | None
    penalty: Penalty
    threads: int
    progress: bool | None


def stratified_split(codes: Array, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Row numbers to fit to and to hold out, `share` of each class; every class keeps a sample to fit to."""
    held = []
    for c in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == c))
        held.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    validation = rng.permutation(np.concatenate(held))
    if not len(validation):
        raise ValueError(
            'gamma="largest-accurate" needs a class with more than one sample to hold out, got 1 sample of each; '
            "add samples or give gamma"
        )
    return np.setdiff1d(np.arange(len(codes)), validation), validation


def search_gamma(
    distances: Array,
    codes: Array,
    split: tuple[Array, Array],
    gammas: Sequence[float] | None,
    settings: PathSettings,
) -> GammaPath:
    """Fit every γ to one part of the samples and look at it on the other.

    Parameters
    ----------
    distances : float64 [n, n]
        Squared distances between the samples.
    codes : int [n]
        Classes 0 .. C - 1.
    split : (rows to fit to, rows held out)
    gammas : sequence of float or None
        None: half octaves around the inverse mean squared distance.
    settings : PathSettings

    Raises
    ------
    ValueError
        If no γ is accurate enough: one sentence with the best.
    """
    n = len(codes)
    mean = float(distances.sum() / (n * (n - 1)))
    values = np.sort(DEFAULT_MULTIPLES / mean if gammas is None else np.asarray(gammas, np.float64))
    study = _Study(distances, codes, split, settings)
    accuracy, n_support = (np.array(c) for c in zip(*_in_threads(study, values), strict=True))
    threshold = accuracy.max() if settings.threshold is None else settings.threshold
    good = np.flatnonzero(accuracy >= threshold)
    if not len(good):
        best = int(accuracy.argmax())
        raise ValueError(
            f"no γ of the path keeps a validation accuracy of {threshold:g}: the best is {accuracy[best]:.4g} at "
            f'γ={values[best]:.4g}; lower accuracy_threshold, pass "best", or give other gammas'
        )
    if good[-1] == len(values) - 1:
        _logger.info("the largest γ of the path, %g, is still accurate: a larger one may be too", values[-1])
    return GammaPath(values, accuracy, n_support, int(good[-1]))


def _in_threads(study: _Study, gammas: Array) -> list[tuple[float, int]]:
    """All fits, several at the same time (libsvm runs without the GIL). Ctrl-C does not wait for those under way, which
    is why the threads are plain ones that nobody joins: a pool interrupted while it takes work keeps its lock for ever.
    """
    n = len(study.fitted)
    workers = max(1, min(study.settings.threads, len(gammas), KERNEL_BYTES // (8 * n**2)))
    check_room(n, workers * ((8 + LIBSVM_BYTES) * n**2 + THREAD_BYTES))
    turns, found = itertools.count(), dict[int, tuple[float, int]]()
    errors: list[BaseException] = []

    def work() -> None:
        while not study.stop.is_set() and (turn := next(turns)) < len(gammas):
            try:
                found[turn] = study(gammas[turn])
            except BaseException as error:  # raised in the thread that waits
                errors.append(error)
                study.stop.set()

    threads = [threading.Thread(target=work, name=f"mfakit-gamma_{i}", daemon=True) for i in range(workers)]
    begun: list[threading.Thread] = []

    def stop() -> None:
        study.stop.set()
        for thread in begun:
            finish_start(thread)

    # One core each: products with threads of their own would fight over the cores of the others.
    with (
        Guard(lambda: None, stop),
        single_threaded_products(scan=True) if workers > 1 else nullcontext(),
        open_bar(study.settings.progress, total=len(gammas), desc="gamma", unit="fit") as bar,
    ):
        try:
            for thread in threads:
                begun.append(thread)
                thread.start()
        except RuntimeError as error:
            raise MemoryError(f"{workers} threads cannot be started ({error}); lower n_threads") from None
        shown = 0
        while len(found) < len(gammas) and not errors:
            threads[0].join(WAIT_SECONDS)
            if not threads[0].is_alive():  # the others are at their last fit
                time.sleep(WAIT_SECONDS / 100)
            bar.update(len(found) - shown)
            shown = len(found)
    if errors:
        raise errors[0]
    return [found[turn] for turn in range(len(gammas))]


class _Study:
    """One γ on the path: fit and accuracy."""

    def __init__(
        self, distances: Array, codes: Array, split: tuple[Array, Array], settings: PathSettings
    ) -> None:  # fmt: skip
        self.distances, self.codes, self.settings = distances, codes, settings
        self.fitted, self.held = split
        self.n_classes = int(codes.max()) + 1
        self.stop = threading.Event()

    def __call__(self, gamma: float) -> tuple[float, int]:
        if self.stop.is_set():
            return np.nan, 0
        kernel = self._kernel(self.fitted, self.fitted, gamma)
        fit = solve(kernel, self.codes[self.fitted], self.n_classes, self.settings.penalty)
        del kernel
        support = self.fitted[fit.support]
        f = self._kernel(self.held, support, gamma) @ fit.dual.T + fit.intercept
        predicted = (f[:, 0] > 0).astype(np.int64) if self.n_classes == 2 else f.argmax(axis=1)
        return float((predicted == self.codes[self.held]).mean()), len(support)

    def _kernel(self, left: Array, right: Array, gamma: float) -> Array:
        kernel = self.distances[np.ix_(left, right)]
        kernel *= -gamma
        return np.asarray(np.exp(kernel, out=kernel))
