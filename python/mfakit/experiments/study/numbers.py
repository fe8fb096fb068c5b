"""What is kept of a data set whose classifiers were attacked: numbers, and a few samples to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...plots.histograms import PixelChanges

__all__ = ["AttackNumbers", "LearnerNumbers", "SetNumbers"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class AttackNumbers:
    """One attack on one classifier; ℓ2 in data units, shares are of 1.

    Attributes
    ----------
    attack : str
        "gradient" (appendix C.2, with its last step bisected), "closed form", "log-ratio" (the gradient attack along
        the log-ratio of the two kernel sums), "CW-L2" (the paper's preset) or "CW-L2 auto" (its first constant by the
        scale of the logits, more searches for samples that none has fooled, and a polished end).
    adversarial_accuracy : float
        Share of all samples that were right before the attack and were not fooled.
    adversarial_accuracy_paper : float
        The paper's count: share of all samples whose decision after the attack is right. Its attacks change the
        predicted class also of samples that were wrong before, which makes them right where there are two classes.
    mean_l2 : float
        Over the samples that were right and were fooled (section 2.4); NaN if there are none.
    median_ratio, mean_ratio : float
        Of a sample's ℓ2 to its certified Bayes radius; NaN if there are none.
    n_below_radius : int
        Samples fooled by less than their certified Bayes radius. Of the Bayes classifier itself none can be.
    within : float
        Share of pixels that changed by at most 5/255, over fooled samples.
    on_manifold : float
        Mean share of the squared ℓ2 that lies along the subspace of the sample's own component; NaN without a model.
    endings : dict
        How many samples ended how.
    settings : dict
        The attack's own parameters, with bounds.
    l2 : float64 [n]
        NaN where the sample was not fooled, or was wrong before.
    already_wrong : bool [n]
    moved : [m, d]
        Where the shown samples went; NaN for those that were not fooled.
    changes : PixelChanges
        Of all pixels of the samples that were fooled.
    """

    attack: str
    adversarial_accuracy: float
    adversarial_accuracy_paper: float
    mean_l2: float
    median_ratio: float
    mean_ratio: float
    n_below_radius: int
    within: float
    on_manifold: float
    endings: dict[str, int]
    seconds: float
    settings: dict[str, Any]
    l2: Array
    already_wrong: Array
    moved: Array
    changes: PixelChanges

    def curve(self, eps: Array) -> Array:
        """Share of all samples that are right and that this attack does not fool within ℓ2 ≤ eps, for each eps."""
        l2 = np.where(np.isnan(self.l2), np.inf, self.l2)
        return np.asarray([float((~self.already_wrong & (l2 > e)).mean()) for e in eps])


@dataclass(frozen=True, eq=False)
class LearnerNumbers:
    """One classifier on one data set: `accuracy` on the test samples, and what was found in training."""

    name: str
    label: str
    kind: str
    n_train: int | None
    accuracy: float
    train_seconds: float
    training: dict[str, Any]
    attacks: list[AttackNumbers]

    @property
    def strongest(self) -> AttackNumbers:
        """The attack that leaves fewest samples, the first of equals."""
        return min(self.attacks, key=lambda attack: attack.adversarial_accuracy)


@dataclass(frozen=True, eq=False)
class SetNumbers:
    """One data set.

    Attributes
    ----------
    name : str
    n : int
        Test samples.
    classes : tuple of str
        What the two classes are called.
    outside : float
        Share of the test samples' pixels outside [0, 1].
    lower, upper : float64 [n] or None
        Certified Bayes radii of the test samples, 0 where Bayes is wrong; None without a model.
    shown, shown_y : [m, d], [m]
        Some of the test samples.
    learners : list of LearnerNumbers
    """

    name: str
    n: int
    classes: tuple[str, str]
    outside: float
    lower: Array | None
    upper: Array | None
    shown: Array
    shown_y: Array
    learners: list[LearnerNumbers]

    @property
    def mean_radius(self) -> float:
        """Mean certified Bayes radius (upper end) of the samples that Bayes has right; NaN without a model."""
        return mean(self.upper[self.upper > 0]) if self.upper is not None else float("nan")

    @property
    def mean_lower(self) -> float:
        """Its lower end."""
        if self.lower is None or self.upper is None:
            return float("nan")
        return mean(self.lower[self.upper > 0])

    def learner(self, name: str) -> LearnerNumbers:
        """The learner of this name.

        Raises
        ------
        KeyError
            If there is none.
        """
        found = {learner.name: learner for learner in self.learners}
        return found[name]


def mean(values: Array) -> float:
    """The mean of finite values, NaN of none."""
    return float(values.mean()) if values.size else float("nan")
