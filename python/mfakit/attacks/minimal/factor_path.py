"""Brackets in factor coordinates, by compiled code: for isotropic noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.certify import Certificates, Samples, certify
from ...backends.operands import Coordinates
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
        alpha, w, brackets, reports = self._certify(q, Samples(*q.project(self.here[rows]), state.y[rows]))
        unknown = np.isnan(brackets).any(axis=1)  # too far away for float64
        brackets[unknown] = 0.0, np.inf
        for i in rows[unknown]:
            warn_not_certified(start + int(i), "its log-densities or squared lengths are beyond float64")
        reached = np.isfinite(brackets[:, 1])
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
        lower[rows], pairs[rows] = brackets[:, 0], reports[:, 3]
        return lower, pairs

    def _certify(self, q: FactorCoordinates, samples: Samples) -> Certificates:
        """The kernel, for as many samples at a time as let Ctrl-C be answered in between."""
        coordinates, pairs = Coordinates(*q.kernel_arguments), PairTable.of(q).quadrics
        found, threads = Certificates.zeros(*samples.a.shape), self.victim.threads

        def part(*arrays: Array) -> None:
            certify(coordinates, pairs, Samples(*arrays[:3]), Certificates(*arrays[3:]), threads)

        in_parts(self.victim, part, (*samples, *found), threads)
        return found
