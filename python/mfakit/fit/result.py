"""What a fit returns: the mixture, and how it was reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..mixture.mfa import MFA

__all__ = ["FitResult"]


@dataclass
class FitResult:
    """A fitted mixture and how it was reached.

    log_likelihood[i] is the weighted mean log p(x) after i steps, nats, and lower_bound that of `mfa`. Of EM,
    candidates[i] are the components per sample that were scored exactly for it, and methods[i] says how the others were
    left out. events are dicts with "iteration", "event" and what belongs to it.
    """

    mfa: MFA
    lower_bound: float
    log_likelihood: list[float]
    candidates: list[float] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    converged: bool = False
    n_iter: int = 0
    problem: str | None = None

    @property
    def history(self) -> dict[str, Any]:
        """What the estimator shows."""
        history: dict[str, Any] = {"log_likelihood": self.log_likelihood, "events": self.events}
        if self.methods:
            history |= {"candidates": self.candidates, "method": self.methods}
        return history
