"""What an attack returns: the points, and the evidence that they do what they claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from .minimal import Grade, MinimalResult

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
        How each sample ended: "flipped", "already wrong", "max_steps", "no gradient", "NaN logits" or
        "not verified"; of :func:`minimal_perturbation` also "no crossing" and "not certified".
    settings : dict
        The attack and its parameters, and which data it was given (dtype, bounds).
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
        """Accuracy on x_adv: right before, and not fooled."""
        return float((~self.already_wrong & ~self.success).mean()) if len(self.success) else float("nan")

    def grade(self, minimal: MinimalResult) -> Grade:
        """Ratios of this attack to the certified minima of the same samples; see :func:`minimal_perturbation`.

        Raises
        ------
        ValueError
            For results of other samples.
        """
        from .minimal import grade

        return grade(self, minimal)

    def __len__(self) -> int:
        return len(self.success)

    def __repr__(self) -> str:
        return (
            f"AttackResult(n={len(self)}, accuracy={self.accuracy:.4g}, success_rate={self.success_rate:.4g}, "
            f"mean_l2={self.mean_l2:.4g})"
        )
