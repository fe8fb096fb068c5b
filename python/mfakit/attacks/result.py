"""What an attack returns: the points, and the evidence that they fool the classifier."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._arrays.rows import array_module, is_torch, on_device_of, to_numpy
from .._io.html import card
from .._threads.process import errstate

__all__ = ["AttackResult", "Grade", "MinimalResult", "grade"]

Array = NDArray[Any]
Result = TypeVar("Result", bound="AttackResult")

# Section 2.4: changes of at most this per pixel are hardly seen.
PIXEL_THRESHOLD = 5 / 255


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Adversarial examples of n samples, verified in float64 on the array that is returned.

    Attributes
    ----------
    x_adv : array, [n, d]
        In X's dtype and container; of a DataFrame, a NumPy array. A sample that was not fooled comes back unchanged.
    success : bool [n]
        Right before and wrong after.
    l2 : float64 [n]
        ‖x_adv - x‖₂ in data units, of the returned arrays; NaN where not successful.
    n_steps : int64 [n]
        Steps taken.
    y : int64 [n]
        The classes attacked.
    y_adv : int64 [n]
        The decision at x_adv.
    already_wrong : bool [n]
        Misclassified before the attack, and so not attacked.
    source, target : int64 [n]
        For mixtures: the components of the true class and of another class that the last step went between; -1 if none.
    target_class : int64 [n]
        The class that `target` belongs to.
    reason : str [n]
        How each sample ended: "flipped", "already wrong", "max_steps", "no gradient", "NaN logits", "NaN gradient" or
        "not verified"; of :func:`minimal_perturbation` also "no crossing" and "not certified"; of points that
        :func:`evaluate` was given also "not fooled".
    settings : dict
        The attack and its settings, and properties of the data (dtype, bounds).
    classifier : str
        A digest of the attacked classifier's parameters, equal for copies, after saving and loading and on any device;
        "" if the parameters are not known.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> r = mfakit.attacks.gradient_attack(clf, np.array([[-1.0, 0.5], [1.0, 0.0]]), [0, 0], polish=True)
    >>> r.success, r.already_wrong, round(r.mean_l2, 3)
    (array([ True, False]), array([False,  True]), 1.0)
    >>> r[:1]
    AttackResult(n=1, accuracy=1, success_rate=1, mean_l2=1)
    """

    x_adv: Any
    success: Array
    l2: Array
    n_steps: Array
    y: Array
    y_adv: Array
    already_wrong: Array
    source: Array
    target: Array
    target_class: Array
    reason: Array
    settings: dict[str, Any] = field(default_factory=dict)
    classifier: str = ""

    @property
    def mean_l2(self) -> float:
        """Mean ℓ2 over successful attacks on rightly classified samples (section 2.4); NaN if there are none."""
        return float(self.l2[self.success].mean()) if self.success.any() else float("nan")

    @property
    def success_rate(self) -> float:
        """Share of the attacked (rightly classified) samples that were fooled; NaN if none was attacked."""
        attacked = ~self.already_wrong
        return float(self.success[attacked].mean()) if attacked.any() else float("nan")

    @property
    def accuracy(self) -> float:
        """Accuracy before the attack."""
        return float((~self.already_wrong).mean()) if len(self.success) else float("nan")

    @property
    def adversarial_accuracy(self) -> float:
        """Share of all samples that were right before and were not fooled; not the paper's count, which is
        :meth:`adversarial_accuracy_paper`.
        """
        return float((~self.already_wrong & ~self.success).mean()) if len(self.success) else float("nan")

    def curve(self, eps: Any) -> Array:
        """Robust accuracy: the share of all samples that are right and that the attack does not fool within ℓ2 ≤ eps.

        Parameters
        ----------
        eps : array-like, [m]
            ℓ2 in data units.

        Returns
        -------
        shares : float64 [m]

        Raises
        ------
        ValueError
            For eps that are negative or NaN.

        Notes
        -----
        An upper bound of the truth, as every attack's is; :meth:`MinimalResult.certified_curve` has both.

        Examples
        --------
        >>> import mfakit
        >>> clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
        >>> r = mfakit.attacks.gradient_attack(clf, *clf.sample(20, rng=0))
        >>> r.curve([0.0, 1.0, 100.0])
        array([1., 1., 0.])
        """
        return _shares_beyond(np.where(self.success, self.l2, np.inf), ~self.already_wrong, eps)

    def adversarial_accuracy_paper(self, y: Any) -> float:
        """Adversarial accuracy as the paper counts it: the share of all samples, those included that were wrong before,
        whose decision at x_adv is the true class.

        The paper's attacks are called without labels and change the *predicted* class, so that with two classes a
        sample that was wrong becomes right: if every sample is fooled this is 1 - accuracy, while
        :attr:`adversarial_accuracy` is 0.

        Parameters
        ----------
        y : array-like, int [n]
            The true classes, in the terms of ``y`` (indices into ``classes_``).

        Raises
        ------
        ValueError
            For labels of other samples, or if the attack had labels and skipped samples that were wrong.
        """
        labels = to_numpy(y, "y")
        if labels.shape != self.y.shape or labels.dtype.kind not in "iu":
            raise ValueError(
                f"y must be the true classes of the {len(self)} samples as integers, got {labels.dtype} {labels.shape}"
            )
        unattacked = self.already_wrong & (self.reason == "already wrong")
        if unattacked.any():
            raise ValueError(
                f"{int(unattacked.sum())} sample(s) were wrong already and not attacked, but the paper's count "
                "includes them; attack again without y"
            )
        return float((self.y_adv == labels).mean()) if len(labels) else float("nan")

    def grade(self, minimal: MinimalResult) -> Grade:
        """Ratios of this attack to the certified minima of the same samples; see :func:`minimal_perturbation`. The
        minima may be those of another classifier, such as the optimal one for an attack on a network.

        Raises
        ------
        ValueError
            For results of other samples.
        """
        return grade(self, minimal)

    def to_dict(self) -> dict[str, Array]:
        """What is known of each sample, arrays [n] by name: all fields but the points, the settings and the classifier.

        Notes
        -----
        ``np.savez(path, x_adv=result.x_adv, **result.to_dict())`` keeps a result.
        """
        others = ("x_adv", "settings", "classifier")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}

    def to_frame(self) -> Any:
        """:meth:`to_dict` as a pandas DataFrame, a row for each sample; pandas must be installed."""
        return _as_frame(self.to_dict())

    def __getitem__(self: Result, rows: Any) -> Result:
        """The result of some samples: an index, a slice, integers, or a bool mask [n]."""
        index = np.atleast_1d(np.arange(len(self))[to_numpy(rows) if hasattr(rows, "__array__") else rows])
        if index.ndim != 1:
            raise IndexError(f"a result is indexed by samples, got indices of shape {index.shape}")
        return replace(
            self, x_adv=_rows_of(self.x_adv, index), **{name: value[index] for name, value in self.to_dict().items()}
        )

    def __len__(self) -> int:
        return len(self.success)

    def _summary(self) -> dict[str, str]:
        """What a notebook shows."""
        reasons, counts = np.unique(self.reason, return_counts=True)
        return {
            "attack": str(self.settings.get("attack", "")),
            "samples": str(len(self)),
            "accuracy before": f"{self.accuracy:.4g}",
            "success rate": f"{self.success_rate:.4g}",
            "mean ℓ2": f"{self.mean_l2:.4g}",
            "how samples ended": ", ".join(f"{reason}: {n}" for reason, n in zip(reasons, counts, strict=True)),
        }

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self._summary().items())

    def __repr__(self) -> str:
        return (
            f"AttackResult(n={len(self)}, accuracy={self.accuracy:.4g}, success_rate={self.success_rate:.4g}, "
            f"mean_l2={self.mean_l2:.4g})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class MinimalResult(AttackResult):
    """The bracket [lower, upper] on each sample's smallest perturbation, and the point that attains `upper`.

    Beside the fields of :class:`AttackResult` (`l2` is `upper`, `n_steps` the duals solved):

    Attributes
    ----------
    lower : float64 [n]
        No perturbation shorter than this changes the decision; ℓ2 in data units. 0 where the sample is already wrong,
        infinite where the other classes cannot be reached (weight or prior 0, no support vector of theirs); and 0,
        with the reason "not certified", where numbers leave float64's range or the search of this sample fails.
    upper : float64 [n]
        ‖x_adv - x‖ of the verified point; 0 where already wrong, infinite where no point was found.
    n_pairs_examined : int64 [n]
        Secular equations solved; of other classifiers than mixtures, problems: planes of a linear one, parts of balls
        of an RBF machine, least-squares problems of the nearest neighbour.

    Examples
    --------
    >>> import numpy as np, mfakit
    >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
    >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
    >>> r = mfakit.attacks.minimal_perturbation(clf, np.array([[-1.0, 0.5]]))
    >>> r.lower.round(3), r.upper.round(3)
    (array([1.]), array([1.]))
    """

    lower: Array = field(default_factory=lambda: np.zeros(0))
    upper: Array = field(default_factory=lambda: np.zeros(0))
    n_pairs_examined: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def certified_curve(self, eps: Any) -> tuple[Array, Array]:
        """Between which shares the true robust accuracy lies at each eps: samples whose certified radius is at least
        eps, and those that no known point within it fools; float64 [m] each.

        A sample counts in the lower share if lower ≥ eps, because no perturbation shorter than that changes the
        decision, and in the upper one if upper > eps.

        Examples
        --------
        >>> import numpy as np, mfakit
        >>> mixtures = [mfakit.MFA([1.0], [[m, 0.0]], [[[0.0], [1.0]]], 0.01) for m in (-1.0, 1.0)]
        >>> clf = mfakit.BayesClassifier(mixtures)  # two lines, at a distance of 2
        >>> r = mfakit.attacks.minimal_perturbation(clf, np.array([[-1.0, 0.5], [-1.5, 0.0]]))
        >>> low, high = r.certified_curve([0.5, 1.2, 2.0])
        >>> low.round(2), high.round(2)
        (array([1. , 0.5, 0. ]), array([1. , 0.5, 0. ]))
        """
        right = ~self.already_wrong
        return _shares_beyond(np.nextafter(self.lower, np.inf), right, eps), _shares_beyond(self.upper, right, eps)

    @property
    def gap(self) -> Array:
        """(upper - lower) / upper, [n]; 0 where both are 0 or infinite."""
        closed = (self.upper == 0) | (self.upper == self.lower)
        with errstate(invalid="ignore"):
            return np.where(closed, 0.0, 1.0 - self.lower / np.where(closed, 1.0, self.upper))

    def _summary(self) -> dict[str, str]:
        gap = self.gap[~self.already_wrong]
        return {**super()._summary(), "largest gap": f"{gap.max():.2g}" if gap.size else "none"}

    def __repr__(self) -> str:
        attacked = ~self.already_wrong
        gap = self.gap[attacked]
        worst = f"{gap.max():.2g}" if gap.size else "nan"
        return f"MinimalResult(n={len(self)}, mean_l2={self.mean_l2:.5g}, largest gap={worst})"


@dataclass(frozen=True, eq=False)
class Grade:
    """An attack measured against the certified truth.

    Attributes
    ----------
    over_lower, over_upper : float64 [n]
        ℓ2 of the attack over either end of the bracket; NaN where it failed or the bracket is not finite.
    contradictions : int64 [m]
        Samples fooled below the lower bound of the same classifier, so that one of the two results is wrong. Empty for
        another classifier, because the bound says nothing about it.
    same_classifier : bool
        Whether the attack and the minima are of the same classifier.
    """

    over_lower: Array
    over_upper: Array
    contradictions: Array
    same_classifier: bool = True

    @property
    def mean(self) -> float:
        """Mean ratio to the smallest perturbation known; NaN if nothing can be graded. For the same classifier a
        perfect attack has 1.
        """
        graded = np.isfinite(self.over_upper)
        return float(self.over_upper[graded].mean()) if graded.any() else float("nan")

    def to_dict(self) -> dict[str, Array]:
        """The ratios [n] by name, and which samples contradict the bound, bool [n]."""
        contradicts = np.zeros(len(self.over_lower), bool)
        contradicts[self.contradictions] = True
        return {"over_lower": self.over_lower, "over_upper": self.over_upper, "contradicts": contradicts}

    def to_frame(self) -> Any:
        """:meth:`to_dict` as a pandas DataFrame, a row for each sample; pandas must be installed."""
        return _as_frame(self.to_dict())

    def _repr_html_(self) -> str:
        graded = self.over_upper[np.isfinite(self.over_upper)]
        rows = {
            "samples graded": f"{len(graded)} of {len(self.over_upper)}",
            "mean ratio": f"{self.mean:.5g}",
            "median ratio": f"{np.median(graded):.5g}" if len(graded) else "none",
            "contradictions": str(len(self.contradictions)) if self.same_classifier else "minima of another classifier",
        }
        return card("Grade", rows.items())

    def __repr__(self) -> str:
        found = f"contradictions={len(self.contradictions)}" if self.same_classifier else "of another classifier"
        return f"Grade(mean={self.mean:.5g}, {found})"


def _shares_beyond(length: Array, right: Array, eps: Any) -> Array:
    """By eps, the share of all samples that are right and whose length is larger."""
    values = np.atleast_1d(np.asarray(to_numpy(eps, "eps"), np.float64))
    if values.ndim != 1 or not (values >= 0).all():
        raise ValueError(f"eps must be norms of at least 0, [m], got {np.array2string(values, threshold=5)}")
    if not len(length):
        return np.full(len(values), np.nan)
    return np.asarray([float((right & (length > e)).mean()) for e in values])


def _as_frame(columns: dict[str, Array]) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"to_frame needs pandas: pip install pandas ({error}); to_dict needs nothing") from None
    return pandas.DataFrame(columns)


def _rows_of(array: Any, index: Array) -> Any:
    """Some rows of an array of any library."""
    if is_torch(array):
        import torch

        return array[torch.tensor(index.copy(), device=array.device)]
    with on_device_of(array):
        return array[array_module(array).asarray(index)]


def grade(attack: AttackResult, minimal: MinimalResult) -> Grade:
    """Measure an attack's norms against certified brackets of the same samples; see :meth:`AttackResult.grade`."""
    if not isinstance(minimal, MinimalResult):
        raise TypeError(f"an attack is graded by a MinimalResult, got a {type(minimal).__name__}")
    if len(attack) != len(minimal) or not np.array_equal(attack.y, minimal.y):
        raise ValueError(f"the two results must be of the same samples, got {len(attack)} and {len(minimal)}")
    usable = attack.success & np.isfinite(minimal.upper) & (minimal.lower > 0)
    l2 = np.where(usable, attack.l2, np.nan)
    with errstate(divide="ignore", invalid="ignore"):
        over_lower, over_upper = l2 / minimal.lower, l2 / minimal.upper
    same = attack.classifier == minimal.classifier
    below = usable & (attack.l2 < minimal.lower) & same
    return Grade(over_lower, over_upper, np.flatnonzero(below), same)
