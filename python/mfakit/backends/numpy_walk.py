"""The walk of one sample in factor coordinates, readable: what csrc/include/mfakit/{coordinates,walk}.hpp computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .operands import Coordinates, WalkSettings

__all__ = ["Walker"]

Array = NDArray[Any]

MAX_STEPS, FLIPPED, NO_GRADIENT, ALREADY_WRONG = range(4)


class Walker:
    """Decisions and steps from inner products a [C] with the columns and ‖v‖²; K components, C = K (l + 1)."""

    def __init__(self, coordinates: Coordinates) -> None:
        self.gram, offset, self.variance, self.gain, self.spread, self.log_const, self.first = coordinates
        K, l = self.gain.shape
        self.index = np.arange(K * (l + 1)).reshape(K, l + 1)
        self.mean_column = self.index[:, l]
        self.shift = offset[self.index[:, :l]]  # U_j m_j, [K, l]
        self.mean_norm = offset[self.mean_column]

    def latent(self, a: Array) -> Array:
        """y_j = U_j (v - m_j) of all components, [K, l]."""
        return np.asarray(a[self.index[:, :-1]] - self.shift)

    def log_prob(self, a: Array, sq: float) -> Array:
        """log (prior weight p_j), [K]."""
        y2 = self.latent(a) ** 2
        off = np.maximum(sq - 2.0 * a[self.mean_column] + self.mean_norm - y2.sum(axis=1), 0.0)
        return np.asarray(self.log_const - 0.5 * (off / self.variance + (self.spread * y2).sum(axis=1)))

    def decide(self, a: Array, sq: float) -> tuple[int, Array, Array]:
        """The class decided on, each class's most likely component, and that component's log-probability."""
        log_prob = self.log_prob(a, sq)
        classes = [slice(b, e) for b, e in zip(self.first, self.first[1:], strict=False)]
        total = [np.logaddexp.reduce(log_prob[part]) for part in classes]
        best = np.array([part.start + log_prob[part].argmax() for part in classes])
        return int(np.argmax(total)), best, log_prob[best]

    def gradient(self, a: Array, source: int, target: int) -> tuple[float, Array]:
        """g = ∇ log p_t - ∇ log p_s as (multiple of v, coefficients of the columns [C])."""
        coefficients, y = np.zeros(len(a)), self.latent(a)
        for j, sign in ((target, 1.0), (source, -1.0)):
            coefficients[self.index[j, :-1]] += sign * self.gain[j] * y[j]
            coefficients[self.mean_column[j]] += sign / self.variance[j]
        return 1.0 / self.variance[source] - 1.0 / self.variance[target], coefficients

    def walk(
        self, a: Array, w: Array, sq: float, y: int, settings: WalkSettings
    ) -> tuple[float, float, tuple[int, int, int, int, int]]:
        """Walk in place (a, w) until the decision is no longer y; alpha, ‖v‖² and the report."""
        alpha, source, target, rival, step = 1.0, -1, -1, -1, 0
        before, move = (a.copy(), w.copy(), alpha, sq), (0.0, 0.0)
        while True:
            decided, best, height = self.decide(a, sq)
            if decided != y:
                if step and settings.bisections:
                    alpha, sq = self._bisect(a, w, alpha, before, move, y, settings.bisections)
                return alpha, sq, (FLIPPED if step else ALREADY_WRONG, step, source, target, rival)
            if step == settings.max_steps:
                return alpha, sq, (MAX_STEPS, step, source, target, rival)
            if step == 0 or not settings.frozen:
                height[y] = -np.inf
                rival = int(height.argmax())
                source, target = int(best[y]), int(best[rival])
            along_v, g = self.gradient(a, source, target)
            products = self.gram @ g
            along = along_v * sq + g @ a
            norm2 = along_v**2 * sq + 2.0 * along_v * (g @ a) + g @ products
            if not 0.0 < norm2 < np.inf:
                return alpha, sq, (NO_GRADIENT, step, source, target, rival)
            tau = settings.step_size / np.sqrt(norm2)
            before, move = (a.copy(), w.copy(), alpha, sq), (tau * along, tau * tau * norm2)
            keep = 1.0 + tau * along_v
            a[:] = keep * a + tau * products
            w[:] = keep * w + tau * g
            alpha, sq, step = keep * alpha, max(sq + 2.0 * move[0] + move[1], 0.0), step + 1

    def _bisect(
        self, a: Array, w: Array, alpha: float, before: Any, move: tuple[float, float], y: int, times: int
    ) -> tuple[float, float]:
        """Halve the last step: where it is wrong moves to the nearest such point found."""
        a0, w0, alpha0, sq0 = before
        low, high = 0.0, 1.0

        def sq_at(share: float) -> float:
            return float(max(sq0 + 2.0 * share * move[0] + share * share * move[1], 0.0))

        for _ in range(times):
            share = 0.5 * (low + high)
            wrong = self.decide(a0 + share * (a - a0), sq_at(share))[0] != y
            low, high = (low, share) if wrong else (share, high)
        a[:] = a0 + high * (a - a0)
        w[:] = w0 + high * (w - w0)
        return float(alpha0 + high * (alpha - alpha0)), sq_at(high)
