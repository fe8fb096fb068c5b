"""Bayes decisions in 60 digits, and a search for flips that a certified radius says are not there; for d up to 3."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

import mfakit

Array = NDArray[Any]

mp.dps = 60


class Exact:
    """A classifier's components by the eigenvectors of their covariances, from the parameters as they are stored."""

    def __init__(self, clf: mfakit.BayesClassifier) -> None:
        self.owner, self.means, self.axes, self.spreads, self.log_const = [], [], [], [], []
        self.d = clf.n_features
        for c, (prior, m) in enumerate(zip(clf.priors, clf.mixtures, strict=True)):
            noise = np.broadcast_to(np.asarray(m.noise_variance, float).reshape(m.n_components, -1), m.means.shape)
            for j in range(m.n_components):
                if m.weights[j] * prior == 0.0:
                    continue
                A = mp.matrix(np.asarray(m.loadings[j], float).tolist()) if m.n_factors else mp.matrix(self.d, 1)
                S = A * A.T + mp.diag([mpf(float(v)) for v in noise[j]])
                values, vectors = mp.eigsy(S) if self.d > 1 else (mp.matrix([S[0, 0]]), mp.matrix([[1]]))
                self.owner.append(c)
                self.means.append([mpf(float(v)) for v in m.means[j]])
                self.spreads.append([values[i] for i in range(self.d)])
                self.axes.append([[vectors[r, i] for r in range(self.d)] for i in range(self.d)])
                log_det = mp.fsum(mp.log(v) for v in self.spreads[-1])
                self.log_const.append(
                    mp.log(mpf(float(prior)))
                    + mp.log(mpf(float(m.weights[j])))
                    - (self.d * mp.log(2 * mp.pi) + log_det) / 2
                )
        self.owner = np.array(self.owner)
        self.U = np.array(self.axes, dtype=object).astype(np.longdouble)  # [K, d, d] rows
        self.root = np.sqrt(_long(self.spreads))  # [K, d]

    def log_probs(self, x: list[Any]) -> list[Any]:
        """Log p_j(x) of every component that occurs."""
        out = []
        for mean, axes, spreads, const in zip(self.means, self.axes, self.spreads, self.log_const, strict=True):
            r = [a - b for a, b in zip(x, mean, strict=True)]
            out.append(const - mp.fsum(mp.fdot(u, r) ** 2 / s for u, s in zip(axes, spreads, strict=True)) / 2)
        return out

    def margin(self, x: Any, y: int) -> Any:
        """Log p_y - log p of the best other class at a point given in float64 or in mp; below 0 it has flipped."""
        logs = self.log_probs([v if isinstance(v, mpf) else mpf(float(v)) for v in x])
        top = max(logs)
        totals = {
            c: mp.log(mp.fsum(mp.exp(v - top) for v, o in zip(logs, self.owner, strict=True) if o == c))
            for c in set(self.owner.tolist())
        }
        own = totals.pop(y, -mp.inf)
        return own - max(totals.values(), default=-mp.inf)

    def near(self, x: Array, y: int) -> Near:
        """The same around x, for many points at once."""
        return Near(self, x, y)

    def pair_flip(self, x: Array, s: int, t: int) -> tuple[Any, list[Any]] | None:
        """The nearest δ [d] with log p_t = log p_s at x + δ, and its length; None if there is none."""
        d, mx = self.d, [mpf(float(v)) for v in x]
        logs = self.log_probs(mx)
        q0 = logs[t] - logs[s]
        if q0 >= 0:
            return mpf(0), [mpf(0)] * d
        H, b = mp.matrix(d, d), mp.matrix(d, 1)
        for j, sign in ((s, 1), (t, -1)):
            for u, v in zip(self.axes[j], self.spreads[j], strict=True):
                along = mp.fdot(u, [a - m for a, m in zip(mx, self.means[j], strict=True)])
                for r in range(d):
                    b[r] += sign * u[r] * along / v
                    for c in range(d):
                        H[r, c] += sign * u[r] * u[c] / v
        h, V = mp.eigsy(H) if d > 1 else (mp.matrix([H[0, 0]]), mp.matrix([[1]]))
        h = [h[i] for i in range(d)]
        beta = [mp.fsum(V[r, i] * b[r] for r in range(d)) for i in range(d)]
        scale = max(abs(v) for v in h) or mpf(1)
        top = max(h)
        pole = 1 / top if top > 0 else mp.inf

        def delta(lam: Any) -> list[Any]:
            return [lam * bi / (1 - lam * hi) for bi, hi in zip(beta, h, strict=True)]

        def q(lam: Any) -> Any:
            e = delta(lam)
            return q0 + mp.fsum(bi * ei + hi * ei * ei / 2 for bi, hi, ei in zip(beta, h, e, strict=True))

        high = pole * (1 - mpf(10) ** -45) if pole < mp.inf else mpf(10) ** 40 / scale
        if q(high) < 0:
            if pole == mp.inf:
                return None
            e = delta(high)  # the hard case: the rest is a step along the top eigenvector
            i = h.index(top)
            c = q(high) - beta[i] * e[i] - top * e[i] ** 2 / 2
            e[i] = (-beta[i] + mp.sqrt(beta[i] ** 2 - 2 * top * c)) / top
        else:
            low = high * mpf(10) ** -80
            while q(low) > 0:
                low *= mpf(10) ** -40
            for _ in range(140):  # by magnitude towards either end, then by halves
                u_low, u_high = 1 - low / pole if pole < mp.inf else 0, 1 - high / pole if pole < mp.inf else 0
                if high > 2 * low:
                    middle = mp.sqrt(low * high)
                elif pole < mp.inf and u_low > 2 * u_high:
                    middle = pole * (1 - mp.sqrt(u_low * u_high))
                else:
                    middle = (low + high) / 2
                if q(middle) < 0:
                    low = middle
                else:
                    high = middle
                if high - low <= high * mpf(10) ** -25 and (
                    pole == mp.inf or high - low <= (pole - high) * mpf(10) ** -20
                ):
                    break
            e = delta(high)
        point = [mp.fsum(V[r, i] * e[i] for i in range(d)) for r in range(d)]
        return mp.sqrt(mp.fsum(v * v for v in point)), point

    def radius_from_pairs(self, x: Array, y: int) -> Any:
        """An upper bound on the true radius: the nearest tie of a pair, where the true class has one component."""
        own = np.flatnonzero(self.owner == y)
        found = [self.pair_flip(x, int(own[0]), int(t)) for t in np.flatnonzero(self.owner != y)]
        return min((f[0] for f in found if f is not None), default=mp.inf) if len(own) == 1 else mp.inf


