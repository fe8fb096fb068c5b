"""Components that are bounded before they are scored: the answer, the bound, and a search for counter-examples."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from density_cases import FUNCTIONS, REAL_DTYPES, Array, samples
from scipy.special import logsumexp
from support import EMULATE, parameters, random_mfa, rtol

import mfakit
from mfakit import _reference
from mfakit.backends import get_backend, numpy_ops, why_missing
from mfakit.backends.numpy_ops import CUTOFF_NATS
from mfakit.backends.operands import Pairs
from mfakit.mixture.pruning import Pruner, project

pytestmark = pytest.mark.skipif(EMULATE, reason="components are bounded on the host only")


@pytest.fixture(params=["native", "numba", "numpy"])
def host_backend(request: pytest.FixtureRequest) -> str:
    """Each backend of the host by name."""
    name: str = request.param
    reason = why_missing(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return name


def _mixture(weights: Any, means: Array, loadings: Array, noise: Any, dtype: Any = np.float64) -> mfakit.MFA:
    k = len(means)
    weights = np.full(k, 1.0 / k) if weights is None else np.asarray(weights)
    return mfakit.MFA(weights, means.astype(dtype), loadings.astype(dtype), np.broadcast_to(noise, k).astype(float))


def _hard_model(name: str, rng: np.random.Generator, dtype: Any) -> mfakit.MFA:
    """A mixture made to break the bound or its rounding."""
    k, d, l = 12, 40, 3
    means, A = rng.normal(size=(k, d)), rng.normal(size=(k, d, l))
    if name == "near equal":
        shift = 1e-4 * rng.normal(size=(k, d))
        return _mixture(None, means[:1] + shift, A[:1] * (1 + 1e-5 * rng.normal(size=(k, 1, 1))), 0.01, dtype)
    if name == "one far broader":
        A[0] *= 1e3
        return _mixture(None, means, A, np.r_[1e4, np.full(k - 1, 1e-4)], dtype)
    if name.startswith("sigma"):
        return _mixture(None, means, A, float(name.split()[1]) ** 2, dtype)
    if name == "every sigma":
        return _mixture(None, means, A, np.geomspace(1e-12, 1e6, k) ** 2, dtype)
    if name == "means unseen":  # the loadings are long and take the projection; the means are at right angles to them
        Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
        A = np.stack([Q[:, :20] @ rng.normal(size=(20, l)) for _ in range(k)]) * 30
        return _mixture(None, (rng.normal(size=(k, 20)) @ Q[:, 20:].T), A, 0.04, dtype)
    if name == "offset":
        return _mixture(None, means + 1e4, A, 0.01, dtype)
    if name == "one component":
        return _mixture(None, means[:1], A[:1], 0.01, dtype)
    if name == "few features":  # r >= d
        return _mixture(None, means[:, :4], A[:, :4], 0.01, dtype)
    if name == "more factors than features":
        return _mixture(None, means[:, :2], A[:, :2], 0.01, dtype)
    if name == "duplicates":
        return _mixture(None, np.repeat(means[:3], 4, axis=0), np.repeat(A[:3], 4, axis=0), 0.01, dtype)
    if name == "zero weights":
        return _mixture(np.r_[0.0, 0.0, np.full(k - 2, 1 / (k - 2))], means, A, 0.01, dtype)
    if name == "dependent loadings":
        A[:, :, 2] = A[:, :, 0] * 1e6 + 1e-6 * A[:, :, 2]
        return _mixture(None, means, A, 1e-4, dtype)
    if name == "aligned":  # one factor and one mean: every inequality of the proof can be an equation
        return _mixture(None, np.zeros((k, d)), A[:, :, :1] * np.geomspace(0.1, 30, k)[:, None, None], 0.09, dtype)
    if name == "no factors":
        return _mixture(None, means, A[:, :, :0], 0.01, dtype)
    raise AssertionError(name)


HARD = [
    "near equal", "one far broader", "sigma 1e-12", "sigma 1e-6", "sigma 1e-2", "sigma 1", "sigma 1e6", "every sigma",
    "means unseen", "offset", "one component", "few features", "more factors than features", "duplicates",
    "zero weights", "dependent loadings", "aligned", "no factors",
]  # fmt: skip


# --- the answer


@pytest.mark.parametrize("spread", [2.0, 0.1], ids=["apart", "overlapping"])
@pytest.mark.parametrize(("k", "d", "l"), [(4, 12, 3), (4, 12, 0), (1, 12, 3), (3, 1, 1), (3, 2, 4), (9, 100, 3)])
def test_float64_is_the_oracle(host_backend: str, k: int, d: int, l: int, spread: float) -> None:
    mfa = random_mfa(k, d, l, spread=spread)
    X, model = samples(mfa), parameters(mfa)
    options: dict[str, Any] = {"backend": host_backend, "method": "pruned"}
    tolerance = rtol(np.float64, d)
    np.testing.assert_allclose(mfa.log_prob(X, **options), _reference.log_prob(X, *model), rtol=tolerance)
    resp = mfa.responsibilities(X, **options)
    np.testing.assert_allclose(resp, _reference.responsibilities(X, *model), rtol=0, atol=1e-10)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-13)
    expected = _reference.grad_log_prob(X, *model)
    error = np.linalg.norm(mfa.grad_log_prob(X, **options) - expected, axis=1)
    assert (error <= tolerance * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("name", HARD)
def test_hard_models_have_the_residuals_answer(host_backend: str, name: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    mfa = _hard_model(name, rng, dtype)
    X = samples(mfa, 40, dtype)
    got, exact = (mfa.log_prob(X, backend=host_backend, method=m) for m in ("pruned", "residual"))
    # NumPy's products of W, whose rows are known to ‖A‖/σ roundings, depend on how many samples they are of.
    length = np.linalg.norm(mfa.loadings.astype(float), axis=(1, 2)) / np.sqrt(mfa.noise_variance)
    product = 0.0 if host_backend == "native" else np.finfo(float).eps * length.max()
    np.testing.assert_allclose(got, exact, rtol=rtol(dtype) + product)
    shares = mfa.responsibilities(X, backend=host_backend, method="pruned")
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    dense = mfa.responsibilities(X, backend=host_backend, method="residual")
    np.testing.assert_allclose(shares, dense, rtol=0, atol=1e-10 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_a_classifiers_classes_share_a_projection(dtype: str) -> None:
    classes = [random_mfa(6, 30, 3, seed=s, spread=0.3) for s in range(3)]
    X = np.concatenate([samples(m, 10, dtype) for m in classes])
    for clf in (mfakit.BayesClassifier(classes), mfakit.BayesClassifier(classes[:2])):
        for function in ("decision_function", "predict", "predict_proba", "decision_gradient"):
            got, dense = (getattr(clf, function)(X, method=m) for m in ("pruned", "dense"))
            scale = float(np.abs(dense).max())
            np.testing.assert_allclose(got, dense, rtol=rtol(dtype), atol=rtol(dtype) * scale)


def test_most_components_are_left_out() -> None:
    rng = np.random.default_rng(0)
    mfa = _mixture(None, rng.normal(size=(60, 80)), 0.3 * rng.normal(size=(60, 80, 3)), 1e-4)
    X = mfa.sample(200, rng=1, dtype=np.float64)[0]
    resp = mfa.responsibilities(X, method="pruned")
    assert (resp > 0).sum() == len(X)
    assert (mfa.component_log_prob(X, method="pruned") > -np.inf).sum() < 1.5 * len(X)


# --- bad input, blocks and threads


@pytest.mark.parametrize("function", FUNCTIONS)
def test_empty_and_single_rows(host_backend: str, function: str) -> None:
    mfa = random_mfa(5, 12, 3)
    X = samples(mfa)
    call = getattr(mfa, function)
    assert len(call(X[:0], backend=host_backend, method="pruned")) == 0
    many = call(X, backend=host_backend, method="pruned")
    one = call(X[3:4], backend=host_backend, method="pruned")
    np.testing.assert_allclose(one, many[3:4], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_rows(host_backend: str, bad: float) -> None:
    mfa = random_mfa(5, 12, 3)
    X = samples(mfa)
    expected = mfa.log_prob(X)
    X[4, 2] = bad
    options: dict[str, Any] = {"backend": host_backend, "method": "pruned"}
    with pytest.raises(ValueError, match="NaN or inf, first in row 4"):
        mfa.log_prob(X, **options)
    got = mfa.log_prob(X, check_finite=False, **options)
    assert np.isnan(got[4])
    np.testing.assert_allclose(np.delete(got, 4), np.delete(expected, 4), rtol=1e-12)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("distance", [1e6, 1e18, 1e30, 1e300])
def test_far_samples_are_the_dense_paths(host_backend: str, distance: float, dtype: str) -> None:
    if distance > float(np.finfo(dtype).max):
        pytest.skip("no float32")
    mfa = random_mfa(5, 12, 3)
    X = samples(mfa).astype(dtype)
    X[::2] = (X[::2] * distance).astype(dtype)
    for function in ("log_prob", "responsibilities"):
        got = getattr(mfa, function)(X, backend=host_backend, method="pruned")
        dense = getattr(mfa, function)(X, backend=host_backend, method="dense")
        np.testing.assert_allclose(got, dense, rtol=rtol(dtype), atol=1e-9)


def test_a_far_sample_of_a_tiny_noise_finds_its_component(host_backend: str) -> None:
    """Squared lengths of 1e40 overflow float32: what is then known of a component is no reason to leave it out."""
    means = np.zeros((2, 6))
    means[1, 0] = 3e7
    mfa = _mixture(None, means, np.zeros((2, 6, 1)), 1e-24, np.float32)
    X = np.full((3, 6), 1e8, np.float32)
    X[:, 0] = 4e7
    shares = mfa.responsibilities(X, backend=host_backend, method="pruned")
    np.testing.assert_array_equal(shares, np.eye(2)[[1, 1, 1]])


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_bits_depend_on_neither_threads_nor_blocks(dtype: str) -> None:
    mfa = random_mfa(20, 60, 3, spread=0.2)
    X = samples(mfa, 300, dtype)
    for function in ("log_prob", "responsibilities"):
        call = getattr(mfa, function)
        expected = call(X, method="pruned", n_threads=1)
        for options in ({"n_threads": 2}, {"n_threads": 7}, {"block_rows": 1}, {"block_rows": 37}):
            np.testing.assert_array_equal(call(X, method="pruned", **options), expected)


def test_float64_samples_in_a_float32_product() -> None:
    """Samples are rounded before the centre is subtracted, which at this offset is most of what is known of them."""
    mfa = _hard_model("offset", np.random.default_rng(5), np.float64)
    X = samples(mfa, 60)
    got = mfa.log_prob(X, method="pruned", precision="float32")
    np.testing.assert_allclose(got, mfa.log_prob(X, method="residual"), rtol=1e-10)


def test_refused_where_it_does_not_exist() -> None:
    mfa = random_mfa(4, 12, 3, noise="diagonal")
    with pytest.raises(ValueError, match=r'method="pruned" needs isotropic noise.*use method="dense"'):
        mfa.log_prob(samples(mfa), method="pruned")
    with pytest.raises(ValueError, match="method must be one of"):
        mfa.log_prob(samples(mfa), method="cut")


def test_auto_takes_the_same_way_twice_and_says_which(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    mfa = _mixture(None, rng.normal(size=(200, 150)), 0.3 * rng.normal(size=(200, 150, 4)), 1e-4, np.float32)
    X = mfa.sample(1500, rng=1)[0]
    caplog.set_level("INFO", "mfakit")
    first, second = mfa.log_prob(X), mfa.log_prob(X, n_threads=1)
    np.testing.assert_array_equal(first, second)
    said = [r.message for r in caplog.records if r.message.startswith("method auto")]
    assert len(said) == 2
    assert said[0] == said[1]
    assert "candidates per sample" in said[0]


# --- the bound


def _bounds(mfa: mfakit.MFA, X: Array, real: Any, ops: ModuleType, r: int) -> Array:
    """The computed bound of every sample and component [n, k], float64."""
    factors = mfa.factors
    pruner = Pruner.of([factors], (r,))
    (table,) = pruner.tables(factors, real)
    centered, norms = np.empty(X.shape, real), np.empty(len(X))
    ops.center_rows(X.astype(real), pruner.center, centered, norms)
    coordinates = np.ascontiguousarray(centered @ pruner.matrix(real))
    projected = project(coordinates, norms, table.means.shape[1], mfa.n_features)
    above, best = np.empty((len(X), mfa.n_components), real), np.empty(len(X), np.int64)
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
    min over z of ‖x - μ - A z‖²/σ² + ‖z‖², by Gram and Schmidt, each step twice.
    """
    wide = np.longdouble
    sigma = np.sqrt(mfa.noise_variance.astype(wide))
    A = mfa.loadings.astype(wide)
    k, d, l = A.shape
    Q = np.concatenate([A, np.broadcast_to(np.eye(l, dtype=wide), (k, l, l)) * sigma[:, None, None]], axis=1)
    R = np.zeros((len(X), k, d + l), wide)
    R[:, :, :d] = X.astype(wide)[:, None] - mfa.means.astype(wide)
    length = np.sqrt((R**2).sum(axis=2)) / sigma
    for a in range(l):
        q = Q[:, :, a]
        for _ in range(2):
            for b in range(a):
                q = q - Q[:, :, b] * (Q[:, :, b] * q).sum(axis=1, keepdims=True)
        Q[:, :, a] = q / np.sqrt((q**2).sum(axis=1, keepdims=True))
        for _ in range(2):
            R = R - Q[:, :, a] * (R * Q[:, :, a]).sum(axis=2, keepdims=True)
    maha = (R**2).sum(axis=2) / sigma**2
    delta = 20 * np.finfo(wide).eps * (1 + np.sqrt((A**2).sum(axis=(1, 2))) / sigma) * length
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
    scale = np.sqrt(mfa.noise_variance[start])[:, None]
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


def _uphill(mfa: mfakit.MFA, X: Array, real: Any, ops: ModuleType, rng: np.random.Generator, r: int) -> Array:
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


def _search(names: list[str], pairs: int, ops: ModuleType, seed: int) -> tuple[int, int]:
    """Assert the bound for that many pairs; how many were tried, and how many of them within 5 nats of the threshold,
    in value or bound.
    """
    rng, tried, near = np.random.default_rng(seed), 0, 0
    while tried < pairs:
        for name in names:
            for real in (np.float32, np.float64):
                mfa = _hard_model(name, rng, real)
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
        mfa = _hard_model(name, rng, real)
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
