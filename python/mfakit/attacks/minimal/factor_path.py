"""Brackets in factor coordinates, by compiled code: for isotropic noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._threads.process import forked
from ...bayes.classifier import BayesClassifier
from ..coordinates import FactorCoordinates
from ..gradient.walk import FeatureWalk, in_parts, within_class
from ..models.bayes import MixtureVictim
from ..state import Choice
from .feature_path import NOT_CERTIFIED, warn_not_certified
from .pairs import PairTable

__all__ = ["FactorSearch"]

Array = NDArray[Any]


class FactorSearch(FeatureWalk):
    """One block of samples; the kernel finds the bracket, and the base class's state is what the verification reads."""

    victim: MixtureVictim

    def bracket(self, clf: Any, start: int) -> tuple[Array, Array]:
        """Lower bounds [n] and pairs examined [n]; leaves the points beyond the boundary in `here`.

        `start` is the number of the block's first sample, for messages.
        """
        q, state = FactorCoordinates.of(clf), self.state
        finite = np.isfinite(self.here).all(axis=1)
        rows = np.flatnonzero(finite & ~state.already_wrong)
        a, sq = q.project(self.here[rows])
        alpha, w, found = np.zeros(len(rows)), np.zeros_like(a), np.zeros((len(rows), 2))
        reports = np.zeros((len(rows), 5), np.int64)
        self._certify(clf, (state.y[rows], a, sq, alpha, w, found, reports))
        unknown = np.isnan(found).any(axis=1)  # too far away for float64
        found[unknown] = 0.0, np.inf
        for i in rows[unknown]:
            warn_not_certified(start + int(i), "its log-densities or squared lengths are beyond float64")
        reached = np.isfinite(found[:, 1])
        X = self.here[rows]
        self.here[rows] = np.where(reached[:, None], X + alpha[:, None] * (X - q.center) + w @ q.columns, X)
        state.flipped[rows] = reached
        state.reason[rows] = np.where(reached, "flipped", np.where(unknown, NOT_CERTIFIED, "no crossing"))
        state.n_steps[rows] = reports[:, 4]
        chosen = Choice(len(rows))
        chosen.target_class = reports[:, 2]
        chosen.source = within_class(reports[:, 0], state.y[rows], q.first)
        chosen.target = within_class(reports[:, 1], chosen.target_class, q.first)
        state.choice.put(rows, chosen)
        lower, pairs = np.zeros(len(self.here)), np.zeros(len(self.here))
        lower[~finite] = np.nan
        lower[rows], pairs[rows] = found[:, 0], reports[:, 3]
        return lower, pairs

    def _certify(self, clf: BayesClassifier, arrays: tuple[Array, ...]) -> None:
        """The kernel, for as many samples at a time as let Ctrl-C be answered in between. `arrays` [n, ...] are y and
        what the kernel reads and fills.
        """
        from ... import _native

        q, threads = FactorCoordinates.of(clf), 1 if forked() else self.victim.threads

        def part(*block: Array) -> None:
            _native.certify(
                *q.kernel_arguments, *PairTable.of(q).kernel_arguments, q.tilt, q.size, clf.n_features, *block, threads
            )

        in_parts(self.victim, part, arrays, threads)
