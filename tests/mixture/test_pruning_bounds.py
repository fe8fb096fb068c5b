"""The bound of a component's log-density as it is computed, and a search for counter-examples to it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from density_cases import Array, samples
from pruning_cases import HARD, hard_model
from scipy.special import logsumexp
from support import random_mfa

import mfakit
from mfakit.backends import cuda_ops, get_backend, numpy_ops, why_missing
from mfakit.backends.numpy_ops import CUTOFF_NATS
from mfakit.backends.operands import Pairs, Projected, Projection
from mfakit.mixture.pruning import Pruner, project


def _bounds(mfa: mfakit.MFA, X: Array, real: Any, ops: Any, r: int) -> Array:
    """The computed bound of every sample and component [n, k], float64."""
    factors = mfa.factors
    pruner = Pruner.of([factors], (r,))
    (table,) = pruner.tables(factors, real)
    centered, norms = np.empty(X.shape, real), np.empty(len(X))
    ops.center_rows(X.astype(real), pruner.center, centered, norms)
    coordinates = np.ascontiguousarray(centered @ pruner.matrix(real))
    sums = pruner.directions.sums(np.square(centered, dtype=np.float64))
    projected = project(coordinates, sums, pruner.directions, table.means.shape[1])
    above, best = np.empty((len(X), mfa.n_components), real), np.empty((len(X), 1), np.int64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        ops.bound_components(projected, table, above, best)
    return above.astype(np.float64)


def _values(mfa: mfakit.MFA, X: Array) -> Array:
    """Every component's log-probability [n, k] from its residual, in float64."""
    n, k = len(X), mfa.n_components
    components, rows = (a.ravel() for a in np.meshgrid(np.arange(k), np.arange(n), indexing="ij"))
    values, latent = np.empty(n * k), np.empty((n * k, mfa.n_factors))
    numpy_ops.refine(X.astype(np.float64), Pairs(rows, components), mfa.factors.mixture, values, latent)
    return values.reshape(k, n).T


def _exact(mfa: mfakit.MFA, X: Array) -> tuple[Array, Array]:
    """The same in extended precision, and how far that may be rounded: the residual of the least-squares problem
    min over z of ‖D^-½ (x - μ - A z)‖² + ‖z‖², by Gram and Schmidt, each step twice.
    """
    wide = np.longdouble
    sigma = np.sqrt(mfa.noise_variance.astype(wide).reshape(mfa.n_components, -1))
    A = mfa.loadings.astype(wide) / sigma[:, :, None]
    k, d, l = A.shape
    Q = np.concatenate([A, np.broadcast_to(np.eye(l, dtype=wide), (k, l, l))], axis=1)
    R = np.zeros((len(X), k, d + l), wide)
    R[:, :, :d] = (X.astype(wide)[:, None] - mfa.means.astype(wide)) / sigma
    length = np.sqrt((R**2).sum(axis=2))
    for a in range(l):
        q = Q[:, :, a]
        for _ in range(2):
            for b in range(a):
                q = q - Q[:, :, b] * (Q[:, :, b] * q).sum(axis=1, keepdims=True)
        Q[:, :, a] = q / np.sqrt((q**2).sum(axis=1, keepdims=True))
        for _ in range(2):
            R = R - Q[:, :, a] * (R * Q[:, :, a]).sum(axis=2, keepdims=True)
    maha = (R**2).sum(axis=2)
    delta = 20 * np.finfo(wide).eps * (1 + np.sqrt((A**2).sum(axis=(1, 2)))) * length
    log_norm = mfa.factors.log_norm
    with np.errstate(invalid="ignore"):
        error = 2 * np.sqrt(maha) * delta + delta**2 + 1e-14 * (np.abs(log_norm) + maha)
    return (log_norm - maha / 2).astype(float), error.astype(float)


