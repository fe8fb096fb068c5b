"""Upper bounds on log p_T that are quadratic, where t is the likeliest component of T.

With u_j = log p_t - log p_j ≥ 0, log p_T = log p_t + log Z, Z = 1 + Σ_j e^(-u_j). On a piece a_j ≤ u_j ≤ b_j the convex
e^(-u) is below its chord h_j - k_j u (b infinite: k = 0, h = e^(-a)), and the concave logarithm below its tangent at
any Z₀ > 0:

    log p_T ≤ log p_t + log Z₀ - 1 + (1 + Σ h_j) / Z₀ - Σ (k_j / Z₀) u_j,

a mixture of log p_t and log p_j with weights that sum to 1, plus a constant. Pieces that cover all u_j ≥ 0 prove the
least of their bounds. A piece is divided where all others are well below t (:meth:`Majorant.apart`) and where one of
them is near it (:meth:`Majorant.near`), and what is left is cut in two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .components import Array

__all__ = ["Majorant"]

# A cut is worth it if it is this far inside its piece, and the bound on log p_T this loose there (nats).
INSIDE, LOOSE = 1e-3, 1e-5
# Components that add less than this to p_T / p_t are in Z whole, never cut.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class Majorant:
    """The bound for one t on one piece.

    Attributes
    ----------
    t : int
    others : int64 [m]
        The components j.
    low, high : [m]
        a and b.
    at : [m]
        The u_j that the tangent of the logarithm is taken at.
    pulled, pull : int, float
        On the piece high_j - u_j ≥ 0, of which `pull` ≥ 0 times may be added for the j numbered `pulled` in `others`.
    """

    t: int
    others: Array
    low: Array
    high: Array
    at: Array
    pulled: int = 0
    pull: float = 0.0

    @classmethod
    def whole(cls, t: int, others: Array, low: Array) -> Majorant:
        """The piece u_j ≥ low_j."""
        return cls(t, others, low, np.full(len(others), np.inf), low)

    def _chords(self) -> tuple[Array, Array]:
        """h and k of the chords h - k u."""
        wide = np.isinf(self.high)
        length = np.where(wide, 1.0, self.high - self.low)
        k = np.where(wide, 0.0, -np.exp(-self.low) * np.expm1(-length) / length)
        return np.exp(-self.low) + k * self.low, k

    def mixture(self) -> tuple[list[int], Array, float]:
        """Components, weights φ that sum to 1, and the constant."""
        h, k = self._chords()
        Z0 = max(1.0 + float((h - k * np.clip(self.at, self.low, self.high)).sum()), float(k.sum()))
        shares = k / Z0
        offset = float(np.log(Z0)) - 1.0 + (1.0 + float(h.sum())) / Z0
        if self.pull > 0.0:
            pull = self.pull * (1.0 - float(shares.sum()))
            shares[self.pulled] += pull
            offset += pull * float(self.high[self.pulled])
        used = np.flatnonzero(shares > 0.0)
        phi = shares[used]
        return [self.t, *map(int, self.others[used])], np.append(1.0 - phi.sum(), phi), offset

    def free(self, lead: float) -> Array:
        """Numbers of the components in `others` that nothing keeps from being less than `lead` below t."""
        return np.flatnonzero((self.low < lead) & np.isinf(self.high))

    def apart(self, lead: float) -> Majorant:
        """The part where all these are at least `lead` below t."""
        free = (self.low < lead) & np.isinf(self.high)
        low = np.where(free, lead, self.low)
        return replace(self, low=low, at=np.maximum(self.at, low), pull=0.0)

    def near(self, i: int, lead: float) -> Majorant:
        """The part where component others[i] is at most `lead` below t."""
        high = self.high.copy()
        high[i] = lead
        return replace(self, high=high, pulled=i, pull=0.0)

    def cut(self, log_prob: Array, visible: float = 0.0) -> tuple[Majorant, Majorant] | None:
        """Two pieces that meet where the components have log_prob [K], and are tight there; or, where a component is
        outside its piece there, at the point that its chord is farthest from.

        None if the bound on log p_T is off by less than `visible`, in nats.
        """
        u = log_prob[self.t] - log_prob[self.others]
        h, k = self._chords()
        least = max(LOOSE, visible)
        for at in (u, -np.log(np.where(k > 0.0, k, 1.0))):
            inside = (at > self.low + INSIDE) & (at < self.high - INSIDE) & (np.exp(-self.low) >= NEGLIGIBLE)
            slack = np.where(inside, h - k * at - np.exp(-np.maximum(at, 0.0)), 0.0)
            i = int(slack.argmax()) if len(slack) else 0
            if len(slack) and slack[i] >= least:
                high, low = self.high.copy(), self.low.copy()
                high[i] = low[i] = at[i]
                return replace(self, high=high, at=u, pull=0.0), replace(self, low=low, at=u, pull=0.0)
        return None