class Near:
    """Margins around one sample in long double: x - μ is projected in 60 digits, so that only δ is rounded."""

    def __init__(self, exact: Exact, x: Array, y: int) -> None:
        self.exact, self.own = exact, exact.owner == y
        mx = [mpf(float(v)) for v in x]
        self.at = _long(
            [
                [mp.fdot(u, [a - m for a, m in zip(mx, mean, strict=True)]) for u in axes]
                for mean, axes in zip(exact.means, exact.axes, strict=True)
            ]
        )
        self.const = _long(exact.log_const)
        self.others = [exact.owner == c for c in sorted(set(exact.owner.tolist()) - {y})]

    def margins(self, delta: Array) -> Array:
        """[n] of δ [n, d]."""
        z = (self.at + np.einsum("kij,nj->nki", self.exact.U, delta)) / self.exact.root
        log_prob = self.const - 0.5 * (z * z).sum(axis=2)
        own = _log_sum(log_prob[:, self.own])
        return own - np.max([_log_sum(log_prob[:, o]) for o in self.others], axis=0)

    def lowest(self, radius: float, starts: Array, rng: np.random.Generator, rounds: int = 25) -> Array:
        """The δ [d] within the radius where the margin is smallest, as far as rays and a search by steps along every
        axis of every component, of every size, can tell.
        """
        d, r = self.exact.d, np.longdouble(radius)
        dirs = [
            rng.normal(size=(60, d)),
            np.array(list(product((-1, 0, 1), repeat=d))),
            *self.exact.U,
            *(-self.exact.U),
        ]
        means = (self.at[:, :, None] * self.exact.U).sum(axis=1)
        dirs += [-means, means, starts]
        rays = _unit(np.concatenate([np.asarray(v, np.longdouble) for v in dirs]))
        shares = np.concatenate([[1.0], np.geomspace(1e-6, 0.9, 7)]).astype(np.longdouble)
        points = np.concatenate(
            [(shares[:, None, None] * r * rays).reshape(-1, d), _inside(-means, r), _inside(starts, r)]
        )
        values = self.margins(points)
        steps = np.concatenate([self.exact.U.reshape(-1, d), -self.exact.U.reshape(-1, d)])
        steps = (r * np.geomspace(1.0, 1e-14, 15).astype(np.longdouble)[:, None, None] * steps).reshape(-1, d)
        best = points[values.argmin()]
        for start in points[np.argsort(values)[:3]]:
            here, value = start, self.margins(start[None])[0]
            for _ in range(rounds):
                trial = _inside(here + steps, r)
                found = self.margins(trial)
                i = int(found.argmin())
                if not found[i] < value:
                    break
                here, value = trial[i], found[i]
            if value < self.margins(best[None])[0]:
                best = here
        return best


