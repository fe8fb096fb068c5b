"""Pairs of mixtures fitted to real images, kept as parts (appendix B.1)."""

from __future__ import annotations

import numpy as np

from ...bayes.classifier import BayesClassifier
from ..outcome import Context
from ..resumable import Trained
from .images import RealImages

__all__ = ["fitted_pair"]

# The paper's: components are a thousandth of the samples of a class, with ten factors.
SAMPLES_PER_COMPONENT, N_FACTORS = 1000, 10


def fitted_pair(data: RealImages, context: Context, seed: int) -> BayesClassifier:
    """One mixture fitted to the training images of each class, read where an earlier run has fitted it."""
    key = {**data.training_key, "components": SAMPLES_PER_COMPONENT, "factors": N_FACTORS, "seed": seed}

    def fit() -> BayesClassifier:
        from ...fit.classifier import MFAClassifier  # which loads scikit-learn, and the command line's help needs none

        X, y = data.training_samples
        components = [max(2, round(int(count) / SAMPLES_PER_COMPONENT)) for count in np.bincount(y, minlength=2)]
        estimator = MFAClassifier(components, N_FACTORS, random_state=seed, progress=context.progress)
        found: BayesClassifier = estimator.fit(X, y).bayes_
        return found

    clf: BayesClassifier = Trained(context.store, f"{data.name}-pair", key, fit, BayesClassifier.load).classifier
    return clf
