"""What an attack returns: the points, and the evidence that they do what they claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .._arrays.rows import to_numpy

if TYPE_CHECKING:
    from .minimal.attack import Grade, MinimalResult

__all__ = ["AttackResult"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Adversarial examples of n samples, verified in float64 on the array that is returned.

    Attributes
    ----------
    x_adv : array, [n, d]
        In X's dtype and container. A sample that was not fooled comes back unchanged.
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
        Misclassified before the attack, hence not attacked.
    source, target : int64 [n]
        For mixtures: the component of the true class and of another one that the last step went between; -1 if none.
    target_class : int64 [n]
        The class that `target` belongs to.
    reason : str [n]
        How each sample ended: "flipped", "already wrong", "max_steps", "no gradient", "NaN logits", "NaN gradient" or
        "not verified"; of :func:`minimal_perturbation` also "no crossing" and "not certified".
    settings : dict
        The attack and its parameters, and which data it was given (dtype, bounds).
    classifier : str
        Which classifier was attacked: a digest of its parameters, equal for copies, after saving and loading and on any
        device; "" for one whose parameters are not known.
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

    def adversarial_accuracy_paper(self, y: Any) -> float:
        """Adversarial accuracy as the paper counts it: the share of all samples, those included that were wrong before,
        whose decision at x_adv is the true class.

        The paper's attacks are called without labels and change the *predicted* class, so that of two classes a sample
        that was wrong becomes right: where every sample is fooled this is 1 - accuracy, while
        :attr:`adversarial_accuracy` is 0.

        Parameters
        ----------
        y : array-like, int [n]
            The true classes, in the terms of :attr:`y` (indices into ``classes_``).

        Raises
        ------
        ValueError
            For labels of other samples, or an attack with labels that left samples alone because they were wrong.
        """
        labels = to_numpy(y)
        if labels.shape != self.y.shape or labels.dtype.kind not in "iu":
            raise ValueError(
                f"y must be the true classes of the {len(self)} samples as integers, got {labels.dtype} {labels.shape}"
            )
        unattacked = self.already_wrong & (self.reason == "already wrong")
        if unattacked.any():
            raise ValueError(
                f"{int(unattacked.sum())} sample(s) were wrong already and not attacked, and the paper's count has "
                "them; attack again without y"
            )
        return float((self.y_adv == labels).mean()) if len(labels) else float("nan")

    def grade(self, minimal: MinimalResult) -> Grade:
        """Ratios of this attack to the certified minima of the same samples; see :func:`minimal_perturbation`. It may
        be of another classifier than the minima, such as a network beside the optimal classifier.

        Raises
        ------
        ValueError
            For results of other samples.
        """
        from .minimal.attack import grade

        return grade(self, minimal)

    def __len__(self) -> int:
        return len(self.success)

    def __repr__(self) -> str:
        return (
            f"AttackResult(n={len(self)}, accuracy={self.accuracy:.4g}, success_rate={self.success_rate:.4g}, "
            f"mean_l2={self.mean_l2:.4g})"
        )