def _near_threshold(mfa: mfakit.MFA, rng: np.random.Generator, n: int, real: Any) -> Array:
    """Samples on the way from one component to another one, each at the point where the other's value crosses the
    threshold of being left out: half of the pairs (sample, other) then lie within 5 nats of it.
    """
    live = np.flatnonzero(mfa.weights > 0)
    start, end = rng.choice(live, n), rng.choice(live, n)
    scale = np.sqrt(mfa.noise_variance[start]).reshape(n, -1)
    latent = rng.normal(size=(n, mfa.n_factors, 1))
    inside = mfa.means[start] + (mfa.loadings[start].astype(float) @ latent)[:, :, 0]
    inside = inside + scale * rng.normal(size=inside.shape)
    low, high, index = np.zeros(n), np.ones(n), np.arange(n)
    gap = CUTOFF_NATS + np.log(mfa.n_components)
    for _ in range(60):
        t = (low + high) / 2
        X = inside + t[:, None] * (mfa.means[end] - inside)
        values = _values(mfa, X.astype(real))
        beyond = values[index, end] > values.max(axis=1) - gap
        low, high = np.where(beyond, low, t), np.where(beyond, t, high)
    return np.concatenate([X, inside, mfa.sample(max(1, n // 4), rng=rng, dtype=np.float64)[0]]).astype(real)


def _uphill(mfa: mfakit.MFA, X: Array, real: Any, ops: Any, rng: np.random.Generator, r: int) -> Array:
    """Samples moved, by accepted random steps, to where value minus bound is larger, relative to the terms."""
    step = 0.3 * np.abs(X - mfa.means.mean(axis=0)).mean(axis=1, keepdims=True).astype(float)

    def score(points: Array) -> Array:
        bound, value = _bounds(mfa, points, real, ops, r), _values(mfa, points)
        with np.errstate(invalid="ignore"):
            return np.nanmax((value - bound) / (1.0 + np.abs(value)), axis=1)

    best = score(X)
    for _ in range(12):
        trial = (X + step * rng.normal(size=X.shape) * rng.choice([1.0, 0.1, 0.01])).astype(real)
        found = score(trial)
        X, best = np.where((found > best)[:, None], trial, X), np.maximum(found, best)
    return X


def _aligned(mfa: mfakit.MFA, rng: np.random.Generator, n: int, real: Any, r: int) -> Array:
    """Samples that differ from a mean by parts of one of its loadings, in the projection and in what that leaves."""
    if not mfa.n_factors:
        return np.empty((0, mfa.n_features), real)
    rows = Pruner.of([mfa.factors], (r,)).matrix(np.float64).T
    component, factor = rng.integers(mfa.n_components, size=n), rng.integers(mfa.n_factors, size=n)
    loading = mfa.loadings[component, :, factor].astype(float)
    inside = loading @ rows.T @ rows
    near, far = rng.normal(size=(2, n, 1)) * [[[1.0]], [[3.0]]]
    return (mfa.means[component] + near * inside + far * (loading - inside)).astype(real)


def _search(names: list[str], pairs: int, ops: Any, seed: int) -> tuple[int, int]:
    """Assert the bound for that many pairs; how many were tried, and how many of them within 5 nats of the threshold,
    in value or bound.
    """
    rng, tried, near = np.random.default_rng(seed), 0, 0
    while tried < pairs:
        for name in names:
            for real in (np.float32, np.float64):
                mfa = hard_model(name, rng, real)
                X = _near_threshold(mfa, rng, 40, real)
                r = int(rng.choice([1, 2, 3, 16, 64]))
                X = np.concatenate([X, _uphill(mfa, X[:20], real, ops, rng, r), _aligned(mfa, rng, 30, real, r)])
                bound, (value, error) = _bounds(mfa, X, real, ops, r), _exact(mfa, X)
                broken = value - error > bound
                assert not broken.any(), (name, real, r, np.argwhere(broken)[:3], value[broken][:3], bound[broken][:3])
                threshold = value.max(axis=1, keepdims=True) - CUTOFF_NATS - np.log(mfa.n_components)
                close = (np.abs(value - threshold) < 5) | (np.abs(bound - threshold) < 5)
                chosen = close.copy()  # as many others as lie near
                others = np.flatnonzero(~close)
                chosen.flat[rng.permutation(others)[: int(close.sum())]] = True
                tried += int(chosen.sum())
                near += int(close.sum())
    return tried, near


@pytest.mark.parametrize("ops_name", ["native", "numpy"])
def test_quick_search_for_counter_examples(ops_name: str) -> None:
    ops = _ops(ops_name)
    tried, near = _search(HARD, 10_000, ops, seed=3)
    assert tried >= 10_000
    assert 2 * near >= tried


class _There:
    """The operations of a device on arrays of the host."""

    center_rows = staticmethod(numpy_ops.center_rows)

    def __init__(self, device: Any) -> None:
        self.device = device

    def bound_components(self, projected: Projected, table: Projection, above: Array, best: Array) -> None:
        operands = [type(operand)._make(map(self.device.asarray, operand)) for operand in (projected, table)]
        bounds, highest = self.device.asarray(above), self.device.asarray(best)
        cuda_ops.bound_components(*operands, bounds, highest)
        above[:], best[:] = self.device.to_host(bounds), self.device.to_host(highest)


@pytest.mark.parametrize("part", [slice(0, None, 9), pytest.param(slice(None), marks=pytest.mark.slow)])
def test_search_for_counter_examples_on_the_device(device: Any, part: slice) -> None:
    tried, near = _search(HARD[part], 500, _There(device), seed=5)
    assert tried >= 500
    assert 2 * near >= tried


@pytest.mark.slow
def test_long_search_for_counter_examples() -> None:
    tried, near = _search(HARD, 1_000_000, _ops("native"), seed=4)
    assert 2 * near >= tried


def _ops(name: str) -> ModuleType:
    reason = why_missing(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return get_backend(name)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_the_compiled_bound_is_the_readable_one(real: Any) -> None:
    ops = _ops("native")
    for name in HARD:
        rng = np.random.default_rng(2)
        mfa = hard_model(name, rng, real)
        X = samples(mfa, 30, real)
        compiled, readable = (_bounds(mfa, X, real, o, 5) for o in (ops, numpy_ops))
        length = np.linalg.norm(X - mfa.factors.center, axis=1)[:, None]
        length = length + np.linalg.norm(mfa.factors.centered_means, axis=1)
        size = length**2 * mfa.factors.inv_noise + np.abs(compiled)
        np.testing.assert_array_less(np.abs(compiled - readable), 50 * np.finfo(real).eps * size)


def test_a_bound_without_rest_is_the_value() -> None:
    """r = d: nothing is left by the projection, and only rounding is between bound and value."""
    mfa = random_mfa(6, 8, 3)
    X = samples(mfa)
    value = _values(mfa, X)
    np.testing.assert_allclose(_bounds(mfa, X, np.float64, numpy_ops, 8), value, rtol=1e-10)


def test_what_is_dropped_is_less_than_it_may_be() -> None:
    mfa = random_mfa(30, 40, 3, spread=0.4)
    X = samples(mfa, 100)
    kept = mfa.responsibilities(X, method="pruned") > 0
    value = _values(mfa, X)
    dropped = logsumexp(np.where(kept, -np.inf, value), axis=1) - logsumexp(value, axis=1)
    assert dropped.max() < -CUTOFF_NATS + 1e-6


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("name", HARD)
def test_tables_are_as_far_off_as_they_say(name: str, real: Any) -> None:
    """Coordinates of the means, and what the projection leaves of them, against extended precision."""
    mfa = hard_model(name, np.random.default_rng(5), real)
    factors, wide = mfa.factors, np.longdouble
    for r in (2, 5, 16):
        pruner = Pruner.of([factors], (r,))
        (table,) = pruner.tables(factors, real)
        found = pruner.directions.first(table.means.shape[1])
        rows, members = found.rows.astype(wide), found.members()
        offset = factors.means.astype(wide) - pruner.center
        exact = offset @ rows.T
        left = (offset - exact @ rows) ** 2
        rest = np.sqrt(np.stack([left[:, some].sum(axis=1) for some in members], axis=1))
        assert (np.sqrt(found.row_sums((table.means - exact) ** 2)) <= table.offsets).all()
        rounded = 16 * np.finfo(real).eps / 2 * table.rest_means + table.offsets
        assert (np.abs(table.rest_means - rest) <= rounded).all()


@pytest.mark.parametrize("ops_name", ["native", "numpy"])
def test_loadings_are_allowed_their_own_rounding(ops_name: str) -> None:
    """Samples along the smaller of two loadings, known to 1e-4 of itself: without what is allowed
    for that, some hundred of these bounds are wrong.
    """
    ops, rng = _ops(ops_name), np.random.default_rng(0)
    for _ in range(4):
        mfa = hard_model("graded loadings", rng, np.float64)
        first, second = np.moveaxis(mfa.loadings, 2, 0)
        first = first / np.linalg.norm(first, axis=1, keepdims=True)
        small = second - first * (first * second).sum(axis=1, keepdims=True)
        small /= np.linalg.norm(small, axis=1, keepdims=True)
        X = np.concatenate([mfa.means + length * small for length in (1.0, 10.0, 1e3, 1e5)])
        bound, (value, error) = _bounds(mfa, X, np.float64, ops, 16), _exact(mfa, X)
        assert (value - error <= bound).all()