def _long(values: Any) -> Array:
    """mp numbers as long doubles: a double and what it leaves over."""
    array = np.array(values, dtype=object)
    high = array.astype(np.float64)
    with np.errstate(invalid="ignore"):
        rest = np.array(
            [
                float(v - mpf(float(h))) if np.isfinite(h) else 0.0
                for v, h in zip(array.ravel(), high.ravel(), strict=True)
            ]
        )
    return high.astype(np.longdouble) + rest.reshape(high.shape)


def _unit(v: Array) -> Array:
    v = v / np.where(np.abs(v).max(axis=1, keepdims=True) > 0, np.abs(v).max(axis=1, keepdims=True), 1)
    n = np.sqrt((v * v).sum(axis=1, keepdims=True))
    return (v / np.where(n > 0, n, 1))[n[:, 0] > 0]


def _inside(v: Array, radius: Any) -> Array:
    """Points pulled back into the ball."""
    v = np.asarray(v, np.longdouble).reshape(-1, v.shape[-1])
    n = np.sqrt((v * v).sum(axis=1, keepdims=True))
    return v * np.minimum(1, radius / np.where(n > 0, n, 1))


def _log_sum(values: Array) -> Array:
    top = values.max(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(top), top + np.log(np.exp(values - top[:, None]).sum(axis=1)), top)


def flip_below(exact: Exact, x: Array, y: int, lower: float, x_adv: Array, rng: np.random.Generator) -> str | None:
    """What contradicts a certified radius, or None if nothing was found."""
    if lower == 0.0:
        return None
    if exact.margin(x, y) < 0:
        return f"lower {lower:.17g} although the sample is already wrong by {mp.nstr(-exact.margin(x, y), 5)} nats"
    radius = exact.radius_from_pairs(x, y)
    if radius < mpf(lower):
        return f"lower {lower:.17g} and the nearest tie with one component is at {mp.nstr(radius, 17)}"
    reach = min(lower, 1e70)
    starts = [x_adv - x]
    if (exact.owner == y).sum() > 1:
        for s, t in product(np.flatnonzero(exact.owner == y), np.flatnonzero(exact.owner != y)):
            found = exact.pair_flip(x, int(s), int(t))
            if found is not None and found[0] <= 2 * reach:
                starts.append(np.array([float(v) * (1 + 1e-9) for v in found[1]]))
    near = exact.near(x, y)
    delta = near.lowest(reach * (1 - 1e-12), np.array(starts), rng)
    if near.margins(delta[None])[0] < 1e-6:
        point = [
            mpf(float(v)) + mpf(float(np.float64(e))) + mpf(float(e - np.float64(e)))
            for v, e in zip(x, delta, strict=True)
        ]
        length = mp.sqrt(mp.fsum((p - mpf(float(v))) ** 2 for p, v in zip(point, x, strict=True)))
        if exact.margin(point, y) < 0 and length < mpf(lower):
            return f"lower {lower:.17g} and a flip at {mp.nstr(length, 17)}"
    return None
