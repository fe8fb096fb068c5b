"""A first point beyond the boundary where no search has found one: on the line to a mean of another class."""

from __future__ import annotations

import numpy as np

from ...bayes.classifier import BayesClassifier
from ..gradient.walk import FeatureWalk

__all__ = ["cross_to_means"]


def cross_to_means(walk: FeatureWalk, clf: BayesClassifier, rows: np.ndarray) -> None:
    """For each of `rows` the point on the boundary between the sample and the nearest mean that is decided for another
    class, by bisection. Samples stay where they are if every mean is decided for their class.
    """
    means = np.concatenate([m.means[m.live] for m in clf.mixtures]).astype(np.float64)
    state, found = walk.state, []
    decided = clf.predict(means) if len(rows) else np.zeros(len(means))
    for i in rows:
        others = means[decided != state.y[i]]
        if len(others):
            with np.errstate(over="ignore"):
                away = np.linalg.norm(others - walk.here[i], axis=1)
            if not away.min() < np.inf:
                continue
            walk.before[i], walk.here[i] = walk.here[i], others[away.argmin()]
            state.flipped[i], state.n_steps[i] = True, max(state.n_steps[i], 1)
            if state.reason[i] == "no crossing":
                state.reason[i] = "flipped"
            found.append(i)
    walk.polish(np.array(found, np.int64))
